# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of real members, and everything that may go wrong with them: each ends as a whole backup or as none, and says why."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.lock import ClusterLock, current_holder
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.verification import Content, read_sidecar
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.state import free_bytes

from tests.integration.assets import binary
from tests.integration.backup_files import files, flip, flip_and_adopt, later_etcd, no_database, other_layout, sidecar_of, truncate
from tests.integration.etcd_cluster import EtcdCluster
from tests.integration.maintenance_node import MB, Node, Run, accepted_by_etcdutl, finish, needs_root, wait_for


# --- a good backup --------------------------------------------------------------------------------------------


def test_backup_is_private_verified_and_described(shared_node: Callable[[], Node]) -> None:
    node = shared_node()
    client = node.cluster.client()
    written = client.put("/registry/last", "acknowledged")
    run = node.run("backup")
    assert run.status == 0
    (snapshot,) = node.snapshots()
    assert re.fullmatch(r"\d{8}/etcd-snapshot-\d{6}-cp1\.db", str(snapshot.relative_to(node.backups)))
    assert {path.stat().st_mode & 0o777 for path in node.backups.glob("*/*")} == {0o600}
    assert snapshot.parent.stat().st_mode & 0o777 == 0o700
    assert files(node) == [snapshot.name, sidecar_of(snapshot).name]
    (line,) = run.of("backup", "done")
    told, status = accepted_by_etcdutl(snapshot), client.status(node.member.client_url)
    sidecar = read_sidecar(sidecar_of(snapshot))
    assert (sidecar.revision, sidecar.keys, sidecar.hash) == (told["revision"], told["totalKey"], told["hash"])
    assert sidecar.revision >= written and int(line["revision"]) == sidecar.revision
    assert (sidecar.member, sidecar.etcd, sidecar.storage_version) == ("cp1", status.version, "3.6.0")
    assert (sidecar.cluster_id, sidecar.member_id) == (f"{status.cluster_id:x}", f"{status.member_id:x}")
    digest = subprocess.run(["sha256sum", snapshot], check=True, capture_output=True, text=True).stdout.split()[0]
    assert sidecar.files == {snapshot.name: Content(snapshot.stat().st_size, digest)}
    assert sidecar.verified_by.startswith("etcdutl 3.")
    assert [line["reason"] for line in run.of("backup", "warning")] == ["only_here"]


def test_json_says_the_same_as_the_lines(shared_node: Callable[[], Node]) -> None:
    node = shared_node()
    run = node.run("backup", "--json")
    said = [json.loads(line) for line in run.text.splitlines()]
    (done,) = [line for line in said if (line["step"], line["outcome"]) == ("backup", "done")]
    assert Path(done["path"]) == node.snapshots()[0] and done["message"].startswith(done["path"])


def test_without_etcdctl_the_gateway_serves(shared_node: Callable[[], Node], tmp_path: Path) -> None:
    node = shared_node()
    for name in ("etcd", "etcdutl"):
        (tmp_path / name).symlink_to(binary(name))
    node.config["tools"] = str(tmp_path)
    run = node.run("backup")
    assert run.status == 0 and run.of("backup", "warning")[0]["reason"] == "no_etcdctl"
    assert node.run("verify").status == 0


def test_prune_keeps_tiers_the_newest_and_the_last_good_one(shared_node: Callable[[], Node]) -> None:
    node = shared_node()
    assert node.run("backup").status == 0
    (good,) = node.snapshots()

    def old(day: str, clock: str, damage: bool = False) -> Path:
        """The same backup as if it had been taken then."""
        path = node.backups / day / f"etcd-snapshot-{clock}-cp1.db"
        path.parent.mkdir(exist_ok=True)
        data = bytearray(good.read_bytes())
        data[5000] ^= damage
        path.write_bytes(data)
        sidecar_of(path).write_text(sidecar_of(good).read_text().replace(good.name, path.name))
        return path

    stranger = node.backups / "20200101/etcd-snapshot-000000-othercp1.db"
    stranger.parent.mkdir()
    stranger.touch()
    first, second, third = old("20200101", "010000"), old("20200101", "020000"), old("20200103", "000000")
    newest = old("20990101", "000000", damage=True)
    node.config["backup"].update(keep_hourly=0, keep_daily=1, keep_weekly=0, keep_monthly=0)

    planned = node.run("prune", "--dry-run")
    assert len([line for line in planned.of("prune", "planned") if "path" in line]) == 3
    assert first.exists() and second.exists()

    run = node.run("prune")
    # The newest is damaged, so the newest good one stays beside it.
    assert run.of("prune", "warning")[0]["path"] == str(newest)
    assert node.snapshots() == sorted([stranger, good, newest])
    assert not third.parent.exists() and not sidecar_of(first).exists()
    assert node.run("prune").of("prune", "nothing")[0]["kept"] == "2"


# --- what verify refuses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "it was cut"),
        (lambda path: flip(path, 10_000), "is damaged: its SHA-256 is not the one"),
        (flip_and_adopt, "not what etcd's checksum at its end was made of"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (other_layout, "has bbolt's layout 3, and etcd's is 2"),
        (later_etcd, r"it has storage version 3.9.0, and etcdutl here is 3.\d.*: it takes etcd 3.9 or newer to restore it"),
        (no_database, "it is not a bbolt database"),
        (lambda path: sidecar_of(path).unlink(), "sidecar .* is missing: which cluster it is of"),
        (lambda path: sidecar_of(path).write_text("{}"), "sidecar .* is damaged"),
    ],
    ids=["truncated", "bit-flipped", "bit-flipped-with-a-new-sidecar", "empty", "other-layout", "later-etcd", "no-database", "no-sidecar", "bad-sidecar"],
)
def test_verify_refuses_with_the_reason(shared_node: Callable[[], Node], damage: Callable[[Path], Any], reason: str) -> None:
    node = shared_node()
    assert node.run("backup").status == 0
    (snapshot,) = node.snapshots()
    assert node.run("verify").status == 0
    damage(snapshot)
    run = node.run("verify")
    assert run.status == 14
    assert re.search(f"{re.escape(str(snapshot))} is refused: .*{reason}", run.text), run.text


def test_verify_refuses_a_foreign_snapshot(shared_node: Callable[[], Node], tmp_path: Path) -> None:
    node = shared_node()
    assert node.run("backup").status == 0
    other = EtcdCluster.create(tmp_path / "other", ["cp1"])
    try:
        stranger = Node(node.program, other, other.members[0], tmp_path)
        assert stranger.run("backup").status == 0
    finally:
        other.stop_all()
    (foreign,) = stranger.snapshots()
    day = node.backups / "20990101"
    day.mkdir()
    for path in (foreign, sidecar_of(foreign)):
        shutil.copy(path, day)
    run = node.run("verify", "--all")
    assert run.status == 14
    assert len(run.of("verify", "ok")) == 1
    theirs, ours = read_sidecar(sidecar_of(foreign)).cluster_id, read_sidecar(sidecar_of(node.snapshots()[0])).cluster_id
    assert f"it is of another cluster: of {theirs} (cp1), and this one is {ours}" in run.text
    # A file with another file's description.
    shutil.copy(node.snapshots()[0], day / foreign.name)
    assert "were written: it was cut or changed" in node.run("verify", str(day / foreign.name)).text


def newer_etcd() -> Path | None:
    """The programs of a minor version after the one that the lab runs, where they have been built."""
    own = binary("etcd").parent
    found = [path for path in own.parent.glob("etcd-3.*") if (path / "etcd").exists() and minor(path) > minor(own)]
    return max(found, default=None)


def minor(directory: Path) -> int:
    return int(directory.name.split(".")[1])


def test_verify_refuses_a_newer_storage_version(shared_node: Callable[[], Node], tmp_path: Path, monkeypatch: Any) -> None:
    newer = newer_etcd()
    if newer is None:
        pytest.skip("no etcd of a later minor version has been built on this machine")
    monkeypatch.setattr("tests.integration.etcd_cluster.binary", lambda name: newer / name)
    cluster = EtcdCluster.create(tmp_path / "newer", ["cp1"])
    try:
        node = Node(shared_node().program, cluster, cluster.members[0], tmp_path)
        node.config["tools"] = str(newer)

        def written() -> str:
            time.sleep(1)
            for path in node.snapshots():
                path.unlink()
            assert node.run("backup").status == 0
            return read_sidecar(sidecar_of(node.snapshots()[0])).storage_version

        # The storage version follows the cluster's, some seconds after its start.
        wait_for(lambda: written().startswith(f"3.{minor(newer)}."), 60)
        node.config["tools"] = str(binary("etcdutl").parent)
        run = node.run("verify")
    finally:
        cluster.stop_all()
    assert run.status == 14
    assert f"it has storage version 3.{minor(newer)}.0, and etcdutl here is 3." in run.text and "or newer to restore it" in run.text


def test_verify_works_while_etcd_is_down(nodes: list[Node]) -> None:
    node = nodes[0]
    assert node.run("backup").status == 0
    for each in nodes:
        each.cluster.stop(each.member, signal.SIGKILL)
    run = node.run("verify")
    assert run.status == 0
    assert run.of("verify", "warning")[0]["reason"] == "no_etcd" and run.of("verify", "ok")


# --- what may go wrong meanwhile ------------------------------------------------------------------------------


@pytest.fixture
def slow(nodes: list[Node]) -> Node:
    """A member with enough data that a backup can be caught in the act."""
    nodes[0].cluster.fill(60)
    return nodes[0]


def under_way(node: Node) -> Callable[[], bool]:
    return lambda: any(path.stat().st_size > MB for path in node.leftovers() if path.exists())


def assert_nothing_is_left(node: Node, run: Run) -> None:
    assert run.status == 13, run.text
    assert files(node) == []
    assert node.metrics()['step_success{step="backup"}'] == 0
    assert 'step_last_success_timestamp_seconds{step="backup"}' not in node.metrics()


def test_killed_backup_leaves_nothing_under_a_final_name_and_the_next_run_clears_it(slow: Node) -> None:
    process = slow.start("backup")
    wait_for(under_way(slow))
    process.kill()
    process.wait()
    assert slow.snapshots() == [] and slow.leftovers()
    # The killed run's turn is still taken in the cluster; its own host does not wait for that to time out.
    assert current_holder(slow.cluster.client(), "backup") is not None
    started = time.monotonic()
    run = slow.run("backup")
    assert time.monotonic() - started < 60
    assert run.status == 0, run.text
    assert len(slow.snapshots()) == 1 and slow.leftovers() == []
    accepted_by_etcdutl(slow.snapshots()[0])


def test_holder_of_the_turn_killed_in_the_middle_keeps_another_host_waiting_for_its_lease_only(nodes: list[Node]) -> None:
    nodes[0].cluster.fill(60)
    process = nodes[0].start("backup")
    wait_for(under_way(nodes[0]))
    process.kill()
    process.wait()
    holder = current_holder(nodes[0].cluster.client(), "backup")
    assert holder is not None
    nodes[1].config["lock_wait_seconds"] = 2
    run = nodes[1].run("backup")
    # A turn that cannot be had is no reason for no backup.
    assert run.status == 0 and run.of("backup", "waiting") and f"is held by {holder['host']}" in run.text
    assert run.of("backup", "warning")[0]["reason"] == "no_lock"


def test_ended_backup_cleans_up_and_gives_its_turn_back(slow: Node) -> None:
    process = slow.start("backup")
    wait_for(under_way(slow))
    process.terminate()
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    assert files(slow) == []
    assert current_holder(slow.cluster.client(), "backup") is None


def test_etcd_killed_during_a_backup_leaves_nothing_and_says_so(slow: Node) -> None:
    process = slow.start("backup")
    wait_for(under_way(slow))
    slow.cluster.stop(slow.member, signal.SIGKILL)
    run = finish(process)
    assert_nothing_is_left(slow, run)
    assert "the snapshot stream broke after" in run.text
    slow.cluster.start(slow.member)
    slow.cluster.wait_until_whole()
    assert slow.run("backup").status == 0
    assert slow.metrics()['step_success{step="backup"}'] == 1


def test_own_member_paused_during_a_backup_ends_it(slow: Node) -> None:
    assert slow.member.process
    process = slow.start("backup")
    wait_for(under_way(slow))
    slow.member.process.send_signal(signal.SIGSTOP)
    try:
        run = finish(process)
    finally:
        slow.member.process.send_signal(signal.SIGCONT)
    assert_nothing_is_left(slow, run)


def test_another_follower_paused_during_a_backup_does_not_matter(nodes: list[Node]) -> None:
    cluster = nodes[0].cluster
    cluster.fill(60)
    paused = next(each for each in cluster.members if each not in (cluster.leader(), nodes[0].member))
    assert paused.process
    process = nodes[0].start("backup")
    wait_for(under_way(nodes[0]))
    paused.process.send_signal(signal.SIGSTOP)
    try:
        run = finish(process)
    finally:
        paused.process.send_signal(signal.SIGCONT)
    assert run.status == 0 and len(nodes[0].snapshots()) == 1
    accepted_by_etcdutl(nodes[0].snapshots()[0])


def test_follower_that_slept_catches_up_first_so_that_its_snapshot_has_every_acknowledged_write(nodes: list[Node]) -> None:
    cluster = nodes[0].cluster
    sleeper = next(node for node in nodes if node.member is not cluster.leader())
    awake = next(each for each in cluster.members if each is not sleeper.member)
    assert sleeper.member.process
    sleeper.member.process.send_signal(signal.SIGSTOP)
    value = base64.b64encode(os.urandom(30_000)).decode()
    for number in range(200):
        revision = cluster.client(awake, timeout=20).put(f"/registry/meanwhile/{number}", value)
    process = sleeper.start("backup")
    time.sleep(1)
    sleeper.member.process.send_signal(signal.SIGCONT)
    run = finish(process)
    assert run.status == 0, run.text
    assert accepted_by_etcdutl(sleeper.snapshots()[0])["revision"] >= revision


@pytest.fixture
def small_disk(slow: Node) -> Iterator[Node]:
    """Its backup directory is a file system of 80 MB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m,mode=0700", "tmpfs", slow.backups], check=True)
    yield slow
    subprocess.run(["umount", slow.backups], check=True)


@needs_root
def test_disk_that_fills_up_during_a_backup_leaves_nothing_half_made(small_disk: Node) -> None:
    stop = threading.Event()

    def fill() -> None:
        """Somebody else's file, from the first byte of ours on: the free space was there when it was looked at."""
        while not stop.is_set() and not under_way(small_disk)():
            time.sleep(0.001)
        with suppress(OSError), open(small_disk.backups / "somebody-elses", "wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, 1 << 20)
            while not stop.is_set():
                stream.write(bytes(1 << 16))

    filler = threading.Thread(target=fill)
    filler.start()
    try:
        run = small_disk.run("backup")
    finally:
        stop.set()
        filler.join()
    assert "no space left on device" in run.text.lower()
    assert_nothing_is_left(small_disk, run)
    (small_disk.backups / "somebody-elses").unlink()
    assert small_disk.run("backup").status == 0


@needs_root
def test_disk_without_room_is_refused_before_the_first_byte(small_disk: Node) -> None:
    small_disk.config["backup"]["min_free_bytes"] = 70 * MB
    run = small_disk.run("backup")
    assert run.status == 13
    assert f"{small_disk.backups} has" in run.text and "are needed" in run.text
    assert list(small_disk.backups.iterdir()) == []


@needs_root
def test_what_a_killed_backup_left_takes_no_room_from_the_next_one(small_disk: Node) -> None:
    part = small_disk.backups / "20261124/etcd-snapshot-010000-cp1.db.part"
    part.parent.mkdir()
    with open(part, "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, free_bytes(small_disk.backups) - MB)
    run = small_disk.run("backup")
    assert run.status == 0 and not part.exists(), run.text


def test_two_timers_at_once_on_one_host_take_turns(slow: Node) -> None:
    processes = [slow.start("run"), slow.start("backup"), slow.start("drill")]
    run, backup, drill = map(finish, processes)
    assert run.of("backup", "done") and backup.of("backup", "done") and (run.status, backup.status) == (0, 0)
    # Whether the drill had its turn before there was anything to try is open.
    assert drill.status == 0 or "there is no backup" in drill.text
    # Of one hour the newest stays.
    (snapshot,) = slow.snapshots()
    assert len(files(slow)) == 2 and accepted_by_etcdutl(snapshot)["revision"]


def test_turn_is_waited_for(nodes: list[Node]) -> None:
    holder = {"host": "cp9", "purpose": "test", "since": "now", "run_id": "x"}
    with ClusterLock(nodes[0].cluster.client(), "backup", holder):
        process = nodes[0].start("backup")
        time.sleep(2)
        assert process.poll() is None and files(nodes[0]) == []
    assert finish(process).status == 0


# --- the tools ------------------------------------------------------------------------------------------------


def test_whoever_calls_himself_etcd_is_not_given_root(nodes: list[Node]) -> None:
    node = nodes[0]
    root = node.proc / "77/root/usr/local/bin"
    root.mkdir(parents=True)
    for name in ("etcd", "etcdctl", "etcdutl"):
        (root / name).symlink_to(binary(name))
    argv = ["etcd", f"--data-dir={node.member.data_directory}"]
    (node.proc / "77/cmdline").write_bytes(b"\0".join(word.encode() for word in argv) + b"\0")
    (node.proc / "77/stat").write_text("77 (etcd) S" + " 0" * 40)
    node.config["tools"] = "auto"
    if shutil.which("etcdctl", path="/usr/local/bin:/usr/bin"):
        pytest.skip("this machine has an etcdctl of its own")
    # It is in no pod of the kubelet's.
    run = node.run("backup")
    assert run.of("backup", "warning")[0]["reason"] == "no_etcdctl"
    assert not (node.root / "kept").exists()


def test_help_is_for_people(shared_node: Callable[[], Node]) -> None:
    node = shared_node()
    told = subprocess.run([sys.executable, node.program, "maintenance", "--help"], check=True, capture_output=True, text=True).stdout
    for word in ("run", "health", "status", "compact", "defrag", "backup", "verify", "prune", "drill", "exit status", "examples"):
        assert word in told
    assert max(map(len, told.splitlines())) <= 130


# --- by hand --------------------------------------------------------------------------------------------------


def test_a_snapshot_becomes_a_data_directory_by_hand(shared_node: Callable[[], Node], tmp_path: Path) -> None:
    node = shared_node()
    assert node.run("backup").status == 0
    (snapshot,) = node.snapshots()
    into = tmp_path / "new/data"
    options = ["--into", str(into), "--name", "cp1", "--peer-url", "https://127.0.0.1:1", "--token", "another"]
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(snapshot.read_bytes()[:-600])
    run = node.run("restore", str(damaged), *options)
    assert run.status == 14 and run.of("restore", "failed") and not into.exists()
    run = node.run("restore", str(snapshot), *options)
    assert run.status == 0, run.text
    assert (into / "member/snap/db").exists() and list((into / "member/wal").glob("*.wal"))
    again = node.run("restore", str(snapshot), *options)
    assert again.status == 14 and "is there already, and not empty" in again.text
    assert node.run("restore", str(tmp_path / "none.db"), *options).status == 14
