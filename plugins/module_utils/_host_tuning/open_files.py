# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The limits part: open files of log-ins, of the services that pass them on to etcd, and of the etcd that runs."""

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
class Service:
    """A service that etcd has its limit from: a container runtime, or one of its own.

    Attributes:
        etcd: whether it is etcd's own.
        asked: what its files ask for without our drop-in.
        process: None where it does not run.
    """

    unit: str
    etcd: bool
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
    services: list[Service] = field(default_factory=list)
    etcd: list[Process] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def has_enough(self, process: Process) -> bool:
        # A Go program raises its soft limit to one below the hard one (os/rlimit.go, syscall.adjustFileLimit).
        return process.nofile.soft >= self.wanted - 1

    def waits(self, service: Service) -> bool:
        """Whether a service was started with less than its files ask for now."""
        if self.wanted > self.ceiling or not service.process or service.process.nofile.hard >= self.wanted:
            return False
        return service.etcd or self._pods_lack()

    def to_restart(self) -> list[str]:
        """The runtimes to restart, where etcd's pod suffers from theirs. Never etcd itself: that is one member at a time."""
        return [each.unit for each in self.services if self.waits(each) and not each.etcd]

    def _pods_lack(self) -> bool:
        own = [each.unit for each in self.services if each.etcd]
        pods = [each for each in self.etcd if each.unit not in own]
        return any(not self.has_enough(each) for each in pods) or not self.etcd


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
        etcd=[each for each in running if each.name == "etcd"],
    )
    names = {**{unit: False for unit in units.installed(tree, *units.RUNTIMES)}, **_services_of_etcd(tree, found.etcd)}
    found.services = [_service(tree, unit, etcd, nr_open, running) for unit, etcd in names.items()]
    if desired.nofile.explicit and wanted > ceiling:
        found.problems.append(
            f"nofile {wanted}: at most {ceiling} can be given on this machine (fs.nr_open, or the hard limit of PID 1 "
            "where it lacks CAP_SYS_RESOURCE)"
        )
    if found.login:
        found.files[logins.OWN_FILE] = logins.render(USER, found.login)
    for service in found.services:
        # Never lowered: every pod of the node inherits it. Never above what can be given: systemd 252 starts the service
        # with less and does not say so (tried).
        if service.asked.nofile.hard < wanted <= ceiling:
            found.files[units.drop_in(service.unit)] = units.render(wanted)
    return found


def _services_of_etcd(tree: Tree, etcd: list[Process]) -> dict[str, bool]:
    """The services that etcd runs in; where none runs, the one that could start it.

    An installed service counts no more than that: it may only start a container, which has its limits from elsewhere.
    """
    running = {each.unit: True for each in etcd if each.unit and each.unit not in units.RUNTIMES}
    return running if etcd else {unit: True for unit in units.installed(tree, units.ETCD)}


def _login(before: logins.LoginLimits, wanted: int, choice: Choice) -> Nofile | None:
    """The limits to write; None where the other files say enough."""
    soft, hard = before.soft or 0, before.hard or 0
    target = Nofile(wanted, wanted) if choice.explicit else Nofile(max(soft, wanted), max(hard, wanted))
    return None if target == Nofile(soft, hard) else target


def _service(tree: Tree, unit: str, etcd: bool, nr_open: int, running: list[Process]) -> Service:
    asked = units.limit_of(tree, unit, nr_open, without=units.drop_in(unit))
    name = "etcd" if etcd else units.RUNTIMES[unit]
    return Service(unit, etcd, asked, next((each for each in running if (each.unit, each.name) == (unit, name)), None))


def report(found: OpenFiles, written: Collection[str], restarted: Collection[str], role: str) -> list[dict[str, Any]]:
    """One entry for each place that limits open files.

    Args:
        written: the files that this run wrote.
        restarted: the services that this run restarted.
    """
    if not found.wanted:
        return []
    entries = _login_entries(found, written, role)
    for service in found.services:
        entries.append(_service_entry(found, service, written, restarted, role))
    if all(each.etcd for each in found.services):
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


def _service_entry(
    found: OpenFiles, service: Service, written: Collection[str], restarted: Collection[str], role: str
) -> dict[str, Any]:
    item, asked = f"{service.unit} LimitNOFILE", service.asked
    source = asked.file or "systemd's default"
    if found.wanted > found.ceiling:
        reason = (
            f"the hard limit of this machine is {found.ceiling} and PID 1 may not raise it (no CAP_SYS_RESOURCE): "
            f"LimitNOFILE={found.wanted} is not written; {source} asks for {asked.nofile}"
        )
        return entry(role, item, "refused", value=found.ceiling, reason=reason)
    late = os.path.basename(asked.file) > os.path.basename(units.drop_in(service.unit)) and asked.file.endswith(".conf")
    if units.drop_in(service.unit) in found.files and late:
        reason = f"{asked.file} is read after {units.drop_in(service.unit)} and sets {asked.nofile}; remove it there"
        return entry(role, item, "warning", value=asked.nofile.hard, reason=reason)
    if found.waits(service) and service.unit not in restarted:
        assert service.process is not None
        who = "host_tuning_restart_container_runtime allows that"
        if service.etcd:
            who = (
                f"this role never does that: `systemctl restart {service.unit}`, one member at a time, when all others "
                "are healthy"
            )
        reason = f"{service.unit} runs with {service.process.nofile.hard} until it is restarted; {who}"
        return entry(role, item, "pending", value=found.wanted, reason=reason)
    if units.drop_in(service.unit) in found.files:
        verdict = "changed" if units.drop_in(service.unit) in written else "already_right"
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
    if found.has_enough(lowest):
        reason = f"read back in /proc/{lowest.pid}/limits"
        return entry(role, item, "already_right", value=lowest.nofile.soft, reason=reason)
    if found.wanted > found.ceiling:
        reason = (
            f"{found.wanted} is beyond the hard limit of this machine, {found.ceiling}, which cannot be raised here"
        )
        return entry(role, item, "refused", value=lowest.nofile.soft, reason=reason)
    after = "its pod is created anew"
    if any(each.etcd and each.unit == lowest.unit for each in found.services):
        after = f"{lowest.unit} is restarted"
    elif [each for each in found.to_restart() if each not in restarted]:
        after = f"the container runtime is restarted and {after}"
    return entry(role, item, "pending", value=lowest.nofile.soft, reason=f"it gets {found.wanted} when {after}")
