# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module does: the service is there with the wanted weights, or it is gone and the weights are as before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

from .._errors import KubetuneError, Refusal
from .._kernel.tree import Tree
from .._node.processes import Process
from .._report import Outcome, difference, entry
from . import cgroup, disks, units, weights
from .systemd import Execute, systemctl

ROLE = "etcd_priority"


@dataclass(frozen=True)
class Request:
    """
    Attributes:
        wanted: controller -> weight; empty takes everything back.
        paths: whose disks are asked whether they honour a weight of I/O.
        program: the collection's program on this host, and its SHA-256.
        interpreter: the Python for it.
    """

    wanted: Mapping[str, int]
    paths: Sequence[str]
    program: str
    checksum: str
    interpreter: str


def problems(given: Mapping[str, int | None]) -> list[str]:
    """What is wrong with weights: name of the option -> weight; one sentence each."""
    return [
        f"{name}: {weight} is not allowed; a whole number from {cgroup.MINIMUM} to {cgroup.MAXIMUM} is needed (the kernel's default "
        f"is {cgroup.DEFAULT})"
        for name, weight in given.items()
        if weight is not None and not cgroup.MINIMUM <= weight <= cgroup.MAXIMUM
    ]


def run(tree: Tree, request: Request, check: bool = False, execute: Execute = systemctl) -> Outcome:
    """Bring the host to the desired state, or in check mode only say what that would take."""
    problem = cgroup.unified_problem(tree)
    if not request.wanted:
        return _Run(tree, request, check, execute).remove()
    if problem:
        refused = [entry(ROLE, _item(controller), "refused", reason=problem) for controller in request.wanted]
        return Outcome(report=refused)
    return _Run(tree, request, check, execute).install()


def _item(controller: str) -> str:
    return f"etcd {controller}.weight"


class _Run:
    def __init__(self, tree: Tree, request: Request, check: bool, execute: Execute) -> None:
        self._tree = tree
        self._request = request
        self._check = check
        self._execute = execute
        self._outcome = Outcome()

    # --- present --------------------------------------------------------------------------------------------------

    def install(self) -> Outcome:
        tree, wanted, outcome = self._tree, self._request.wanted, self._outcome
        unit = units.service(self._request.interpreter, self._request.program, self._request.checksum, wanted)
        stale = tree.read(units.PATH) != unit
        state = self._state()
        process = weights.running_etcd(tree)
        group = weights.group_of(tree, process) if process else ""
        before = cgroup.weights(tree, group) if group else {}
        after = {**before, **cgroup.wanted_files(before, wanted), **self._given_back(group, before)}
        outcome.changed = stale or state != ("enabled", "active") or after != before
        if stale:
            outcome.diff.append(difference(units.PATH, tree.read(units.PATH) or "", unit))
        if outcome.changed and not self._check:
            self._start(unit, stale)
            after = cgroup.weights(tree, group) if group else {}
        verdict = "changed" if stale or state != ("enabled", "active") else "already_right"
        outcome.report.append(entry(ROLE, units.SERVICE, verdict, units.PATH))
        self._report_weights(process, group, before, after)
        if cgroup.IO in wanted:
            self._report_disks(wanted[cgroup.IO])
        return outcome

    def _start(self, unit: str, stale: bool) -> None:
        """The service is started anew whatever differs: it sets the weights before it says that it is up."""
        before = self._tree.read(units.PATH)
        try:
            if stale:
                self._tree.replace(units.PATH, unit, 0o644)
                self._execute("daemon-reload")
            self._execute("enable", "--quiet", units.SERVICE)
            self._execute("reset-failed", units.SERVICE, check=False)
            self._execute("restart", units.SERVICE)
        except KubetuneError as exc:
            if before is None:
                self._execute("disable", "--quiet", "--now", units.SERVICE, check=False)
                self._tree.remove(units.PATH)
                self._execute("daemon-reload")
            raise KubetuneError(f"{exc} (its unit is {'removed again' if before is None else 'left as it is now'})") from exc

    def _state(self) -> tuple[str, str]:
        shown = self._execute("show", "--property", "UnitFileState", "--property", "ActiveState", units.SERVICE)
        values = dict(line.partition("=")[::2] for line in shown.splitlines())
        return values.get("UnitFileState", ""), values.get("ActiveState", "")

    def _given_back(self, group: str, present: Mapping[str, str]) -> dict[str, str]:
        """The weights that are not wanted any more, as they were before us."""
        known = weights.load(self._tree)
        if known is None or known.group != group:
            return {}
        kept = cgroup.wanted_files(present, self._request.wanted)
        return {name: line for name, line in known.originals.items() if name in present and name not in kept}

    def _report_weights(self, process: Process | None, group: str, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """What the files of the pod's group say, against what is wanted."""
        wanted, report = self._request.wanted, self._outcome.report
        if process is None or not group:
            reason, verdict = "etcd's static pod does not run here: the service sets it when it does", "pending"
            if process:
                reason = (
                    f"etcd (process {process.pid}) is in no pod's control group: kubelet and container runtime have to use the same "
                    "cgroup driver"
                )
                verdict = "refused"
            report += [entry(ROLE, _item(controller), verdict, reason=reason) for controller in wanted]
            return
        lacking = cgroup.lacking(before, wanted)
        for controller in lacking:
            reason = weights.lacking_reason(self._tree, group, controller)
            report.append(entry(ROLE, _item(controller), "refused", reason=reason))
        targets = cgroup.wanted_files(before, wanted)
        for name, line in after.items():
            previous = before.get(name) if before.get(name) != line else None
            if name not in targets:
                if previous:
                    report.append(entry(ROLE, f"etcd {name}", "restored", line, previous))
                continue
            if line != targets[name]:
                reason = f"{targets[name]} was written; see journalctl -u {units.SERVICE}"
                report.append(entry(ROLE, f"etcd {name}", "refused", line, reason=reason))
                continue
            reason = f"counts among the children of {cgroup.directory(group.rpartition('/')[0])}"
            report.append(entry(ROLE, f"etcd {name}", "changed" if previous else "already_right", line, previous, reason))
        self._outcome.diff += _weights_difference(group, before, after)

    def _report_disks(self, weight: int) -> None:
        for disk in disks.below(self._tree, self._request.paths):
            verdict = "already_right" if disk.honours else "ignored"
            self._outcome.report.append(entry(ROLE, f"weight of I/O on {disk.name}", verdict, weight, reason=disk.reason))

    # --- absent ---------------------------------------------------------------------------------------------------

    def remove(self) -> Outcome:
        tree, outcome = self._tree, self._outcome
        unit, known = tree.read(units.PATH), weights.load(tree)
        outcome.changed = unit is not None or tree.exists(weights.PATH)
        if unit is not None:
            outcome.diff.append(difference(units.PATH, unit, ""))
            if not self._check:
                # First: who writes weights from now on is this run alone.
                self._execute("disable", "--quiet", "--now", units.SERVICE)
            outcome.report.append(entry(ROLE, units.SERVICE, "restored", reason="it is removed"))
        if known:
            self._give_back(known)
        if outcome.changed and not self._check:
            tree.remove(weights.PATH)
            tree.remove_directory(weights.PATH.rpartition("/")[0])
            if unit is not None:
                tree.remove(units.PATH)
                self._execute("daemon-reload")
                self._execute("reset-failed", units.SERVICE, check=False)
        if not outcome.report:
            reason = "no weight is wanted: etcd's pod has those that the kubelet gives it"
            outcome.report.append(entry(ROLE, "etcd cpu.weight and io.weight", "already_right", reason=reason))
        return outcome

    def _give_back(self, known: weights.Record) -> None:
        before = cgroup.weights(self._tree, known.group)
        after = {**before, **{name: line for name, line in known.originals.items() if name in before}}
        if not self._check:
            failed = weights.settle(self._tree, known.group, {}, self._execute).problems
            if failed:
                raise KubetuneError("; ".join(f"{_item(controller)}: {problem}" for controller, problem in failed.items()))
            after = cgroup.weights(self._tree, known.group)
        for name, line in after.items():
            if name in known.originals:
                previous = before[name] if before[name] != line else None
                self._outcome.report.append(entry(ROLE, f"etcd {name}", "restored", line, previous))
        self._outcome.diff += _weights_difference(known.group, before, after)


def check_request(given: Mapping[str, int | None]) -> None:
    """
    Raises:
        Refusal: a weight is out of range.
    """
    found = problems(given)
    if found:
        raise Refusal(found)


def _weights_difference(group: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[dict[str, str]]:
    changed = [name for name in after if after[name] != before.get(name)]
    if not changed:
        return []
    header = cgroup.directory(group)
    return [difference(header, *("".join(f"{name} = {each.get(name, '')}\n" for name in changed) for each in (before, after)))]
