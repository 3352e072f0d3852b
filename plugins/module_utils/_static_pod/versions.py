# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a component's version makes of the names in an inventory, so that the same one serves before and after an upgrade.

A flag that was renamed is one setting under its present name, however it is written; `Flag.name_in` says what a version
calls it. Booleans that became feature gates, and the other way round, are translated here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Sequence

from .catalogue import Component
from .flags import BadValue, Flag, dotted, gates_of, gates_text
from .plan import Plan, Wish

GATES = "feature-gates"


@dataclass
class Fitted:
    """
    Attributes:
        wanted: what the version can be asked for.
        left_out: setting of the profile -> why the version does not have it.
        problems: what is wrong with explicit settings.
    """

    wanted: dict[str, Wish]
    left_out: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def fit(component: Component, wanted: Mapping[str, Wish], version: tuple[int, ...]) -> Fitted:
    """``wanted`` in the terms of a version; its flags have been parsed before."""
    result = Fitted(dict(wanted))
    if component.flag(GATES).known(version):
        _booleans_to_gates(component, result, version)
    else:
        _gates_to_booleans(component, result, version)
    for key, wish in list(result.wanted.items()):
        flag = component.flag(key[2:]) if key.startswith("--") else None
        if flag is None or flag.known(version):
            continue
        del result.wanted[key]
        if not wish.explicit:
            result.left_out[key] = _absent(component, flag, version)
        elif wish.values is not None:
            result.problems.append(f"{component.name} {key}: {_absent(component, flag, version)}; remove it from {component.role}_flags")
    return result


def outlook(planned: Plan, version: tuple[int, ...]) -> list[str]:
    """Say which flags and gates of the planned manifest the next minor version will not start with; what this one refuses together."""
    component, following = planned.component, (version[0], version[1] + 1)
    flags = planned.manifest.flags()
    gates = _parsed(flags.get(GATES, []))
    for name, values in flags.items():
        flag = component.flag(name)
        gone = flag.lives.get(name, ((), ()))[1]
        if gone and version < gone <= following:
            planned.say(f"--{name}", "warning", values, reason=_gone_next(component, flag, name, gone))
    for gate in gates:
        gone = component.gates_gone.get(gate, ())
        if gone and version < gone <= following:
            planned.say(
                f"--{GATES}", "warning", [f"{gate}={gates[gate]}"],
                reason=f"{component.name} {dotted(gone)} does not know the gate {gate}, which is always on by then, and does not start "
                "with it: take it out of the manifest and of kubeadm-config before the upgrade",
            )
    return [
        f"{component.name} --{GATES}: {flag.gate} and --{flag.name} are both there, and {component.name} refuses that: take "
        f"--{flag.name} out of {component.manifest}, and out of kubeadm-config"
        for flag in component.flags
        if flag.gate in gates and flag.name in flags
    ]


def _booleans_to_gates(component: Component, result: Fitted, version: tuple[int, ...]) -> None:
    """A boolean whose place a gate has taken is asked for as that gate."""
    key = f"--{GATES}"
    asked: dict[str, str] = {}
    given = result.wanted.get(key)
    gates = gates_of(given.values) if given else {}
    for flag in component.flags:
        if not flag.gate or version < flag.gate_since:
            continue
        wish = result.wanted.pop(f"--{flag.name}", None)
        if wish is None or not wish.values:
            continue
        asked.update(gates_of([f"{flag.gate}={wish.values[-1]}"]))
        if gates.get(flag.gate, asked[flag.gate]) != asked[flag.gate]:
            result.problems.append(
                f"{component.name} --{flag.name}: {wish.values[-1]} is given, and {flag.gate}={gates[flag.gate]} in {GATES}, which is the "
                "same setting: give one"
            )
    if asked:
        result.wanted[key] = Wish([gates_text({**asked, **gates})], explicit=True)


def _gates_to_booleans(component: Component, result: Fitted, version: tuple[int, ...]) -> None:
    """A gate is asked for as the boolean that it was; without one it stays to be refused."""
    given = result.wanted.pop(f"--{GATES}", None)
    for gate, value in gates_of(given.values if given else None).items():
        former = next((flag for flag in component.flags if flag.gate == gate), None)
        if former is None:
            result.problems.append(
                f"{component.name} --{GATES}: {component.name} {dotted(version)} has no {gate} yet: take it out of {component.role}_flags "
                "until the upgrade"
            )
            continue
        wish = result.wanted.setdefault(f"--{former.name}", Wish([value], explicit=True))
        if wish.values and not former.same(wish.values[-1], value):
            result.problems.append(
                f"{component.name} --{former.name}: {wish.values[-1]} is given, and {gate}={value} in {GATES}, which is the same setting: "
                "give one"
            )


def _absent(component: Component, flag: Flag, version: tuple[int, ...]) -> str:
    if flag.removed and version >= flag.removed:
        return f"it is gone since {component.name} {dotted(flag.removed)}" + (f": {flag.instead}" if flag.instead else "")
    return f"{component.name} {dotted(version)} does not have it yet, but {dotted(flag.since)} and later do"


def _gone_next(component: Component, flag: Flag, name: str, gone: tuple[int, ...]) -> str:
    variable = f"{component.role}_flags"
    if name == flag.formerly:
        successor = f"--{flag.name} is its name since {dotted(flag.since)}"
        way = f"give that in {variable}, or rename it in the manifest and in kubeadm-config"
    else:
        successor = flag.instead or "nothing takes its place"
        way = f"set it to null in {variable} and run again, or take it out of the manifest and of kubeadm-config"
    return f"{component.name} {dotted(gone)} does not have --{name} and does not start with it; {successor}. Before the upgrade {way}"


def _parsed(values: Sequence[str]) -> dict[str, str]:
    try:
        return gates_of(values)
    except BadValue:
        return {}
