# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of log-in sessions (pam_limits): they reach neither services nor containers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .._kernel.tree import OWN_HEADER, Tree
from .nofile import Nofile

MAIN_FILE = "/etc/security/limits.conf"
DIRECTORY = "/etc/security/limits.d"
OWN_FILE = f"{DIRECTORY}/99-zz-kubetune.conf"

_NO_LIMIT = ("-1", "unlimited", "infinity")


@dataclass(frozen=True)
class LoginLimits:
    """What the files say for one user, and which file said it last; None where nothing does."""

    soft: int | None = None
    soft_file: str = ""
    hard: int | None = None
    hard_file: str = ""


def render(user: str, limits: Nofile) -> str:
    return f"{OWN_HEADER}\n{user} soft nofile {limits.soft}\n{user} hard nofile {limits.hard}\n"


def parse(text: str, user: str, nr_open: int, file: str, before: LoginLimits = LoginLimits()) -> LoginLimits:
    """Apply a file's lines for a user by name on top of those of earlier files (limits.conf(5): the last one wins).

    Args:
        nr_open: what ``unlimited`` amounts to.
    """
    found = before
    for line in text.splitlines():
        fields = line.split("#", 1)[0].split()
        if len(fields) != 4 or fields[0] != user or fields[2] != "nofile":
            continue
        number = nr_open if fields[3] in _NO_LIMIT else int(fields[3]) if fields[3].isdigit() else None
        if number is None:
            continue
        if fields[1] in ("soft", "-"):
            found = replace(found, soft=number, soft_file=file)
        if fields[1] in ("hard", "-"):
            found = replace(found, hard=number, hard_file=file)
    return found


def read(tree: Tree, user: str, nr_open: int) -> tuple[LoginLimits, LoginLimits]:
    """What the files say without ours, and what those say that are read after ours."""
    names = [name for name in tree.names(DIRECTORY) if name.endswith(".conf")]
    files = [MAIN_FILE, *(f"{DIRECTORY}/{name}" for name in names)]
    without, later = LoginLimits(), LoginLimits()
    for file in files:
        if file == OWN_FILE:
            continue
        text = tree.read(file) or ""
        without = parse(text, user, nr_open, file, without)
        if file != MAIN_FILE and file > OWN_FILE:
            later = parse(text, user, nr_open, file, later)
    return without, later
