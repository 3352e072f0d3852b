# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The limit on open files (RLIMIT_NOFILE): a soft one, which counts, and a hard one, up to which it can be raised."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .._kernel.tree import Tree

_CAP_SYS_RESOURCE = 1 << 24
_WHOLE_USER_NAMESPACE = ["0", "0", "4294967295"]


@dataclass(frozen=True)
class Nofile:
    """Numbers of open files."""

    soft: int
    hard: int

    def __str__(self) -> str:
        return f"{self.soft}:{self.hard}"


@dataclass(frozen=True)
class Process:
    """A running process and its limits as the kernel applies them."""

    pid: int
    name: str
    unit: str
    nofile: Nofile


def parse_process_limits(text: str) -> Nofile | None:
    """The line ``Max open files`` of /proc/PID/limits (proc_pid_limits(5))."""
    match = re.search(r"^Max open files +([0-9]+) +([0-9]+) +files", text, re.MULTILINE)
    return Nofile(int(match.group(1)), int(match.group(2))) if match else None


def unit_of(cgroups: str) -> str:
    """The systemd service in /proc/PID/cgroup; empty for a process of none."""
    match = re.search(r"/([^/\n]+\.service)$", cgroups, re.MULTILINE)
    return match.group(1) if match else ""


def processes(tree: Tree, *names: str) -> list[Process]:
    """The running processes of these names, oldest first."""
    found = []
    for pid in sorted(int(each) for each in tree.names("/proc") if each.isdigit()):
        name = (tree.read(f"/proc/{pid}/comm") or "").strip()
        if name in names:
            limits = parse_process_limits(tree.read(f"/proc/{pid}/limits") or "")
            if limits:
                found.append(Process(pid, name, unit_of(tree.read(f"/proc/{pid}/cgroup") or ""), limits))
    return found


def ceiling(tree: Tree) -> int:
    """The largest hard limit that PID 1 can give to a process.

    That is fs.nr_open (kernel/sys.c, do_prlimit); where PID 1 lacks CAP_SYS_RESOURCE in the first user namespace, as in
    most containers, it is PID 1's own hard limit.
    """
    nr_open = int((tree.read("/proc/sys/fs/nr_open") or "1048576").strip())
    if _may_raise(tree):
        return nr_open
    own = parse_process_limits(tree.read("/proc/1/limits") or "")
    return min(nr_open, own.hard) if own else nr_open


def _may_raise(tree: Tree) -> bool:
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", tree.read("/proc/1/status") or "", re.MULTILINE)
    capable = bool(match and int(match.group(1), 16) & _CAP_SYS_RESOURCE)
    return capable and (tree.read("/proc/1/uid_map") or "").split() == _WHOLE_USER_NAMESPACE
