# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client, the cluster's rules and the lock against real etcd members."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import threading
import time

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.client import (
    Client,
    EtcdError,
    Tls,
    Unreachable,
)
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.cluster import (
    gate,
    hand_over_leadership,
    problems,
    survey,
)
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.lock import (
    ClusterLock,
    LockHeld,
    current_holder,
)

from tests.integration.assets import binary
from tests.integration.etcd_cluster import EtcdCluster, free_port, make_certificates

HOLDER = {"host": "cp1", "purpose": "test", "since": "now", "run_id": "1"}


def test_status_agrees_with_etcdctl(shared_cluster: EtcdCluster) -> None:
    member = shared_cluster.members[0]
    ours = shared_cluster.client(member).status(member.client_url)
    tls = shared_cluster.tls
    told = subprocess.run(
        [
            binary("etcdctl"),
            f"--endpoints={member.client_url}",
            f"--cacert={tls.ca_file}",
            f"--cert={tls.cert_file}",
            f"--key={tls.key_file}",
            "endpoint",
            "status",
            "--write-out=json",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    theirs = json.loads(told.stdout)[0]["Status"]
    assert ours.member_id == theirs["header"]["member_id"]
    assert ours.version == theirs["version"]
    assert ours.db_size == theirs["dbSize"]
    assert ours.leader_id == theirs["leader"]


def test_keys_survive_the_round_trip(shared_cluster: EtcdCluster) -> None:
    client = shared_cluster.client()
    text = 'a "quoted" ümlaut\nand a line'
    client.put("/test/round-trip", text)
    for member in shared_cluster.members:
        found = client.get("/test/round-trip", member.client_url)
        assert found is not None and found.value == text
    assert client.delete("/test/round-trip") == 1
    assert client.get("/test/round-trip") is None


def test_create_tells_what_is_in_the_way(shared_cluster: EtcdCluster) -> None:
    client = shared_cluster.client()
    assert client.create("/test/create", "first") is None
    in_the_way = client.create("/test/create", "second")
    assert in_the_way is not None and in_the_way.value == "first"
    client.delete("/test/create")


def test_range_stays_within_the_prefix(shared_cluster: EtcdCluster) -> None:
    client = shared_cluster.client()
    for key in ("/test/a/1", "/test/a/2", "/test/b"):
        client.put(key, key)
    assert [each.key for each in client.range("/test/a/", "/test/a0")] == ["/test/a/1", "/test/a/2"]
    assert client.delete("/test/", "/test0") == 3


def test_compaction_refuses_the_future_and_forgives_the_past(shared_cluster: EtcdCluster) -> None:
    client = shared_cluster.client()
    revision = client.put("/test/compact", "1")
    client.put("/test/compact", "2")
    assert client.compact(revision) is True
    assert client.compact(revision) is False
    with pytest.raises(EtcdError, match="future revision"):
        client.compact(revision + 1000)
    assert client.metric("etcd_debugging_mvcc_compact_revision", shared_cluster.members[0].client_url) == revision


def test_counts_what_there_was_at_a_revision(shared_cluster: EtcdCluster) -> None:
    client = shared_cluster.client()
    revision = client.put("/counted", "x", client.grant_lease(600))
    before = client.count()
    client.delete("/counted")
    assert (client.count(), client.count(revision=revision)) == (before - 1, before)


def test_metric_knows_the_quota_and_admits_what_it_does_not(shared_cluster: EtcdCluster) -> None:
    url = shared_cluster.members[0].client_url
    assert shared_cluster.client().metric("etcd_server_quota_backend_bytes", url) == 2 << 30
    assert shared_cluster.client().metric("etcd_no_such_thing", url) is None


def test_snapshot_is_the_file_that_etcdctl_would_write(shared_cluster: EtcdCluster) -> None:
    member = shared_cluster.members[1]
    sink = io.BytesIO()
    size = shared_cluster.client().snapshot(member.client_url, sink)
    data = sink.getvalue()
    assert size == len(data) and size % 512 == 32
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]


def test_stranger_is_told_which_file_is_wrong_and_kept_out(shared_cluster: EtcdCluster, tmp_path) -> None:
    stranger = make_certificates(tmp_path / "stranger")
    url = shared_cluster.members[0].client_url
    mixed = Tls(shared_cluster.tls.ca_file, stranger.cert_file, stranger.key_file)
    with pytest.raises(Unreachable):
        Client([url], mixed).status(url)
    with pytest.raises(Unreachable, match="certificate verify failed"):
        Client([url], stranger).status(url)


def test_next_endpoint_answers_when_the_first_does_not(shared_cluster: EtcdCluster) -> None:
    silent = f"https://127.0.0.1:{free_port()}"
    client = Client([silent, shared_cluster.members[2].client_url], shared_cluster.tls)
    assert len(client.members()) == 3
    with pytest.raises(Unreachable, match=silent):
        client.status(silent)


def test_gateway_that_is_off_is_named(tmp_path) -> None:
    alone = EtcdCluster.create(tmp_path / "etcd", ["cp1"])
    try:
        alone.stop(alone.members[0])
        alone.flags = ["--enable-grpc-gateway=false"]
        alone.start(alone.members[0])
        deadline = time.monotonic() + 30
        while True:
            with pytest.raises(EtcdError) as refused:
                alone.client().status()
            if "enable-grpc-gateway" in str(refused.value):
                break
            assert time.monotonic() < deadline, refused.value
            time.sleep(0.2)
    finally:
        alone.stop_all()


def test_leadership_moves_and_the_new_leader_is_returned(cluster: EtcdCluster) -> None:
    client = cluster.client()
    view = cluster.wait_until_whole()
    assert view.leader
    new = hand_over_leadership(client, view, time.sleep)
    assert new != view.leader.member.member_id
    after = cluster.wait_until_whole()
    assert after.leader and after.leader.member.member_id == new


def test_rules_see_a_dead_member_and_keep_the_quorum(cluster: EtcdCluster) -> None:
    view = cluster.wait_until_whole()
    assert problems(view) == []
    assert all(gate(view, each.member.member_id) == [] for each in view.members)
    victim = next(each for each in cluster.members if each != cluster.leader())
    cluster.stop(victim, signal.SIGKILL)
    view = survey(cluster.client())
    assert [text for text in problems(view) if victim.name in text and "does not answer" in text]
    other = next(each for each in view.members if each.member.name != victim.name)
    assert any("1 of 3 voters are left, and 2 are needed" in text for text in gate(view, other.member.member_id))


def test_only_one_of_many_gets_the_lock(shared_cluster: EtcdCluster) -> None:
    got: list[int] = []
    refused: list[int] = []
    together = threading.Barrier(6)
    locks: list[ClusterLock] = []

    def compete(number: int) -> None:
        lock = ClusterLock(
            shared_cluster.client(shared_cluster.members[number % 3]), "race", {**HOLDER, "host": str(number)}
        )
        together.wait()
        try:
            lock.acquire()
        except LockHeld:
            refused.append(number)
        else:
            got.append(number)
            locks.append(lock)

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1 and len(refused) == 5
    held_by = current_holder(shared_cluster.client(), "race")
    assert held_by is not None and held_by["host"] == str(got[0])
    locks[0].check()
    locks[0].release()
    assert current_holder(shared_cluster.client(), "race") is None


def test_lock_of_a_dead_holder_ends_by_itself_and_check_notices(shared_cluster: EtcdCluster) -> None:
    lock = ClusterLock(shared_cluster.client(), "short", HOLDER, ttl=2)
    lock.acquire()
    lock._stop.set()  # the holder's process stops renewing
    deadline = time.monotonic() + 30
    while current_holder(shared_cluster.client(), "short"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    with pytest.raises(Exception, match="was lost"):
        lock.check()
    lock.release()


def test_lock_outlives_its_ttl_while_it_is_renewed(shared_cluster: EtcdCluster) -> None:
    with ClusterLock(shared_cluster.client(), "renewed", HOLDER, ttl=3) as lock:
        time.sleep(6)
        lock.check()
