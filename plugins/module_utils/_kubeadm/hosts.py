# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hosts of a play have in common: only that can stand in a configuration which is one for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from .._static_pod import wal
from .._static_pod.catalogue import COMPONENTS, ETCD, Component
from .._static_pod.flags import version_of
from .._static_pod.manifest import flags_of

WAL_DIRECTORY = wal.FLAG[2:]
#: Verdicts of a plan's report after which the setting is there, and is this collection's.
APPLIED = frozenset({"changed", "already_right", "version_default", "ignored"})

Flags = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Host:
    """
    Attributes:
        name: as reports name it.
        member: the name of its etcd member, empty where it has none.
        members: of the whole cluster, by its own list; empty where it could not be read.
        problem: why it could not be read.
        components: what has a manifest here.
        tuned: component -> flags (without dashes, by the names that its version has) which this collection has applied, or will have.
        running: component -> flags of its process.
    """

    name: str
    member: str = ""
    members: Sequence[str] = ()
    problem: str = ""
    components: Sequence[str] = ()
    tuned: Mapping[str, Flags] = field(default_factory=dict)
    running: Mapping[str, Flags] = field(default_factory=dict)


def record(name: str, facts: Mapping[str, Any], report: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The arguments of `Host` as plain data.

    Args:
        facts: of `_node.discover.discover`.
        report: of a plan which is to be looked at as if it were done; empty for what is.
    """
    cluster = facts["cluster"] or {}
    tuned, running = {}, {}
    for component in COMPONENTS.values():
        remembered = _remembered((facts["memory"][component.name] or {}).get("settings") or {})
        planned = _planned(component, report, remembered)
        processes = [(flags_of(each["argv"][1:]), each["version"]) for each in facts["processes"][component.name]]
        # Of several the one that is tuned is the static pod's; it is the member's that counts.
        runs, version = max(processes, key=lambda each: _common(each[0], _named(component, remembered, each[1])), default=({}, ""))
        tuned[component.name] = _named(component, remembered if planned is None else planned, version)
        running[component.name] = {**runs, **tuned[component.name]} if planned else runs
    return {
        "name": name,
        "member": cluster.get("name", ""),
        "members": list(cluster.get("members", [])),
        "problem": "" if cluster.get("members") else "; ".join(cluster.get("problems", [])),
        "components": [each.name for each in COMPONENTS.values() if each.manifest in facts["manifests"]],
        "tuned": tuned,
        "running": running,
    }


def leaves_its_disk(host: Host) -> bool:
    """Whether its member runs with a directory for the WAL that it will not have any more."""
    return WAL_DIRECTORY in host.running.get(ETCD, {}) and WAL_DIRECTORY not in host.tuned.get(ETCD, {})


def missing_members(hosts: Sequence[Host]) -> list[str]:
    """Members of the etcd cluster which no host of the play has."""
    members = {name or "(unnamed)" for host in hosts for name in host.members}
    return sorted(members - {host.member for host in hosts})


def agree(hosts: Sequence[Host]) -> tuple[dict[tuple[str, str], list[str]], dict[tuple[str, str], str]]:
    """(component, flag) -> the values that all hosts have, and (component, flag) -> why it is left out."""
    agreed: dict[tuple[str, str], list[str]] = {}
    left_out: dict[tuple[str, str], str] = {}
    for component in COMPONENTS.values():
        having = [host for host in hosts if component.name in host.components]
        for name in dict.fromkeys(name for host in having for name in host.tuned.get(component.name, {})):
            reason = _disagreement(component, name, having)
            if reason:
                left_out[component.name, name] = reason
            else:
                agreed[component.name, name] = list(having[0].tuned[component.name][name])
    return agreed, left_out


def _disagreement(component: Component, name: str, hosts: Sequence[Host]) -> str:
    """Why a flag is not the same on all hosts, or is no flag for all; empty where it can be."""
    if name in component.identity and (component.name, name) != (ETCD, WAL_DIRECTORY):
        return "it says who a node is, and is never the same for all"
    flag = component.flag(name)
    first = hosts[0].tuned.get(component.name, {}).get(name)
    for host in hosts:
        values = host.tuned.get(component.name, {}).get(name)
        runs = host.running.get(component.name, {}).get(name)
        if values is None or first is None or len(values) != len(first) or not all(map(flag.same, first, values)):
            values_of = ", ".join(f"{each.name} {_shown(each.tuned.get(component.name, {}).get(name))}" for each in hosts)
            return f"it differs between hosts: {values_of}; give all the same, or tune each again after its upgrade"
        if list(values) != list(runs or []):
            return f"{host.name} runs with {_shown(runs)} instead of {_shown(values)}: tune the static pods first"
    return ""


def _named(component: Component, flags: Flags, version: str) -> dict[str, list[str]]:
    """The flags by the names which a version has for them; as they are where the version is not known."""
    return {component.flag(name).name_in(version_of(version)) if version else name: list(values) for name, values in flags.items()}


def _remembered(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    return {
        key[2:]: list(setting["applied"]) for key, setting in settings.items() if key.startswith("--") and setting["applied"] is not None
    }


def _planned(component: Component, report: Sequence[Mapping[str, Any]], remembered: Flags) -> dict[str, list[str]] | None:
    """The flags after a plan; None where it is not about that component."""
    lines = [line for line in report if line["role"] == component.role]
    if not lines:
        return None
    prefix = f"{component.name} --"
    found = {}
    for line in lines:
        if line["item"].startswith(prefix) and line["verdict"] in APPLIED and line["value"] is not None:
            name, value = line["item"][len(prefix):], str(line["value"])
            # A report joins the values of a flag that is repeated.
            before = list(remembered.get(name, ()))
            found[name] = before if ",".join(before) == value else [value]
    return found


def _common(flags: Flags, tuned: Flags) -> int:
    return sum(list(flags.get(name, ())) == list(values) for name, values in tuned.items())


def _shown(values: Sequence[str] | None) -> str:
    return "nothing" if values is None else ",".join(values)
