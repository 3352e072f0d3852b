# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node window on the disk: its order, its journal, and the command which takes them up."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._node import state
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window import cli
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.journal import Journal, follow
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.order import KEEP, Order

from tests.unit.module_utils.window_node import (  # fixtures too
    API, ETCD, Node, hurry, make, node,
)  # fmt: skip


# --- the order ------------------------------------------------------------------------------------------------


def test_an_order_survives_the_disk(node: Node) -> None:
    for order in (
        node.both(allow_downtime=True, api_server={"advertise-address": ["10.0.0.1"]}),
        node.order(node.part(ETCD, new=None)),
        node.order(api=node.part(API, old=None), bootstraps=True),
    ):
        assert Order.from_dict(json.loads(json.dumps(order.to_dict()))) == order
    assert not node.part(API, new="old").changes


# --- the journal ----------------------------------------------------------------------------------------------


def test_an_event_is_on_the_disk_when_say_returns(node: Node) -> None:
    journal = Journal(node.state)
    journal.begin(node.both())
    journal.say("etcd_in", "begin", "text", old=[[1, 2]])
    journal.say("etcd_in", "done")
    another = Journal(node.state)
    assert another.order() == node.both()
    assert [(event["step"], event["state"], event["text"]) for event in another.events()] == [
        ("etcd_in", "begin", "text"), ("etcd_in", "done", ""),
    ]
    assert another.reached("etcd_in")["old"] == [[1, 2]]
    assert another.reached("etcd_in", "done") and not another.reached("cluster", "done")
    for path in (node.state / "window").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("torn", [b'{"time": 1, "step": "gate", "st', b"{", b"\0\0\0\0\0", b'{"step": "\xc3'])
def test_a_torn_line_is_forgotten_and_hides_nothing_that_follows(node: Node, torn: bytes) -> None:
    journal = Journal(node.state)
    journal.begin(node.both())
    journal.say("gate", "begin")
    with open(node.state / "window/journal.jsonl", "ab") as stream:
        stream.write(torn)
    assert node.steps() == ["gate begin"]
    journal.say("gate", "done")
    journal.say("api_out", "begin")
    assert node.steps() == ["gate begin", "gate done", "api_out begin"]
    assert journal.reached("gate", "done")


def test_a_new_order_does_not_inherit_events(node: Node) -> None:
    journal = Journal(node.state)
    journal.begin(node.both())
    journal.say("gate", "done")
    with pytest.raises(KubetuneError, match="open on this host already"):
        journal.begin(node.both(id="2"))
    assert [event["step"] for event in journal.events()] == ["gate"]
    (node.state / "window" / "pending.json").unlink()  # its end was cut off before the events went, too
    journal.begin(node.both(id="2"))
    assert journal.events() == []


def test_following_a_window_from_outside(node: Node) -> None:
    journal, order = Journal(node.state), node.both()
    journal.begin(order)
    journal.say("gate", "begin")
    journal.say("gate", "done")
    events, result = follow(order.id, 1, node.state)
    assert ([event["state"] for event in events], result) == (["done"], None)
    journal.finish(order, {"outcome": "changed"})
    events, result = follow(order.id, 0, node.state)
    assert ([event["state"] for event in events], result) == (["begin", "done"], {"outcome": "changed"})
    assert follow(order.id, 2, node.state) == ([], {"outcome": "changed"})
    assert Journal(node.state).order() is None and Journal(node.state).events() == []
    history = node.state / "history" / order.id
    assert Order.from_dict(json.loads((history / "order.json").read_text())) == order


def test_only_the_newest_windows_are_kept(node: Node) -> None:
    journal = Journal(node.state)
    for number in range(KEEP + 3):
        order = node.both(id=f"window-{number:02}")
        journal.begin(order)
        journal.finish(order, {"outcome": "refused"})
        os.utime(node.state / "history" / order.id, (number, number))
    assert sorted(path.name for path in (node.state / "history").iterdir()) == [f"window-{n:02}" for n in range(3, KEEP + 3)]


def test_a_window_never_prunes_itself(node: Node) -> None:
    """A controller whose clock is behind gives it a name that is older than those which are kept."""
    journal = Journal(node.state)
    for window in ("20261124T120000Z-1", "20261124T110000Z-2"):
        order = node.both(id=window, keep=1)
        journal.begin(order)
        journal.finish(order, {"outcome": "refused"})
        assert [path.name for path in (node.state / "history").iterdir()] == [window]


# --- the command ----------------------------------------------------------------------------------------------


LOST = {"ca_file": "/nowhere/ca.crt", "cert_file": "/nowhere/a.crt", "key_file": "/nowhere/a.key"}


def test_the_command_has_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run"], tmp_path / "state") == 0
    assert cli.main([], tmp_path / "state") == 2
    assert "usage: kubetune.pyz window run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("access", "text"),
    [
        ({"ca_file": "", "cert_file": "", "key_file": ""}, "does not answer /v3/lease/grant: [Errno 111] Connection refused"),
        (LOST, "cannot use the etcd client certificate /nowhere/a.crt"),
    ],
)
def test_the_command_writes_its_verdict_down(node: Node, access: dict[str, str], text: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        order = node.both(etcd_access={"endpoints": [f"http://127.0.0.1:{closed.getsockname()[1]}"], **access})
        Journal(node.state).begin(order)
        assert cli.main(["run"], node.state) == 1
    _events, result = follow(order.id, 0, node.state)
    assert result["outcome"] == "refused" and text in result["message"]
    assert state.read_unfinished(node.state) is None
    node.assert_all("old")
    assert cli.main(["run"], node.state) == 0


def test_an_order_whose_gate_is_passed_stays_until_it_can_be_carried_out(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    order = node.both(etcd_access={"endpoints": ["https://127.0.0.1:1"], **LOST})
    journal = Journal(node.state)
    journal.begin(order)
    journal.say("gate", "done")
    assert cli.main(["run"], node.state) == 1
    assert "cannot use the etcd client certificate /nowhere/a.crt" in capsys.readouterr().err
    assert journal.order() == order


def test_a_result_that_was_not_cleared_up_stands(node: Node) -> None:
    order = node.both()
    journal = Journal(node.state)
    journal.begin(order)
    journal.say("gate", "done")
    journal.finish(order, {"outcome": "rolled_back", "message": "x"})
    state.write_atomically(node.state / "window/pending.json", json.dumps(order.to_dict()).encode())
    assert cli.main(["run"], node.state) == 1
    assert journal.order() is None
    assert follow(order.id, 0, node.state)[1] == {"outcome": "rolled_back", "message": "x"}
    node.assert_all("old")


def test_a_damaged_order_is_not_guessed_at(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    Journal(node.state).begin(node.both())
    (node.state / "window/pending.json").write_text("{")
    assert cli.main(["run"], node.state) == 1
    assert "pending.json is damaged" in capsys.readouterr().err
