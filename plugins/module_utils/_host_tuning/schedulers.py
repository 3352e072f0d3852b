# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which scheduler a disk gets, by its class, and why."""

from __future__ import annotations

from .._block.device import Device
from .profile import AUTO, KEEP, Choice, Desired

_ABOUT = {
    "nvme": "an NVMe drive",
    "ssd": "a disk that does not rotate",
    "rotational": "a disk that rotates",
    "virtual": "a disk made up by a hypervisor, whatever it says about rotation",
    "loop": "a loop device",
}


def choose(desired: Desired, device: Device) -> tuple[Choice, str] | None:
    """The scheduler for a device and the reason, which is empty where a person chose; None where nothing is wanted."""
    wanted = desired.schedulers.get(device.kind) or desired.schedulers.get("")
    if wanted is None:
        return None
    if wanted.value == AUTO:
        value, reason = _automatic(device)
        return Choice(value, False), f"{about(device)}: {reason}"
    if wanted.explicit:
        return wanted, f"{KEEP} was asked for" if wanted.value == KEEP else ""
    return wanted, f"{about(device)}: {_of_the_guide(device)}"


def about(device: Device) -> str:
    """What kind of device it is, as a reader would call it."""
    kind = _ABOUT.get(device.kind, "a disk of the network or of an unknown kind")
    if device.multipath and device.kind != "nvme":
        kind += ", by several paths, for which the multipath device orders the requests"
    if device.hardware_queues:
        kind += f", with {device.hardware_queues} hardware queue{'s' if device.hardware_queues > 1 else ''}"
    return kind


def _automatic(device: Device) -> tuple[str, str]:
    """What vendors and distributions recommend for latency.

    Red Hat, Oracle and SUSE agree on none for NVMe and mq-deadline for what rotates; for SSDs they differ, and for virtual
    disks they leave the kernel's choice.
    """
    if device.kind == "nvme":
        return "none", "it orders its own queues"
    if device.kind == "rotational":
        return "mq-deadline", "waiting reads and writes get their turn"
    if device.kind == "ssd" and device.hardware_queues > 1:
        return "none", "with several hardware queues the kernel, too, takes none"
    if device.kind == "ssd":
        return "mq-deadline", "with one hardware queue the kernel, too, takes it"
    return KEEP, "nothing is known of the hardware, so the kernel's choice stays"


def _of_the_guide(device: Device) -> str:
    if device.kind == "nvme":
        return "it orders its own queues; scheduler_by_class has a say for nvme"
    if device.kind not in _ABOUT:
        return "whoever made it knows its queue better; scheduler has a say"
    reason = "the guide's deadline is called mq-deadline today"
    if device.hardware_queues > 1:
        reason += "; the kernel itself takes none for several hardware queues"
    if device.kind == "virtual":
        reason += "; scheduler auto leaves the kernel's choice"
    return reason
