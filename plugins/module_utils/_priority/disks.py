# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the disks below etcd honour a weight of I/O: the scheduler bfq does, and blk-iocost does under any scheduler."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Sequence

from .._block import device, topology
from .._kernel.tree import Tree
from .cgroup import ROOT

COST = f"{ROOT}/io.cost.qos"


@dataclass(frozen=True)
class Disk:
    """A disk at the bottom.

    Attributes:
        name: of the kernel, such as ``sda``; or the path itself, where no disk is behind it.
        honours: whether the weight acts there.
        reason: why.
    """

    name: str
    honours: bool
    reason: str


def below(tree: Tree, paths: Sequence[str]) -> list[Disk]:
    """The disks behind the paths that exist, each once."""
    found: dict[str, Disk] = {}
    for path in paths:
        if not tree.exists(path):
            continue
        stack = topology.find(tree, path)
        if stack.nowhere:
            found[path] = Disk(path, False, stack.nowhere)
        for leaf in stack.leaves:
            found[leaf] = _judge(tree, leaf)
    return list(found.values())


def _judge(tree: Tree, directory: str) -> Disk:
    disk = device.read(tree, directory)
    number = (tree.read(f"{directory}/dev") or "").strip()
    if disk.scheduler == "bfq":
        return Disk(disk.name, True, "its scheduler, bfq, honours weights")
    if costs(tree.read(COST) or "").get(number):
        return Disk(disk.name, True, f"blk-iocost is on for it ({COST}), which honours weights under any scheduler")
    scheduler = f"its scheduler, {disk.scheduler}, knows no weights" if disk.scheduler else "it has no scheduler"
    return Disk(disk.name, False, f"{scheduler}. {remedies(disk, number, tree.exists(COST))}")


def remedies(disk: device.Device, number: str, iocost: bool) -> str:
    """What would make a weight count, and its price."""
    ways = []
    if disk.scheduler:
        ways.append(f"scheduler bfq (host_tuning_scheduler_by_class: {disk.kind}: bfq), which costs throughput on fast disks")
    if iocost:
        ways.append(f"blk-iocost ('{number} enable=1' in {COST}, until the next boot), which needs a model of the disk to be fair")
    ways.append("a disk of its own for the WAL (role etcd_wal), which makes weights unnecessary")
    return f"What would help: {'; '.join(ways)}"


def costs(text: str) -> dict[str, bool]:
    """``MAJ:MIN`` -> whether blk-iocost controls that disk, from the text of io.cost.qos."""
    return {number: enabled == "1" for number, enabled in re.findall(r"^(\d+:\d+) .*?\benable=([01])", text, re.MULTILINE)}
