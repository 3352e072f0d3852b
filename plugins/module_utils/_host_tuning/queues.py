# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The block part: schedulers of the leaf disks, read-ahead of the mounted devices, and the udev rules that keep them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping

from .._block import device as block
from .._block import topology, udev
from .._block.device import Device, Identity
from .._kernel.tree import Tree
from .._report import entry
from . import schedulers
from .profile import KEEP, Choice, Desired
from .setting import Decision, Record, Setting, Value

SCHEDULER, READ_AHEAD = "scheduler", "read_ahead_kb"


@dataclass
class Queues:
    """What was found below the paths."""

    settings: list[Setting] = field(default_factory=list)
    identities: dict[str, Identity] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def survey(tree: Tree, desired: Desired, records: Mapping[str, Record], role: str) -> Queues:
    """The settings that are wanted, and those that are ours and are not wanted any more."""
    queues = Queues()
    stacks = [topology.find(tree, path) for path in desired.paths]
    stacks = [each for each in stacks if not _comes_later(each, desired.paths)]
    for stack in stacks:
        _describe(tree, stack, desired, queues, role)
    _shared(stacks, queues, role)
    wanted_of = {
        SCHEDULER: _schedulers(tree, stacks, desired, queues, role),
        READ_AHEAD: _read_aheads(tree, stacks, desired),
    }
    # Schedulers first: a change of scheduler resets other attributes of the queue.
    for attribute, wanted in wanted_of.items():
        for device, choice, reason in wanted:
            setting = _setting(tree, attribute, device, choice, reason, records, desired)
            queues.settings.append(setting)
            queues.identities[setting.key] = device.identities[0]
    queues.settings += _orphans(tree, records, {each.key for each in queues.settings})
    return queues


def _comes_later(stack: topology.Stack, paths: Iterable[str]) -> bool:
    """A path below another one that is not there, as the mount point of the WAL before it has a disk: nothing to say yet."""
    return stack.existing != stack.path and any(stack.path.startswith(f"{each.rstrip('/')}/") for each in paths)


def _describe(tree: Tree, stack: topology.Stack, desired: Desired, queues: Queues, role: str) -> None:
    """Say what is special about a path."""
    explicit = [each for each in (*desired.schedulers.values(), desired.read_ahead) if each and each.explicit]
    item = f"disks of {stack.path}"
    if stack.nowhere and explicit:
        queues.problems.append(
            f"paths: {stack.path} has no disk whose scheduler or read-ahead could be set as given: {stack.nowhere}"
        )
    elif stack.nowhere:
        queues.entries.append(entry(role, item, "left_out", reason=stack.nowhere))
    elif stack.existing != stack.path:
        reason = f"{stack.path} does not exist: the disk of {stack.existing} is taken; run again when the path is there"
        queues.entries.append(entry(role, item, "warning", reason=reason))
    if stack.btrfs and desired.read_ahead:
        reason = _why_not_btrfs(tree, stack.btrfs)
        if desired.read_ahead.explicit:
            queues.problems.append(f"{READ_AHEAD} {desired.read_ahead.value} of {stack.path}: {reason}")
        else:
            queues.entries.append(entry(role, f"{READ_AHEAD} of {stack.path}", "left_out", reason=reason))


def _why_not_btrfs(tree: Tree, uuid: str) -> str:
    now = (tree.read(f"/sys/fs/btrfs/{uuid}/bdi/read_ahead_kb") or "").strip()
    return (
        f"btrfs has a read-ahead of its own{f', {now} KiB' if now else ''}, which is not set here: udev cannot tell whose "
        "it is, so it would be lost at the next mount"
    )


def _shared(stacks: list[topology.Stack], queues: Queues, role: str) -> None:
    """A second path on the same disk is no separation."""
    owner: dict[str, str] = {}
    for stack in stacks:
        for leaf in stack.leaves:
            first = owner.setdefault(leaf, stack.path)
            if first != stack.path:
                reason = f"both are on the disk {leaf.rpartition('/')[2]}: two directories are not two disks"
                queues.entries.append(entry(role, f"disks of {first} and {stack.path}", "warning", reason=reason))


def _schedulers(
    tree: Tree, stacks: list[topology.Stack], desired: Desired, queues: Queues, role: str
) -> list[tuple[Device, Choice, str]]:
    found = []
    for leaf in dict.fromkeys(leaf for stack in stacks for leaf in stack.leaves):
        device = block.read(tree, leaf)
        choice, reason = schedulers.choose(desired, device) or (None, "")
        if choice is None:
            continue
        if choice.value == "none" and device.scheduler is None:
            choice, reason = Choice(KEEP, False), f"{schedulers.about(device)}: it has no queue of its own to schedule"
        if choice.value == KEEP:
            item = f"{device.name} {SCHEDULER}"
            queues.entries.append(entry(role, item, "left_out", value=device.scheduler, reason=reason))
        else:
            found.append((device, choice, reason))
    return found


def _read_aheads(tree: Tree, stacks: list[topology.Stack], desired: Desired) -> list[tuple[Device, Choice, str]]:
    if desired.read_ahead is None:
        return []
    mounted = dict.fromkeys(stack.mounted for stack in stacks if stack.mounted)
    return [(block.read(tree, each), desired.read_ahead, "") for each in mounted]


def _setting(
    tree: Tree,
    attribute: str,
    device: Device,
    choice: Choice,
    reason: str,
    records: Mapping[str, Record],
    desired: Desired,
) -> Setting:
    wanted, live = Value(attribute, choice.value), _live(device, attribute)
    at_least = attribute == READ_AHEAD and desired.read_ahead_mode == "at_least"
    key = _key_of(attribute, device, records)
    before = records[key].original if key in records else live
    return Setting(
        key=key,
        item=f"{device.name} {attribute}",
        paths={attribute: device.attribute(attribute)},
        live=live,
        wanted=wanted,
        explicit=choice.explicit,
        keeps=lambda live: at_least and int(live.text) > int(choice.value),
        obstacle=_obstacle(tree, device, wanted),
        note=reason or _note(wanted, before, choice),
    )


def _key_of(attribute: str, device: Device, records: Mapping[str, Record]) -> str:
    """The record's key: by whichever of its identities the device is known already (udev may have come up since)."""
    keys = [f"{attribute} {identity}" for identity in device.identities]
    return next((key for key in keys if key in records), keys[0])


def _live(device: Device, attribute: str) -> Value | None:
    value = device.scheduler if attribute == SCHEDULER else device.read_ahead_kb
    return None if value is None else Value(attribute, str(value))


def read_attribute(tree: Tree, attribute: str, path: str) -> Value | None:
    """The value of a queue's attribute now."""
    text = tree.read(path)
    if text is None:
        return None
    value = block.parse_schedulers(text)[1] if attribute == SCHEDULER else text.strip()
    return None if value is None else Value(attribute, value)


def _obstacle(tree: Tree, device: Device, wanted: Value) -> str:
    if _live(device, wanted.name) is None:
        return f"{device.name} has no {wanted.name}"
    if wanted.name == SCHEDULER and wanted.text not in device.schedulers and not block.can_load(tree, wanted.text):
        return f"the kernel offers {', '.join(device.schedulers)} for {device.name}, and not {wanted.text}"
    return _read_only(tree, device, wanted.name)


def _read_only(tree: Tree, device: Device, attribute: str) -> str:
    return "" if tree.writable(device.attribute(attribute)) else f"{device.attribute(attribute)} is read-only here"


def _note(wanted: Value, before: Value | None, choice: Choice) -> str:
    """What a reader should know of a profile's read-ahead."""
    if choice.explicit or before is None:
        return ""
    if wanted.name == READ_AHEAD and int(before.text) > int(wanted.text):
        return f"less than the {before.text} of before; read_ahead_mode at_least would keep those"
    return ""


def _orphans(tree: Tree, records: Mapping[str, Record], wanted: set[str]) -> list[Setting]:
    """The settings that are ours and not wanted any more, whether their device is there or not."""
    left = [key for key in records if key.startswith((f"{SCHEDULER} ", f"{READ_AHEAD} ")) and key not in wanted]
    devices = block.find_by_identity(tree, [key.partition(" ")[2] for key in left]) if left else {}
    return [_orphan(tree, key, each) for key in left for each in devices.get(key.partition(" ")[2], [None])]


def _orphan(tree: Tree, key: str, device: Device | None) -> Setting:
    attribute, _, identity = key.partition(" ")
    if device is None:
        return Setting(key, f"{attribute} of {identity}", {}, None, None, obstacle="the device is not there")
    return Setting(
        key=key,
        item=f"{device.name} {attribute}",
        paths={attribute: device.attribute(attribute)},
        live=_live(device, attribute),
        wanted=None,
        obstacle=_read_only(tree, device, attribute),
    )


def _persisted(decisions: Iterable[Decision], queues: Queues) -> list[Decision]:
    return [each for each in decisions if each.setting.key in queues.identities and each.setting.wanted and each.record]


def content(decisions: Iterable[Decision], queues: Queues) -> str | None:
    """The content of our udev rules: everything that is ours and wanted; None when that is nothing."""
    attributes: dict[Identity, dict[str, str]] = {}
    for each in _persisted(decisions, queues):
        assert each.record is not None
        attributes.setdefault(queues.identities[each.setting.key], {})[each.record.applied.name] = (
            each.record.applied.text
        )
    return udev.render(udev.Rule(identity, values) for identity, values in attributes.items()) if attributes else None


def persistence(tree: Tree, decisions: Iterable[Decision], queues: Queues, role: str) -> list[dict[str, Any]]:
    """What stands in the way of the rules."""
    persisted = _persisted(decisions, queues)
    found = []
    for identity in dict.fromkeys(queues.identities[each.setting.key] for each in persisted):
        if not identity.stable:
            reason = (
                "the rule knows its device by that, which another one may have after a restart or a change of hardware"
            )
            found.append(entry(role, udev.OWN_FILE, "warning", value=str(identity), reason=reason))
    if persisted and not tree.exists(udev.CONTROL):
        reason = "udevd does not run here: the rules act at the next boot with udevd, and the values are set now"
        found.append(entry(role, udev.OWN_FILE, "pending", reason=reason))
    return found
