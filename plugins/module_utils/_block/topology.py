# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which disks hold a path: through mounts, partitions and stacked devices, never by a disk's name."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from .._kernel.tree import Tree
from .device import orders_requests

#: File systems whose content is on no disk of this host.
_ELSEWHERE = {
    "tmpfs": "it is in memory",
    "ramfs": "it is in memory",
    "nfs": "it is on the network",
    "nfs4": "it is on the network",
    "cifs": "it is on the network",
    "ceph": "it is on the network",
    "9p": "it is on the host of this virtual machine",
    "virtiofs": "it is on the host of this virtual machine",
    "zfs": "a ZFS pool schedules its own I/O",
}


@dataclass(frozen=True)
class Mount:
    """One line of /proc/PID/mountinfo (proc_pid_mountinfo(5))."""

    device: tuple[int, int]
    point: str
    kind: str
    source: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Stack:
    """A path and what is below it.

    Attributes:
        path: as it was asked for.
        existing: the path itself, or its nearest parent that exists.
        mounted: sysfs directory of the device that the file system sits on (the whole disk for a partition): its
            read-ahead is the one which acts. Empty for btrfs, which has one of its own.
        leaves: sysfs directories of the disks at the bottom, or of the multipath devices which stand for them: their
            schedulers are the ones which act.
        btrfs: UUID of the file system, where it is one of those.
        nowhere: why there is no disk; empty when there is one.
    """

    path: str
    existing: str = ""
    mounted: str = ""
    leaves: tuple[str, ...] = ()
    btrfs: str = ""
    nowhere: str = ""


def parse_mountinfo(text: str) -> list[Mount]:
    mounts = []
    for line in text.splitlines():
        front, _, back = line.partition(" - ")
        first, last = front.split(" "), back.split(" ")
        major, _, minor = first[2].partition(":")
        mounts.append(
            Mount(
                device=(int(major), int(minor)),
                point=_unescape(first[4]),
                kind=last[0],
                source=_unescape(last[1]),
                options=tuple(_unescape(each) for each in last[2].split(",")),
            )
        )
    return mounts


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def mount_of(mounts: list[Mount], path: str, device: tuple[int, int]) -> Mount | None:
    """The mount that a path is on.

    Args:
        mounts: in the order of the file; of two on the same point the later one hides the earlier one.
        path: without symbolic links.
        device: of the path. It tells apart mounts that a later one above them hides; btrfs and overlay give their
            files other numbers than their mounts, so without a match the longest mount point decides.
    """
    around = [each for each in mounts if path == each.point or path.startswith(each.point.rstrip("/") + "/")]
    same = [each for each in around if each.device == device]
    # sorted() is stable: the last of the longest.
    return next(reversed(sorted(same or around, key=lambda each: len(each.point))), None)


def find(tree: Tree, path: str) -> Stack:
    """The disks behind a path. Nothing is written, no program is run."""
    existing = path
    while not tree.exists(existing):
        existing = os.path.dirname(existing)
    mounts = parse_mountinfo(tree.read("/proc/self/mountinfo") or "")
    return replace(_below(tree, tree.resolve(existing), mounts), path=path, existing=existing)


def _below(tree: Tree, path: str, mounts: list[Mount]) -> Stack:
    """The same for a path without symbolic links that exists."""
    device = tree.device(path)
    if device[0] != 0:
        return _stack(tree, path, "/sys/dev/block/{}:{}".format(*device))
    mount = mount_of(mounts, path, device)
    if mount is None:
        return Stack(path, nowhere="/proc/self/mountinfo does not name its file system")
    if mount.kind == "btrfs":
        return _btrfs(tree, path, mount)
    if mount.kind == "overlay":
        return _overlay(tree, path, mount, mounts)
    why = _ELSEWHERE.get(mount.kind, "it has no block device of its own")
    return Stack(path, nowhere=f"it is on {mount.kind}, mounted at {mount.point}: {why}")


def _stack(tree: Tree, path: str, node: str) -> Stack:
    if not tree.exists(node):
        return Stack(path, nowhere=f"sysfs does not show its device, {os.path.basename(node)}")
    return Stack(path, mounted=disk_of(tree, node), leaves=tuple(leaves_of(tree, node)))


def _btrfs(tree: Tree, path: str, mount: Mount) -> Stack:
    source = os.path.basename(tree.resolve(mount.source))
    for uuid in tree.names("/sys/fs/btrfs"):
        devices = tree.names(f"/sys/fs/btrfs/{uuid}/devices")
        if source in devices:
            leaves = [leaf for name in devices for leaf in leaves_of(tree, f"/sys/fs/btrfs/{uuid}/devices/{name}")]
            return Stack(path, leaves=tuple(dict.fromkeys(leaves)), btrfs=uuid)
    return Stack(path, nowhere=f"it is on btrfs, and sysfs shows no devices for {mount.source}")


def _overlay(tree: Tree, path: str, mount: Mount, mounts: list[Mount]) -> Stack:
    upper = next((each[len("upperdir=") :] for each in mount.options if each.startswith("upperdir=")), "")
    if upper and tree.exists(upper):
        return _below(tree, tree.resolve(upper), mounts)
    return Stack(path, nowhere=f"it is on overlay, mounted at {mount.point}, whose upper layer is not in sight here")


def disk_of(tree: Tree, node: str) -> str:
    """sysfs directory of the whole disk: a partition has no queue."""
    directory = tree.resolve(node)
    return os.path.dirname(directory) if tree.exists(f"{directory}/partition") else directory


def leaves_of(tree: Tree, node: str) -> list[str]:
    """sysfs directories of the disks at the bottom, each once.

    A loop device is a leaf: it has a queue of its own, and its file is somebody else's business.
    """
    directory = disk_of(tree, node)
    below = [f"{directory}/slaves/{name}" for name in tree.names(f"{directory}/slaves")]
    if not below or orders_requests(tree, directory):
        return [directory]
    found: list[str] = []
    for each in [*below, *_caches_of(tree, directory)]:
        found += leaves_of(tree, each)
    return list(dict.fromkeys(found))


def _caches_of(tree: Tree, directory: str) -> list[str]:
    """The cache devices of a bcache device, whose ``slaves`` name the backing one alone (admin-guide/bcache.rst)."""
    links = [name for name in tree.names(f"{directory}/bcache/cache") if re.fullmatch(r"cache[0-9]+", name)]
    return [os.path.dirname(tree.resolve(f"{directory}/bcache/cache/{name}")) for name in links]
