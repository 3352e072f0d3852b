# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd as the owner of a pod's group.

With the kubelet's systemd driver a pod's group is a slice of systemd's, which writes all of its weights anew at each
daemon-reload (systemd 252, tried): what was written past it is lost then. So systemd is asked; it takes that from root
without any capability, keeps it through daemon-reload and daemon-reexec, and forgets it with the slice.
"""

from __future__ import annotations

from typing import Callable, Iterable, Mapping

from .._commands import output
from .cgroup import CPU, IO

Execute = Callable[..., str]

#: Controller -> property of a unit (systemd.resource-control(5)), whose range is that of the weight.
PROPERTIES = {CPU: "CPUWeight", IO: "IOWeight"}


def systemctl(*arguments: str, check: bool = True) -> str:
    """Standard output of systemctl.

    Raises:
        KubetuneError: it is not there, or failed and ``check`` is on.
    """
    return output(["systemctl", *arguments], check=check).strip()


def slice_of(group: str) -> str:
    """The unit that a pod's group is; empty with the cgroupfs driver, where systemd knows nothing of it."""
    name = group.rpartition("/")[2]
    return name if name.endswith(".slice") else ""


def properties(execute: Execute, unit: str, names: Iterable[str]) -> dict[str, str]:
    """Properties of a unit as they can be set again: empty for one that is not set."""
    wanted = list(names)
    if not wanted:
        return {}
    shown = execute("show", *(word for name in wanted for word in ("--property", name)), unit)
    values = dict(line.partition("=")[::2] for line in shown.splitlines())
    return {name: values.get(name, "") if values.get(name, "").isdigit() else "" for name in wanted}


def set_properties(execute: Execute, unit: str, values: Mapping[str, str]) -> None:
    """Until the unit is gone, at the latest with the next boot.

    Raises:
        KubetuneError: systemd does not take them.
    """
    execute("set-property", "--runtime", unit, *(f"{name}={value}" for name, value in values.items()))
