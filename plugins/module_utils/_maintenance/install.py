# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts the configuration and the units on a host, and takes them away again. What is there is read, never remembered."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Sequence

from .._errors import KubetuneError
from .._etcd.client import EtcdError
from .._etcd.lock import PREFIX
from .._node.state import write_atomically
from .._node_window import unit as window
from .._report import Outcome, difference, entry
from . import backup, elsewhere, metrics, records, retention
from .config import DAY, Config
from .context import client_of
from .units import BACKUP, DIRECTORY, TIMER, Job, Schedule, jobs, service, timer

ROLE = "etcd_maintenance"
CONFIG = "/etc/kubetune/etcd-maintenance.json"
#: systemd's memory of the last time that a persistent timer fired.
STAMPS = "/var/lib/systemd/timers/stamp-"

#: A run waits for the lock of the host, and for one of the cluster in each of three steps.
_WAITS = 4

Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@dataclass
class Installed(Outcome):
    """next_run: when the timer fires next, as systemd says it; empty for never."""

    next_run: str = ""


@dataclass(frozen=True)
class _File:
    item: str
    path: Path
    text: str
    mode: int

    def present(self) -> str | None:
        try:
            return self.path.read_text()
        except FileNotFoundError:
            return None


def run_command(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as exc:
        raise KubetuneError(f"{argv[0]} cannot be run: the maintenance needs systemd on the host ({exc})") from exc


def schedule_problems(schedule: Schedule, lock_wait_seconds: int, run: Runner = run_command) -> list[str]:
    """What is wrong with a schedule, one sentence each; the calendar is judged by the host's own systemd."""
    found = []
    for name in ("calendar", "backup_calendar", "drill_calendar"):
        calendar = getattr(schedule, name)
        if not calendar and name != "calendar":
            continue  # not wanted
        told = run(["systemd-analyze", "calendar", calendar])
        if told.returncode != 0:
            said = " ".join((told.stderr or told.stdout).split())
            found.append(
                f"{name}: {calendar!r} is not allowed; a calendar event of systemd.time(7) is needed, such as "
                f"'*-*-* 02:30:00' (systemd-analyze says: {said})"
            )
    if not 0 <= schedule.random_delay_seconds <= DAY:
        found.append(f"random_delay_seconds: {schedule.random_delay_seconds} is not allowed; 0 to {DAY} is needed")
    least = _WAITS * lock_wait_seconds + 600
    if schedule.timeout_seconds < least:
        found.append(
            f"timeout_seconds: {schedule.timeout_seconds} is not allowed; at least {least} is needed, for a run may wait "
            f"{_WAITS} times for lock_wait_seconds ({lock_wait_seconds})"
        )
    return found


class Installation:
    """
    Args:
        root: prefix of every path that is written, for tests.
        run: runs systemctl and systemd-analyze.
    """

    def __init__(self, config: Config, check: bool, root: Path = Path("/"), run: Runner = run_command) -> None:
        self._config = config
        self._check = check
        self._root = root
        self._run = run
        self._outcome = Installed()

    def install(self, schedule: Schedule, program: str, interpreter: str = sys.executable) -> Installed:
        """
        Raises:
            KubetuneError: the certificates are not usable, or systemd does not take the timer.
        """
        self._ask_etcd()
        possible = [each for each in jobs(schedule) if self._config.backup.enabled or each.name != BACKUP]
        wanted = [each for each in possible if each.calendar]
        files = self._files(possible, schedule, program, interpreter)
        stale = {each.path.name for each in files if self._compare(each)}
        idle = {each.timer for each in wanted if not self._is_on(each.timer)}
        for directory, mode in self._directories().items():
            if not directory.is_dir():
                self._outcome.changed = True
                if not self._check:
                    directory.mkdir(mode=mode, parents=True)
        if stale or idle:
            self._outcome.changed = True
            if not self._check:
                self._apply([each for each in files if each.path.name in stale], wanted, stale)
        self._provide_window(program, interpreter)
        kept = {each.item for each in files}
        for name in self._take_away([name for name in _units(jobs(schedule)) if name not in kept]):
            self._outcome.changed = True
            self._outcome.report.append(entry(ROLE, name, "restored", reason="it is not wanted any more"))
        calendars = {each.timer: each.calendar for each in wanted}
        for each in files:
            is_new = each.path.name in stale or each.item in idle
            value = calendars.get(each.item, str(each.path))
            self._outcome.report.append(entry(ROLE, each.item, "changed" if is_new else "already_right", value))
        self._say_where_copies_are()
        self._outcome.next_run = self._property(TIMER, "NextElapseUSecRealtime")
        return self._outcome

    def remove(self, remove_backups: bool) -> Installed:
        """Take away what `install` put there; backups stay unless they are asked for."""
        known = _units(jobs(Schedule("", 0, 0)))
        config = self._path(CONFIG)
        metrics_file = self._path(f"{self._config.metrics_directory}/{metrics.FILE}") if self._config.metrics_directory else None
        state, tools = self._path(self._config.state_directory), self._path(self._config.tools_directory)
        units = [self._unit(name) for name in known if self._unit(name).exists()]
        present = [path for path in [*units, config] if path.exists()]
        if present and not self._check:
            self._forget_records()
        self._take_away(known)
        if config.exists():
            self._outcome.diff.append(difference(config, config.read_text(), ""))
        if present and not self._check:
            made = [state / "maintenance.lock", state / metrics.STATE, tools / "etcdutl", *([metrics_file] if metrics_file else [])]
            for path in [config, *made]:
                path.unlink(missing_ok=True)
        backups = self._every_backup() if remove_backups else []
        if not self._check:
            for path in backups:
                path.unlink()
                _remove_if_empty(path.parent)
            drill, backup_directory = self._path(self._config.drill.directory), self._path(self._config.backup.directory)
            for directory in [config.parent, drill, tools, state, backup_directory] if present or backups else []:
                _remove_if_empty(directory)
        self._outcome.changed = bool(present or backups)
        verdict = "restored" if self._outcome.changed else "already_right"
        reason = f"{len(backups)} files of backups were removed with it" if backups else ""
        self._outcome.report.append(entry(ROLE, "etcd maintenance", verdict, reason=reason))
        return self._outcome

    # --- judging ----------------------------------------------------------------------------------------------

    def _ask_etcd(self) -> None:
        """Certificates that cannot be used are an error; an etcd that is not there (yet) is worth a line."""
        try:
            client_of(self._config).status()
        except EtcdError as exc:
            self._outcome.report.append(entry(ROLE, "etcd", "warning", self._config.endpoint, reason=str(exc)))

    def _say_where_copies_are(self) -> None:
        config = self._config.backup
        if config.enabled and elsewhere.only_here(config.directory, config.copy_command, elsewhere.mountinfo()):
            reason = f"every copy is on this cluster's own machines: {backup.ADVICE}"
            self._outcome.report.append(entry(ROLE, "backups", "warning", config.directory, reason=reason))

    def _is_on(self, timer: str) -> bool:
        return self._property(timer, "UnitFileState") == "enabled" and self._property(timer, "ActiveState") == "active"

    def _property(self, timer: str, name: str) -> str:
        return self._run(["systemctl", "show", "--value", "--property", name, timer]).stdout.strip()

    def _compare(self, wanted: _File) -> bool:
        present = wanted.present()
        mode = wanted.path.stat().st_mode & 0o777 if present is not None else None
        if present == wanted.text and mode == wanted.mode:
            return False
        self._outcome.diff.append(difference(wanted.path, present or "", wanted.text))
        return True

    # --- changing ---------------------------------------------------------------------------------------------

    def _files(self, possible: Sequence[Job], schedule: Schedule, program: str, interpreter: str) -> list[_File]:
        """A service also where no timer starts it: a restore does, or a person."""
        text = json.dumps(asdict(self._config), indent=2) + "\n"
        files = [_File("etcd maintenance configuration", self._path(CONFIG), text, 0o600)]
        for job in possible:
            unit = service(job, interpreter, program, CONFIG, self._config, schedule.timeout_seconds)
            files.append(_File(job.service, self._unit(job.service), unit, 0o644))
            if job.calendar:
                files.append(_File(job.timer, self._unit(job.timer), timer(job, schedule), 0o644))
        return files

    def _directories(self) -> dict[Path, int]:
        """The backup directory of an administrator keeps its mode; what is written there is private by itself."""
        config = self._config
        made = {self._path(CONFIG).parent: 0o755, self._path(config.state_directory): 0o700, self._path(config.drill.directory): 0o700}
        if config.backup.enabled:
            made[self._path(config.backup.directory)] = 0o700
        if config.backup.enabled or config.defragmentation.may_open_windows:
            made[self._path(config.tools_directory)] = 0o755
        if config.metrics_directory:
            made[self._path(config.metrics_directory)] = 0o755
        return made

    def _apply(self, stale: list[_File], wanted: Sequence[Job], names: set[str]) -> None:
        for each in stale:
            write_atomically(each.path, each.text.encode(), each.mode)
        self._systemctl("daemon-reload")
        for job in wanted:
            if job.timer in names:
                # A persistent timer with a new calendar would make up for a time that was never in its old one.
                self._systemctl("stop", job.timer)
                self._path(STAMPS + job.timer).unlink(missing_ok=True)
            self._systemctl("enable", "--quiet", "--now", job.timer)

    def _provide_window(self, program: str, interpreter: str) -> None:
        """The unit that a window of this host's member runs in; it stays when the maintenance goes, as after any other window."""
        if self._config.defragmentation.may_open_windows and not self._window.exists():
            self._outcome.changed = True
            if not self._check:
                window.install(interpreter, program)

    @property
    def _window(self) -> Path:
        return self._path(str(window.PATH))

    def _take_away(self, units: Sequence[str]) -> list[str]:
        """Which of the units there were."""
        paths = {name: self._unit(name) for name in units if self._unit(name).exists()}
        self._outcome.diff += [difference(path, path.read_text(), "") for path in paths.values()]
        if paths and not self._check:
            for name in sorted(paths, key=lambda name: not name.endswith(".timer")):
                if name.endswith(".timer"):
                    self._systemctl("disable", "--quiet", "--now", name)
                    self._path(STAMPS + name).unlink(missing_ok=True)
                else:
                    self._systemctl("stop", name)
                    self._run(["systemctl", "reset-failed", name])
                paths[name].unlink()
            self._systemctl("daemon-reload")
        return list(paths)

    def _forget_records(self) -> None:
        try:
            client_of(self._config).delete(records.RECORDS, PREFIX + "maintenance0")
        except KubetuneError as exc:
            self._outcome.report.append(entry(ROLE, f"etcd keys {records.RECORDS}", "left_out", reason=str(exc)))

    def _every_backup(self) -> list[Path]:
        """All files of backups, whoever's, and what is left of unfinished ones."""
        return sorted(self._path(self._config.backup.directory).glob(retention.PATTERN))

    def _unit(self, name: str) -> Path:
        return self._path(f"{DIRECTORY}/{name}")

    def _systemctl(self, *arguments: str) -> None:
        done = self._run(["systemctl", *arguments])
        if done.returncode != 0:
            raise KubetuneError(f"systemctl {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")

    def _path(self, path: str) -> Path:
        return self._root / path.lstrip("/")


def _units(of: Sequence[Job]) -> list[str]:
    return [unit for job in of for unit in (job.timer, job.service)]


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        pass  # somebody else's files, or it was never there
