# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The defragmentation of a member that is out: wherever its window is cut off, it is done, or the member runs as before."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.client import Member
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.cluster import ClusterView, MemberView
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance import defragmentation, own_window
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.config import Defragmentation
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.rule import Size
from ansible_collections.kubetune.control_plane.plugins.module_utils._node import processes
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window import history
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.journal import Journal
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.order import Offline, Order

from tests.unit.module_utils.window_node import (  # fixtures too
    API, ETCD, STOP, Node, cut_off, finish, hurry, make, node,
)

STEPS = [
    "gate begin", "gate done", "api_out begin", "api_out done", "etcd_out begin", "etcd_out done", "defragment begin", "defragment done",
    "etcd_in begin", "etcd_in done", "cluster done", "kube-apiserver_in begin", "kube-apiserver_in done",
]


def offline(node: Node, program: str = 'printf small > "${2#--data-dir=}/member/snap/db"') -> Order:
    """Nothing changes but the database. The program stands for etcdutl, which needs the member to be out."""
    database = node.path / "etcd/member/snap/db"
    database.parent.mkdir(parents=True, exist_ok=True)
    database.write_text("large" * 100)
    etcdutl = node.path / "etcdutl"
    etcdutl.write_text(f"#!/bin/sh\n[ ! -e {node.manifests}/etcd.yaml ] || exit 9\n{program}\n")
    etcdutl.chmod(0o755)
    etcd = dataclasses.replace(node.part(ETCD, new="old"), restart=True, memory={"schema": 1, "kept": True})
    return node.order(etcd, node.part(API, new="old"), defragmentation=Offline(str(etcdutl), str(node.path / "etcd"), 10))


def database(node: Node) -> str:
    return (node.path / "etcd/member/snap/db").read_text()


def test_the_order_survives_the_disk(node: Node) -> None:
    order = offline(node)
    assert Order.from_dict(json.loads(json.dumps(order.to_dict()))) == order
    assert order.etcd and order.etcd.changes and order.kube_apiserver and not order.kube_apiserver.changes


def test_etcd_and_its_api_server_are_out_meanwhile_and_no_snapshot_is_taken(node: Node) -> None:
    before = node.processes()
    result = node.run(offline(node))
    assert result["outcome"] == "changed", result
    assert node.steps() == STEPS and database(node) == "small"
    node.assert_all("old")
    assert not set(sum(before, [])) & set(sum(node.processes(), []))
    done = Journal(node.state).reached("defragment", "done")
    assert done and (done["before_bytes"], done["after_bytes"]) == (500, 5)


def test_it_is_no_state_to_go_back_to(node: Node) -> None:
    order = offline(node)
    Journal(node.state).begin(order)
    finish(node, order)
    assert history.states(node.state) == []
    assert json.loads((node.state / "applied/etcd.json").read_text())["kept"]


def test_nightly_windows_push_no_state_away(node: Node) -> None:
    changing = dataclasses.replace(node.both(), id="20261120T000000Z-0", keep=2)
    Journal(node.state).begin(changing)
    finish(node, changing)
    node.manifests.joinpath("etcd.yaml").write_text(node.part(ETCD).old or "")
    node.manifests.joinpath("kube-apiserver.yaml").write_text(node.part(API).old or "")
    node.kubelet.sync()
    for day in range(4):
        order = dataclasses.replace(offline(node), id=f"2026112{day + 1}T000000Z-0", keep=2)
        Journal(node.state).begin(order)
        finish(node, order)
    assert sorted(path.name for path in (node.state / "history").iterdir()) == [changing.id, "20261123T000000Z-0", "20261124T000000Z-0"]
    assert [each["id"] for each in history.states(node.state)] == [changing.id]


def test_a_leader_gives_its_place_away_first(node: Node) -> None:
    node.etcd.leader = node.name
    assert node.run(offline(node))["outcome"] == "changed"
    assert node.wrongs == [] and node.etcd.leader != node.name


@pytest.mark.parametrize("program", ["echo 'no space left' >&2; exit 1", "exit 9"])
def test_one_that_fails_leaves_the_member_as_it_was(node: Node, program: str) -> None:
    result = node.run(offline(node, program))
    assert result["outcome"] == "rolled_back" and "etcdutl defrag" in result["message"]
    assert database(node) == "large" * 100
    node.assert_all("old")
    assert node.etcd.keys[STOP].value == "cp1"


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("cut", range(1, len(STEPS) + 1))
def test_wherever_it_is_cut_off_it_comes_to_its_end(node: Node, cut: int, before: bool) -> None:
    order = offline(node)
    assert cut_off(node, order, cut, before)
    result = finish(node, order)
    assert result["outcome"] == "changed", result
    assert database(node) == "small"
    node.assert_all("old")


def test_while_another_member_is_away_nothing_is_touched(node: Node) -> None:
    node.etcd.down.add("peer1")
    result = node.run(offline(node))
    assert result["outcome"] == "refused" and database(node) == "large" * 100
    node.assert_all("old")


# --- the order that the maintenance makes -----------------------------------------------------------------------


@pytest.fixture
def maintained(node: Node, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The context of a maintenance run on that node, with all that a window needs in place."""
    tools_directory = node.path / "tools"
    tools_directory.mkdir()
    (tools_directory / "etcdutl").touch()
    (node.path / "kubetune-window.service").touch()
    monkeypatch.setattr(own_window, "manifests_directory", lambda: node.manifests)
    # These processes have a name for their only flag of their own, and no pod.
    monkeypatch.setattr(own_window, "find", lambda component, _own_flags, proc: processes.find(component, {"name": node.name}, proc))
    monkeypatch.setattr(own_window, "of_static_pod", lambda *_process: True)
    monkeypatch.setattr(own_window, "read_memory", lambda component: {"schema": 1, "component": component})
    monkeypatch.setattr(own_window, "refuse_while_restoring", lambda: None)
    monkeypatch.setattr(own_window.tools, "keep", lambda _ctx: None)
    monkeypatch.setattr(own_window.unit, "PATH", node.path / "kubetune-window.service")
    config = SimpleNamespace(
        tools="auto", tools_directory=str(tools_directory), data_directory=str(node.path / "etcd"), endpoint="https://127.0.0.1:2379",
        ca_file="ca", cert_file="cert", key_file="key", defragmentation=SimpleNamespace(timeout_seconds=600),
    )  # fmt: skip
    return SimpleNamespace(config=config, host="cp1", proc=node.proc)


def cluster(voters: int) -> ClusterView:
    members = [Member(number, f"cp{number}", (), (f"https://cp{number}:2379",), False) for number in range(1, voters + 1)]
    return ClusterView(tuple(MemberView(member, None) for member in members))


def test_the_maintenance_orders_a_restart_of_what_runs(node: Node, maintained: SimpleNamespace) -> None:
    view = cluster(3)
    order = own_window.make_order(maintained, view, view.members[0])
    assert order.etcd and order.kube_apiserver
    assert (order.etcd.restart, order.kube_apiserver.restart) == (True, False)
    for part, component in ((order.etcd, ETCD), (order.kube_apiserver, API)):
        assert part.old == part.new == node.manifest_texts()[component]
        assert list(part.argv) == list(part.old_argv) == node.argv(component, "old")
        assert part.memory == part.old_memory == {"schema": 1, "component": component}
    assert list(order.etcd_access["endpoints"]) == ["https://127.0.0.1:2379", "https://cp2:2379", "https://cp3:2379"]
    assert order.defragmentation == Offline(str(node.path / "tools/etcdutl"), str(node.path / "etcd"), 600)


@pytest.mark.parametrize(
    ("without", "voters", "text"),
    [
        ("kubetune-window.service", 3, "run the playbook maintenance again"),
        ("tools/etcdutl", 3, "which defragments while etcd is out"),
        ("manifests/etcd.yaml", 3, "only a static pod can be defragmented in a window; set method online"),
        ("", 2, "a cluster of 2 voters cannot miss one"),
    ],
)
def test_what_a_window_lacks_is_said_before_it_begins(
    node: Node, maintained: SimpleNamespace, without: str, voters: int, text: str
) -> None:
    if without:
        (node.path / without).unlink()
    view = cluster(voters)
    with pytest.raises(KubetuneError, match=text):
        own_window.make_order(maintained, view, view.members[0])


@pytest.mark.parametrize(
    ("method", "voters", "in_use", "without", "windows"),
    [
        ("auto", 3, 1001, "", True),
        ("auto", 3, 1000, "", False),  # of every member
        ("auto", 5, 1001, "", True),
        ("auto", 2, 1001, "", False),
        ("auto", 1, 1001, "", False),
        ("auto", 3, 1001, "manifests/etcd.yaml", False),
        ("auto", 3, 1001, "kubetune-window.service", False),
        ("window", 1, 1, "", True),  # which then says why it cannot be
        ("online", 3, 1001, "", False),
    ],
)
def test_windows_are_opened_where_they_can_be_and_are_worth_it(
    node: Node, maintained: SimpleNamespace, method: str, voters: int, in_use: int, without: str, windows: bool
) -> None:
    if without:
        (node.path / without).unlink()
    learner = Member(9, "", (), (), True)
    maintained.client = SimpleNamespace(members=lambda linearizable: [learner, *(each.member for each in cluster(voters).members)])
    sizes = {1: Size(5000, 900, 0), 2: Size(5000, in_use, 0)}
    maintained.config.defragmentation = Defragmentation(True, method, 1000, "dbSize > 0", [], 600)
    assert defragmentation.in_windows(maintained, sizes) is windows
    maintained.config.defragmentation = Defragmentation(False, method, 1000, "dbSize > 0", [], 600)
    assert not defragmentation.in_windows(maintained, sizes)
