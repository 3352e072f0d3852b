# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node window that is cut off anywhere, by a kill or by a reboot, and taken up again from its journal."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._node import processes, state
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window import patience, pod
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.proof import Proof
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.window import Window

from tests.unit.module_utils.node_simulator import manifest
from tests.unit.module_utils.window_node import (  # fixtures too
    API, ETCD, FORWARD, LOCK, Killed, Node, assert_done, assert_rolled_back, at_event, cut_off, finish, hurry,
    impatient, make, node, scenario,
)  # fmt: skip


# --- cut off --------------------------------------------------------------------------------------------------


SCENARIOS = {
    "both": FORWARD,
    "both on the leader": [*FORWARD, "leader begin", "leader done"],
    "etcd alone": FORWARD,
    "resources": FORWARD,
    "API server alone": ["gate begin", "gate done", "api_out begin", "api_out done", "kube-apiserver_in begin", "kube-apiserver_in done"],
}


@pytest.mark.parametrize(
    ("name", "before", "reboots"),
    [
        ("both", True, False), ("both", False, False), ("both", True, True), ("both", False, True),
        ("both on the leader", False, False), ("both on the leader", True, True),
        ("etcd alone", True, False), ("etcd alone", False, True),
        ("resources", True, False), ("resources", False, False), ("resources", False, True), ("resources", True, True),
        ("API server alone", True, False), ("API server alone", False, False), ("API server alone", False, True),
    ],
)
def test_cut_off_at_any_event_it_goes_forward(make: Callable[..., Node], name: str, before: bool, reboots: bool) -> None:
    for cut in range(1, len(SCENARIOS[name]) + 1):
        node = make()
        order = scenario(node, name)
        assert cut_off(node, order, cut, before)
        if reboots:
            node.kubelet.reboot()
        assert_done(node, order, finish(node, order))
        node.kubelet.close()
    node = make()
    order = scenario(node, name)
    assert not cut_off(node, order, len(SCENARIOS[name]) + 1, before), "there are more events than this test cuts at"


BACK = [
    *FORWARD[:-1], "undo begin", "api_out begin", "api_out done", "etcd_back begin", "etcd_back done", "cluster done",
    "kube-apiserver_back begin", "kube-apiserver_back done",
]


@pytest.mark.parametrize(("before", "reboots"), [(True, False), (False, False), (False, True)])
def test_cut_off_at_any_event_it_goes_back(make: Callable[..., Node], before: bool, reboots: bool) -> None:
    """The new API server dies: whenever the window is cut off, the old manifests are what is left."""
    for cut in range(1, len(BACK) + 1):
        node = make()
        order = node.order(node.part(ETCD), node.dying_api())
        assert cut_off(node, order, cut, before)
        if reboots:
            node.kubelet.reboot()
        assert_rolled_back(node, finish(node, order), "kube-apiserver was started 3 times")
        assert state.read_unfinished(node.state) is None
        node.kubelet.close()
    node = make()
    assert not cut_off(node, node.order(node.part(ETCD), node.dying_api()), len(BACK) + 1, before)
    assert node.steps() == BACK


def test_once_on_the_way_back_it_stays_there(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch, "API_SERVER_READY")
    node.api_unready_with = "new"
    assert cut_off(node, node.both(), BACK.index("undo begin") + 1, before=False)
    node.api_unready_with = "now it would be ready"
    assert_rolled_back(node, finish(node, node.both()), "kube-apiserver is not ready")


def test_what_was_proved_is_not_stopped_again(node: Node) -> None:
    assert cut_off(node, node.both(), len(FORWARD), before=False)
    before = node.processes()
    assert_done(node, node.both(), finish(node, node.both()))
    assert node.processes() == before


def test_what_a_reboot_started_from_the_old_manifest_is_not_the_new_process(node: Node) -> None:
    """Its arguments are the planned ones, and it is not one that ran when the step began."""
    order = scenario(node, "resources")
    assert cut_off(node, order, FORWARD.index("etcd_in begin") + 1, before=False)
    node.kubelet.reboot()
    node.kubelet.paused = True
    resume = threading.Timer(0.2, lambda: setattr(node.kubelet, "paused", False))
    resume.start()
    assert_done(node, order, finish(node, order))


def test_what_was_put_back_is_proved_also_after_a_cut(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    order = node.order(node.part(ETCD), node.dying_api())
    assert cut_off(node, order, BACK.index("etcd_back done") + 1, before=True)
    monkeypatch.setattr(patience, "ETCD_READY", 0.2)
    monkeypatch.setattr(Proof, "_etcd_unready", lambda self: "panic")
    result = finish(node, order)
    assert result["outcome"] == "broken" and "etcd is not ready: panic" in result["message"]


def test_what_was_put_back_and_not_taken_up_is_not_called_done_after_a_cut(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet does not act: the old manifest is there, and the new process runs on."""
    order = scenario(node, "API server alone")
    impatient(monkeypatch, "API_SERVER_READY")
    node.api_unready_with = "new"
    at_event(monkeypatch, "kube-apiserver_back", lambda: (setattr(node.kubelet, "paused", True), monkeypatch.setattr(patience, "EXIT", 0.2)))

    def killed(*_arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(pod.Pod, "wait_gone", lambda self, old, seconds: killed() if self.component == API and self.text() == self.part.old else None)
        with pytest.raises(Killed):
            node.run(order)
    result = node.run(order)
    assert result["outcome"] == "broken" and "kube-apiserver" in result["message"], result


def test_a_reboot_after_the_proof_gives_etcd_the_time_of_a_start(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    order = node.both()
    assert cut_off(node, order, FORWARD.index("etcd_in done") + 1, before=False)
    node.kubelet.paused = True
    node.kubelet.power_off()
    monkeypatch.setattr(patience, "WHOLE", 0.2)
    threading.Timer(1.0, lambda: setattr(node.kubelet, "paused", False)).start()
    assert_done(node, order, finish(node, order))


@pytest.mark.parametrize("step", ["gate done", "api_out begin", "api_out done", "etcd_out done", "etcd_in begin"])
def test_a_kubelet_that_was_started_anew_ends_no_etcd(node: Node, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """It has not heard from its API server, and would start none until then: what has not left yet stays."""
    assert cut_off(node, node.both(), FORWARD.index(step) + 1, before=False)
    monkeypatch.setattr(Window, "_kubelet", lambda self: [["the next boot", 1, 100]])
    before = processes.find(ETCD, {}, node.proc)
    if step.startswith("etcd"):
        assert_done(node, node.both(), finish(node, node.both()))
    else:
        assert_rolled_back(node, finish(node, node.both()), "the kubelet has ended or was started anew since the gate")
        assert processes.find(ETCD, {}, node.proc) == before


def test_after_a_reboot_the_way_back_waits_for_an_etcd_that_was_not_touched(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cut_off(node, node.both(), FORWARD.index("api_out done") + 1, before=False)
    monkeypatch.setattr(Window, "_kubelet", lambda self: [["the next boot", 1, 100]])
    node.kubelet.paused = True
    node.kubelet.power_off()
    threading.Timer(1.0, lambda: setattr(node.kubelet, "paused", False)).start()
    assert_rolled_back(node, finish(node, node.both()), "the kubelet has ended or was started anew since the gate")


def test_a_person_may_have_mended_the_node_meanwhile(node: Node) -> None:
    order = scenario(node, "etcd alone")
    assert cut_off(node, order, FORWARD.index("cluster done") + 1, before=False)
    (node.manifests / "kube-apiserver.yaml").write_text(manifest(node.argv(API, "old")))
    while not node.kubelet.is_up(API):
        time.sleep(0.002)
    assert_done(node, order, finish(node, order))
    assert "kube-apiserver_in begin" not in (node.state / "history" / order.id / "journal.jsonl").read_text()


@pytest.mark.parametrize("dies", [False, True], ids=["forward", "back"])
def test_cut_off_again_and_again(make: Callable[..., Node], dies: bool) -> None:
    chance = random.Random(20261124)
    for _attempt in range(12):
        node = make()
        order = node.order(node.part(ETCD), node.dying_api()) if dies else node.both()
        cuts = [chance.randint(1, 8) for _again in range(3)]
        for cut in cuts:
            cut_off(node, order, cut, chance.random() < 0.5)
            if chance.random() < 0.3:
                node.kubelet.reboot()
        result = finish(node, order)
        if dies:
            assert_rolled_back(node, result, "kube-apiserver was started 3 times")
        else:
            assert_done(node, order, result)
        node.kubelet.close()


def test_cut_off_between_the_file_and_the_process(make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest is written, or half written, and the kubelet has not seen it yet when the node loses power."""
    replace = os.replace
    for manifests_written in (1, 2):
        for half in (True, False):
            node = make()
            writes: list[Path] = []

            def power_cut(source: Path, target: Path) -> None:
                if Path(target).parent == node.manifests:
                    writes.append(target)
                    if len(writes) == manifests_written:
                        node.kubelet.paused = True
                        if not half:
                            replace(source, target)
                        raise Killed
                replace(source, target)

            with monkeypatch.context() as patched:
                patched.setattr(os, "replace", power_cut)
                with pytest.raises(Killed):
                    node.run(node.both())
            node.kubelet.paused = False
            node.kubelet.reboot()
            assert_done(node, node.both(), finish(node, node.both()))


def test_a_window_that_was_cut_off_takes_its_own_lock_over(node: Node) -> None:
    assert cut_off(node, node.both(), FORWARD.index("etcd_in begin") + 1, before=False)
    abandoned = node.etcd.keys[LOCK]
    assert json.loads(abandoned.value)["token"] == node.both().id
    assert_done(node, node.both(), finish(node, node.both()))


def test_a_node_that_was_cut_off_is_mended_even_without_the_lock(node: Node) -> None:
    assert cut_off(node, node.both(), FORWARD.index("etcd_in done") + 1, before=False)
    node.etcd.put(LOCK, json.dumps({"host": "cp2", "token": "another"}))
    result = node.run(node.both())
    assert result["outcome"] == "changed"
    assert "lock failed" in node.steps()
    node.assert_all("new")
    assert json.loads(node.etcd.keys[LOCK].value)["host"] == "cp2"


def test_a_node_that_was_cut_off_before_its_first_step_does_nothing_without_the_lock(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cut_off(node, node.both(), FORWARD.index("gate done") + 1, before=False)
    node.etcd.put(LOCK, json.dumps({"host": "cp2", "token": "another"}))
    monkeypatch.setattr(patience, "LOCK_WAIT", 0.2)
    before = node.processes()
    result = node.run(node.both())
    assert result["outcome"] == "refused" and "cp2" in result["message"]
    assert node.processes() == before
    node.assert_all("old")


def test_an_etcd_that_still_runs_is_not_stopped_without_the_lock(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cut_off(node, node.both(), FORWARD.index("api_out done") + 1, before=False)
    node.etcd.put(LOCK, json.dumps({"host": "cp2", "token": "another"}))
    monkeypatch.setattr(patience, "LOCK_WAIT_CUT_OFF", 0.2)
    before = processes.find(ETCD, {}, node.proc)
    result = node.run(node.both())
    assert result["outcome"] == "rolled_back" and "the cluster lock is somebody else's meanwhile" in result["message"]
    node.assert_all("old")
    assert processes.find(ETCD, {}, node.proc) == before
