# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sysctl part: the settings of the desired state, the file that keeps them, and what the next boot makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Iterable, Mapping

from .._kernel import sysctl, sysctl_files
from .._kernel.sysctl_files import Assignment
from .._kernel.tree import Tree
from .._report import entry
from .profile import Choice, Desired
from .setting import Decision, Record, Setting, Value

PREFIX = "sysctl "


def settings(tree: Tree, desired: Desired, records: Mapping[str, Record]) -> tuple[list[Setting], list[str]]:
    """The settings that are wanted, and those that are ours and are not wanted any more; and what is wrong with them."""
    found: dict[str, Setting] = {}
    problems: list[str] = []
    for name, choice in desired.sysctls.items():
        setting = _wanted(tree, name, choice, desired, records)
        found[setting.key] = setting
        if choice.explicit and setting.live:
            problem = sysctl.check_shape(name, choice.value, setting.live.text)
            problems += [problem] if problem else []
    for key, record in records.items():
        if key.startswith(PREFIX) and key not in found:
            found[key] = _setting(tree, record.original.name, None)
    return list(found.values()), problems


def _wanted(tree: Tree, name: str, choice: Choice, desired: Desired, records: Mapping[str, Record]) -> Setting:
    wanted = Value(name, choice.value)
    setting = _setting(tree, name, wanted)
    record = records.get(setting.key)
    note, idle = _note(tree, wanted, record.original if record else setting.live, desired)
    keeps = setting.keeps if choice.explicit else _keeper(wanted)
    return replace(setting, explicit=choice.explicit, keeps=keeps, note=note, idle=idle)


def _keeper(wanted: Value) -> Callable[[Value], bool]:
    # A limit in bytes instead of a percentage was set by somebody: no kernel has one by default.
    return lambda live: (
        sysctl.keeps(wanted.name, live.text, wanted.text) if live.name == wanted.name else live.name.endswith("bytes")
    )


def _setting(tree: Tree, name: str, wanted: Value | None) -> Setting:
    faces = next((pair for pair in sysctl.PAIRS if name in pair), (name,))
    paths = {face: sysctl.path_of(face) for face in faces}
    return Setting(
        key=PREFIX + faces[0],
        item=name,
        paths=paths,
        live=read(tree, paths, name),
        wanted=wanted,
        obstacle=_obstacle(tree, name, paths[name]),
    )


def read(tree: Tree, paths: Mapping[str, str], preferred: str) -> Value | None:
    """The value in force: of two faces the one that is not 0, and where both are, the preferred one."""
    values = {name: tree.read(path) for name, path in paths.items()}
    live = {name: sysctl.normalise(text) for name, text in values.items() if text is not None}
    in_force = [name for name, text in live.items() if text != "0"]
    name = in_force[0] if len(paths) > 1 and in_force else preferred
    return Value(name, live[name]) if name in live else None


def _obstacle(tree: Tree, name: str, path: str) -> str:
    if not tree.exists(path):
        return f"there is no {path} here: neither this kernel nor this network namespace has it"
    if tree.writable(path):
        return ""
    if name.startswith("net."):
        return (
            f"{path} is read-only here: it belongs to the network namespace of the machine, or /proc/sys is read-only"
        )
    return f"{path} is read-only here"


def _note(tree: Tree, wanted: Value, before: Value | None, desired: Desired) -> tuple[str, bool]:
    """What a reader should know of a value: (note, whether it has no effect here)."""
    if wanted.name == "vm.swappiness" and len((tree.read("/proc/swaps") or "").splitlines()) < 2:
        return "no swap is in use: it has no effect until there is some", True
    if wanted.name == "vm.dirty_background_ratio" and "vm.dirty_bytes" in desired.sysctls:
        return (
            "where that is more than vm.dirty_bytes the kernel takes half of those; vm.dirty_background_bytes is exact",
            False,
        )
    if before is not None and before.name == wanted.name and len(wanted.text.split()) == 3:
        first, now = int(before.text.split()[1]), int(wanted.text.split()[1])
        if now < first:
            return f"connections start with a buffer of {now} bytes, where this kernel had {first}", False
    return "", False


def content(decisions: Iterable[Decision]) -> str | None:
    """The content of our file: everything that is ours and wanted; None when that is nothing."""
    values = {
        each.record.applied.name: each.record.applied.text
        for each in decisions
        if each.setting.key.startswith(PREFIX) and each.setting.wanted and each.record
    }
    return sysctl.render(values) if values else None


def at_boot(
    tree: Tree, decisions: Iterable[Decision], kept: Callable[[Value], bool], role: str
) -> list[dict[str, Any]]:
    """A warning for each value that the next boot, or `sysctl --system`, does not bring.

    Args:
        kept: whether something else than a file of sysctl.d sets a value at boot.
    """
    decided = [each for each in decisions if each.setting.key.startswith(PREFIX) and each.setting.wanted]
    boot = sysctl_files.at_boot(tree, {sysctl.OWN_FILE: content(decided) or ""})
    last = sysctl_files.parse(tree.read(sysctl_files.PROCPS_FILE) or "", sysctl_files.PROCPS_FILE)
    found = []
    for each in decided:
        if each.record:
            name, value = each.record.applied
            reason = _undone_at_boot(name, value, boot) or _undone_by_procps(name, value, boot, last)
        else:
            name, value = each.setting.item, each.setting.live.text if each.setting.live else None
            live = each.setting.live
            reason = "" if live and kept(live) else _forgotten_at_boot(each, boot)
        if reason:
            found.append(entry(role, name, "warning", value=value, reason=reason))
    return found


def _undone_at_boot(name: str, value: str, boot: list[Assignment]) -> str:
    winner = sysctl_files.in_force(name, boot)
    if winner is None:
        by = next((each.file for each in boot if each.name == name), "another file")
        return (
            f"{by} is read after {sysctl.OWN_FILE} and takes it out (-{name}), so the next boot leaves the kernel's; "
            "remove it there"
        )
    if _same(winner, name, value):
        return ""
    sets = f"the next boot sets {winner.name} = {winner.value}; remove it there"
    first = next((each.file for each in boot if each.name == name), "")
    if winner.name == name or first in ("", sysctl.OWN_FILE):
        return f"{winner.file} is read after {sysctl.OWN_FILE}: {sets}"
    return (
        f"{first} says the same as {sysctl.OWN_FILE}, so systemd sets it there and then, and {winner.file} comes after "
        f"that: {sets}"
    )


def _undone_by_procps(name: str, value: str, boot: list[Assignment], last: list[Assignment]) -> str:
    winner = sysctl_files.in_force(name, [*boot, *last])
    if winner is None or winner.file != sysctl_files.PROCPS_FILE or _same(winner, name, value):
        return ""
    return (
        f"{winner.file} is read after {sysctl.OWN_FILE}: sysctl --system sets {winner.name} = {winner.value}; "
        "remove it there"
    )


def _same(winner: Assignment, name: str, value: str) -> bool:
    return sysctl_files.face_of(winner, name) == name and sysctl.normalise(winner.value or "") == value


def _forgotten_at_boot(decision: Decision, boot: list[Assignment]) -> str:
    """A live value that stays, and which no file keeps."""
    if decision.verdict != "kept":
        return ""
    name = decision.setting.item
    winner = sysctl_files.in_force(name, boot)
    if winner and decision.setting.keeps(
        Value(sysctl_files.face_of(winner, name), sysctl.normalise(winner.value or ""))
    ):
        return ""
    return (
        "no file of sysctl.d sets the value that is there, so it may be another one after the next boot; "
        "host_tuning_sysctls makes it last"
    )
