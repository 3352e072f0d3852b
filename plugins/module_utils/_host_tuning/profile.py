# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From options to one desired state: the profile's values, and those that a person gave on top of them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any, Mapping

from .._block.device import KINDS, real_name
from .._errors import Refusal
from .._kernel import sysctl

#: The words for "leave the scheduler as it is", and for "by the class of the disk".
KEEP, AUTO = "keep", "auto"

#: The guide's values. ``deadline`` is today's mq-deadline; NVMe drives are left without a scheduler, as their vendors and
#: distributions recommend, and disks of the network as they are.
GUIDE: dict[str, Any] = {
    "scheduler": {"nvme": "none", "other": KEEP, "": "deadline"},
    "read_ahead_kb": 1024,
    "sysctls": {
        "net.core.rmem_max": 134217728,
        "net.core.wmem_max": 134217728,
        "net.ipv4.tcp_rmem": "4096 65536 134217728",
        "net.ipv4.tcp_wmem": "4096 65536 134217728",
        "vm.dirty_background_ratio": 5,
        "vm.dirty_ratio": 15,
        "vm.swappiness": 1,
    },
    "nofile": 65536,
}
#: Instead of the guide's percentages, for hosts with much memory: what a disk of 200 MB/s writes in about 1 s and 5 s. 256 MiB
#: is the upper end of what PostgreSQL's community advises for latency of commits.
GUIDE_DIRTY_BYTES = {"vm.dirty_background_bytes": 268435456, "vm.dirty_bytes": 1073741824}
#: Every value as the kernel and the distribution have it.
UPSTREAM: dict[str, Any] = {"scheduler": {}, "read_ahead_kb": None, "sysctls": {}, "nofile": 0}
PROFILES = {"guide": GUIDE, "upstream": UPSTREAM}

#: KiB. Read-ahead beyond 64 MiB per file only displaces other pages: far more than any distribution's profile sets (tuned's
#: throughput-performance: 4 MiB).
MAX_READ_AHEAD_KB = 65536
#: Fewer files than systemd gives to every service as a soft limit is no tuning.
MIN_NOFILE = 1024


@dataclass(frozen=True)
class Choice:
    """A wanted value. An explicit one was given by a person: it wins, and it is an error where it cannot be had."""

    value: str
    explicit: bool


@dataclass(frozen=True)
class Desired:
    """What the host shall be like; empty: as it was before.

    Attributes:
        paths: whose disks are tuned.
        schedulers: class of device -> scheduler under its real name; ``""`` is every class not named.
        read_ahead: KiB.
        read_ahead_mode: ``exact``, or ``at_least``, which leaves larger values as they are.
        sysctls: name -> value.
        nofile: open files.
        left_out: profile values that are not wanted here: item -> reason.
    """

    paths: tuple[str, ...] = ()
    schedulers: Mapping[str, Choice] = field(default_factory=dict)
    read_ahead: Choice | None = None
    read_ahead_mode: str = "exact"
    sysctls: Mapping[str, Choice] = field(default_factory=dict)
    nofile: Choice | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)


def resolve(options: Mapping[str, Any]) -> Desired:
    """The desired state of the module's options.

    Args:
        options: the options of the module ``host_tuning``, of the right types; what is None was not given.

    Raises:
        Refusal: with everything that is wrong with them.
    """
    if options["state"] == "absent":
        return Desired()
    profile = PROFILES[options["profile"]]
    problems: list[str] = []
    values = profile["sysctls"]
    if options["dirty_limits"] == "bytes" and values:
        values = {name: value for name, value in values.items() if "dirty" not in name} | GUIDE_DIRTY_BYTES
    sysctls, left_out = _sysctls(values, options["sysctls"] or {}, problems)
    desired = Desired(
        paths=_paths(options["paths"], problems),
        schedulers=_schedulers(
            profile["scheduler"], options["scheduler"], options["scheduler_by_class"] or {}, problems
        ),
        read_ahead=_read_ahead(
            profile["read_ahead_kb"], options["read_ahead_kb"], options["read_ahead_mode"], problems
        ),
        read_ahead_mode=options["read_ahead_mode"],
        sysctls=sysctls,
        nofile=_nofile(profile["nofile"], options["nofile"], problems),
        left_out=left_out,
    )
    if problems:
        raise Refusal(problems)
    return desired


def _paths(paths: list[str], problems: list[str]) -> tuple[str, ...]:
    for path in paths:
        if not path.startswith("/"):
            problems.append(f"paths: {path!r} is not an absolute path, such as /var/lib/etcd")
    return tuple(dict.fromkeys(os.path.normpath(path) for path in paths))


def _schedulers(
    profile: Mapping[str, str], everywhere: str | None, by_class: Mapping[str, str | None], problems: list[str]
) -> dict[str, Choice]:
    wanted = {kind: Choice(real_name(name), False) for kind, name in profile.items()}
    if everywhere is not None:
        wanted[""] = Choice(real_name(everywhere), True)
        wanted.pop("other", None)
        # NVMe has to be named to get one.
        wanted.setdefault("nvme", Choice(KEEP, False))
    for kind, name in by_class.items():
        if kind not in KINDS:
            problems.append(f"scheduler_by_class: {kind!r} is no class of disks; there are {', '.join(KINDS)}")
        if name is not None:
            wanted[kind] = Choice(real_name(str(name)), True)
    for kind, choice in wanted.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", choice.value):
            problems.append(
                f"scheduler {choice.value!r}{f' of class {kind}' if kind else ''}: not a scheduler's name, such as "
                f"mq-deadline, none, kyber or bfq, nor {KEEP!r}, which leaves it as it is, nor {AUTO!r}"
            )
    return wanted


def _read_ahead(profile: int | None, given: int | None, mode: str, problems: list[str]) -> Choice | None:
    if mode == KEEP:
        if given is not None:
            problems.append(f"read_ahead_kb {given}: read_ahead_mode {KEEP!r} leaves it as it is; give one of the two")
        return None
    if given is None:
        return None if profile is None else Choice(str(profile), False)
    page_kb = os.sysconf("SC_PAGESIZE") // 1024
    if not 0 <= given <= MAX_READ_AHEAD_KB or given % page_kb:
        problems.append(
            f"read_ahead_kb {given}: allowed is 0 to {MAX_READ_AHEAD_KB} KiB in whole pages, here multiples of {page_kb}"
        )
    return Choice(str(given), True)


def _nofile(profile: int, given: int | None, problems: list[str]) -> Choice | None:
    if given is not None and given != 0 and given < MIN_NOFILE:
        problems.append(
            f"nofile {given}: allowed is {MIN_NOFILE} up to fs.nr_open, or 0, which leaves limits as they are"
        )
    number = profile if given is None else given
    return Choice(str(number), given is not None) if number else None


def _sysctls(
    profile: Mapping[str, Any], given: Mapping[str, Any], problems: list[str]
) -> tuple[dict[str, Choice], dict[str, str]]:
    wanted = {name: Choice(sysctl.check_value(name, value)[0], False) for name, value in profile.items()}
    left_out: dict[str, str] = {}
    for name, value in ((sysctl.dotted(str(name)), value) for name, value in given.items()):
        if value is None:
            if wanted.pop(name, None):
                left_out[name] = "removed from the profile by sysctls"
            continue
        text, problem = sysctl.check_value(name, value)
        if problem:
            problems.append(problem)
            continue
        wanted[name] = Choice(text, True)
        face = sysctl.other_face(name)
        if face in wanted and not wanted[face].explicit:
            del wanted[face]
            left_out[face] = f"{name} is given, and the kernel knows only one of the two"
    problems += _pair_problems(wanted)
    return wanted, left_out


def _pair_problems(wanted: Mapping[str, Choice]) -> list[str]:
    problems = []
    for first, second in sysctl.PAIRS:
        if first in wanted and second in wanted:
            problems.append(f"sysctl {first} and {second}: the kernel knows only one of the two; give one of them")
    for unit in ("ratio", "bytes"):
        limit, background = wanted.get(f"vm.dirty_{unit}"), wanted.get(f"vm.dirty_background_{unit}")
        if limit and background and int(background.value) >= int(limit.value):
            problems.append(
                f"sysctl vm.dirty_background_{unit} {background.value}: has to be below vm.dirty_{unit}, {limit.value}; "
                "give both, or the kernel takes half of the limit without a word"
            )
    return problems
