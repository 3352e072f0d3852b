# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which services are at work on a host: running now, or started at boot."""

from __future__ import annotations

from .tree import Tree

_UNITS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


def at_work(tree: Tree, name: str) -> bool:
    """Whether a service's process runs, or a target wants it.

    Args:
        name: of the service, without ``.service``; its process has the same one.
    """
    return _started_at_boot(tree, name) or _runs(tree, name)


def _started_at_boot(tree: Tree, name: str) -> bool:
    for directory in _UNITS:
        for each in tree.names(directory):
            if each.endswith((".wants", ".requires")) and f"{name}.service" in tree.names(f"{directory}/{each}"):
                return True
    return False


def _runs(tree: Tree, name: str) -> bool:
    # The kernel cuts the name of a process at 15 characters (proc_pid_comm(5)).
    pids = (each for each in tree.names("/proc") if each.isdigit())
    return any((tree.read(f"/proc/{pid}/comm") or "").strip() == name[:15] for pid in pids)
