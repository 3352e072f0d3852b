# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action does about another host's window. tests/faults has two real controllers."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.action import static_pods
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window import patience

AWAY = {"problems": ["member cp2 does not answer: connection refused"], "changing": {"host": "cp2", "purpose": "a change of static pods"}}
WHOLE: dict[str, Any] = {"problems": [], "changing": None}


class Action(static_pods.ActionModule):
    """The action on a host whose facts change from look to look; the last ones stay."""

    def __init__(self, *looks: dict[str, Any], unfinished: Any = None) -> None:
        self._host, self.looks, self.unfinished = "cp1", list(looks), unfinished

    def _module(self, name: str, **arguments: Any) -> dict[str, Any]:
        assert name == static_pods.INFO
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return {"facts": {"cluster": look, "unfinished": self.unfinished}}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(static_pods.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(static_pods.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_the_window_of_another_host_is_waited_for(clock: list[float]) -> None:
    assert Action(AWAY, AWAY, {**WHOLE, "changing": AWAY["changing"]})._look({})["cluster"]["problems"] == []
    assert clock[0] == 2 * patience.LOCK_PAUSE


@pytest.mark.parametrize(
    "found",
    [{**AWAY, "changing": None}, None, WHOLE],
    ids=["nobody's window", "no etcd", "whole"],
)
def test_nothing_else_is_waited_for(clock: list[float], found: dict[str, Any] | None) -> None:
    assert Action(found, WHOLE)._look({})["cluster"] == found
    assert clock[0] == 0


def test_the_own_window_is_ended_and_not_waited_for(clock: list[float]) -> None:
    assert Action(AWAY, WHOLE, unfinished={"id": "cp1-1"})._look({})["cluster"] == AWAY
    assert clock[0] == 0


def test_the_wait_ends(clock: list[float]) -> None:
    assert Action(AWAY)._look({})["cluster"] == AWAY
    assert patience.LOCK_WAIT < clock[0] <= patience.LOCK_WAIT + 2 * patience.LOCK_PAUSE
