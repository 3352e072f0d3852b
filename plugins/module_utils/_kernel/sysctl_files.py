# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sysctl files of all directories make of a value, in the order in which they are really read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Iterable, Mapping

from .sysctl import dotted, normalise, other_face, path_of
from .tree import Tree

#: In order of precedence: of two files with the same name, the one in the earlier directory counts (sysctl.d(5)).
DIRECTORIES = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")
#: Read last, and only by `sysctl --system` of procps; systemd does not read it.
PROCPS_FILE = "/etc/sysctl.conf"


@dataclass(frozen=True)
class Assignment:
    """``name = value`` in ``file``.

    Attributes:
        name: with dots; may be a pattern.
        value: as written; None for a line ``-name``, which only says that patterns do not reach the name.
    """

    file: str
    name: str
    value: str | None

    @property
    def pattern(self) -> bool:
        return bool(re.search(r"[*?\[]", self.name))


def parse(text: str, file: str) -> list[Assignment]:
    """The lines of a sysctl.d file, as systemd-sysctl reads them (src/sysctl/sysctl.c of systemd 252)."""
    found = []
    for line in (each.strip() for each in text.splitlines()):
        if not line or line[0] in "#;":
            continue
        name, separator, value = line.partition("=")
        if not separator and not line.startswith("-"):
            continue
        name = name[1:] if name.startswith("-") else name
        found.append(Assignment(file, dotted(name.strip()), value.strip() if separator else None))
    return found


def at_boot(tree: Tree, instead: Mapping[str, str]) -> list[Assignment]:
    """What systemd-sysctl does at boot, in the order in which it does it.

    An assignment that says the same as an earlier one keeps the earlier one's place; another value takes it out and comes
    last. That order matters where one name undoes another, as the two faces of the dirty limits do.

    Args:
        instead: contents of files that differ from those on disk, by their paths.
    """
    files: dict[str, str] = {}
    for directory in DIRECTORIES:
        names = {
            *tree.names(directory),
            *(path.rpartition("/")[2] for path in instead if path.rpartition("/")[0] == directory),
        }
        for name in names:
            if name.endswith(".conf"):
                files.setdefault(name, f"{directory}/{name}")
    order: dict[str, Assignment] = {}
    for _, file in sorted(files.items()):
        for each in parse(instead[file] if file in instead else tree.read(file) or "", file):
            known = order.get(each.name)
            if known is None or known.value != each.value:
                order.pop(each.name, None)
                order[each.name] = each
    return list(order.values())


def in_force(name: str, assignments: Iterable[Assignment]) -> Assignment | None:
    """The assignment which decides on a value in the end; None where none does.

    Args:
        name: with dots. The other face of a dirty limit counts too, and only one of the two is in force.
        assignments: all of them, in their order.
    """
    everything = list(assignments)
    by_name = {each.name for each in everything}
    faces = [each for each in (name, other_face(name)) if each]
    found, face = None, ""
    for each in everything:
        for candidate in faces:
            named = each.name == candidate
            if each.value is None or not (named or (candidate not in by_name and _matches(each, candidate))):
                continue
            # 0 for the face that is not in force changes nothing (mm/page-writeback.c).
            if len(faces) == 1 or normalise(each.value) != "0" or face == candidate:
                found, face = each, candidate
    return found


def face_of(assignment: Assignment, name: str) -> str:
    """Which of a value's names an assignment, maybe a pattern, is about."""
    face = other_face(name)
    return face if face and (assignment.name == face or _matches(assignment, face)) else name


def _matches(assignment: Assignment, name: str) -> bool:
    """Whether it is a pattern for the name; like a shell's, it does not cross a slash."""
    pattern, path = path_of(assignment.name).split("/"), path_of(name).split("/")
    return (
        assignment.pattern
        and len(pattern) == len(path)
        and all(fnmatchcase(part, each) for part, each in zip(path, pattern))
    )
