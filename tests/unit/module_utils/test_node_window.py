# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node window as a transaction: its end is all new or all old, and it says which; what it refuses, and what it watches.

Processes, manifests, journal and /proc are real; the kubelet and the etcd cluster are `node_simulator`'s.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._node import images, processes, state
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window import patience, pod
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.journal import Journal
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.order import Part
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.proof import Proof
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.window import Window
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod import timing

from tests.unit.module_utils.node_simulator import DIES, STAYS, MemoryClient, manifest
from tests.unit.module_utils.window_node import (  # fixtures too
    API, ETCD, FORWARD, LOCK, PATIENT, SNAPSHOT, STOP, Node, assert_done, assert_rolled_back, assert_untouched,
    at_event, cut_off, finish, hurry, impatient, make, node, scenario,
)  # fmt: skip


# --- forward --------------------------------------------------------------------------------------------------


def test_both_pods_in_one_window(node: Node) -> None:
    result = node.run(node.both())
    assert (result["outcome"], result["message"]) == ("changed", "")
    assert node.steps() == FORWARD
    node.assert_all("new")
    node.assert_free()
    assert Path(result["snapshot"]).read_bytes() == b"snapshot"
    assert node.etcd.keys[SNAPSHOT].value == f"cp1:{result['snapshot']}"
    for component in (ETCD, API):
        assert state.read_memory(component, node.state)["component"] == component


def test_a_change_of_the_api_server_alone_leaves_etcd_alone(node: Node) -> None:
    before = processes.find(ETCD, {}, node.proc)
    result = node.run(node.order(node.part(ETCD, new="old"), node.part(API)))
    assert result["outcome"] == "changed"
    assert node.steps() == ["gate begin", "gate done", "api_out begin", "api_out done", "kube-apiserver_in begin", "kube-apiserver_in done"]
    assert processes.find(ETCD, {}, node.proc) == before
    node.assert_all("old", ETCD)
    node.assert_all("new", API)


def test_a_change_of_etcd_alone_lends_the_api_server_s_way(node: Node) -> None:
    assert node.run(node.order(node.part(ETCD), node.part(API, new="old")))["outcome"] == "changed"
    assert node.steps() == FORWARD
    node.assert_all("new", ETCD)
    node.assert_all("old", API)


def test_a_member_without_an_api_server(make: Callable[..., Node]) -> None:
    node = make(parts=(ETCD,))
    assert node.run(node.order(node.part(ETCD)))["outcome"] == "changed"
    node.assert_all("new")


def test_the_leader_hands_over_first(node: Node) -> None:
    node.etcd.leader = node.name
    assert node.run(node.both())["outcome"] == "changed"
    assert node.steps()[2:6] == ["gate begin", "leader begin", "leader done", "gate done"]
    assert node.etcd.leader == "peer1"
    node.assert_all("new")


def test_the_snapshot_is_taken_once_in_a_run(node: Node) -> None:
    node.etcd.put(SNAPSHOT, "cp0:/var/lib/kubetune/snapshots/run-1.db")
    result = node.run(node.both())
    assert result["snapshot"] == "" and "snapshot begin" not in node.steps()
    assert not (node.state / "snapshots").exists()


@pytest.mark.parametrize("later", [0, 2**33], ids=["", "the clock has been set back since"])
def test_old_snapshots_make_room(node: Node, later: int) -> None:
    directory = node.state / "snapshots"
    directory.mkdir(parents=True)
    for number in range(4):
        (directory / f"old-{number}.db").write_bytes(b"x")
        os.utime(directory / f"old-{number}.db", (number + later, number + later))
    node.run(node.both())
    assert sorted(path.name for path in directory.iterdir()) == ["old-2.db", "old-3.db", "run-1.db"]


def test_a_single_member_with_consent(make: Callable[..., Node]) -> None:
    node = make(members=1)
    refused = node.run(node.both())
    assert refused["outcome"] == "refused" and "etcd_static_pod_allow_downtime" in refused["message"]
    node.assert_all("old")
    Journal(node.state).finish(node.both(), refused)
    assert node.run(node.both(id="2", allow_downtime=True))["outcome"] == "changed"
    node.assert_all("new")


def test_the_first_start_of_a_node(make: Callable[..., Node]) -> None:
    node = make(parts=())
    node.etcd.down = {"peer1", "peer2"}
    node.etcd.names = [node.name]
    order = node.order(node.part(ETCD, old=None), node.part(API, old=None), bootstraps=True)
    assert node.run(order)["outcome"] == "changed"
    node.assert_all("new", ETCD, API)
    assert "snapshot begin" not in node.steps()


def test_what_we_rendered_is_taken_away_again(make: Callable[..., Node]) -> None:
    node = make(members=1)
    node.run(node.both(allow_downtime=True))
    Journal(node.state).finish(node.both(), {"outcome": "changed"})
    gone = [
        dataclasses.replace(node.part(component, new=None), old=manifest(node.argv(component, "new"))) for component in (ETCD, API)
    ]
    assert node.run(node.order(*gone, id="2", allow_downtime=True))["outcome"] == "changed"
    assert node.manifest_texts() == {}
    assert node.running(ETCD) == node.running(API) == []
    assert state.read_memory(ETCD, node.state) is None and state.read_memory(API, node.state) is None


# --- nothing is touched ---------------------------------------------------------------------------------------


def one_down(node: Node) -> None:
    node.etcd.down = {"peer1"}


def no_quorum(node: Node) -> None:
    node.etcd.down = {"peer1", "peer2"}


def no_space(node: Node) -> None:
    node.etcd.alarms = ("memberID:1 alarm:NOSPACE",)


def stopped(node: Node) -> None:
    node.etcd.put(STOP, "cp0")


@pytest.mark.parametrize(
    ("trouble", "text"),
    [
        (one_down, "member peer1 (2) does not answer"),
        (no_quorum, "no quorum"),
        (no_space, "alarm:NOSPACE"),
        (stopped, "an earlier window of this run failed"),
    ],
)
@pytest.mark.parametrize("name", ["both", "API server alone"])
def test_the_gate_refuses(node: Node, trouble: Callable[[Node], None], text: str, name: str) -> None:
    trouble(node)
    assert_untouched(node, scenario(node, name), text)
    node.assert_free()


# --- repair ---------------------------------------------------------------------------------------------------


def broken_by_hand(node: Node, component: str, monkeypatch: pytest.MonkeyPatch) -> Part:
    """Somebody has made a process die, by its manifest; the part mends it."""
    part = node.part(component)
    dies = manifest(node.argv(component, "old", DIES))
    (node.manifests / f"{component}.yaml").write_text(dies)
    while node.kubelet.text(component) != dies:
        time.sleep(0.002)
    node.kubelet.paused = True  # it starts such a process again and again, and each is there for a moment
    time.sleep(0.05)
    while node.kubelet.is_up(component):
        time.sleep(0.002)
    at_event(monkeypatch, f"{component}_repair", lambda: setattr(node.kubelet, "paused", False))
    return dataclasses.replace(part, old=dies, old_argv=tuple(node.argv(component, "old", DIES)))


def test_an_etcd_that_does_not_run_is_mended_while_the_others_serve(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    order = node.order(broken_by_hand(node, ETCD, monkeypatch), node.part(API))
    node.wrongs.clear()
    result = node.run(order)
    assert (result["outcome"], result["message"]) == ("changed", "")
    node.assert_all("new")
    assert Path(result["snapshot"]).read_bytes() == b"snapshot"


def test_it_is_not_mended_while_another_member_is_down(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    part = broken_by_hand(node, ETCD, monkeypatch)
    one_down(node)
    result = node.run(node.order(part))
    assert result["outcome"] == "refused" and "no quorum" in result["message"]


def test_an_api_server_that_does_not_stay_is_mended(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "API_SERVER_PATIENCE", 0.2)
    result = node.run(node.order(node.part(ETCD, new="old"), broken_by_hand(node, API, monkeypatch)))
    assert (result["outcome"], result["message"]) == ("changed", "")
    node.assert_all("new", API)
    node.assert_all("old", ETCD)


def test_an_api_server_that_stays_and_is_not_ready_is_for_a_person(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "API_SERVER_PATIENCE", 0.2)
    node.api_unready_with = "old"
    assert_untouched(node, node.both(), "kube-apiserver is not ready: HTTP 500: [-]etcd failed (waited 0.2 s): mend it first")


def test_a_repair_that_fails_says_that_it_did_not_run_before(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    part = dataclasses.replace(broken_by_hand(node, ETCD, monkeypatch), new=node.part(ETCD, program=DIES).new, argv=node.part(ETCD, program=DIES).argv)
    result = node.run(node.order(part, watch_seconds=0.1))  # it may look ready for a moment
    assert result["outcome"] == "broken"
    assert "etcd did not run before this change either; its manifest from before is there again" in result["message"]
    assert node.manifest_texts()[ETCD] == part.old


# --- refused --------------------------------------------------------------------------------------------------


def test_no_pod_leaves_a_node_on_which_none_could_start(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "runtime_problem", lambda: "the sandbox's image is not here")
    assert_untouched(node, node.both(), "the sandbox's image is not here")


def test_without_a_kubelet_nothing_is_begun(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "KUBELET", 0.2)
    monkeypatch.setattr(Window, "_kubelet", lambda self: [])
    assert_untouched(node, node.both(), "no kubelet runs (waited 0.2 s), and without it no pod goes or comes: start it first")


def test_a_kubelet_that_is_just_starting_is_waited_for(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "KUBELET", PATIENT)
    looks = iter([[], []])
    monkeypatch.setattr(Window, "_kubelet", lambda self: next(looks, [["this boot", 1, 100]]))
    assert node.run(node.both())["outcome"] == "changed"
    node.assert_all("new")


def test_a_kubelet_that_leaves_at_the_gate_is_another_one_when_it_is_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([[["this boot", 1, 100]], []])
    monkeypatch.setattr(Window, "_kubelet", lambda self: next(looks, [["this boot", 2, 200]]))
    before = node.processes()
    assert_rolled_back(node, node.run(node.both()), "the kubelet has ended or was started anew since the gate")
    assert node.processes() == before


def test_a_member_that_the_cluster_does_not_know(node: Node) -> None:
    assert_untouched(node, node.both(member="stranger"), "etcd member 'stranger' of this host is not in the member list")


def test_somebody_else_s_lock(node: Node) -> None:
    holder = {"host": "cp2", "purpose": "a change of static pods", "since": "2026-11-24T10:00:00+00:00", "token": "another"}
    node.etcd.put(LOCK, json.dumps(holder))
    assert_untouched(node, node.both(), "held by cp2 for a change of static pods since 2026-11-24T10:00:00+00:00")
    assert json.loads(node.etcd.keys[LOCK].value) == holder


def test_a_lock_that_is_given_back_in_time(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LOCK_WAIT", PATIENT)
    node.etcd.leases.add(9)
    node.etcd.put(LOCK, json.dumps({"host": "cp2"}), 9)
    looks: list[str] = []

    def give_back(call: str) -> None:
        looks.append(call)
        if looks.count("create") == 3:
            node.etcd.keys.pop(LOCK)
            client.on_call = lambda _call: None

    client = MemoryClient(node.etcd)
    client.on_call = give_back
    journal = Journal(node.state)
    journal.begin(node.both())
    assert node.window(journal, client).run()["outcome"] == "changed"
    assert node.etcd.leases == {9, node.etcd.keys[SNAPSHOT].lease}, "each lease of a vain try was given back"


def test_a_lock_that_was_lost_before_the_first_step(node: Node) -> None:
    client = MemoryClient(node.etcd)

    def lose_it(call: str) -> None:
        if call == "snapshot":
            node.etcd.keys.pop(LOCK)

    client.on_call = lose_it
    journal = Journal(node.state)
    journal.begin(node.both())
    result = node.window(journal, client).run()
    assert result["outcome"] == "refused"
    assert "the cluster lock 'change' was lost" in result["message"]
    node.assert_all("old")


def test_no_room_for_the_snapshot(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FREE_MARGIN", 2**60)
    assert_untouched(node, node.both(), "and the snapshot before the first restart needs")


# --- back -----------------------------------------------------------------------------------------------------


def test_an_api_server_that_is_never_ready(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch, "API_SERVER_READY")
    node.api_unready_with = "new"
    assert_rolled_back(node, node.run(node.both()), "kube-apiserver is not ready: HTTP 500: [-]etcd failed (waited 0.5 s)")
    undo = node.steps().index("undo begin")
    assert node.steps()[undo:] == [
        "undo begin", "api_out begin", "api_out done", "etcd_back begin", "etcd_back done", "cluster done",
        "kube-apiserver_back begin", "kube-apiserver_back done",
    ]


def test_a_crash_loop_is_found_before_time_is_up(node: Node) -> None:
    result = node.run(node.order(node.part(ETCD), node.dying_api()))
    assert result["seconds"] < PATIENT
    assert_rolled_back(node, result, "kube-apiserver was started 3 times and does not stay: kube-apiserver is not ready")


def test_an_etcd_that_dies(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    unready = Proof._etcd_unready
    monkeypatch.setattr(
        Proof, "_etcd_unready", lambda self: "refused" if "--tuning=new" in node.kubelet.command(ETCD) else unready(self)
    )
    result = node.run(node.order(node.part(ETCD, program=f"sleep 0.03; {DIES}"), node.part(API)))
    assert_rolled_back(node, result, "etcd was started 3 times and does not stay: etcd is not ready: refused")


def test_an_etcd_that_comes_with_other_arguments(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch, "ETCD_READY")
    part = dataclasses.replace(node.part(ETCD), argv=tuple(node.argv(ETCD, "other")))
    assert_rolled_back(
        node, node.run(node.order(part, node.part(API))),
        "etcd runs with other arguments than planned: has --tuning=new, lacks --tuning=other",
    )


def when_etcd_stops(node: Node, tuning: str, act: Callable[[], None]) -> None:
    """Call ``act`` at the moment when the etcd with this tuning is stopped for good reasons."""
    watch = node.kubelet.on_stop

    def stop(component: str) -> None:
        watch(component)
        if component == ETCD and f"--tuning={tuning}" in node.kubelet.command(ETCD):
            act()

    node.kubelet.on_stop = stop


def test_another_member_s_trouble_does_not_undo_this_node(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going back would stop this member a second time, when the cluster can miss it least."""
    monkeypatch.setattr(patience, "WHOLE", 0.2)
    when_etcd_stops(node, "old", lambda: one_down(node))
    result = node.run(node.both())
    assert result["outcome"] == "degraded"
    assert result["message"].startswith("the cluster is not whole: member peer1 (2) does not answer")
    node.assert_all("new")
    assert node.etcd.keys[STOP].value == "cp1"
    assert state.read_memory(ETCD, node.state) is not None


def test_the_way_back_does_not_break_quorum(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server fails, and a peer has died meanwhile: our etcd stays, and the old API server comes back."""
    monkeypatch.setattr(patience, "WHOLE", 0.2)
    when_etcd_stops(node, "old", lambda: one_down(node))
    result = node.run(node.order(node.part(ETCD), node.dying_api()))
    assert result["outcome"] == "broken"
    assert "etcd's old manifest is not put back: without member cp1 (1) only 1 of 3 voters are left" in result["message"]
    node.assert_all("new", ETCD)
    node.assert_all("old", API)
    assert node.api_unready() == ""
    # Who does what is printed breaks no quorum either.
    assert f"leave {node.manifests}/etcd.yaml as it is, with the new flags, until that is mended" in result["message"]
    assert f"{node.manifests}/etcd.yaml\n" not in result["message"] and f" {node.manifests}/kube-apiserver.yaml\n" in result["message"]


def test_the_way_back_waits_for_quorum(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WHOLE", 0.2)
    when_etcd_stops(node, "old", lambda: one_down(node))
    at_event(monkeypatch, "cluster", lambda: monkeypatch.setattr(patience, "WHOLE", PATIENT))
    at_event(monkeypatch, "undo", threading.Timer(0.1, lambda: node.etcd.down.clear()).start)
    assert_rolled_back(node, node.run(node.order(node.part(ETCD), node.dying_api())), "does not stay")


def test_the_api_server_comes_back_even_if_etcd_does_not(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "ETCD_READY", 0.2)
    monkeypatch.setattr(Proof, "_etcd_unready", lambda self: "panic")
    result = node.run(node.both())
    assert (result["outcome"], node.etcd.keys[STOP].value) == ("broken", "cp1")
    node.assert_all("old")


def test_an_api_server_that_has_to_be_killed(make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit takes longer than we wait for: the old one comes back, and etcd was never touched."""
    node = make(program=STAYS)
    monkeypatch.setattr(patience, "EXIT", 0.2)
    at_event(monkeypatch, "undo", lambda: monkeypatch.setattr(patience, "EXIT", PATIENT))
    before = processes.find(ETCD, {}, node.proc)
    assert_rolled_back(node, node.run(node.both()), "kube-apiserver has not ended (waited 0.2 s)")
    assert processes.find(ETCD, {}, node.proc) == before
    assert "etcd_in begin" not in node.steps()


def test_a_kubelet_that_does_not_act_leaves_the_node_as_it_was(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "EXIT", 0.2)
    node.kubelet.paused = True
    before = node.processes()
    assert_rolled_back(node, node.run(node.both()), "kube-apiserver has not ended (waited 0.2 s)")
    assert node.processes() == before


def test_a_node_that_cannot_be_brought_back_says_so(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "API_SERVER_READY", 0.5)
    monkeypatch.setattr(node, "api_unready", lambda: "HTTP 500" if "api_out begin" in node.steps() else "")
    result = node.run(node.both())
    assert result["outcome"] == "broken"
    assert "kube-apiserver is not ready: HTTP 500" in result["message"]
    node.assert_all("old")
    assert STOP in node.etcd.keys
    Journal(node.state).finish(node.both(), result)
    for component, part in ((ETCD, node.part(ETCD)), (API, node.part(API))):
        saved = node.state / "history" / node.both().id / "before" / f"{component}.yaml"
        assert f"cp --preserve=mode {saved} {node.manifests}/{component}.yaml" in result["message"]
        assert (saved.read_text(), saved.stat().st_mode & 0o777) == (part.old, 0o600)


# --- the watch ------------------------------------------------------------------------------------------------


def test_processes_that_stay_end_the_watch(node: Node) -> None:
    result = node.run(node.both(watch_seconds=0.1))
    assert (result["outcome"], node.steps()) == ("changed", [*FORWARD, "watch begin", "watch done"])
    node.assert_all("new")


@pytest.mark.parametrize("component", [ETCD, API])
def test_a_process_that_ends_soon_after_it_was_ready_goes_back(
    node: Node, monkeypatch: pytest.MonkeyPatch, component: str
) -> None:
    at_event(monkeypatch, "watch", lambda: os.kill(processes.find(component, {}, node.proc)[0].pid, signal.SIGKILL))
    result = node.run(node.both(watch_seconds=PATIENT))
    assert_rolled_back(node, result, f"{component} was ready, and has ended by itself soon after")
    assert state.read_memory(component, node.state) is None


def test_a_process_that_stays_and_is_not_ready_any_more_goes_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "API_SERVER_PATIENCE", 0.2)
    at_event(monkeypatch, "watch", lambda: setattr(node, "api_unready_with", "new"))
    assert_rolled_back(node, node.run(node.both(watch_seconds=0.05)), "kube-apiserver was ready, and is not any more")


@pytest.mark.parametrize("reboots", [False, True])
def test_a_watch_that_was_cut_off_goes_on_for_the_rest_of_its_time(node: Node, reboots: bool) -> None:
    order = node.both(watch_seconds=0.2)
    assert cut_off(node, order, len(FORWARD) + 1, before=False)
    if reboots:
        node.kubelet.reboot()
    assert_done(node, order, finish(node, order))


@pytest.mark.parametrize("shift", [-3600, 3600])
def test_a_clock_that_jumps_ends_no_watch_of_a_window_that_goes_on(node: Node, monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    now = time.time
    at_event(monkeypatch, "watch", lambda: monkeypatch.setattr(time, "time", lambda: now() + shift))
    began = time.monotonic()
    assert node.run(node.both(watch_seconds=0.3))["outcome"] == "changed"
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("shift", [-3600, 3600])
def test_a_watch_that_was_cut_off_lasts_its_time_at_most_after_a_jump(node: Node, monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    order = node.both(watch_seconds=0.2)
    assert cut_off(node, order, len(FORWARD) + 1, before=False)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + shift)
    assert_done(node, order, finish(node, order))


def test_what_is_waited_for_grows_with_the_database(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated members have 1 MiB each, too much for kubeadm's startup budget at this rate."""
    monkeypatch.setattr(patience, "API_SERVER_READY", 0)
    monkeypatch.setattr(timing, "STARTUP_STEPS", (240, 241))
    monkeypatch.setitem(timing.STARTUP_RATE, API, 2**12)
    at_event(monkeypatch, "undo", lambda: monkeypatch.setattr(patience, "API_SERVER_READY", PATIENT))
    node.api_unready_with = "new"
    assert_rolled_back(node, node.run(node.both()), "kube-apiserver is not ready: HTTP 500: [-]etcd failed (waited 1 s)")


def test_an_exception_that_nobody_expected_is_undone_too(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def unready() -> str:
        if "--tuning=new" in node.kubelet.command(API):
            raise ValueError("not what we thought")
        return ""

    monkeypatch.setattr(node, "api_unready", unready)
    assert_rolled_back(node, node.run(node.both()), "ValueError: not what we thought")


def test_a_first_start_that_fails_leaves_no_manifest(make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch, "API_SERVER_READY")
    node = make(members=1, parts=())
    node.api_unready_with = "new"
    result = node.run(node.order(node.part(ETCD, old=None), node.part(API, old=None), bootstraps=True))
    assert result["outcome"] == "rolled_back"
    assert node.manifest_texts() == {} and node.running(ETCD) == node.running(API) == []


def test_other_hosts_cannot_be_told_without_quorum(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch, "API_SERVER_READY")
    node.api_unready_with = "new"

    def lose_quorum(call: str) -> None:
        if call == "put" and "kube-apiserver_back done" in node.steps():
            node.etcd.down = {"peer1", "peer2"}

    client = MemoryClient(node.etcd)
    client.on_call = lambda call: lose_quorum("put") if call == "grant_lease" else None
    journal = Journal(node.state)
    journal.begin(node.both())
    result = node.window(journal, client).run()
    assert result["outcome"] == "rolled_back"
    assert any("could not be told" in event["text"] for event in journal.events())


# --- what may happen between the plan and the stop ----------------------------------------------------------------


def test_a_manifest_that_was_changed_since_the_plan_is_left_alone(node: Node) -> None:
    order = node.both()
    node.kubelet.paused = True  # a restart of etcd would be another reason
    (node.manifests / "etcd.yaml").write_text(manifest(node.argv(ETCD, "upgraded")))
    result = node.run(order)
    assert result["outcome"] == "refused"
    assert "etcd.yaml has been changed since the plan" in result["message"]
    assert "upgraded" in (node.manifests / "etcd.yaml").read_text()


def test_a_manifest_that_is_changed_in_the_middle_is_left_alone_too(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    upgraded = manifest(node.argv(ETCD, "upgraded"))
    at_event(monkeypatch, "api_out", lambda: (node.manifests / "etcd.yaml").write_text(upgraded) and None)
    result = node.run(node.both())
    assert result["outcome"] == "broken"
    assert "etcd.yaml was changed by somebody else meanwhile" in result["message"]
    assert (node.manifests / "etcd.yaml").read_text() == upgraded
    assert (node.manifests / "kube-apiserver.yaml").read_text() == node.both().kube_apiserver.old


def test_the_way_back_waits_for_no_api_server_whose_etcd_is_gone(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody writes garbage into etcd's manifest meanwhile: a person hears of it now, not after the API server's five minutes."""
    garbage = manifest(["no-etcd", "-c", DIES])
    at_event(monkeypatch, "api_out", lambda: (node.manifests / "etcd.yaml").write_text(garbage) and None)
    waited: list[object] = []
    monkeypatch.setattr(pod.Pod, "wait_new", lambda *arguments: waited.append(arguments))
    result = node.run(node.both())
    assert result["outcome"] == "broken"
    assert "etcd.yaml was changed by somebody else meanwhile" in result["message"]
    assert node.manifest_texts() == {ETCD: garbage, API: node.both().kube_apiserver.old}
    assert waited == []


def test_a_member_that_goes_away_after_the_gate_keeps_ours_running(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    before = processes.find(ETCD, {}, node.proc)
    monkeypatch.setattr(patience, "WHOLE", 0.3)
    at_event(monkeypatch, "api_out", lambda: node.etcd.down.add("peer1"))
    at_event(monkeypatch, "undo", node.etcd.down.clear)
    assert_rolled_back(node, node.run(node.both()), "etcd is not stopped: member peer1")
    assert processes.find(ETCD, {}, node.proc) == before


def test_an_alarm_of_the_cluster_is_no_reason_to_undo(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WHOLE", 0.3)
    at_event(monkeypatch, "etcd_in", lambda: setattr(node.etcd, "alarms", ("memberID:1 alarm:NOSPACE",)))
    result = node.run(node.both())
    assert result["outcome"] == "degraded"
    assert "NOSPACE" in result["message"]
    node.assert_all("new")


def test_an_api_server_whose_health_cannot_be_seen_is_not_touched(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "API_SERVER_PATIENCE", 0.2)
    monkeypatch.setattr(node, "api_unready", lambda: "certificate verify failed")
    assert_untouched(node, node.both(), "kube-apiserver is not ready: certificate verify failed")


def test_a_journal_that_cannot_be_written_does_not_keep_the_old_manifests_away(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk of the state directory is full from the moment that the API server is out."""
    real = open

    def full(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if str(path).endswith("journal.jsonl") and mode == "a+b":
            raise OSError(28, "No space left on device")
        return real(path, mode, *rest, **named)

    at_event(monkeypatch, "api_out", lambda: monkeypatch.setattr("builtins.open", full))
    result = node.run(node.both())
    assert result["outcome"] == "rolled_back", result
    assert "No space left on device" in result["message"]
    node.assert_all("old")


def test_what_was_undone_on_a_full_disk_stays_undone(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the way back could be said, and the order stays: the next process finds the way back marked all the same."""
    real = open

    def full(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if str(path).endswith("journal.jsonl") and mode == "a+b":
            raise OSError(28, "No space left on device")
        return real(path, mode, *rest, **named)

    with monkeypatch.context() as patched:
        at_event(patched, "etcd_in", lambda: patched.setattr("builtins.open", full))
        assert node.run(node.both())["outcome"] == "rolled_back"
    assert "undo begin" not in node.steps()
    assert_rolled_back(node, finish(node, node.both()), "the disk was too full to say why")
    # Nothing of it is left for the next window.
    another = node.both(id="2", run_id="run-2")
    assert finish(node, another)["outcome"] == "changed"
    node.assert_all("new")


def test_the_way_back_needs_no_space_beside_the_manifests(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both texts are staged before the first step: later writes into the manifests directory may fail."""

    def full(path: Path, data: bytes, mode: int = 0o600) -> None:
        if path.parent == node.manifests:
            raise OSError(28, "No space left on device")
        state.write_atomically(path, data, mode)

    at_event(monkeypatch, "api_out", lambda: monkeypatch.setattr(pod, "write_atomically", full))
    order = node.order(node.part(ETCD), node.dying_api())
    assert_rolled_back(node, node.run(order), "kube-apiserver was started 3 times")
    assert sorted(path.name for path in node.manifests.iterdir()) == ["etcd.yaml", "kube-apiserver.yaml"]


def test_a_directory_that_becomes_read_only_before_the_first_step_is_undone(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the staged texts can be removed then; the next window writes them anew."""
    real = Path.unlink

    def read_only(path: Path, missing_ok: bool = False) -> None:
        if path.parent == node.manifests:
            raise PermissionError(1, "Operation not permitted", str(path))
        real(path, missing_ok=missing_ok)

    at_event(monkeypatch, "api_out", lambda: monkeypatch.setattr(Path, "unlink", read_only))
    result = node.run(node.both())
    assert result["outcome"] == "rolled_back", result
    assert "Operation not permitted" in result["message"]
    monkeypatch.undo()
    for path in node.manifests.glob(".*"):
        path.unlink()
    node.assert_all("old")


def test_a_full_disk_is_found_before_anything_is_touched(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FREE_BYTES", 2**62)
    assert_untouched(node, node.both(), "is full: make room")
