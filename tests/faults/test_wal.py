# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The WAL of running members goes to its own disk and back, whatever is killed or taken away meanwhile.

The window's steps are those of its own journal; at each of them the real process is killed on the lab.
"""

from __future__ import annotations

import base64
import json
from typing import Iterator

import pytest

from tests.benchmarks.writer import Writer
from tests.faults.conftest import DATA, DISK, IN_DATA, ON_DISK, Playbook, fingerprint, kill_window, reached, wait_for, wal_of
from tests.lab.nodes import Lab, Node

#: Steps of a window that moves the WAL, in order, as its journal names them.
STEPS = ("gate", "api_out", "etcd_out", "wal_move", "etcd_in", "kube-apiserver_in")


def on_disk(node: Node) -> bool:
    return wal_of(node) == f"{DISK}/wal" and node.run("mountpoint", "--quiet", DISK, check=False).returncode == 0


def in_data(node: Node) -> bool:
    return wal_of(node) == f"{DATA}/member/wal"


def leftovers(node: Node) -> str:
    """What a move must not leave: copies, and WALs that were set aside."""
    return node.shell(f"find {DATA} -name '*kubetune*' -print").stdout


def hash_of(lab: Lab, node: Node, revision: int) -> tuple[int, int]:
    """HashKV of a member: (hash, compact revision)."""
    told = lab.etcdctl("endpoint", "hashkv", "--rev", str(revision), "--write-out=json", endpoints=[node.etcd_endpoint])
    answer = json.loads(told.stdout)[0]["HashKV"]
    return answer["hash"], answer.get("compact_revision", 0)


@pytest.fixture
def moved(lab: Lab, playbook: Playbook) -> Iterator[None]:
    run = playbook("site", ON_DISK)
    assert run.status == 0, run.output
    yield
    run = playbook("site", IN_DATA)
    assert run.status == 0, run.output


def test_there_and_back_on_all_nodes(lab: Lab, playbook: Playbook, no_write_lost: Writer) -> None:
    run = playbook("site", ON_DISK)
    assert run.status == 0, run.output
    for node in lab.nodes:
        assert on_disk(node)
        assert leftovers(node) == ""
        assert node.output("readlink", f"{DATA}/member/wal") == "../wal-disk/wal"
    before = [fingerprint(node) for node in lab.nodes]
    again = playbook("site", ON_DISK)
    assert again.status == 0 and set(again.changed.values()) == {0}, again.output
    run = playbook("site", {})  # without a word about it the WAL stays where it is
    assert run.status == 0 and [fingerprint(node) for node in lab.nodes] == before, run.output
    run = playbook("site", IN_DATA)
    assert run.status == 0, run.output
    for node in lab.nodes:
        assert in_data(node)
        assert leftovers(node) == ""
        assert not node.exists(DISK)
        assert node.run("blkid", "--probe", node.wal_device, check=False).returncode == 2, "the disk is blank again"
    again = playbook("site", IN_DATA)
    assert again.status == 0 and set(again.changed.values()) == {0}, again.output


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step_there_and_back(lab: Lab, playbook: Playbook, no_write_lost: Writer, step: str) -> None:
    node = lab.nodes[STEPS.index(step) % len(lab.nodes)]
    for variables, arrived in ((ON_DISK, on_disk), (IN_DATA, in_data)):
        process = playbook.start("site", variables, "--limit", node.name)
        wait_for(lambda: reached(node, step), 120, f"the window has come to {step}")
        kill_window(node)
        run = playbook.finish(process)
        assert run.status == 0, run.output
        assert arrived(node)
        assert leftovers(node) == ""


@pytest.mark.long
def test_the_steps_are_those_of_a_window(lab: Lab, playbook: Playbook) -> None:
    """A step that is added to the code is killed at, too."""
    node = lab.nodes[0]
    assert playbook("site", ON_DISK, "--limit", node.name).status == 0
    window = node.output("bash", "-c", "ls -t /var/lib/kubetune/history | head -1")
    events = [json.loads(line) for line in node.read(f"/var/lib/kubetune/history/{window}/journal.jsonl").splitlines()]
    begun = dict.fromkeys(event["step"] for event in events if event["state"] == "begin")
    assert set(begun) - {"leader", "snapshot"} == set(STEPS)
    assert playbook("site", IN_DATA, "--limit", node.name).status == 0


@pytest.mark.long
def test_killed_after_the_first_start_the_newest_wal_goes_back(lab: Lab, playbook: Playbook) -> None:
    """Point of no return: 100 writes are acknowledged with the help of the moved WAL before the window is gone for good."""
    node, other = lab.nodes[0], lab.nodes[1]
    process = playbook.start("site", ON_DISK, "--limit", node.name)
    wait_for(lambda: reached(node, "etcd_in", "done"), 180, "etcd runs on its new WAL")
    node.shell("systemctl kill --signal KILL kubetune-window || true")
    for number in range(100):
        lab.etcdctl("put", f"/kubetune-fault/{number:03}", "x" * 100, endpoints=[node.etcd_endpoint])
    run = playbook.finish(process)
    assert run.status == 0 and on_disk(node), run.output
    run = playbook("site", IN_DATA, "--limit", node.name)
    assert run.status == 0 and in_data(node), run.output
    pid = other.pid("etcd")
    other.shell(f"kill -STOP {pid}")
    try:
        told = lab.etcdctl("get", "/kubetune-fault/", "--prefix", "--write-out=json", endpoints=[node.etcd_endpoint])
        answer = json.loads(told.stdout)
        keys = {base64.b64decode(each["key"]).decode() for each in answer["kvs"]}
        assert keys == {f"/kubetune-fault/{number:03}" for number in range(100)}
    finally:
        other.shell(f"kill -CONT {pid}")
    wait_for(lambda: all(each.etcd_ready() for each in lab.nodes), 60, "all members answer")
    revision = answer["header"]["revision"]
    wait_for(
        lambda: len({hash_of(lab, each, revision) for each in lab.nodes}) == 1, 30, "all members have the same hash of all keys"
    )
    lab.etcdctl("del", "/kubetune-fault/", "--prefix")


@pytest.mark.long
def test_a_wal_disk_that_is_taken_away_stops_its_member_and_nothing_else(
    lab: Lab, playbook: Playbook, moved: None, no_write_lost: Writer
) -> None:
    """A lazy unmount, then etcd dies: it finds no WAL, makes no new one, and comes back with the disk."""
    node = lab.nodes[2]
    kept = f"ls -id {DATA}/member {DATA}/member/snap {DATA}/member/snap/db {DATA}/member/wal"
    before, pid = node.shell(kept).stdout, node.pid("etcd")
    unit = node.output("systemd-escape", "--path", "--suffix", "mount", DISK)
    node.shell(f"umount --lazy {DISK}")
    try:
        refused = playbook("etcd", {"etcd_static_pod_flags": {"max-wals": 6}}, "--limit", node.name)
        assert refused.status != 0
        assert f"{DISK}/wal holds no WAL that a restarted etcd could use" in refused.output
        assert node.pid("etcd") == pid
        node.shell(f"kill -KILL {pid}")
        wait_for(lambda: "operation not permitted" in log_of(node).lower(), 60, "etcd says why it does not start")
        assert not node.etcd_ready()
        assert node.shell(f"find {DISK} -mindepth 1").stdout == ""
        assert node.shell(kept).stdout == before
        told = playbook("preflight", ON_DISK, "--limit", node.name)
        assert DISK in told.output
        assert all(each.etcd_ready() for each in lab.nodes[:2])
    finally:
        node.shell(f"mountpoint -q {DISK} || systemctl restart '{unit}'")
    wait_for(node.etcd_ready, 360, "the member is back")
    assert node.shell(kept).stdout == before
    assert on_disk(node)


def log_of(node: Node) -> str:
    return node.shell("tail -qn 40 /var/log/pods/kube-system_etcd-*/etcd/*.log").stdout
