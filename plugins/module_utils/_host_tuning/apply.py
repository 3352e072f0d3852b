# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Doing what was planned, in an order that can be taken back at every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Sequence

from .._block import udev
from .._commands import output
from .._errors import KubetuneError
from .._kernel.tree import Tree
from .._limits import units
from . import kernel_values, queues, record
from .plan import FileChange, Plan, files, records_after
from .record import Records
from .setting import Decision, Record, Setting, Value, refused

Execute = Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class Done:
    """What a run did, or in check mode would do."""

    decisions: list[Decision]
    files: list[FileChange]
    restarted: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.files or self.restarted or any(each.writes for each in self.decisions))


def execute(command: Sequence[str]) -> None:
    """Run a program.

    Raises:
        KubetuneError: it failed.
    """
    output(command)


def foresee(tree: Tree, plan: Plan) -> tuple[Done, bool]:
    """What would be done, if the kernel takes every value; and whether anything, the record too, would be written."""
    changes = files(tree, plan, plan.decisions)
    done = Done(plan.decisions, [each for each in changes if each.writes], plan.restart)
    return done, done.changed or records_after(plan.decisions, changes) != plan.records


def apply(tree: Tree, plan: Plan, execute: Execute) -> Done:
    """Do it.

    Raises:
        KubetuneError: a step failed, and those before it are undone.
    """
    undo: list[Callable[[], object]] = []
    try:
        return _Run(tree, plan, execute, undo).all_steps()
    except (KubetuneError, OSError) as exc:
        left = _take_back(undo)
        raise KubetuneError("; ".join([f"{exc}; everything this run had changed is undone", *left])) from exc


def _take_back(undo: list[Callable[[], object]]) -> list[str]:
    """The last step first; what cannot be undone is returned."""
    failures = []
    for step in reversed(undo):
        try:
            step()
        except (KubetuneError, OSError) as exc:
            failures.append(f"except that {exc}")
    return failures


class _Run:
    def __init__(self, tree: Tree, plan: Plan, execute: Execute, undo: list[Callable[[], object]]) -> None:
        self._tree = tree
        self._plan = plan
        self._execute = execute
        self._undo = undo

    def all_steps(self) -> Done:
        tree, plan = self._tree, self._plan
        known, foreseen = plan.records, records_after(plan.decisions, files(tree, plan, plan.decisions))
        # The originals are on disk before anything changes: a run that is cut off can still be taken back later.
        first = Records({**known.settings, **foreseen.settings}, {**known.files, **foreseen.files})
        self._remember(known, first)
        decisions = [self._set(each) for each in plan.decisions]
        changes = files(tree, plan, decisions)
        changed = [each for each in changes if each.writes]
        for change in changes:
            self._put(change)
        self._remember(first, records_after(decisions, changes))
        self._activate([each.path for each in changed])
        return Done(decisions, changed, plan.restart)

    def _remember(self, before: Records, after: Records) -> None:
        if after != before:
            record.save(self._tree, after)
            self._undo.append(lambda: record.save(self._tree, before))

    def _set(self, decision: Decision) -> Decision:
        """Write a value and read it back."""
        if not decision.writes or decision.target is None:
            return decision
        setting, target = decision.setting, decision.target
        try:
            self._tree.set(setting.paths[target.name], target.text)
        except OSError as exc:
            return self._not_taken(decision, f"the kernel does not take {target.text} ({exc.strerror})")
        self._undo.append(lambda: self._set_back(setting))
        now = _current(self._tree, setting, target.name)
        if now != target:
            self._set_back(setting)
            return self._not_taken(decision, f"the kernel makes {now.text if now else 'nothing'} of {target.text}")
        return decision

    def _not_taken(self, decision: Decision, reason: str) -> Decision:
        if decision.setting.explicit:
            raise KubetuneError(f"{decision.setting.item}: {reason}")
        known: Record | None = self._plan.records.settings.get(decision.setting.key)
        return refused(decision, known, reason)

    def _set_back(self, setting: Setting) -> None:
        if setting.live is not None:
            self._tree.set(setting.paths[setting.live.name], setting.live.text)

    def _put(self, change: FileChange) -> None:
        """Write or remove a file; directories that were made for one that goes back go with it, when empty."""
        tree, path = self._tree, change.path
        made = tree.missing_directories(path.rpartition("/")[0])
        if change.writes:
            mode = tree.mode(path) if change.before is not None else change.mode
            self._undo.append(lambda: _remove_directories(tree, made))
            self._undo.append(lambda: _write(tree, path, change.before, mode))
            _write(tree, path, change.after, change.mode)
        _remove_directories(tree, change.given_back)

    def _activate(self, changed: Sequence[str]) -> None:
        """Let udevd and systemd read what changed; the values themselves are set already."""
        if udev.OWN_FILE in changed and self._tree.exists(udev.CONTROL):
            self._run_and_again_at_the_end(["udevadm", "control", "--reload"])
        if any(units.is_drop_in(each) for each in changed) and self._tree.exists(units.SYSTEMD):
            self._run_and_again_at_the_end(["systemctl", "daemon-reload"])
        for unit in self._plan.restart:
            self._run_and_again_at_the_end(["systemctl", "restart", unit])

    def _run_and_again_at_the_end(self, command: Sequence[str]) -> None:
        """A program that reads files: after an undo it has to read those of before, so it runs after all other steps."""
        self._undo.insert(0, lambda: self._execute(command))
        self._execute(command)


def _current(tree: Tree, setting: Setting, name: str) -> Value | None:
    """What the kernel has now, in the terms of the setting."""
    if setting.key.startswith(kernel_values.PREFIX):
        return kernel_values.read(tree, setting.paths, name)
    return queues.read_attribute(tree, name, setting.paths[name])


def _write(tree: Tree, path: str, content: str | None, mode: int) -> None:
    if content is None:
        tree.remove(path)
    else:
        tree.replace(path, content, mode)


def _remove_directories(tree: Tree, directories: Sequence[str]) -> None:
    for each in reversed(directories):
        tree.remove_directory(each)
