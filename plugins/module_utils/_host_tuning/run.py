# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole run, and what it says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

from .._kernel import tuned
from .._kernel.tree import Tree
from .._node.host_lock import LOCK, host_lock
from .._report import Outcome, difference, entry
from . import kernel_values, managers, open_files, queues, record
from .apply import Done, Execute, apply, execute, foresee
from .plan import ROLE, FileChange, Plan, make
from .setting import Decision, Value


def run(tree: Tree, options: Mapping[str, Any], check: bool = False, execute: Execute = execute) -> Outcome:
    """Bring the host to the desired state, or in check mode only say what that would take.

    Args:
        options: the options of the module ``host_tuning``.
        execute: runs udevadm and systemctl.

    Raises:
        Refusal: the options are wrong, or an explicit value cannot be had here; nothing was changed.
        KubetuneError: a step failed; what this run had done until then is undone.
    """
    plan = make(tree, options)
    done, writes = foresee(tree, plan)
    if writes and not check:
        with host_lock(Path(tree.locate(str(LOCK)))):
            # Once more: the host may have changed before the lock was ours.
            plan = make(tree, options)
            done = apply(tree, plan, execute)
    return Outcome(done.changed, _report(tree, plan, done), _diff(done))


def _report(tree: Tree, plan: Plan, done: Done) -> list[dict[str, Any]]:
    entries = list(plan.queues.entries)
    entries += [_of_setting(each) for each in done.decisions]
    entries += [entry(ROLE, item, "left_out", reason=reason) for item, reason in plan.desired.left_out.items()]
    active = tuned.active(tree)
    entries += kernel_values.at_boot(tree, done.decisions, lambda value: managers.keeps(active, value), ROLE)
    entries += managers.report(tree, done.decisions, active, ROLE)
    entries += queues.persistence(tree, done.decisions, plan.queues, ROLE)
    entries += open_files.report(plan.open_files, [each.path for each in done.files], done.restarted, ROLE)
    entries += [_of_file(each) for each in done.files]
    if not entries:
        reason = "nothing is wanted and nothing is recorded: the host is as it was"
        entries.append(entry(ROLE, record.PATH, "already_right", reason=reason))
    return entries


def _of_setting(decision: Decision) -> dict[str, Any]:
    setting, live = decision.setting, decision.setting.live
    value = _shown(decision.target or live, setting.item)
    previous = _shown(live, setting.item) if decision.writes else None
    return entry(ROLE, setting.item, decision.verdict, value, previous, decision.reason)


def _of_file(change: FileChange) -> dict[str, Any]:
    return entry(ROLE, change.path, "changed" if change.original else "restored")


def _diff(done: Done) -> list[dict[str, str]]:
    """The kernel's values as one listing, then each file."""
    writes = [each for each in done.decisions if each.writes]
    found = []
    if writes:
        before = "".join(_line(each.setting.item, each.setting.live) for each in writes)
        after = "".join(_line(each.setting.item, each.target) for each in writes)
        found.append(difference("kernel values", before, after))
    found += [difference(each.path, each.before or "", each.after or "") for each in done.files]
    return found


def _line(item: str, value: Value | None) -> str:
    shown = _shown(value, item)
    return f"{shown}\n" if shown and " = " in shown else f"{item} = {shown}\n"


def _shown(value: Value | None, item: str) -> str | None:
    """The text; with its name where that is not the item's own, as for a limit in bytes instead of percent."""
    if value is None:
        return None
    return value.text if item.endswith(value.name) else f"{value.name} = {value.text}"
