# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever else on this host sets what we set, by name: tuned, its like, and udev rules of others."""

from __future__ import annotations

import os
from typing import Any, Iterable, Iterator

from .._block import foreign_rules, udev
from .._block.device import real_name
from .._kernel import services, sysctl, tuned
from .._kernel.tree import Tree
from .._report import entry
from .kernel_values import PREFIX
from .setting import Decision, Setting, Value

#: Service -> where it is told what to set. Their formats are their own; that they are at work is what can be known.
OTHERS = {
    "ktune": "/etc/sysctl.ktune and /etc/sysconfig/ktune",
    "sapconf": "/etc/sysconfig/sapconf",
    "saptune": "/etc/saptune; `saptune note verify` shows it",
}


def report(tree: Tree, decisions: Iterable[Decision], active: tuned.Active | None, role: str) -> list[dict[str, Any]]:
    """One entry for each manager at work, and a warning for each value of ours that is set by somebody else."""
    ours = [each for each in decisions if each.setting.wanted and each.record]
    found = []
    if active and ours:
        conflicts = [each for decision in ours for each in _tuned_conflicts(decision, active, role)]
        found += [_tuned_itself(active, bool(conflicts), role), *conflicts]
    found += [each for decision in ours for each in _rule_conflicts(tree, decision, role)]
    for service, where in OTHERS.items():
        if ours and services.at_work(tree, service):
            reason = (
                f"{service} is at work here, and may set kernel values and disk queues when it starts, after this role did: "
                f"compare {where}, and leave each value to one of the two"
            )
            found.append(entry(role, f"{service}.service", "warning", reason=reason))
    return found


def keeps(active: tuned.Active | None, value: Value) -> bool:
    """Whether tuned sets a kernel value to what it is."""
    units = active.units if active else ()
    assigned = [tuned.kernel_value(unit, option) for unit in units for option in unit.options]
    return any(each and (each[0], sysctl.normalise(tuned.assigned(each[1], "0") or "")) == value for each in assigned)


def _tuned_itself(active: tuned.Active, conflicts: bool, role: str) -> dict[str, Any]:
    if not active.profile:
        reason = f"tuned is at work, and {tuned.ACTIVE_FILE} names no profile: see `tuned-adm active` for what it sets"
        return entry(role, "tuned", "warning", reason=reason)
    unknown = list(active.unread)
    unknown += [f"its section {unit.kind} runs programs of its own" for unit in active.units if unit.kind == "script"]
    if active.power_profiles:
        unknown.append("tuned-ppd switches it with the power profile")
    if unknown:
        reason = f"what this profile sets cannot be known in full: {'; '.join(unknown)}; `tuned-adm verify` compares it"
        return entry(role, "tuned", "warning", value=active.profile, reason=reason)
    chosen = "tuned chose this profile itself" if active.automatic else "this profile is active"
    if conflicts:
        reason = f"{chosen}, and sets other values than this role: each is named"
        return entry(role, "tuned", "warning", value=active.profile, reason=reason)
    reason = f"{chosen}, and leaves every value of this role as it is"
    return entry(role, "tuned", "already_right", value=active.profile, reason=reason)


def _tuned_conflicts(decision: Decision, active: tuned.Active, role: str) -> Iterator[dict[str, Any]]:
    setting = decision.setting
    assert decision.record is not None
    name, value = decision.record.applied
    for number, unit in enumerate(active.units):
        for option in unit.options:
            theirs = _theirs(setting, unit, option, value)
            if theirs is None or theirs == (name, value):
                continue
            if setting.key.startswith(PREFIX) and active.reapplies(name, number):
                continue
            shown = theirs.text if theirs.name == name else f"{theirs.name} = {theirs.text}"
            yield entry(
                role,
                setting.item,
                "warning",
                value=shown,
                reason=_tuned_reason(setting, active, unit, option, theirs, value),
            )


def _theirs(setting: Setting, unit: tuned.Unit, option: tuned.Option, value: str) -> Value | None:
    """What an option of tuned would make of our value."""
    if setting.key.startswith(PREFIX):
        found = tuned.kernel_value(unit, option)
        if found is None or found[0] not in setting.paths:
            return None
        text = tuned.assigned(found[1], value)
        return None if text is None else Value(found[0], sysctl.normalise(text))
    ((attribute, path),) = setting.paths.items()
    device = path.split("/")[-3]
    for each in (f"/sys/block/{device}/queue/{attribute}", f"/sys/class/block/{device}/queue/{attribute}", path):
        wanted = tuned.queue_value(unit, option, each)
        if wanted is not None:
            text = tuned.assigned(wanted, value)
            return None if text is None else Value(attribute, real_name(text))
    return None


def _tuned_reason(
    setting: Setting, active: tuned.Active, unit: tuned.Unit, option: tuned.Option, theirs: Value, value: str
) -> str:
    sets = f"tuned's profile {active.profile} has {option.name} = {option.value} in {option.file}"
    if unit.conditional:
        sets += ", for machines or devices that a pattern there matches"
    if setting.key.startswith(PREFIX):
        when = "whenever tuned starts or switches profiles"
        take_it = f"host_tuning_sysctls: {{{theirs.name}: {theirs.text}}}"
    else:
        when = "whenever tuned starts or switches profiles, or the disk appears"
        take_it = f"host_tuning_{theirs.name}: {theirs.text}"
    own = f"include={active.profile.replace(' ', ',')} and [{unit.kind}] {option.name}={_as_tuned(option, value)}"
    advice = f"switch to a profile of your own with {own}, or take its value by {take_it}"
    if unit.kind == "sysctl" and not active.reapplies_sysctls:
        advice = f"set reapply_sysctl = 1 in {tuned.MAIN_FILE}, or {advice}"
    return f"{sets}, and sets that {when}: {advice}"


def _as_tuned(option: tuned.Option, value: str) -> str:
    return f"{value}%" if option.value.endswith("%") else value


def _rule_conflicts(tree: Tree, decision: Decision, role: str) -> Iterator[dict[str, Any]]:
    setting = decision.setting
    if setting.key.startswith(PREFIX) or decision.record is None:
        return
    attribute, value = decision.record.applied
    directory = os.path.dirname(os.path.dirname(setting.paths[attribute]))
    setters = foreign_rules.setters(tree, directory, attribute)
    # Of several the last one counts; a program, which runs after all rules, may be anything.
    for setter in [each for each in setters if each.value is not None][-1:] + [
        each for each in setters if each.value is None
    ]:
        if setter.value is not None and real_name(setter.value) == value:
            continue
        what = (
            f"sets {attribute} to {setter.value}"
            if setter.value is not None
            else f"runs a program that sets {attribute}"
        )
        maybe = "" if setter.certain else "; whether it is for this device cannot be told from here"
        reason = (
            f"{setter} {what} after {udev.OWN_FILE}, at each event of the device{maybe}; take the rule out, or put a "
            "file of that name without it into /etc/udev/rules.d"
        )
        yield entry(role, setting.item, "warning", value=setter.value, reason=reason)
