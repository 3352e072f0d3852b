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
from .._report import Outcome, difference, entry
from . import backup, records
from .config import DAY, Config
from .context import client_of
from .units import SERVICE, TIMER, Schedule, service, timer

ROLE = "etcd_maintenance"
CONFIG = "/etc/kubetune/etcd-maintenance.json"
UNITS = "/etc/systemd/system"
#: systemd's memory of the last time that a persistent timer fired.
STAMP = f"/var/lib/systemd/timers/stamp-{TIMER}"

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
    told = run(["systemd-analyze", "calendar", schedule.calendar])
    if told.returncode != 0:
        said = " ".join((told.stderr or told.stdout).split())
        found.append(
            f"calendar: {schedule.calendar!r} is not allowed; a calendar event of systemd.time(7) is needed, such as "
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
        files = self._files(schedule, program, interpreter)
        stale = {each.path.name for each in files if self._compare(each)}
        enabled, active = self._timer_state()
        for directory, mode in self._directories().items():
            if not directory.is_dir():
                self._outcome.changed = True
                if not self._check:
                    directory.mkdir(mode=mode, parents=True)
        if stale or not (enabled and active):
            self._outcome.changed = True
            if not self._check:
                self._apply([each for each in files if each.path.name in stale], restart=TIMER in stale)
        for each in files:
            is_new = each.path.name in stale or (each.item == TIMER and not (enabled and active))
            value = schedule.calendar if each.item == TIMER else str(each.path)
            self._outcome.report.append(entry(ROLE, each.item, "changed" if is_new else "already_right", value))
        self._outcome.next_run = self._property("NextElapseUSecRealtime")
        return self._outcome

    def remove(self, remove_backups: bool) -> Installed:
        """Take away what `install` put there; snapshots stay unless they are asked for."""
        paths = [self._path(f"{UNITS}/{TIMER}"), self._path(f"{UNITS}/{SERVICE}"), self._path(CONFIG)]
        present = [path for path in paths if path.exists()]
        self._outcome.diff = [difference(path, path.read_text(), "") for path in present]
        state = self._path(self._config.state_directory)
        directories = [self._path(CONFIG).parent, state, self._path(self._config.backup.directory)]
        if present and not self._check:
            self._forget_records()
            if self._path(f"{UNITS}/{TIMER}") in present:
                self._systemctl("disable", "--quiet", "--now", TIMER)
            if self._path(f"{UNITS}/{SERVICE}") in present:
                self._systemctl("stop", SERVICE)
                self._run(["systemctl", "reset-failed", SERVICE])
            for path in [*present, self._path(STAMP), state / "maintenance.lock"]:
                path.unlink(missing_ok=True)
            self._systemctl("daemon-reload")
        snapshots = self._every_snapshot() if remove_backups else []
        for path in snapshots:
            if not self._check:
                path.unlink()
                _remove_if_empty(path.parent)
        if not self._check:
            for directory in directories if present or snapshots else []:
                _remove_if_empty(directory)
        self._outcome.changed = bool(present or snapshots)
        item = "etcd maintenance"
        verdict = "restored" if self._outcome.changed else "already_right"
        reason = f"{len(snapshots)} files of snapshots were removed with it" if snapshots else ""
        self._outcome.report.append(entry(ROLE, item, verdict, reason=reason))
        return self._outcome

    # --- judging ----------------------------------------------------------------------------------------------

    def _ask_etcd(self) -> None:
        """Certificates that cannot be used are an error; an etcd that is not there (yet) is worth a line."""
        try:
            client_of(self._config).status()
        except EtcdError as exc:
            self._outcome.report.append(entry(ROLE, "etcd", "warning", self._config.endpoint, reason=str(exc)))

    def _timer_state(self) -> tuple[bool, bool]:
        return self._property("UnitFileState") == "enabled", self._property("ActiveState") == "active"

    def _property(self, name: str) -> str:
        return self._run(["systemctl", "show", "--value", "--property", name, TIMER]).stdout.strip()

    def _compare(self, wanted: _File) -> bool:
        present = wanted.present()
        mode = wanted.path.stat().st_mode & 0o777 if present is not None else None
        if present == wanted.text and mode == wanted.mode:
            return False
        self._outcome.diff.append(difference(wanted.path, present or "", wanted.text))
        return True

    # --- changing ---------------------------------------------------------------------------------------------

    def _files(self, schedule: Schedule, program: str, interpreter: str) -> list[_File]:
        text = json.dumps(asdict(self._config), indent=2) + "\n"
        unit = service(interpreter, program, CONFIG, self._config, schedule.timeout_seconds)
        return [
            _File("etcd maintenance configuration", self._path(CONFIG), text, 0o600),
            _File(SERVICE, self._path(f"{UNITS}/{SERVICE}"), unit, 0o644),
            _File(TIMER, self._path(f"{UNITS}/{TIMER}"), timer(schedule), 0o644),
        ]

    def _directories(self) -> dict[Path, int]:
        """The backup directory of an administrator keeps its mode; what is written there is private by itself."""
        made = {self._path(CONFIG).parent: 0o755, self._path(self._config.state_directory): 0o700}
        if self._config.backup.enabled:
            made[self._path(self._config.backup.directory)] = 0o700
        return made

    def _apply(self, stale: list[_File], restart: bool) -> None:
        for each in stale:
            write_atomically(each.path, each.text.encode(), each.mode)
        self._systemctl("daemon-reload")
        if restart:
            # A persistent timer with a new calendar would make up for a time that was never in its old one.
            self._systemctl("stop", TIMER)
            self._path(STAMP).unlink(missing_ok=True)
        self._systemctl("enable", "--quiet", "--now", TIMER)

    def _forget_records(self) -> None:
        try:
            client_of(self._config).delete(records.RECORDS, PREFIX + "maintenance0")
        except KubetuneError as exc:
            self._outcome.report.append(entry(ROLE, f"etcd keys {records.RECORDS}", "left_out", reason=str(exc)))

    def _every_snapshot(self) -> list[Path]:
        directory = self._path(self._config.backup.directory)
        return [path for pattern in backup.PATTERNS for path in sorted(directory.glob(pattern))]

    def _systemctl(self, *arguments: str) -> None:
        done = self._run(["systemctl", *arguments])
        if done.returncode != 0:
            raise KubetuneError(f"systemctl {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")

    def _path(self, path: str) -> Path:
        return self._root / path.lstrip("/")


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        pass  # somebody else's files, or it was never there
