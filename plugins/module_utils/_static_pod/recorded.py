# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back to a recorded state: which one a name means, how it differs from now, and what forbids it.

A window's id begins with the controller's time, so that the ids of all hosts have one order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from .._errors import KubetuneError
from .catalogue import Component
from .manifest import RESOURCES, TIMES, Manifest
from .plan import Change, Memory, Plan, item, read, text


@dataclass(frozen=True)
class Recorded:
    """One static pod of a recorded state.

    Attributes:
        id: of the window before which it was like that.
        text: of the manifest; None where there was none.
        pod: the same, parsed.
        memory: what was remembered of it; None for nothing.
    """

    id: str
    text: str | None
    pod: Any
    memory: Mapping[str, Any] | None


def parts_at(states: Sequence[Mapping[str, Any]], window: str) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Component -> (window, record) of what it was before ``window``: the first one from then on that changed it has that.

    Empty where nothing was changed on this host from then on.

    Args:
        states: of `_node_window.history.states`, oldest first.
        window: the id of a window, of this host or another.
    """
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for state in states:
        if state["id"] >= window:
            for component, part in state["parts"].items():
                found.setdefault(component, (state["id"], part))
    return found


def window_of(states: Sequence[Mapping[str, Any]], target: str) -> str:
    """The first window that a name means: ``latest`` (run), or the id of a run or of a window.

    Args:
        states: of all hosts, with ``id`` and ``run_id``.

    Raises:
        KubetuneError: nothing is recorded under that name; the text says what is.
    """
    ordered = sorted(states, key=lambda state: str(state["id"]))
    wanted = ordered[-1]["run_id"] if target == "latest" and ordered else target
    for state in ordered:
        if wanted in (state["id"], state["run_id"]):
            return str(state["id"])
    runs = ", ".join(dict.fromkeys(state["run_id"] for state in reversed(ordered)))
    raise KubetuneError(
        f"no state is recorded under {target!r}: " + (f"there are the runs {runs} (newest first), and their windows: kubetune_rollback_to=list" if runs
        else "no window has changed these hosts yet, or their history is gone")
    )


def differences(component: Component, live: Manifest, then: Manifest) -> list[Change]:
    """Every flag, resource and time that is not the same, as the change which takes it back."""
    has, had = live.flags(), then.flags()
    pairs = [(f"--{name}", has.get(name), had.get(name)) for name in dict.fromkeys([*has, *had])]
    pairs += [(key, read(component, live, key), read(component, then, key)) for key in (*RESOURCES, *TIMES)]
    return [Change(key, now, before, "restore") for key, now, before in pairs if now != before]


def obstacles(component: Component, live: Manifest | None, recorded: Recorded) -> list[str]:
    """Why a static pod cannot simply become what it was; empty when it can."""
    instead = f"set state absent ({component.role}_state) or the variables to take single settings back"
    if recorded.text is None:
        return [f"{component.name}: before window {recorded.id} there was no {component.manifest}: its first start is not undone this way"]
    if live is None:
        return [f"{component.name}: {component.manifest} is missing now: put it there first ({recorded.id} has it in its history)"]
    then = Manifest(recorded.pod, component.name)
    if then.image != live.image:
        return [
            f"{component.name}: before window {recorded.id} it was {then.image}, now it is {live.image}: an upgrade is not undone "
            f"by its old manifest (etcd's data may not allow it); {instead}"
        ]
    moved = [change for change in differences(component, live, then) if change.key[2:] in component.identity]
    return [
        f"{component.name} {change.key}: {text(change.before) or 'nothing'} is there, and before window {recorded.id} it was "
        f"{text(change.after) or 'nothing'}: identity, certificates, paths and the WAL's place are not moved this way; {instead}"
        for change in moved
    ]


def plan(component: Component, live: Manifest, recorded: Recorded, memory: Memory) -> Plan:
    """``live`` becomes what was recorded, as a whole."""
    then = Manifest(recorded.pod, component.name)
    result = Plan(component, then, memory, settings=dict((recorded.memory or {}).get("settings") or {}))
    result.changes = differences(component, live, then)
    for change in result.changes:
        result.say(change.key, "restored", change.after, change.before, f"as before window {recorded.id}")
    if not result.changes and live.pod != then.pod:
        result.say("manifest", "restored", reason=f"other fields, as before window {recorded.id}")
    return result


def describe(component: Component, live: Manifest, recorded: Recorded) -> list[str]:
    """How now differs from then, for a person who chooses."""
    found = obstacles(component, live, recorded)
    if recorded.pod is None or found:
        return [f"cannot go back: {each}" for each in found]
    then = Manifest(recorded.pod, component.name)
    lines = [
        f"{item(component, change.key)}: {text(change.before) or 'not set'} now, {text(change.after) or 'not set'} then"
        for change in differences(component, live, then)
    ]
    return lines or ([f"{component.name}: other fields of the manifest"] if live.pod != then.pod else [])
