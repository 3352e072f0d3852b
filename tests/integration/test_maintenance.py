# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maintenance program, as it is installed on hosts, against real etcd clusters."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.lock import ClusterLock, current_holder
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _zipapp

from tests.integration.assets import binary
from tests.integration.etcd_cluster import EtcdCluster, Member

MODULE_UTILS = Path(__file__).resolve().parents[2] / "plugins/module_utils"
MB = 1_000_000
SAMPLES = "/kubetune/maintenance/samples"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "kubetune.pyz"
    path.write_bytes(_zipapp.build(MODULE_UTILS))
    return path


@dataclass
class Run:
    status: int
    text: str

    @property
    def lines(self) -> list[dict[str, str]]:
        """The machine's half of each line."""
        return [
            dict(word.split("=", 1) for word in shlex.split(line.rpartition(" | ")[2]))
            for line in self.text.splitlines()
            if " | " in line
        ]

    def of(self, step: str, outcome: str | None = None) -> list[dict[str, str]]:
        return [line for line in self.lines if line["step"] == step and outcome in (None, line["outcome"])]


class Node:
    """A host with one member: its configuration, state and backups."""

    def __init__(self, program: Path, cluster: EtcdCluster, member: Member, root: Path) -> None:
        self.program = program
        self.cluster = cluster
        self.member = member
        self.root = root / f"node-{member.name}"
        self.backups = self.root / "backups"
        self.proc = self.root / "proc"
        for path in (self.backups, self.proc):
            path.mkdir(parents=True)
        self.config: dict[str, Any] = {
            "endpoint": member.client_url,
            "ca_file": cluster.tls.ca_file,
            "cert_file": cluster.tls.cert_file,
            "key_file": cluster.tls.key_file,
            "data_directory": str(member.data_directory),
            "state_directory": str(self.root / "state"),
            "interval_seconds": 72_000,
            "lock_wait_seconds": 120,
            "settle_seconds": 10,
            "compaction": {"mode": "on", "retention_seconds": 300, "min_revisions": 1},
            "defragmentation": {
                "enabled": True,
                "min_fragmentation": 0.3,
                "min_reclaimable_bytes": 4 * MB,
                "quota_share": 0.8,
                "timeout_seconds": 60,
            },
            "backup": {
                "enabled": True,
                "directory": str(self.backups),
                "keep": 3,
                "max_age_days": 30,
                "min_free_bytes": MB,
                "etcdutl": str(binary("etcdutl")),
            },
        }

    def start(self, command: str = "run", *options: str) -> subprocess.Popen[str]:
        config = self.root / "config.json"
        config.write_text(json.dumps(self.config))
        return subprocess.Popen(
            # -I and -S: nothing but the program and the standard library.
            [
                sys.executable,
                "-I",
                "-S",
                self.program,
                "maintenance",
                command,
                "--config",
                config,
                "--proc",
                self.proc,
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str = "run", *options: str) -> Run:
        return finish(self.start(command, *options))

    def snapshots(self) -> list[Path]:
        return sorted(self.backups.glob("*/*.db"))

    def leftovers(self) -> list[Path]:
        return sorted(self.backups.glob("*/*.part"))


def finish(process: subprocess.Popen[str]) -> Run:
    text, _none = process.communicate(timeout=300)
    print(text)
    return Run(process.returncode, text)


@pytest.fixture
def nodes(program: Path, cluster: EtcdCluster, tmp_path: Path) -> list[Node]:
    return [Node(program, cluster, member, tmp_path) for member in cluster.members]


@pytest.fixture(scope="module")
def shared_node(
    program: Path, shared_cluster: EtcdCluster, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Node]:
    def fresh() -> Node:
        shared_cluster.client().delete("/kubetune/", "/kubetune0")
        return Node(program, shared_cluster, shared_cluster.members[0], tmp_path_factory.mktemp("host"))

    return fresh


@pytest.fixture
def alone(program: Path, tmp_path: Path) -> Iterator[Node]:
    """A cluster of one with room for 32 MB."""
    cluster = EtcdCluster.create(tmp_path / "etcd", ["cp1"], f"--quota-backend-bytes={32 * MB}")
    yield Node(program, cluster, cluster.members[0], tmp_path)
    cluster.stop_all()


def make_holes(nodes: list[Node], megabytes: int) -> None:
    """Fill and delete, and make believe that a run ten minutes ago noted the revision after that."""
    nodes[0].cluster.fill(megabytes)
    client = nodes[0].cluster.client()
    client.delete("/registry/fill/", "/registry/fill0")
    client.put("/registry/still-here", "yes")
    first = nodes[0].run("run")
    assert first.of("compaction", "nothing")[0]["reason"] == "no_sample"
    noted = json.loads(client.get(SAMPLES).value)
    client.put(SAMPLES, json.dumps([[at - 600, revision, key] for at, revision, key in noted]))


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def accepted_by_etcdutl(snapshot: Path) -> dict[str, Any]:
    told = subprocess.run(
        [binary("etcdutl"), "snapshot", "status", snapshot, "--write-out=json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(told.stdout))


def test_five_steps_shrink_the_database_with_the_leader_last(nodes: list[Node]) -> None:
    cluster = nodes[0].cluster
    make_holes(nodes, 40)
    leader = cluster.leader()
    client = cluster.client()
    before = {each.name: client.status(each.client_url) for each in cluster.members}
    noted = json.loads(client.get(SAMPLES).value)[0][1]

    run = nodes[1].run()

    assert run.status == 0, run.text
    assert [line["outcome"] for line in run.of("health")] == ["ok"]
    (compaction,) = run.of("compaction", "done")
    assert int(compaction["revision"]) == noted < before["cp1"].revision
    assert client.metric("etcd_debugging_mvcc_compact_revision", leader.client_url) == noted
    for member in cluster.members:
        after = client.status(member.client_url)
        assert before[member.name].db_size > 40 * MB and after.db_size < 2 * MB
    assert client.get("/registry/still-here").value == "yes"

    # The members' own logs: one after another, the one that led came last, and it did not lead then.
    done = {each.name: each.log_entries("finished defragmenting directory") for each in cluster.members}
    begun = {each.name: each.log_entries("defragmenting") for each in cluster.members}
    assert {name: len(entries) for name, entries in done.items()} == {"cp1": 1, "cp2": 1, "cp3": 1}
    order = sorted(done, key=lambda name: str(done[name][0]["ts"]))
    assert order[-1] == leader.name
    for earlier, later in zip(order, order[1:]):
        assert str(done[earlier][0]["ts"]) < str(begun[later][0]["ts"])
    stepped_down = [
        entry for entry in leader.log_entries("leadership transfer finished") or leader.log_entries("became follower")
    ]
    assert str(stepped_down[-1]["ts"]) < str(begun[leader.name][0]["ts"])
    assert [line["member"] for line in run.of("defragmentation", "done")] == order
    assert run.of("defragmentation", "done")[-1]["leader"] == "false"
    assert cluster.leader() != leader

    accepted_by_etcdutl(nodes[1].snapshots()[-1])


def test_three_runs_at_once_have_one_winner_and_three_backups(nodes: list[Node]) -> None:
    make_holes(nodes, 20)
    runs = [finish(process) for process in [node.start() for node in nodes]]
    assert [run.status for run in runs] == [0, 0, 0]
    for step in ("compaction", "defragmentation"):
        winners = [run for run in runs if run.of(step, "done")]
        assert len(winners) == 1, step
        others = [run for run in runs if run not in winners]
        assert all(
            line["reason"] in ("done_before", "too_few", "below_thresholds")
            for run in others
            for line in run.of(step, "nothing")
        )
    assert [len(member.log_entries("finished defragmenting directory")) for member in nodes[0].cluster.members] == [
        1,
        1,
        1,
    ]
    # The first node made one in make_holes, too.
    assert [len(node.snapshots()) for node in nodes] == [2, 1, 1]
    backups = [run.of("backup", "done")[0] for run in runs]
    assert {line["member"] for line in backups} == {"cp1", "cp2", "cp3"}


def test_a_step_is_left_to_the_next_interval_once_it_was_done(nodes: list[Node]) -> None:
    make_holes(nodes, 10)
    assert nodes[0].run().of("defragmentation", "done")
    make_more = nodes[0].cluster
    make_more.fill(10)
    make_more.client().delete("/registry/fill/", "/registry/fill0")
    later = nodes[2].run()
    assert later.status == 0
    for step in ("compaction", "defragmentation"):
        (line,) = later.of(step)
        assert line["reason"] == "done_before"
    record = json.loads(make_more.client().get("/kubetune/maintenance/compaction").value)
    record["at"] -= 80_000
    make_more.client().put("/kubetune/maintenance/compaction", json.dumps(record))
    assert nodes[2].run().of("compaction")[-1].get("reason") != "done_before"


def test_snapshot_is_private_verified_and_has_a_checksum(shared_node: Callable[[], Node]) -> None:
    node = shared_node()
    run = node.run()
    assert run.status == 0
    (snapshot,) = node.snapshots()
    assert re.fullmatch(r"\d{8}/etcd-snapshot-\d{6}-cp1\.db", str(snapshot.relative_to(node.backups)))
    assert snapshot.stat().st_mode & 0o777 == 0o600 and snapshot.parent.stat().st_mode & 0o777 == 0o700
    subprocess.run(["sha256sum", "-c", f"{snapshot.name}.sha256"], cwd=snapshot.parent, check=True)
    (line,) = run.of("backup", "done")
    assert line["verified_by"] == "etcdutl"
    assert int(line["revision"]) == accepted_by_etcdutl(snapshot)["revision"]
    assert node.leftovers() == []


def test_snapshot_restores_to_a_cluster_with_the_same_keys(shared_node: Callable[[], Node], tmp_path: Path) -> None:
    node = shared_node()
    node.cluster.client().put("/registry/precious", "value")
    assert node.run().status == 0
    subprocess.run(
        [
            binary("etcdutl"),
            "snapshot",
            "restore",
            node.snapshots()[0],
            "--data-dir",
            tmp_path / "restored",
            "--name",
            "cp1",
            "--initial-cluster",
            "cp1=https://127.0.0.1:1",
            "--initial-advertise-peer-urls",
            "https://127.0.0.1:1",
        ],
        check=True,
        capture_output=True,
    )
    assert b"/registry/precious" in (tmp_path / "restored/member/snap/db").read_bytes()


def test_old_snapshots_go_by_count_and_age_and_the_newest_stays(shared_node: Callable[[], Node]) -> None:
    node = shared_node()
    assert node.run().status == 0
    good = node.snapshots()[0].read_bytes()
    strangers = node.backups / "20200101/etcd-snapshot-000000-othercp1.db"
    for name in (
        "20200101/etcd-snapshot-000000-cp1.db",
        "20200101/etcd-snapshot-000000-othercp1.db",
        "20200102/etcd-snapshot-000000-cp1.db",
    ):
        path = node.backups / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(good)
        path.with_name(path.name + ".sha256").write_text("x")
    node.config["backup"]["keep"] = 3
    run = node.run()
    assert run.status == 0
    # Two of today; both old ones are over age, and the second also over the count.
    assert len(node.snapshots()) == 3 and strangers.exists()
    assert not (node.backups / "20200102").exists()
    assert sorted(path.name for path in (node.backups / "20200101").iterdir()) == [
        strangers.name,
        strangers.name + ".sha256",
    ]


def test_killed_backup_leaves_nothing_under_a_final_name_and_the_next_run_clears_it(nodes: list[Node]) -> None:
    node = nodes[0]
    node.cluster.fill(60)
    process = node.start()
    wait_for(lambda: any(path.stat().st_size > MB for path in node.leftovers()))
    process.kill()
    process.wait()
    assert node.snapshots() == [] and len(node.leftovers()) == 1
    # The killed run's turn is still taken in the cluster; its own host does not wait for that to time out.
    held_by = current_holder(node.cluster.client(), "backup")
    assert held_by is not None
    started = time.monotonic()
    run = node.run()
    assert time.monotonic() - started < 60
    assert run.status == 0, run.text
    assert len(node.snapshots()) == 1 and node.leftovers() == []
    accepted_by_etcdutl(node.snapshots()[0])


def test_ended_backup_cleans_up_and_gives_its_turn_back(nodes: list[Node]) -> None:
    node = nodes[0]
    node.cluster.fill(60)
    process = node.start()
    wait_for(lambda: any(path.stat().st_size > MB for path in node.leftovers()))
    process.terminate()
    assert process.wait(timeout=20) == 128 + signal.SIGTERM
    assert node.snapshots() == [] and node.leftovers() == []
    assert current_holder(node.cluster.client(), "backup") is None


def test_member_down_means_no_change_to_the_others_but_a_backup(nodes: list[Node]) -> None:
    make_holes(nodes, 10)
    cluster = nodes[0].cluster
    victim = next(each for each in cluster.members if each not in (cluster.leader(), nodes[0].member))
    cluster.stop(victim, signal.SIGKILL)
    nodes[0].config["settle_seconds"] = 0
    run = nodes[0].run()
    assert run.status == 11
    assert any(victim.name in line for line in run.text.splitlines() if line.startswith("health: member"))
    assert [line["reason"] for line in run.of("compaction") + run.of("defragmentation")] == ["unhealthy", "unhealthy"]
    assert all(not member.log_entries("finished defragmenting directory") for member in cluster.members)
    assert run.of("backup", "done")


def test_without_quorum_the_own_member_is_still_backed_up(nodes: list[Node]) -> None:
    for node in nodes[1:]:
        node.cluster.stop(node.member, signal.SIGKILL)
    nodes[0].config["settle_seconds"] = 0
    run = nodes[0].run()
    assert run.status == 11
    assert run.of("backup", "done") and run.of("backup", "warning")[0]["reason"] == "no_lock"
    accepted_by_etcdutl(nodes[0].snapshots()[0])


def test_dead_own_member_is_an_error_that_names_it(nodes: list[Node]) -> None:
    nodes[0].cluster.stop(nodes[0].member, signal.SIGKILL)
    nodes[0].config["settle_seconds"] = 0
    run = nodes[0].run()
    assert run.status == 13
    assert nodes[0].member.client_url in run.text
    assert nodes[0].snapshots() == []


def test_full_quota_is_refused_with_the_way_out_and_backed_up(alone: Node) -> None:
    with pytest.raises(Exception, match="database space exceeded"):
        alone.cluster.fill(40)
    alone.config["settle_seconds"] = 0
    run = alone.run()
    assert run.status == 11
    assert "disarm the alarm" in run.text
    assert run.of("size", "warning")
    assert run.of("backup", "done")


def test_single_member_is_defragmented_though_it_leads(alone: Node) -> None:
    make_holes([alone], 12)
    run = alone.run()
    assert run.status == 0, run.text
    (line,) = run.of("defragmentation", "done")
    assert int(line["after_bytes"]) < 2 * MB < 12 * MB < int(line["before_bytes"])


def test_near_quota_defragments_below_the_fragmentation_threshold(alone: Node) -> None:
    make_holes([alone], 9)
    alone.cluster.fill(5, "/registry/kept/")
    alone.config["defragmentation"].update(min_fragmentation=0.95, quota_share=0.3)
    run = alone.run()
    assert run.of("defragmentation", "done"), run.text


def test_change_lock_of_a_tuning_run_keeps_us_out_but_not_the_backup(nodes: list[Node]) -> None:
    make_holes(nodes, 10)
    nodes[0].config["lock_wait_seconds"] = 3
    holder = {"host": "cp9", "purpose": "site", "since": "2026-11-24T02:30:00+00:00", "run_id": "x"}
    with ClusterLock(nodes[0].cluster.client(), "change", holder):
        started = time.monotonic()
        run = nodes[0].run()
        assert time.monotonic() - started > 3
    assert run.status == 10
    assert "held by cp9 for site" in run.text
    assert [line["outcome"] for line in run.of("compaction")] == ["waiting", "locked"]
    assert run.of("backup", "done")
    assert all(not member.log_entries("finished defragmenting directory") for member in nodes[0].cluster.members)


def test_second_run_on_the_same_host_waits_for_the_first(nodes: list[Node]) -> None:
    nodes[0].cluster.fill(60)
    nodes[0].config["lock_wait_seconds"] = 1
    holder = {"host": "cp9", "purpose": "test", "since": "now", "run_id": "x"}
    with ClusterLock(nodes[0].cluster.client(), "backup", holder):
        nodes[0].config["lock_wait_seconds"] = 6
        first = nodes[0].start()
        wait_for(lambda: (Path(nodes[0].config["state_directory"]) / "maintenance.lock").exists())
        time.sleep(0.5)
        nodes[0].config["lock_wait_seconds"] = 1
        second = nodes[0].run()
        assert second.status == 10
        assert "another maintenance run on this host" in second.text
        assert finish(first).status == 0


def test_dry_run_changes_nothing(nodes: list[Node]) -> None:
    make_holes(nodes, 10)
    nodes[1].config["defragmentation"].update(min_fragmentation=0.0, min_reclaimable_bytes=0)
    before = nodes[1].cluster.client().status(nodes[1].member.client_url)
    run = nodes[1].run("run", "--dry-run")
    assert run.status == 0
    assert [line["step"] for line in run.lines if line["outcome"] == "planned"] == [
        "compaction",
        "defragmentation",
        "backup",
    ]
    after = nodes[1].cluster.client().status(nodes[1].member.client_url)
    assert nodes[1].member.log_entries("finished defragmenting directory") == []
    assert (after.revision, after.db_size) == (before.revision, before.db_size)
    assert nodes[1].snapshots() == []


def test_too_little_space_for_a_backup_is_refused_with_numbers(shared_node: Callable[[], Node]) -> None:
    node = shared_node()
    node.config["backup"]["min_free_bytes"] = 1 << 40
    run = node.run()
    assert run.status == 13
    assert f"{node.backups} has" in run.text and "are needed" in run.text
    assert list(node.backups.iterdir()) == []


def test_auto_leaves_compaction_to_an_api_server_that_still_writes_its_key(shared_node: Callable[[], Node]) -> None:
    node = shared_node()
    node.config["compaction"]["mode"] = "auto"
    client = node.cluster.client()
    client.put("compact_rev_key", "1")

    def running(argv: list[str]) -> None:
        (node.proc / "7").mkdir(exist_ok=True)
        (node.proc / "7/cmdline").write_bytes(b"\0".join(word.encode() for word in argv) + b"\0")
        (node.proc / "7/stat").write_text("7 (kube-apiserver) S" + " 0" * 40)

    running(["kube-apiserver", "--etcd-compaction-interval=300s"])
    assert "compacts every 300s" in node.run().text

    # Switched off here: another one's writes show in the key.
    running(["kube-apiserver", "--etcd-compaction-interval=0"])
    assert "is known at the next run" in node.run().text
    noted = json.loads(client.get(SAMPLES).value)
    client.put(SAMPLES, json.dumps([[at - 1000, revision, key] for at, revision, key in noted]))
    client.put("compact_rev_key", "2")
    assert "has moved since the last run" in node.run().text
    noted = json.loads(client.get(SAMPLES).value)
    client.put(SAMPLES, json.dumps([[at - 1000, revision, key] for at, revision, key in noted]))
    assert node.run().of("compaction", "done")
    client.delete("compact_rev_key")


def test_etcd_that_compacts_by_itself_is_left_alone(shared_node: Callable[[], Node]) -> None:
    node = shared_node()
    node.config["compaction"]["mode"] = "auto"
    (node.proc / "9").mkdir()
    argv = ["etcd", f"--data-dir={node.member.data_directory}", "--auto-compaction-retention=1h"]
    (node.proc / "9/cmdline").write_bytes(b"\0".join(word.encode() for word in argv) + b"\0")
    (node.proc / "9/stat").write_text("9 (etcd) S" + " 0" * 40)
    assert "--auto-compaction-retention=1h" in node.run().text


def test_status_tells_who_did_what_and_how_old_the_backup_is(nodes: list[Node]) -> None:
    make_holes(nodes, 10)
    assert nodes[0].run().status == 0
    status = nodes[0].run("status")
    assert status.status == 0
    assert {line["step"] for line in status.lines if line.get("due") == "false"} == {"compaction", "defragmentation"}
    (backup,) = status.of("backup")
    assert int(backup["kept"]) == 2 and float(backup["age_hours"]) < 0.1
    other = nodes[1].run("status")
    assert other.of("backup", "warning")[0]["kept"] == "0"


def test_bad_configuration_names_every_problem_and_does_nothing(shared_node: Callable[[], Node]) -> None:
    node = shared_node()
    node.config["backup"]["keep"] = 0
    node.config["backup"]["kepe"] = 5
    del node.config["endpoint"]
    run = node.run()
    assert run.status == 2
    for text in ("backup.keep: 0 is not allowed", "backup.kepe is unknown", "endpoint is missing"):
        assert text in run.text
    assert not os.path.exists(node.config["state_directory"])


def test_member_that_comes_back_in_time_is_waited_for(nodes: list[Node]) -> None:
    """As after a reboot, when the timer makes up for a missed run before etcd is there."""
    cluster, own = nodes[0].cluster, nodes[0].member
    cluster.stop(own)
    nodes[0].config["settle_seconds"] = 60
    process = nodes[0].start()
    time.sleep(2)
    assert process.poll() is None
    cluster.start(own)
    assert finish(process).status == 0
