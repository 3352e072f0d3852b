# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A block device as sysfs and udev describe it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Sequence

from .._kernel.tree import Tree

#: Classes that a scheduler can be chosen for.
KINDS = ("nvme", "ssd", "rotational", "virtual", "loop")

#: Names of before Linux 5.0 -> today's. The kernel itself knows only the first as an alias, and reads back the real name.
ALIASES = {"deadline": "mq-deadline", "noop": "none"}

#: SCSI vendors (SCSI INQUIRY, padded with spaces in sysfs) of disks that a hypervisor makes up: whether they call
#: themselves rotational says nothing about the real disk.
_HYPERVISORS = ("Google", "Msft", "NUTANIX", "QEMU", "VBOX", "VMware")

#: Properties that name a disk wherever it is plugged in, best first. ID_WWN alone is the same for all LUNs of an array.
_UDEV_STABLE = ("ID_WWN_WITH_EXTENSION", "ID_WWN", "ID_SERIAL")
#: The same of devices on top of others; a disk below one may have it too, and is not meant by it.
_UDEV_STACKED = {"dm": "DM_UUID", "md": "MD_UUID"}


@dataclass(frozen=True)
class Identity:
    """What tells a device from others.

    Attributes:
        match: left side of an udev rule's match, such as ``ENV{ID_WWN}``.
        value: its value.
        stable: False where another device may have it after a change of hardware or a restart.
    """

    match: str
    value: str
    stable: bool = True

    def __str__(self) -> str:
        return f"{self.match}={self.value}"


@dataclass(frozen=True)
class Device:
    """A device with a queue.

    Attributes:
        directory: in sysfs, without symbolic links.
        kind: one of `KINDS`, or ``dm``, ``md``, ``other`` (of the network, or unknown). Multipath has that of its paths.
        schedulers: those that the kernel offers now; empty where the device has none.
        scheduler: the one at work; None where the device has none.
        read_ahead_kb: KiB; None where the device has none.
        identities: best first; the last one is the kernel's name for it.
        hardware_queues: how many the driver serves; 0 where the device has none of its own.
        multipath: it stands for several paths, by device mapper or by NVMe itself.
    """

    directory: str
    kind: str
    schedulers: tuple[str, ...]
    scheduler: str | None
    read_ahead_kb: int | None
    identities: tuple[Identity, ...]
    hardware_queues: int = 0
    multipath: bool = False

    @property
    def name(self) -> str:
        return os.path.basename(self.directory)

    def attribute(self, name: str) -> str:
        """Path of an attribute of the queue."""
        return f"{self.directory}/queue/{name}"


def parse_schedulers(text: str) -> tuple[tuple[str, ...], str | None]:
    """``none [mq-deadline] bfq`` -> (all, the one at work). A lone name without brackets is the only choice there is."""
    names = tuple(text.replace("[", " ").replace("]", " ").split())
    active = re.search(r"\[([^]]+)\]", text)
    if active:
        return names, active.group(1)
    return names, names[0] if len(names) == 1 else None


def real_name(scheduler: str) -> str:
    """The name under which a blk-mq kernel knows it."""
    return ALIASES.get(scheduler, scheduler)


def read(tree: Tree, directory: str) -> Device:
    """Describe the device of a sysfs directory."""
    schedulers, scheduler = parse_schedulers(tree.read(f"{directory}/queue/scheduler") or "")
    read_ahead = (tree.read(f"{directory}/queue/read_ahead_kb") or "").strip()
    return Device(
        directory=directory,
        kind=kind_of(tree, directory),
        schedulers=schedulers,
        scheduler=scheduler,
        read_ahead_kb=int(read_ahead) if read_ahead else None,
        identities=tuple(identities_of(tree, directory)),
        hardware_queues=len(tree.names(f"{directory}/mq")),
        multipath=_is_multipath(tree, directory) or _bus(tree, directory) == "nvme-subsystem",
    )


def orders_requests(tree: Tree, directory: str) -> bool:
    """Whether a device on top of others has a scheduler that acts.

    Only request-based multipath has: it orders the requests itself, and hands them to its paths past their schedulers
    (drivers/md/dm-rq.c, blk_insert_cloned_request). Other such devices have no file for it, or up to Linux 6.1 one that
    reads ``none`` without brackets and ignores what is written.
    """
    return _is_multipath(tree, directory) and "[" in (tree.read(f"{directory}/queue/scheduler") or "")


def _is_multipath(tree: Tree, directory: str) -> bool:
    return (tree.read(f"{directory}/dm/uuid") or "").startswith("mpath-")


def _bus(tree: Tree, directory: str) -> str:
    return os.path.basename(tree.resolve(f"{directory}/device/subsystem"))


def kind_of(tree: Tree, directory: str) -> str:
    """The class of a device, from its driver's place in sysfs rather than from its name."""
    if orders_requests(tree, directory):
        return kind_of(tree, tree.resolve(f"{directory}/slaves/{tree.names(f'{directory}/slaves')[0]}"))
    for kind in ("dm", "md", "loop"):
        if tree.exists(f"{directory}/{kind}"):
            return kind
    bus = _bus(tree, directory)
    if bus in ("nvme", "nvme-subsystem"):
        return "nvme"
    vendor = (tree.read(f"{directory}/device/vendor") or "").strip()
    if bus in ("virtio", "xen") or vendor in _HYPERVISORS:
        return "virtual"
    if not tree.exists(f"{directory}/device"):
        return "other"
    return "ssd" if (tree.read(f"{directory}/queue/rotational") or "").strip() == "0" else "rotational"


def identities_of(tree: Tree, directory: str) -> list[Identity]:
    """Everything that an udev rule can know a device by, best first.

    udev's database comes first, and sysfs where udev does not run; the kernel's name is the last resort.
    """
    number = (tree.read(f"{directory}/dev") or "").strip()
    properties = parse_udev_data(tree.read(f"/run/udev/data/b{number}") or "")
    stacked = [name for kind, name in _UDEV_STACKED.items() if tree.exists(f"{directory}/{kind}")]
    names = [*stacked, *_UDEV_STABLE]
    found = [Identity(f"ENV{{{each}}}", properties[each]) for each in names if properties.get(each)]
    for attribute, match in (
        ("dm/uuid", "ENV{DM_UUID}"),
        ("wwid", "ATTR{wwid}"),
        ("device/wwid", "ATTRS{wwid}"),
        ("serial", "ATTR{serial}"),
    ):
        value = (tree.read(f"{directory}/{attribute}") or "").strip()
        if value:
            found.append(Identity(match, value))
    backing_file = (tree.read(f"{directory}/loop/backing_file") or "").rstrip("\n")
    if backing_file:
        found.append(Identity("ATTR{loop/backing_file}", backing_file, stable=False))
    if properties.get("ID_PATH"):
        found.append(Identity("ENV{ID_PATH}", properties["ID_PATH"], stable=False))
    found.append(Identity("KERNEL", os.path.basename(directory), stable=False))
    return list(dict.fromkeys(found))


def parse_udev_data(text: str) -> dict[str, str]:
    """The properties (``E:NAME=VALUE``) in a file below /run/udev/data."""
    pairs = (line[2:].partition("=") for line in text.splitlines() if line.startswith("E:"))
    return {name: value for name, _, value in pairs}


def find_by_identity(tree: Tree, identities: Sequence[str]) -> dict[str, list[Device]]:
    """The devices present now that go by one of these identities (as `str` of `Identity`).

    Several devices may: the paths to one disk, below multipath.
    """
    found: dict[str, list[Device]] = {}
    for name in tree.names("/sys/block"):
        device = read(tree, tree.resolve(f"/sys/block/{name}"))
        for identity in device.identities:
            if str(identity) in identities:
                found.setdefault(str(identity), []).append(device)
    return found


def can_load(tree: Tree, scheduler: str) -> bool:
    """Whether the kernel would load a module when this scheduler is asked for.

    It asks for ``NAME-iosched`` (block/elevator.c), which is an alias of most modules and the file name of kyber's.
    """
    modules = f"/lib/modules/{(tree.read('/proc/sys/kernel/osrelease') or '').strip()}"
    if f"alias {scheduler}-iosched " in (tree.read(f"{modules}/modules.alias") or ""):
        return True
    return f"/{scheduler}-iosched.ko" in (tree.read(f"{modules}/modules.dep") or "")
