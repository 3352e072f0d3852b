# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the hosts have in common to what kubeadm's ClusterConfiguration shall be: a three-way merge of single flags.

What was written is remembered with what stood there before, so that a flag which is no longer wanted goes back, and an
edit by somebody else shows as drift.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from .. import _report
from .._errors import KubetuneError
from .._static_pod import wal
from .._static_pod.catalogue import COMPONENTS, ETCD
from .._static_pod.plan import same
from .cluster_configuration import ClusterConfiguration
from .hosts import WAL_DIRECTORY, Host, agree, missing_members

ROLE = "kubeadm_persistence"
ITEM = "kubeadm-config"
#: On the ConfigMap; kubeadm leaves annotations alone when it writes its configuration anew.
ANNOTATION = "kubetune.control-plane/persistence"
SCHEMA = 1
#: Old names of what kubeadm 1.34 and newer give etcd 3.6 by its new name or as a feature gate (cmd/kubeadm/app/phases/etcd/local.go).
KUBEADMS_OWN = frozenset({"experimental-watch-progress-notify-interval", "experimental-initial-corrupt-check"})


@dataclass
class Memory:
    """(component, flag) -> {"applied": values, "original": values before us or None}."""

    settings: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def from_annotation(cls, text: str | None) -> Memory:
        if not text:
            return cls()
        try:
            data = json.loads(text)
            if data["schema"] != SCHEMA:
                raise ValueError(f"schema {data['schema']!r}")
            return cls(
                {
                    (component, name): {"applied": list(each["applied"]), "original": each["original"] and list(each["original"])}
                    for component, flags in data["flags"].items()
                    for name, each in flags.items()
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise KubetuneError(
                f"annotation {ANNOTATION} of kubeadm-config is damaged, or of another release ({exc}): remove it (kubectl "
                f"--namespace kube-system annotate configmap kubeadm-config {ANNOTATION}-), then run again; what stands in "
                "kubeadm-config now counts as what was there before"
            ) from exc

    def to_annotation(self) -> str | None:
        """None where there is nothing to remember."""
        flags: dict[str, dict[str, Any]] = {}
        for (component, name), setting in sorted(self.settings.items()):
            flags.setdefault(component, {})[name] = setting
        return json.dumps({"schema": SCHEMA, "flags": flags}, sort_keys=True) if flags else None


@dataclass
class Plan:
    """The configuration as it shall be, what to remember of it, and what is to be said."""

    configuration: ClusterConfiguration
    memory: Memory
    report: list[dict[str, Any]] = field(default_factory=list)

    def say(self, key: tuple[str, str] | None, verdict: str, values: Any = None, previous: Any = None, reason: str = "") -> None:
        item = f"{ITEM} {key[0]} --{key[1]}" if key else ITEM
        self.report.append(_report.entry(ROLE, item, verdict, _joined(values), _joined(previous), reason))


def plan(data: Any, annotation: str | None, hosts: Sequence[Host], state: str = "present", withdraw: bool = False) -> Plan:
    """
    Args:
        data: the parsed ClusterConfiguration, which is not changed.
        annotation: what was remembered in it.
        hosts: all that the play sees, at least one.
        state: ``present`` or ``absent`` (every flag goes back).
        withdraw: only take out the WAL's directory where it will not be the same on all hosts any more.
    """
    configuration = ClusterConfiguration(data)
    before = Memory.from_annotation(annotation)
    result = Plan(configuration, Memory(dict(before.settings)))
    _adopt_wal(result)
    wanted, left_out = ({}, {}) if state == "absent" else agree(hosts)
    _unfit(result, wanted, left_out, hosts)
    absent_members = missing_members(hosts)
    if not (withdraw or absent_members):
        _adopt_renamed(result, wanted)
    for key in dict.fromkeys([*wanted, *left_out, *result.memory.settings]):
        its_wal = key == (ETCD, WAL_DIRECTORY)
        if withdraw and (not its_wal or key in wanted or key not in result.memory.settings):
            continue
        if absent_members and not (its_wal and key not in wanted):
            continue
        _decide(result, key, wanted.get(key), left_out.get(key, ""))
    if absent_members and not withdraw:
        result.say(
            None, "left_out", reason=f"it is one for all members, and {', '.join(absent_members)} of the etcd cluster "
            "are not in this play: run without --limit",
        )
    elif not withdraw and not result.report:
        result.say(None, "already_right", reason="this collection has no flag on these hosts, and none here")
    return result


def _adopt_wal(result: Plan) -> None:
    """Our place of the WAL is ours even where the annotation was lost: left alone, it would outlive the disk."""
    key = (ETCD, WAL_DIRECTORY)
    live = result.configuration.flag(*key)
    if key not in result.memory.settings and live and live[-1].endswith(f"/{wal.DIRECTORY}"):
        result.memory.settings[key] = {"applied": live, "original": None}


def _adopt_renamed(result: Plan, wanted: Mapping[tuple[str, str], list[str]]) -> None:
    """What stands here, or is remembered, by another name of a flag that is wanted is the same setting: etcd refuses both."""
    for key in wanted:
        component, name = key
        for other in COMPONENTS[component].flag(name).lives:
            former = (component, other)
            if other == name:
                continue
            live = result.configuration.flag(*former)
            if live:
                result.configuration.set_flag(*former, None)
                result.configuration.set_flag(*key, live)
                result.say(former, "changed", None, live, f"the version that runs calls it --{name}")
            if former in result.memory.settings:
                result.memory.settings[key] = result.memory.settings.pop(former)


def _unfit(
    result: Plan, wanted: dict[tuple[str, str], list[str]], left_out: dict[tuple[str, str], str], hosts: Sequence[Host]
) -> None:
    """Move what this configuration cannot say, or must not, from ``wanted`` to ``left_out``."""
    for key, values in list(wanted.items()):
        reason = ""
        data = result.configuration.data_directory
        if not result.configuration.renders(key[0]):
            reason = f"kubeadm renders no {key[0]}: this cluster has an external one"
        elif len(values) > 1 and not result.configuration.repeats:
            reason = "v1beta3 holds one value of a flag, and there are several; kubeadm 1.31 and newer write v1beta4"
        elif key[1] in KUBEADMS_OWN:
            reason = (
                "kubeadm writes this flag itself, by its new name from etcd 3.6 on, and etcd does not start with both names: tune again "
                "after the upgrade to 3.6"
            )
        elif key == (ETCD, WAL_DIRECTORY) and not values[-1].startswith(f"{data}/"):
            reason = f"{values[-1]} is not below {data}: kubeadm's pod would have no volume for it"
        if reason:
            left_out[key] = reason
            del wanted[key]


def _decide(result: Plan, key: tuple[str, str], target: list[str] | None, reason: str) -> None:
    flag = COMPONENTS[key[0]].flag(key[1])
    live = result.configuration.flag(*key)
    remembered = result.memory.settings.get(key)
    drifted = remembered is not None and not same(flag, live, remembered["applied"])
    if target is None:
        if remembered is None:
            result.say(key, "left_out", live, reason=reason)
            return
        del result.memory.settings[key]
        if drifted:
            result.say(key, "kept", live, reason=f"{reason or 'no longer wanted'}; somebody else has changed {_joined(remembered['applied'])} since")
            return
        original = remembered["original"]
        result.configuration.set_flag(*key, original)
        result.say(key, "restored", original, live, reason or ("" if original else "it was not set before"))
        return
    if same(flag, live, target):
        # Not remembered where somebody else has the same: then it stays when we want it no more.
        if remembered:
            result.memory.settings[key] = {"applied": live, "original": remembered["original"]}
        result.say(key, "already_right", live)
        return
    original = remembered["original"] if remembered and not drifted else live
    result.memory.settings[key] = {"applied": target, "original": original}
    result.configuration.set_flag(*key, target)
    result.say(key, "changed", target, live, f"it had drifted from {_joined(remembered['applied'])}" if remembered and drifted else "")


def _joined(values: Any) -> Any:
    return ",".join(values) if isinstance(values, (list, tuple)) else values
