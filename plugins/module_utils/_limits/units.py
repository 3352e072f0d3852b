# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LimitNOFILE of systemd services: what their files say, and our drop-in."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .._kernel.tree import OWN_HEADER, Tree
from .nofile import Nofile

#: Service -> name of its process. Containers inherit the limits of these (containerd's CRI plugin passes none on).
RUNTIMES = {"containerd.service": "containerd", "crio.service": "crio", "docker.service": "dockerd"}
#: Of an etcd that is no pod, as kubespray and distributions call it.
ETCD = "etcd.service"

#: In order of precedence (systemd.unit(5)).
DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
#: What a service gets where nothing is said, since systemd 240 (NEWS).
DEFAULT = Nofile(1024, 524288)

#: There while systemd is PID 1 (sd_booted(3)).
SYSTEMD = "/run/systemd/system"


@dataclass(frozen=True)
class UnitLimit:
    """A service's LimitNOFILE and the file that says so; ``file`` is empty for systemd's default."""

    nofile: Nofile
    file: str = ""


_DROP_IN = "zz-kubetune-nofile.conf"


def drop_in(unit: str) -> str:
    """Path of our drop-in for a service; its name sorts late, for the last one counts (systemd.unit(5))."""
    return f"/etc/systemd/system/{unit}.d/{_DROP_IN}"


def is_drop_in(path: str) -> bool:
    return path.endswith(f"/{_DROP_IN}")


def render(limit: int) -> str:
    return f"{OWN_HEADER}\n[Service]\nLimitNOFILE={limit}\n"


def installed(tree: Tree, *units: str) -> list[str]:
    """Those of the services that are on this host."""
    return [unit for unit in units if any(tree.exists(f"{each}/{unit}") for each in DIRECTORIES)]


def files_of(tree: Tree, unit: str) -> list[str]:
    """A service's own file, then its drop-ins, in the order in which systemd reads them."""
    # An instance, such as etcd@events.service, has the file of its template where it has none of its own.
    template = re.sub(r"@.*\.service$", "@.service", unit)
    files = (f"{directory}/{name}" for name in (unit, template) for directory in DIRECTORIES)
    own = next((each for each in files if tree.exists(each)), None)
    drop_ins: dict[str, str] = {}
    for suffix in dict.fromkeys((f"{unit}.d", f"{template}.d", "service.d")):
        for directory in DIRECTORIES:
            for name in tree.names(f"{directory}/{suffix}"):
                if name.endswith(".conf"):
                    drop_ins.setdefault(name, f"{directory}/{suffix}/{name}")
    return ([own] if own else []) + [drop_ins[name] for name in sorted(drop_ins)]


def parse(text: str, nr_open: int) -> Nofile | None:
    """The last LimitNOFILE of a unit file's [Service] section; None where there is none that systemd would take.

    Args:
        nr_open: what ``infinity`` amounts to (setrlimit(2)).
    """
    found, section = None, ""
    for line in (each.strip() for each in text.splitlines()):
        if line.startswith("["):
            section = line
        match = re.fullmatch(r"LimitNOFILE\s*=\s*(infinity|\d+)(?::(infinity|\d+))?", line)
        if match and section == "[Service]":
            soft, hard = (
                nr_open if each == "infinity" else int(each)
                for each in (match.group(1), match.group(2) or match.group(1))
            )
            found = Nofile(soft, hard)
    return found


def limit_of(tree: Tree, unit: str, nr_open: int, without: str = "") -> UnitLimit:
    """The limit that a service's files ask for.

    Args:
        without: a file to leave out, such as our own.
    """
    found = UnitLimit(DEFAULT)
    for file in files_of(tree, unit):
        nofile = parse(tree.read(file) or "", nr_open) if file != without else None
        if nofile:
            found = UnitLimit(nofile, file)
    return found
