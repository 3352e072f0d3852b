# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maintenance program, as it is installed on hosts, against real etcd clusters."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.lock import ClusterLock, current_holder
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.state import free_bytes

from tests.integration.etcd_cluster import EtcdCluster, Member
from tests.integration.maintenance_node import MB, Node, accepted_by_etcdutl, finish, needs_root, wait_for

SAMPLES = "/kubetune/maintenance/samples"


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


def test_a_leader_keeps_its_place_for_a_moments_work(nodes: list[Node]) -> None:
    """etcd drops writes as leadership moves, and lets their clients wait for 7 s."""
    cluster = nodes[0].cluster
    nodes[1].config["defragmentation"]["online_max_bytes"] = 2 * MB
    make_holes(nodes, 20)
    leader = cluster.leader()
    run = nodes[1].run()
    assert run.status == 0, run.text
    done = run.of("defragmentation", "done")
    assert len(done) == 3 and (done[-1]["member"], done[-1]["leader"]) == (leader.name, "true")
    assert cluster.leader() == leader


def test_three_runs_at_once_have_one_winner_and_three_backups(nodes: list[Node]) -> None:
    make_holes(nodes, 20)
    runs = [finish(process) for process in [node.start() for node in nodes]]
    assert [run.status for run in runs] == [0, 0, 0]
    for step in ("compaction", "defragmentation"):
        winners = [run for run in runs if run.of(step, "done")]
        assert len(winners) == 1, step
        others = [run for run in runs if run not in winners]
        assert all(
            line["reason"] in ("done_before", "too_few", "rule")
            for run in others
            for line in run.of(step, "nothing")
        )
    assert [len(member.log_entries("finished defragmenting directory")) for member in nodes[0].cluster.members] == [
        1,
        1,
        1,
    ]
    # The first node made one in make_holes, too: of one hour the newest stays.
    assert [len(node.snapshots()) for node in nodes] == [1, 1, 1]
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
    assert run.of("backup", "done")
    assert [line["reason"] for line in run.of("backup", "warning")] == ["no_lock", "no_quorum", "only_here"]
    accepted_by_etcdutl(nodes[0].snapshots()[0])


def test_dead_own_member_is_an_error_that_names_it(nodes: list[Node]) -> None:
    nodes[0].cluster.stop(nodes[0].member, signal.SIGKILL)
    nodes[0].config["settle_seconds"] = 0
    run = nodes[0].run()
    assert run.status == 13
    assert nodes[0].member.client_url in run.text
    assert nodes[0].snapshots() == []


def fill_up(cluster: EtcdCluster) -> None:
    with pytest.raises(Exception, match="database space exceeded"):
        cluster.fill(40)


def test_full_quota_is_refused_with_the_way_out_and_backed_up(alone: Node) -> None:
    fill_up(alone.cluster)
    alone.config["settle_seconds"] = 0
    run = alone.run()
    assert run.status == 11
    assert "recover-space" in run.text
    assert run.of("size", "warning")
    assert run.of("backup", "done")


def test_out_of_nospace_by_one_host_alone(full_nodes: list[Node]) -> None:
    """A 64 MB quota filled with history: the host of the lowest id compacts, defragments all members, and takes the alarm away."""
    cluster, client = full_nodes[0].cluster, full_nodes[0].cluster.client()
    leader = cluster.leader()
    client.put("/registry/still-here", "yes")
    while True:
        try:
            client.put("/registry/same-key", "x" * MB)
        except Exception as exc:
            assert "database space exceeded" in str(exc)
            break
    in_charge = min(full_nodes, key=lambda node: client.status(node.member.client_url).member_id)
    for node in full_nodes:
        node.config |= {"settle_seconds": 0, "compaction": {"mode": "on", "retention_seconds": 300, "min_revisions": 3}}
        if node != in_charge:
            run = node.run("recover-space")
            assert run.status == 11
            assert run.of("nospace", "left_out")[0] == {
                "step": "nospace", "outcome": "left_out", "reason": "other_host", "member": in_charge.member.name,
            }  # fmt: skip
    planned = in_charge.run("recover-space", "--dry-run")
    assert planned.of("nospace", "planned") and client.alarms()

    revision = client.revision()
    in_charge.config["settle_seconds"] = 30
    run = in_charge.run("recover-space")

    assert run.status == 0, run.text
    assert run.of("nospace", "done") and run.of("health", "ok")
    assert client.alarms() == []
    assert client.metric("etcd_debugging_mvcc_compact_revision", leader.client_url) == revision - 3
    for member in cluster.members:
        assert len(member.log_entries("finished defragmenting directory")) == 1
        assert client.status(member.client_url).db_size < 10 * MB
    assert [line["member"] for line in run.of("defragmentation", "done")][-1] == leader.name
    assert client.get("/registry/still-here").value == "yes"
    client.put("/registry/same-key", "y")
    # The record of its defragmentation: the timers of this day need not do it again.
    assert full_nodes[1].run("defrag").of("defragmentation")[0]["reason"] == "done_before"
    assert in_charge.run("recover-space").of("nospace", "nothing")[0]["reason"] == "no_alarm"
    assert in_charge.metrics()["step_success{step=\"nospace\"}"] == 1


def test_alarm_stays_as_long_as_there_is_no_room(alone: Node) -> None:
    """What is there are keys, and no history: only a person can say which to delete. Deletions are taken under the alarm."""
    fill_up(alone.cluster)
    client = alone.cluster.client()
    alone.config["nospace"] = {"recover": True, "room": 0.5}
    run = alone.run()
    assert run.status == 12, run.text
    (failed,) = run.of("nospace", "failed")
    assert "delete what is not needed" in run.text and "--quota-backend-bytes" in run.text
    assert [alarm.alarm for alarm in client.alarms()] == ["NOSPACE"]
    assert run.of("backup", "done")
    assert alone.metrics()["step_success{step=\"nospace\"}"] == 0

    client.delete("/registry/fill/", "/registry/fill0")
    assert alone.run("recover-space").of("nospace", "failed")  # the history still has them
    run = alone.run("recover-space", "--keep-revisions", "0")
    assert run.of("nospace", "done"), run.text
    assert run.status == 0
    assert client.alarms() == [] and client.put("/registry/again", "yes")


def test_a_larger_quota_is_room(alone: Node) -> None:
    """As the message advises where all of it is needed: the flag by hand, then the command."""
    fill_up(alone.cluster)
    cluster, client = alone.cluster, alone.cluster.client()
    keys = client.count()
    cluster.stop(alone.member)
    cluster.flags = [f"--quota-backend-bytes={128 * MB}"]
    cluster.start(alone.member)
    # A larger quota alone takes no alarm away.
    with pytest.raises(TimeoutError, match="NOSPACE"):
        cluster.wait_until_whole(10)
    run = alone.run("recover-space")
    assert run.status == 0 and run.of("nospace", "done"), run.text
    assert client.alarms() == [] and client.put("/registry/again", "yes")
    assert client.count() > keys


def test_a_lock_from_before_the_alarm_is_respected(alone: Node) -> None:
    with ClusterLock(alone.cluster.client(), "change", {"host": "cp9", "purpose": "a change of static pods"}):
        fill_up(alone.cluster)
        alone.config["settle_seconds"] = 0
        run = alone.run("recover-space")
        assert run.status == 11, run.text
        assert "cp9" in run.text and run.of("nospace", "locked")
        assert alone.cluster.client().alarms()


def test_hours_keep_defragmentation_for_later(alone: Node) -> None:
    make_holes([alone], 12)
    now = time.localtime()
    alone.config["defragmentation"]["hours"] = [f"{(now.tm_hour + 2) % 24:02}:00-{(now.tm_hour + 3) % 24:02}:00"]
    run = alone.run()
    assert run.status == 0
    assert [line["reason"] for line in run.of("defragmentation")] == ["hours"]
    alone.config["defragmentation"]["hours"] = [f"{now.tm_hour:02}:00-{(now.tm_hour + 2) % 24:02}:00"]
    assert alone.run().of("defragmentation", "done")


def test_single_member_is_defragmented_though_it_leads(alone: Node) -> None:
    make_holes([alone], 12)
    run = alone.run()
    assert run.status == 0, run.text
    (line,) = run.of("defragmentation", "done")
    assert int(line["after_bytes"]) < 2 * MB < 12 * MB < int(line["before_bytes"])


def test_near_quota_defragments_below_the_fragmentation_threshold(alone: Node) -> None:
    make_holes([alone], 9)
    alone.cluster.fill(5, "/registry/kept/")
    alone.config["defragmentation"].update(rule="dbSizeFree / dbSize >= 0.95 || dbQuotaUsage >= 0.3")
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


def defragmented(member: Member) -> int:
    """How many times, by its own log."""
    return len(member.log_entries("finished defragmenting directory"))


def start_and_wait_for_the_first(node: Node) -> subprocess.Popen[str]:
    """A run that has just defragmented a member."""
    process = node.start()
    assert process.stdout
    for line in process.stdout:
        if "went from" in line:
            return process
    raise AssertionError(f"it ended with {process.wait()}, and no member was defragmented")


def test_killed_run_is_waited_for_until_its_lease_ends_and_another_host_does_the_rest(nodes: list[Node]) -> None:
    make_holes(nodes, 40)
    process = start_and_wait_for_the_first(nodes[0])
    process.kill()
    process.wait()
    assert sum(defragmented(member) for member in nodes[0].cluster.members) < 3
    holder = current_holder(nodes[0].cluster.client(), "change")
    assert holder is not None
    nodes[1].config["lock_wait_seconds"] = 180
    run = nodes[1].run()
    assert run.status == 0, run.text
    assert run.of("defragmentation", "waiting") and f"is held by {holder['host']}" in run.text
    # A member that was in its turn as the run died goes on with it by itself, and has no second one.
    assert [defragmented(member) for member in nodes[0].cluster.members] == [1, 1, 1]


def test_member_that_stops_in_the_middle_ends_the_run_before_the_leaders_turn(nodes: list[Node]) -> None:
    make_holes(nodes, 40)
    leader = nodes[0].cluster.leader()
    first, second = (node for node in nodes if node.member is not leader)
    process = start_and_wait_for_the_first(first)
    assert second.member.process
    second.member.process.send_signal(signal.SIGSTOP)
    run = finish(process)
    second.member.process.send_signal(signal.SIGCONT)
    assert run.status == 12, run.text
    assert run.of("defragmentation", "failed") and second.member.name in run.text
    assert (defragmented(first.member), defragmented(leader)) == (1, 0)
    nodes[0].cluster.wait_until_whole()
    again = first.run()
    assert again.status == 0, again.text
    assert [defragmented(member) for member in nodes[0].cluster.members] == [1, 1, 1]


@needs_root
def test_member_without_room_for_its_copy_is_left_alone_and_so_are_those_behind_it(nodes: list[Node]) -> None:
    cluster = nodes[0].cluster
    leader = cluster.leader()
    first, full = (node for node in nodes if node.member is not leader)
    with on_a_file_system_of(full.member, cluster, 220):
        make_holes(nodes, 30)
        cluster.fill(20, "/registry/kept/")
        data = full.member.data_directory
        filler = data / "somebody-elses"
        with open(filler, "wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, free_bytes(data) - 8 * MB)
        # Its own host sees that, and does not begin; another host learns it from etcd, which serves as before.
        full.config["data_directory"] = str(data)
        full.config["defragmentation"]["method"] = "online"
        assert first.run("compact").of("compaction", "done")
        run = first.run("defrag")
        assert run.status == 12 and "no space left on device" in run.text, run.text
        assert (defragmented(first.member), defragmented(full.member), defragmented(leader)) == (1, 0, 0)
        cluster.wait_until_whole()
        revision = cluster.client(full.member).put("/registry/still-here", "it serves")
        (rest,) = data.rglob("db.tmp*")
        run = full.run("defrag")
        assert run.status == 12 and f"{full.member.name} needs " in run.text and f"free in {data} for its copy" in run.text, run.text
        assert f"{rest.name} is what a defragmentation that failed has left there: etcd removes it when it starts" in run.text
        assert (defragmented(full.member), defragmented(leader)) == (0, 0)

        filler.unlink()
        cluster.stop(full.member)
        cluster.start(full.member)
        cluster.wait_until_whole()
        assert not rest.exists()
        run = full.run("defrag")
        assert run.status == 0, run.text
        assert [defragmented(member) for member in cluster.members] == [1, 1, 1]
        assert cluster.client(full.member).get("/registry/still-here").mod_revision == revision


@contextmanager
def on_a_file_system_of(member: Member, cluster: EtcdCluster, megabytes: int) -> Iterator[None]:
    """Its data is on a file system of its own for the time of the block."""
    data, aside = member.data_directory, member.directory / "aside"
    cluster.stop(member)
    data.rename(aside)
    data.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", data], check=True)
    try:
        shutil.copytree(aside, data, dirs_exist_ok=True)
        cluster.start(member)
        cluster.wait_until_whole()
        yield
    finally:
        cluster.stop(member)
        subprocess.run(["umount", data], check=True)


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
    nodes[1].config["defragmentation"].update(rule="dbSizeFree >= 0")
    before = nodes[1].cluster.client().status(nodes[1].member.client_url)
    run = nodes[1].run("run", "--dry-run")
    assert run.status == 0
    assert [line["step"] for line in run.lines if line["outcome"] == "planned"] == [
        "compaction",
        "defragmentation",
        "backup",
        "prune",
    ]
    after = nodes[1].cluster.client().status(nodes[1].member.client_url)
    assert nodes[1].member.log_entries("finished defragmenting directory") == []
    assert (after.revision, after.db_size) == (before.revision, before.db_size)
    assert nodes[1].snapshots() == []


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
    assert int(backup["kept"]) == 1 and float(backup["age_hours"]) < 0.1
    other = nodes[1].run("status")
    assert other.of("backup", "warning")[0]["kept"] == "0"


def test_bad_configuration_names_every_problem_and_does_nothing(shared_node: Callable[[], Node]) -> None:
    node = shared_node()
    node.config["backup"]["keep_daily"] = -1
    node.config["backup"]["kepe"] = 5
    del node.config["endpoint"]
    run = node.run()
    assert run.status == 2
    for text in ("backup.keep_daily: -1 is not allowed", "backup.kepe is unknown", "endpoint is missing"):
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
