# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which control group counts for a process in a pod, and its weights (admin-guide/cgroup-v2.rst).

Weights count among siblings only. A container's group has no sibling that matters: it is the pod's which competes, with the
other pods of its quality-of-service class.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Mapping

from .._block.topology import parse_mountinfo
from .._kernel.tree import Tree

ROOT = "/sys/fs/cgroup"
CPU, IO = "cpu", "io"
#: The range of both weights; 100 is the kernel's default.
MINIMUM, MAXIMUM, DEFAULT = 1, 10000, 100

#: A pod's own directory: ``podUID`` (cgroupfs driver), or ``kubepods-burstable-podUID.slice`` (systemd driver, whose UID
#: has underscores). A static pod's UID is 32 digits, that of others has dashes.
_POD = re.compile(r"(?:[^/]*-)?pod(?:[0-9a-f]{32}|[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})(?:\.slice)?")


@dataclass(frozen=True)
class Attribute:
    """A file of a group with a weight in it.

    Attributes:
        controller: `CPU` or `IO`, which makes the file appear.
        name: of the file.
    """

    controller: str
    name: str

    def text(self, weight: int) -> str:
        """What the file is to read, without the line's end."""
        if self.name == "io.bfq.weight":
            return f"default {bfq_weight(weight)}"
        return str(weight) if self.controller == CPU else f"default {weight}"


#: ``io.weight`` is there in kernels with blk-iocost, ``io.bfq.weight`` while bfq is loaded: bfq reads its own alone.
ATTRIBUTES = (Attribute(CPU, "cpu.weight"), Attribute(IO, "io.weight"), Attribute(IO, "io.bfq.weight"))


def bfq_weight(weight: int) -> int:
    """The same weight on bfq's scale, 1 to 1000, as systemd converts it (src/shared/cgroup-setup.h, BFQ_WEIGHT)."""
    return weight if weight <= DEFAULT else DEFAULT + (weight - DEFAULT) * (1000 - DEFAULT) // (MAXIMUM - DEFAULT)


def unified_problem(tree: Tree) -> str:
    """Why there are no weights of cgroup v2 on this host; empty where there are."""
    kinds = {mount.point: mount.kind for mount in parse_mountinfo(tree.read("/proc/self/mountinfo") or "")}
    if kinds.get(ROOT) == "cgroup2":
        return ""
    return (
        f"this host has cgroup v1 ({ROOT} is {kinds.get(ROOT, 'not mounted')}), and the weights are those of cgroup v2: boot "
        "it with systemd.unified_cgroup_hierarchy=1"
    )


def own_group(cgroups: str) -> str:
    """The group of a process in the unified hierarchy, from the text of /proc/PID/cgroup; empty when it names none."""
    found = re.search(r"^0::(/.*)$", cgroups, re.MULTILINE)
    return found.group(1) if found else ""


def pod_group(group: str) -> str:
    """The pod's group around a container's; empty when the group is in no pod's."""
    parts = group.split("/")
    for index, part in enumerate(parts):
        if _POD.fullmatch(part):
            return "/".join(parts[: index + 1])
    return ""


def directory(group: str) -> str:
    return ROOT + group


def weights(tree: Tree, group: str) -> dict[str, str]:
    """Name of the file -> its first line, the one that holds for all devices; only files that are there."""
    found = {}
    for attribute in ATTRIBUTES:
        text = tree.read(f"{directory(group)}/{attribute.name}")
        if text and text.strip():
            found[attribute.name] = text.splitlines()[0].strip()
    return found


def wanted_files(present: Mapping[str, str], wanted: Mapping[str, int]) -> dict[str, str]:
    """Name of the file -> what it shall read, for the files that are there.

    Args:
        present: as `weights` returns it.
        wanted: controller -> weight.
    """
    return {
        each.name: each.text(wanted[each.controller])
        for each in ATTRIBUTES
        if each.controller in wanted and each.name in present
    }


def lacking(present: Mapping[str, str], wanted: Mapping[str, int]) -> list[str]:
    """The controllers that a weight is wanted of, and none of whose files is there."""
    there = {each.controller for each in ATTRIBUTES if each.name in present}
    return [controller for controller in wanted if controller not in there]


def to_enable(tree: Tree, group: str, controller: str) -> list[str]:
    """The groups above this one which do not hand a controller down, outermost first.

    Raises:
        LookupError: the kernel has no such controller, or gives it to cgroup v1.
    """
    above = [ROOT]
    for part in os.path.dirname(group).split("/")[1:]:
        if part:
            above.append(f"{above[-1]}/{part}")
    if controller not in (tree.read(f"{ROOT}/cgroup.controllers") or "").split():
        raise LookupError(f"the kernel offers no controller {controller} ({ROOT}/cgroup.controllers)")
    return [each for each in above if controller not in (tree.read(f"{each}/cgroup.subtree_control") or "").split()]
