# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets the weights of a pod's group, and remembers what they were: /var/lib/kubetune/etcd-priority.json.

One writer at a time: the service while it runs, else the module.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Mapping, Sequence

from .._errors import KubetuneError
from .._kernel.tree import Tree
from .._node import processes
from .._node.processes import Process
from . import cgroup
from .systemd import PROPERTIES, Execute, properties, set_properties, slice_of, systemctl

PATH = "/var/lib/kubetune/etcd-priority.json"
SCHEMA = 1


@dataclass(frozen=True)
class Record:
    """What a group's weights were before us.

    Attributes:
        boot, group, inode: name the group once and for all: a pod keeps its path through a reboot, and gets another inode
            when it is made anew.
        originals: name of the file -> its first line.
        properties: the same as systemd has it, where the group is a slice; empty for one that is not set.
    """

    boot: str
    group: str
    inode: int
    originals: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """One weight that was set.

    Attributes:
        name: of the file.
        before, after: its first line.
    """

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Settled:
    """What became of the wanted weights.

    Attributes:
        written: what changed.
        problems: controller -> why its weight is not as wanted.
    """

    written: list[Written]
    problems: dict[str, str]


def running_etcd(tree: Tree) -> Process | None:
    """The etcd of the kubelet's own static pod; the newest, should an old one still be ending."""
    proc, logs = Path(tree.locate("/proc")), Path(tree.locate("/var/log/pods"))
    found = [each for each in processes.find("etcd", {}, proc) if processes.of_static_pod(each, "etcd", proc, logs)]
    return max(found, key=lambda each: each.start_ticks, default=None)


def group_of(tree: Tree, process: Process) -> str:
    """The pod's group that a process is in; empty when it is in none, or has ended."""
    return cgroup.pod_group(cgroup.own_group(tree.read(f"/proc/{process.pid}/cgroup") or ""))


def load(tree: Tree) -> Record | None:
    """What was recorded, if the group is still there.

    Raises:
        KubetuneError: the file is damaged, or of another release.
    """
    text = tree.read(PATH)
    if text is None:
        return None
    try:
        data = json.loads(text)
        schema = data.pop("schema")
        if schema != SCHEMA:
            raise KubetuneError(f"{PATH} has schema {schema!r}, and this release knows {SCHEMA}: run the release that wrote it")
        record = Record(**data)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise KubetuneError(
            f"{PATH} is damaged ({exc!r}): it holds the weights that etcd's pod had before. Remove it, and the pod gets its "
            "own weights back when it is made anew, at the latest with the next boot"
        ) from exc
    return record if record == _of(tree, record.group, record.originals, record.properties) else None


def _of(tree: Tree, group: str, originals: Mapping[str, str], slice_properties: Mapping[str, str]) -> Record | None:
    """A record of the group that is there now; None where it is gone."""
    try:
        inode = os.stat(tree.locate(cgroup.directory(group))).st_ino
    except OSError:
        return None
    boot = (tree.read("/proc/sys/kernel/random/boot_id") or "").strip()
    return Record(boot, group, inode, dict(originals), dict(slice_properties))


def _save(tree: Tree, before: Record, after: Record) -> None:
    """Write what differs, for root alone; nothing to remember removes the file."""
    if before == after:
        return
    if not after.originals:
        tree.remove(PATH)
        return
    data: dict[str, Any] = {"schema": SCHEMA, **vars(after)}
    tree.make_directories(os.path.dirname(PATH), 0o700)
    tree.replace(PATH, json.dumps(data, indent=2, sort_keys=True) + "\n", 0o600)


def settle(tree: Tree, group: str, wanted: Mapping[str, int], execute: Execute = systemctl) -> Settled:
    """Give a pod's group the wanted weights, and those back which are not wanted any more.

    Args:
        wanted: controller -> weight; empty puts everything back.
        execute: runs systemctl, which a group that is a slice needs.
    """
    present, known = cgroup.weights(tree, group), load(tree)
    if known is None or known.group != group:
        known = _of(tree, group, {}, {})
    if known is None:  # it has gone meanwhile
        return Settled([], {})
    targets = cgroup.wanted_files(present, wanted)
    lines = {**{name: line for name, line in known.originals.items() if name in present}, **targets}
    ours = _with_originals(known, {name: present[name] for name in targets}, execute)
    # Ahead of all changes: a run that is cut off can be taken up again.
    _save(tree, known, ours)
    problems = _set(tree, ours, present, lines, wanted, execute)
    if not problems:
        _save(tree, ours, _without_others(ours, list(targets)))
    now = cgroup.weights(tree, group)
    written = [Written(name, present[name], now.get(name, "")) for name in lines if now.get(name) != present[name]]
    lacking = {controller: lacking_reason(tree, group, controller) for controller in cgroup.lacking(present, wanted)}
    return Settled(written, {**problems, **lacking})


def _with_originals(known: Record, present: Mapping[str, str], execute: Execute) -> Record:
    """The record with what these files read now, unless it has them."""
    unit = slice_of(known.group)
    names = {PROPERTIES[_controller(name)] for name in present} if unit else set()
    new = properties(execute, unit, sorted(names - set(known.properties)))
    return replace(known, originals={**present, **known.originals}, properties={**new, **known.properties})


def _without_others(record: Record, names: Sequence[str]) -> Record:
    """The record of these files alone."""
    controllers = {_controller(name) for name in names}
    return replace(
        record,
        originals={name: line for name, line in record.originals.items() if name in names},
        properties={PROPERTIES[each]: record.properties[PROPERTIES[each]] for each in controllers if PROPERTIES[each] in record.properties},
    )


def _set(
    tree: Tree, record: Record, present: Mapping[str, str], lines: Mapping[str, str], wanted: Mapping[str, int], execute: Execute
) -> dict[str, str]:
    """Bring the files of a group to these lines, through systemd where it owns them.

    Returns:
        controller -> what went wrong.
    """
    problems: dict[str, str] = {}
    stale = [name for name, line in lines.items() if present[name] != line]
    unit = slice_of(record.group)
    if unit and stale:
        controllers = dict.fromkeys(_controller(name) for name in stale)
        values = {PROPERTIES[each]: str(wanted.get(each, record.properties.get(PROPERTIES[each], ""))) for each in controllers}
        try:
            set_properties(execute, unit, values)
        except KubetuneError as exc:
            return {each: str(exc) for each in controllers}
    for name in stale:
        problem = _write(tree, record.group, name, lines[name])
        if problem:
            problems[_controller(name)] = problem
    return problems


def _controller(name: str) -> str:
    return name.partition(".")[0]


def _write(tree: Tree, group: str, name: str, line: str) -> str:
    """Write a weight that is not there yet and read it back; returns what is wrong, if anything is."""
    if cgroup.weights(tree, group).get(name) != line:
        try:
            tree.set(f"{cgroup.directory(group)}/{name}", line)
        except OSError as exc:
            return f"the kernel does not take {line!r} in {name} ({exc.strerror})"
    now = cgroup.weights(tree, group).get(name)
    return "" if now == line else f"the kernel makes {now!r} of {line!r} in {name}"


def lacking_reason(tree: Tree, group: str, controller: str) -> str:
    """Why a group has no weight of a controller."""
    try:
        closed = cgroup.to_enable(tree, group, controller)
    except LookupError as exc:
        return str(exc)
    if closed:
        return f"{closed[0]}/cgroup.subtree_control does not hand {controller} down, so {cgroup.directory(group)} has no weight of it"
    return "the kernel has neither blk-iocost nor bfq: there is no weight of I/O"
