# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts that live on in the mount namespaces of other processes after the host's own is gone."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Iterator

from .._block import topology
from .._errors import KubetuneError

#: include/uapi/linux/sched.h and include/linux/fs.h
_CLONE_NEWNS, _UMOUNT_NOFOLLOW = 0x00020000, 0x8


def let_go(numbers: str) -> None:
    """Unmount a device in every mount namespace where it is mounted.

    A pod's volumes are private (mount propagation None is the default): a container that was started while the disk was
    mounted below its volume keeps it until it ends. Nobody may have a file open there.

    Args:
        numbers: major and minor of the device.

    Raises:
        KubetuneError: something uses it there.
    """
    for pid, point in _holders(numbers):
        failure = _unmount_in(pid, point)
        if failure:
            raise KubetuneError(
                f"device {numbers} is still mounted at {point} for process {pid}, and cannot be unmounted there "
                f"({failure}): end the process, such as by a restart of its pod, then run again"
            )


def _holders(numbers: str) -> Iterator[tuple[int, str]]:
    """One process of each mount namespace that has the device, and where; the topmost mount first."""
    seen = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            namespace = os.readlink(entry / "ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            mounts = topology.parse_mountinfo((entry / "mountinfo").read_text())
        except OSError:
            continue  # it has ended
        for mount in reversed(mounts):
            if "{}:{}".format(*mount.device) == numbers:
                yield int(entry.name), mount.point


def _unmount_in(pid: int, point: str) -> str:
    """Do it in a child of ours, which enters the process's namespace; why not, empty when it is done."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        root = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return ""  # it has ended, and its namespace with it
    child = os.fork()
    if child == 0:
        status = 0
        if libc.setns(namespace, _CLONE_NEWNS) != 0:
            status = ctypes.get_errno()
        else:
            # Points in mountinfo begin at the process's root.
            os.fchdir(root)
            os.chroot(".")
            if libc.umount2(os.fsencode(point), _UMOUNT_NOFOLLOW) != 0:
                status = ctypes.get_errno()
        os._exit(status)
    os.close(namespace)
    os.close(root)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return os.strerror(status) if status else ""
