# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done: the desired state, what is there, what was there before us, and the decision on each item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from .._block import udev
from .._errors import Refusal
from .._kernel import sysctl
from .._kernel.tree import OWN_HEADER, Tree
from . import kernel_values, open_files, queues, record
from .profile import Desired, resolve
from .record import Original, Records
from .setting import Decision, decide

ROLE = "host_tuning"


@dataclass(frozen=True)
class Plan:
    """Everything known before the first write."""

    desired: Desired
    records: Records
    queues: queues.Queues
    open_files: open_files.OpenFiles
    decisions: list[Decision]
    restart: list[str]


@dataclass(frozen=True)
class FileChange:
    """A file's content before and after; None where there is no file.

    Attributes:
        mode: permission bits after.
        original: what to remember of the time before us; None for a file that goes back to what it was then.
        given_back: directories that were made for a file which goes back, outermost first.
    """

    path: str
    before: str | None
    after: str | None
    mode: int
    original: Original | None
    given_back: tuple[str, ...] = ()

    @property
    def writes(self) -> bool:
        return self.before != self.after


def make(tree: Tree, options: Mapping[str, Any]) -> Plan:
    """Look at the host and decide; nothing is written.

    Raises:
        Refusal: with everything that is wrong with the options, here.
    """
    desired = resolve(options)
    records = record.load(tree)
    below = queues.survey(tree, desired, records.settings, ROLE)
    values, problems = kernel_values.settings(tree, desired, records.settings)
    limits = open_files.survey(tree, desired)
    decisions = [decide(each, records.settings.get(each.key)) for each in [*below.settings, *values]]
    problems = [*below.problems, *problems, *limits.problems, *_refused(decisions)]
    if problems:
        raise Refusal(problems)
    restart = limits.to_restart() if options["restart_container_runtime"] else []
    plan = Plan(desired, records, below, limits, decisions, restart)
    masked = [
        path for path, content in _contents(plan, decisions).items() if content is not None and tree.is_link(path)
    ]
    if masked:
        raise Refusal(
            [
                f"{path} is a symbolic link, which is how a file of that name is switched off: what is to be kept there "
                "would be lost at the next boot; remove the link, or leave its values out"
                for path in masked
            ]
        )
    return plan


def _refused(decisions: Sequence[Decision]) -> list[str]:
    """What a person asked for and cannot be had."""
    return [
        f"{each.setting.item} {each.setting.wanted.text}: {each.reason}"
        for each in decisions
        if each.verdict == "refused" and each.setting.explicit and each.setting.wanted
    ]


def files(tree: Tree, plan: Plan, decisions: Sequence[Decision]) -> list[FileChange]:
    """The files that are ours, and those that were and go back to what they were before us."""
    contents = _contents(plan, decisions)
    found = []
    for path in dict.fromkeys([*contents, *plan.records.files]):
        content, known, before = contents.get(path), plan.records.files.get(path), tree.read(path)
        if content is not None:
            found.append(FileChange(path, before, content, 0o644, known or _original(tree, path, before)))
        elif known is not None:
            # A link was put there after us, to switch our file off: it is not ours to remove.
            now = known.content if tree.is_link(path) else before
            found.append(FileChange(path, now, known.content, known.mode, None, known.made))
    return found


def _contents(plan: Plan, decisions: Sequence[Decision]) -> dict[str, str | None]:
    """Path -> what we write; None where that is nothing."""
    return {
        udev.OWN_FILE: queues.content(decisions, plan.queues),
        sysctl.OWN_FILE: kernel_values.content(decisions),
        **plan.open_files.files,
    }


def _original(tree: Tree, path: str, content: str | None) -> Original:
    if content is None:
        return Original(None, made=tuple(tree.missing_directories(path.rpartition("/")[0])))
    # Our header without a record: the record was lost, and what we wrote is nobody's original.
    return Original(None if content.startswith(OWN_HEADER) else content, tree.mode(path))


def records_after(decisions: Sequence[Decision], changes: Sequence[FileChange]) -> Records:
    """What is ours when all of this is done."""
    return Records(
        settings={each.setting.key: each.record for each in decisions if each.record},
        files={each.path: each.original for each in changes if each.original},
    )
