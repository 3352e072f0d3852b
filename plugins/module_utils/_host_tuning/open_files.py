# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The limits part: open files of log-ins, of the container runtime, and of the etcd that runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Collection

from .._kernel.tree import Tree
from .._limits import logins, nofile, units
from .._limits.nofile import Nofile, Process
from .._report import entry
from .profile import Choice, Desired

USER = "etcd"


@dataclass(frozen=True)
class Runtime:
    """A container runtime's service.

    Attributes:
        asked: what its files ask for without our drop-in.
        process: None where it does not run.
    """

    unit: str
    asked: units.UnitLimit
    process: Process | None


@dataclass
class OpenFiles:
    """What is there, and what has to be written.

    Attributes:
        wanted: open files; 0 leaves the limits alone.
        ceiling: the largest hard limit that can be given here.
        files: path -> content of what we write.
    """

    wanted: int = 0
    ceiling: int = 0
    login: Nofile | None = None
    login_before: logins.LoginLimits = logins.LoginLimits()
    login_later: logins.LoginLimits = logins.LoginLimits()
    has_user: bool = False
    runtimes: list[Runtime] = field(default_factory=list)
    etcd: list[Process] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def etcd_has_enough(self) -> bool:
        # A Go program raises its soft limit to one below the hard one (os/rlimit.go, syscall.adjustFileLimit).
        return bool(self.etcd) and min(each.nofile.soft for each in self.etcd) >= self.wanted - 1

    def to_restart(self) -> list[str]:
        """The runtimes that were started with less than their files allow, where etcd suffers from it."""
        if self.wanted > self.ceiling or self.etcd_has_enough:
            return []
        return [each.unit for each in self.runtimes if each.process and each.process.nofile.hard < self.wanted]


def survey(tree: Tree, desired: Desired) -> OpenFiles:
    if desired.nofile is None:
        return OpenFiles()
    wanted, ceiling = int(desired.nofile.value), nofile.ceiling(tree)
    nr_open = int((tree.read("/proc/sys/fs/nr_open") or "1048576").strip())
    running = nofile.processes(tree, "etcd", *units.RUNTIMES.values())
    before, later = logins.read(tree, USER, nr_open)
    found = OpenFiles(
        wanted=wanted,
        ceiling=ceiling,
        login=_login(before, wanted, desired.nofile),
        login_before=before,
        login_later=later,
        has_user=any(line.startswith(f"{USER}:") for line in (tree.read("/etc/passwd") or "").splitlines()),
        runtimes=[_runtime(tree, unit, nr_open, running) for unit in units.installed(tree)],
        etcd=[each for each in running if each.name == "etcd"],
    )
    if desired.nofile.explicit and wanted > ceiling:
        found.problems.append(
            f"nofile {wanted}: at most {ceiling} can be given on this machine (fs.nr_open, or the hard limit of PID 1 "
            "where it lacks CAP_SYS_RESOURCE)"
        )
    if found.login:
        found.files[logins.OWN_FILE] = logins.render(USER, found.login)
    for runtime in found.runtimes:
        # Never lowered: every pod of the node inherits it. Never above what can be given: systemd 252 starts the service
        # with less and does not say so (tried).
        if runtime.asked.nofile.hard < wanted <= ceiling:
            found.files[units.drop_in(runtime.unit)] = units.render(wanted)
    return found


def _login(before: logins.LoginLimits, wanted: int, choice: Choice) -> Nofile | None:
    """The limits to write; None where the other files say enough."""
    soft, hard = before.soft or 0, before.hard or 0
    target = Nofile(wanted, wanted) if choice.explicit else Nofile(max(soft, wanted), max(hard, wanted))
    return None if target == Nofile(soft, hard) else target


def _runtime(tree: Tree, unit: str, nr_open: int, running: list[Process]) -> Runtime:
    asked = units.limit_of(tree, unit, nr_open, without=units.drop_in(unit))
    process = next((each for each in running if each.unit == unit and each.name == units.RUNTIMES[unit]), None)
    return Runtime(unit, asked, process)


def report(found: OpenFiles, written: Collection[str], restarted: Collection[str], role: str) -> list[dict[str, Any]]:
    """One entry for each place that limits open files.

    Args:
        written: the files that this run wrote.
        restarted: the services that this run restarted.
    """
    if not found.wanted:
        return []
    entries = _login_entries(found, written, role)
    for runtime in found.runtimes:
        entries.append(_runtime_entry(found, runtime, written, restarted, role))
    if not found.runtimes:
        reason = f"none of {', '.join(units.RUNTIMES)} is on this host"
        entries.append(entry(role, "container runtime LimitNOFILE", "left_out", reason=reason))
    entries.append(_etcd_entry(found, restarted, role))
    return entries


def _login_entries(found: OpenFiles, written: Collection[str], role: str) -> list[dict[str, Any]]:
    item, before = f"nofile of logins as {USER}", found.login_before
    if found.login is None:
        verdict = "kept" if (before.soft or 0) > found.wanted else "already_right"
        return [entry(role, item, verdict, value=f"{before.soft}:{before.hard}", reason=f"{before.hard_file} says so")]
    notes = []
    if not found.has_user:
        notes.append(f"there is no user {USER} here; services and containers never read it")
    if found.wanted > found.ceiling:
        notes.append(f"the machine's hard limit, {found.ceiling}, holds sessions below it")
    right = "ignored" if notes else "already_right"
    verdict = "changed" if logins.OWN_FILE in written else right
    entries = [entry(role, item, verdict, value=str(found.login), reason="; ".join(notes))]
    later = found.login_later
    for number, file in ((later.soft, later.soft_file), (later.hard, later.hard_file)):
        if number is not None and number < found.wanted:
            reason = f"{file} is read after {logins.OWN_FILE} and sets {number}; remove it there"
            entries.append(entry(role, item, "warning", value=number, reason=reason))
    return entries


def _runtime_entry(
    found: OpenFiles, runtime: Runtime, written: Collection[str], restarted: Collection[str], role: str
) -> dict[str, Any]:
    item, asked = f"{runtime.unit} LimitNOFILE", runtime.asked
    source = asked.file or "systemd's default"
    if found.wanted > found.ceiling:
        reason = (
            f"the hard limit of this machine is {found.ceiling} and PID 1 may not raise it (no CAP_SYS_RESOURCE): "
            f"LimitNOFILE={found.wanted} is not written; {source} asks for {asked.nofile}"
        )
        return entry(role, item, "refused", value=found.ceiling, reason=reason)
    late = os.path.basename(asked.file) > os.path.basename(units.drop_in(runtime.unit)) and asked.file.endswith(".conf")
    if units.drop_in(runtime.unit) in found.files and late:
        reason = f"{asked.file} is read after {units.drop_in(runtime.unit)} and sets {asked.nofile}; remove it there"
        return entry(role, item, "warning", value=asked.nofile.hard, reason=reason)
    if runtime.unit in found.to_restart() and runtime.unit not in restarted:
        assert runtime.process is not None
        reason = (
            f"{runtime.unit} runs with {runtime.process.nofile.hard} until it is restarted; "
            "host_tuning_restart_container_runtime allows that"
        )
        return entry(role, item, "pending", value=found.wanted, reason=reason)
    if units.drop_in(runtime.unit) in found.files:
        verdict = "changed" if units.drop_in(runtime.unit) in written else "already_right"
        return entry(
            role, item, verdict, value=found.wanted, previous=asked.nofile.hard if verdict == "changed" else None
        )
    verdict = "kept" if asked.nofile.hard > found.wanted else "already_right"
    return entry(
        role, item, verdict, value=str(asked.nofile), reason=f"{source} gives at least {found.wanted}; never lowered"
    )


def _etcd_entry(found: OpenFiles, restarted: Collection[str], role: str) -> dict[str, Any]:
    item = "nofile of the running etcd"
    if not found.etcd:
        return entry(role, item, "left_out", reason="no etcd runs here: there is nothing to read back")
    lowest = min(found.etcd, key=lambda each: each.nofile.soft)
    if found.etcd_has_enough:
        reason = f"read back in /proc/{lowest.pid}/limits"
        return entry(role, item, "already_right", value=lowest.nofile.soft, reason=reason)
    if found.wanted > found.ceiling:
        reason = (
            f"{found.wanted} is beyond the hard limit of this machine, {found.ceiling}, which cannot be raised here"
        )
        return entry(role, item, "refused", value=lowest.nofile.soft, reason=reason)
    after = "its pod is created anew"
    if [each for each in found.to_restart() if each not in restarted]:
        after = f"the container runtime is restarted and {after}"
    return entry(role, item, "pending", value=lowest.nofile.soft, reason=f"it gets {found.wanted} when {after}")
