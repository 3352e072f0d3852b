# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back to a recorded state: from what finished windows left on the disk to the order that puts it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window import history
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.journal import Journal
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.order import Order
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod import recorded
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.node import Request, plan_node
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _static_pods

from tests.unit.hosts import Host

ETCD, API = "etcd", "kube-apiserver"


def requests(**flags: Any) -> dict[str, Request]:
    """Both parts with only the flags that are given; names with underscores."""
    named = {name.replace("_", "-"): value for name, value in flags.items()}
    etcd = {name: value for name, value in named.items() if name.startswith("max-wals")}
    api = {name: value for name, value in named.items() if name not in etcd}
    return {ETCD: Request(profile="upstream", flags=etcd), API: Request(profile="upstream", flags=api)}


class Node:
    """A host whose windows go well: each run's order is put into its history, as its unit does, and its facts follow."""

    def __init__(self, state: Path) -> None:
        self.host, self.state = Host(), state
        self.number = 0

    def site(self, run_id: str, wanted: dict[str, Request], outcome: str = "changed") -> Order:
        self.number += 1
        plan = plan_node(wanted, self.host.facts, self.host.pods)
        assert not plan.problems
        order = _static_pods.make_order(plan, wanted, self.host.facts, run_id)
        assert order
        order = Order.from_dict({**order.to_dict(), "id": f"20261124T10000{self.number}Z-00000000"})
        journal = Journal(self.state)
        journal.begin(order)
        journal.finish(order, {"outcome": outcome})
        if outcome == "changed":
            self.take_up(order)
        return order

    def take_up(self, order: Order) -> None:
        for component, part in ((ETCD, order.etcd), (API, order.kube_apiserver)):
            if part and part.changes and part.new:
                self.host.write(f"{component}.yaml", part.new)
                self.host.facts["processes"][component][0]["argv"] = list(part.argv)
                self.host.facts["memory"][component] = part.memory

    def states(self) -> list[dict[str, Any]]:
        return history.states(self.state)

    def back(self, window: str) -> Order | None:
        wanted = _static_pods.requests_for(self.states(), window, {})
        plan = plan_node(wanted, self.host.facts, self.host.pods)
        if plan.problems:
            raise KubetuneError("; ".join(plan.problems))
        return _static_pods.make_order(plan, wanted, self.host.facts, "back")

    def texts(self) -> dict[str, str]:
        return {name: file["text"] for name, file in self.host.facts["manifests"].items()}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_each_earlier_state_comes_back_as_it_was(node: Node) -> None:
    states = [(node.texts(), dict(node.host.facts["memory"]))]
    windows = []
    for number, flags in enumerate(({"max_wals": 6}, {"max_wals": 7, "event_ttl": "2h"}, {"event_ttl": "3h"})):
        windows.append(node.site(f"run-{number}", requests(**flags)).id)
        states.append((node.texts(), dict(node.host.facts["memory"])))
    assert [state["id"] for state in node.states()] == windows
    for window, (texts, memory) in reversed(list(zip(windows, states))):
        order = node.back(window)
        assert order
        node.take_up(order)
        assert node.texts() == texts
        assert node.host.facts["memory"] == memory
        assert node.back(window) is None, "it is there already"


def test_a_state_may_lie_behind_several_windows(node: Node) -> None:
    first = node.texts()
    window = node.site("run-1", requests(max_wals=6)).id
    node.site("run-2", requests(max_wals=6, event_ttl="2h"))
    node.site("run-3", requests(max_wals=8, event_ttl="2h"))
    order = node.back(window)
    assert order
    node.take_up(order)
    assert node.texts() == first


def test_the_windows_of_another_host_have_the_same_order(node: Node) -> None:
    window = node.site("run-1", requests(max_wals=6)).id
    assert node.back("20261124T100009Z-ffffffff") is None, "nothing was changed here since"
    earlier, own = node.back("20261124T090000Z-ffffffff"), node.back(window)
    assert earlier and own and earlier.etcd == own.etcd


def test_what_comes_back_is_reported_setting_by_setting(node: Node) -> None:
    window = node.site("run-1", requests(max_wals=6, event_ttl="2h")).id
    plan = plan_node(_static_pods.requests_for(node.states(), window, {}), node.host.facts, node.host.pods)
    lines = {(line["item"], line["verdict"], line["value"], line["previous"]) for line in plan.report}
    assert lines == {("etcd --max-wals", "restored", None, "6"), ("kube-apiserver --event-ttl", "restored", None, "2h")}


def test_the_list_tells_how_each_state_differs_from_now(node: Node) -> None:
    node.site("run-1", requests(max_wals=6))
    node.site("run-2", requests(max_wals=7), outcome="rolled_back")
    node.site("run-3", requests(max_wals=8))
    plan = plan_node({}, node.host.facts, node.host.pods)
    found = _static_pods.describe_states(node.states(), plan.live)
    assert [(state["run_id"], state["differences"]) for state in found] == [
        ("run-1", ["etcd --max-wals: 8 now, not set then"]), ("run-3", ["etcd --max-wals: 8 now, 6 then"]),
    ]


def edit(node: Node, component: str, old: str, new: str) -> None:
    text = node.host.facts["manifests"][f"{component}.yaml"]["text"]
    assert old in text
    node.host.write(f"{component}.yaml", text.replace(old, new))
    argv = node.host.facts["processes"][component][0]["argv"]
    node.host.facts["processes"][component][0]["argv"] = [word.replace(old, new) for word in argv]


@pytest.mark.parametrize(
    ("component", "old", "new", "text"),
    [
        (ETCD, "registry.k8s.io/etcd:3.6.8-0", "registry.k8s.io/etcd:3.7.3-0", "an upgrade is not undone by its old manifest"),
        (ETCD, "--data-dir=/var/lib/etcd", "--data-dir=/var/lib/etcd2", "etcd --data-dir: /var/lib/etcd2 is there"),
        (API, "--secure-port=6443", "--secure-port=8443", "kube-apiserver --secure-port: 8443 is there"),
    ],
)
def test_an_upgrade_and_a_move_are_not_undone_blindly(node: Node, component: str, old: str, new: str, text: str) -> None:
    window = node.site("run-1", requests(max_wals=6, event_ttl="2h")).id
    edit(node, component, old, new)
    with pytest.raises(KubetuneError, match=text):
        node.back(window)
    plan = plan_node({}, node.host.facts, node.host.pods)
    (state,) = _static_pods.describe_states(node.states(), plan.live)
    assert any(line.startswith("cannot go back: ") and text in line for line in state["differences"])


def test_other_rules_hold_on_the_way_back_too(node: Node) -> None:
    """The old quota is below the database by now."""
    wanted = {ETCD: Request(profile="upstream", flags={"quota-backend-bytes": 2**33})}
    window = node.site("run-1", wanted).id
    node.host.facts["cluster"]["database_bytes"] = 3 * 2**30
    with pytest.raises(KubetuneError, match="is not above the database's"):
        node.back(window)


@pytest.mark.parametrize(
    ("target", "window"),
    [("latest", "20261124T100003Z-a"), ("run-2", "20261124T100003Z-a"), ("run-1", "20261124T100001Z-b"), ("20261124T100002Z-c", "20261124T100002Z-c")],
)
def test_a_run_begins_with_its_first_window_on_any_host(target: str, window: str) -> None:
    states = [
        {"id": "20261124T100003Z-a", "run_id": "run-2"}, {"id": "20261124T100001Z-b", "run_id": "run-1"},
        {"id": "20261124T100002Z-c", "run_id": "run-1"}, {"id": "20261124T100004Z-d", "run_id": "run-2"},
    ]
    assert recorded.window_of(states, target) == window


@pytest.mark.parametrize(("states", "text"), [([], "no window has changed"), ([{"id": "1", "run_id": "run-1"}], "the runs run-1")])
def test_a_name_that_nobody_knows(states: list[dict[str, str]], text: str) -> None:
    with pytest.raises(KubetuneError, match=text):
        recorded.window_of(states, "run-9")


def test_a_damaged_record_is_named(node: Node) -> None:
    window = node.site("run-1", requests(max_wals=6)).id
    (node.state / "history" / window / "order.json").write_text("{")
    with pytest.raises(KubetuneError, match=f"history/{window}/order.json is damaged"):
        node.states()


def test_a_window_whose_end_was_cut_off_is_no_state_yet(node: Node) -> None:
    window = node.site("run-1", requests(max_wals=6)).id
    (node.state / "history" / window / "result.json").unlink()
    assert node.states() == []


def test_nothing_in_the_history_is_for_others(node: Node) -> None:
    window = node.site("run-1", requests(max_wals=6)).id
    for path in (node.state / "history" / window).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert json.loads((node.state / "history" / window / "order.json").read_text())["etcd"]["old_memory"] is None
