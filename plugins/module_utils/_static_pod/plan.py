# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is wanted and what is there to what a static pod shall become: a three-way merge of single settings.

For each setting an explicit variable wins; then a live value that is there on purpose stays; then the profile.
What was applied last is remembered with what was there before, so that a setting which is no longer wanted goes
back, and an edit by hand shows as drift.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from .. import _report
from .catalogue import Component
from .flags import BadValue, Flag, dotted, gates_of, gates_text, texts_of
from .manifest import RESOURCES, TIMES, Manifest
from .resources import quantity


@dataclass(frozen=True)
class Wish:
    """One setting that is wanted; ``values`` None means: nothing from us, whatever the profile says.

    Attributes:
        note: what a change to it means; said where it is one.
    """

    values: list[str] | None
    explicit: bool
    note: str = ""


@dataclass(frozen=True)
class Memory:
    """What the last run applied, and what was there before the first.

    Attributes:
        settings: setting -> {"applied": values, "original": values}.
        rendered: the whole manifest is ours (standalone), not kubeadm's.
    """

    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rendered: bool = False


@dataclass
class Change:
    """
    Attributes:
        origin: ``explicit`` (a variable), ``profile``, or ``restore`` (what was there before us).
    """

    key: str
    before: list[str] | None
    after: list[str] | None
    origin: str

    @property
    def explicit(self) -> bool:
        """Whether it cannot simply be left out: only what the profile asks for gives way."""
        return self.origin != "profile"


@dataclass
class Plan:
    """The manifest as it shall be, what is to be said about it, and what to remember."""

    component: Component
    manifest: Manifest
    memory: Memory
    changes: list[Change] = field(default_factory=list)
    report: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    version: tuple[int, ...] = ()

    def change_of(self, key: str) -> Change | None:
        return next((change for change in self.changes if change.key == key), None)

    def undo(self, key: str, verdict: str, reason: str) -> None:
        """Take one change back, and say why."""
        change = self.change_of(key)
        if change is None:
            return
        write(self, key, change.before)
        self.changes.remove(change)
        self.settings.pop(key, None)
        if key in self.memory.settings:
            self.settings[key] = dict(self.memory.settings[key])
        self.report = [line for line in self.report if line["item"] != item(self.component, key)]
        self.say(key, verdict, change.after, change.before, reason)

    def say(self, key: str, verdict: str, values: Any = None, previous: Any = None, reason: str = "") -> None:
        self.report.append(
            _report.entry(self.component.role, item(self.component, key), verdict, text(values), text(previous), reason)
        )


def item(component: Component, key: str) -> str:
    return f"{component.name} {key}"


def text(values: Any) -> str | None:
    return ",".join(values) if isinstance(values, list) else values


def read(component: Component, manifest: Manifest, key: str) -> list[str] | None:
    if key.startswith("--"):
        flags = manifest.flags()
        return next((flags[name] for name in component.flag(key[2:]).lives if name in flags), None)
    value = manifest.time(key) if key in TIMES else manifest.resource(key)
    return None if value is None else [value]


def write(result: Plan, key: str, values: list[str] | None) -> None:
    """A flag by the name that the version has for it, and by no other."""
    if key in TIMES:
        result.manifest.set_time(key, values[0] if values else None)
        return
    if not key.startswith("--"):
        result.manifest.set_resource(key, values[0] if values else None)
        return
    flag = result.component.flag(key[2:])
    name = flag.name_in(result.version)
    for other in flag.lives:
        if other != name:
            result.manifest.set_flag(other, None)
    result.manifest.set_flag(name, values)


def wishes(
    component: Component,
    profile: str,
    flags: Mapping[str, Any],
    resources: Mapping[str, Any],
    refused: Mapping[str, str],
) -> tuple[dict[str, Wish], list[str]]:
    """What a role's variables ask for, and what is wrong with them.

    Args:
        profile: ``guide`` or ``upstream`` (nothing from the profile).
        flags: the explicit flags; null takes a flag out of the profile, a list repeats it.
        resources: ``requests`` and ``limits``, each a mapping over the profile, or ``none``; null takes one out of it.
        refused: flags of the profile which the target's binary turned down: they are not asked for.
    """
    found: dict[str, Wish] = {}
    wrong: list[str] = []
    if profile == "guide":
        for flag in component.flags:
            if flag.guide is not None and flag.name not in refused:
                found[f"--{flag.name}"] = Wish([flag.guide], explicit=False)
        for key, value in component.guide_resources.items():
            found[key] = Wish([value], explicit=False)
    return {**found, **_flag_wishes(component, flags, wrong), **_resource_wishes(component, resources, wrong)}, wrong


def _flag_wishes(component: Component, flags: Any, wrong: list[str]) -> dict[str, Wish]:
    if not isinstance(flags, Mapping):
        wrong.append(f"{component.role}_flags: {flags!r} is not allowed, a mapping of flags to values is needed")
        return {}
    found = {}
    for name, value in flags.items():
        problem = _wrong_name(component, name)
        if problem:
            wrong.append(problem)
            continue
        try:
            values = None if value is None else texts_of(value)
        except BadValue as exc:
            wrong.append(f"{component.name} --{name}: {value!r} is not allowed, {exc}")
            continue
        wrong += _wrong_values(component, component.flag(name), values or [])
        if values != component.flag(name).counted(values):
            wrong.append(f"{component.name} --{name}: {value!r} is not allowed, of several values only the last counts: give one")
        key = f"--{component.flag(name).name}"
        if key in found:
            wrong.append(f"{component.name} {key}: it is given by its present and by its former name ({name}): give one")
        found[key] = Wish(values, explicit=True)
    return found


def _resource_wishes(component: Component, resources: Any, wrong: list[str]) -> dict[str, Wish]:
    if not isinstance(resources, Mapping):
        wrong.append(f"{component.role}_resources: {resources!r} is not allowed, a mapping of requests and limits is needed")
        return {}
    found = {}
    for kind, amounts in resources.items():
        if kind not in ("requests", "limits"):
            wrong.append(f"{component.role}_resources: {kind!r} is not allowed, only requests and limits can be set")
        elif amounts == "none":
            found.update({key: Wish(None, explicit=True) for key in RESOURCES if key.startswith(kind)})
        elif isinstance(amounts, Mapping):
            for name, value in amounts.items():
                key = f"{kind}.{name}"
                wrong += _wrong_resource(component, key, value)
                found[key] = Wish(None if value is None else [str(value)], explicit=True)
        else:
            wrong.append(f"{item(component, kind)}: {amounts!r} is not allowed, a mapping of cpu and memory or none is needed")
    return found


def plan(
    component: Component, live: Manifest, wanted: Mapping[str, Wish], memory: Memory, version: tuple[int, ...]
) -> Plan:
    """Merge what is wanted into what is there. ``live`` is not changed. The pod's times come later, with `plan_times`."""
    result = Plan(component, Manifest(live.pod, component.name), memory, version=version)
    meant = _meant(live, wanted)
    for key in [*wanted, *(key for key in memory.settings if key not in wanted and key not in TIMES)]:
        _decide(result, key, wanted.get(key), memory.settings.get(key), version, meant.get(key, ""))
    return result


def plan_times(result: Plan, wanted: Mapping[str, Wish], version: tuple[int, ...]) -> None:
    """Merge the times of the pod, which rest on the flags as planned."""
    for key in TIMES:
        remembered = result.memory.settings.get(key)
        if key in wanted or remembered:
            _decide(result, key, wanted.get(key), remembered, version, "")


def _meant(live: Manifest, wanted: Mapping[str, Wish]) -> dict[str, str]:
    """Settings whose live value the profile must not replace, whatever its size, and why."""
    found = {}
    flags = live.flags()
    mode = wanted.get("--auto-compaction-mode")
    chosen = mode.values if mode and mode.explicit else None
    if flags.get("auto-compaction-mode", [])[-1:] == ["revision"] and chosen in (None, ["revision"]):
        for key in ("--auto-compaction-mode", "--auto-compaction-retention"):
            found[key] = "this cluster compacts by revisions, not by time: the profile leaves both compaction flags alone"
    if any(size.endswith("#0") for value in flags.get("watch-cache-sizes", []) for size in value.split(",")):
        found["--watch-cache-sizes"] = "#0 turns a watch cache off, the only size that still means something"
    return found


def _decide(
    result: Plan, key: str, wish: Wish | None, remembered: Mapping[str, Any] | None, version: tuple[int, ...], meant: str
) -> None:
    there = read(result.component, result.manifest, key)
    flag = result.component.flag(key[2:]) if key.startswith("--") else None
    live = flag.counted(there) if flag else there
    applied = remembered["applied"] if remembered else None
    drifted = remembered is not None and not same(flag, live, applied)
    drift = f"it had drifted from {text(applied)}" if drifted else ""
    if wish is None or wish.values is None:
        if remembered is None:
            if wish is not None:
                result.say(key, "left_out", live, reason="the variable says so (null or none): what is there stays")
        elif drifted:
            result.say(key, "kept", live, reason=f"no longer wanted, but changed by hand since we set {text(applied)}")
        else:
            _restore(result, key, live, remembered["original"])
        return
    target = wish.values
    if flag and flag.type == "gates":
        # Each gate is a setting of its own: kubeadm's stay.
        base = remembered["original"] if remembered and not drifted else live
        target = [gates_text({**gates_of(base), **gates_of(target)})]
    meant = meant or _on_purpose(flag, live, target)
    if meant and not wish.explicit and (remembered is None or drifted):
        result.say(key, "kept", live, reason="; ".join(filter(None, [meant, drift])))
        if remembered:
            result.settings[key] = dict(remembered)
        return
    # What somebody else has set since is what to go back to: an upgrade wrote it, or a person.
    original = remembered["original"] if remembered and not drifted else there
    result.settings[key] = {"applied": target, "original": original}
    renamed = _renamed(result, flag)
    if same(flag, live, target) and not renamed:
        result.settings[key]["applied"] = live
        _say_unchanged(result, key, flag, live, version)
        return
    write(result, key, target)
    result.changes.append(Change(key, there, target, "explicit" if wish.explicit else "profile"))
    twice = "" if there == live else f"it was given {len(there or [])} times, and the last one counted"
    why = [drift, twice, renamed, wish.note]
    _say_changed(result, key, flag, live, target, version, why)


def _restore(result: Plan, key: str, live: list[str] | None, original: list[str] | None) -> None:
    if live == original:
        return
    write(result, key, original)
    result.changes.append(Change(key, live, original, "restore"))
    result.say(key, "restored", original, live, "" if original else "it was not set before")


def _say_unchanged(result: Plan, key: str, flag: Flag | None, live: Any, version: tuple[int, ...]) -> None:
    if flag and flag.no_effect:
        result.say(key, "ignored", live, reason=flag.note)
    elif flag and _is_default(flag, live, version):
        result.say(key, "version_default", live, reason=_default_reason(version))
    else:
        result.say(key, "already_right", live, reason=flag.change_of_default(version) if flag else "")


def _say_changed(
    result: Plan, key: str, flag: Flag | None, live: Any, target: Any, version: tuple[int, ...], why: Sequence[str | bool]
) -> None:
    about = [_called(flag, version), flag.change_of_default(version), flag.note] if flag else []
    notes = [note for note in (*why, *about) if isinstance(note, str) and note]
    if flag and flag.no_effect:
        result.say(key, "ignored", target, live, "; ".join(notes))
    elif flag and live is None and _is_default(flag, target, version):
        result.say(key, "version_default", target, live, "; ".join([_default_reason(version), *notes]))
    else:
        result.say(key, "changed", target, live, "; ".join(notes))


def _renamed(result: Plan, flag: Flag | None) -> str:
    """That the manifest gives a flag by a name which is not the version's; empty where it does not."""
    if flag is None or not flag.formerly:
        return ""
    name, flags = flag.name_in(result.version), result.manifest.flags()
    return next((f"it was given as --{other}" for other in flag.lives if other != name and other in flags), "")


def _called(flag: Flag, version: tuple[int, ...]) -> str:
    """What a version calls a flag that has another name now; empty where it has the present one."""
    name = flag.name_in(version)
    return "" if name == flag.name else f"as --{name}, its name before {dotted(flag.since)}"


def _default_reason(version: tuple[int, ...]) -> str:
    return f"equals the default of {dotted(version)}: nothing changes"


def _is_default(flag: Flag, values: Any, version: tuple[int, ...]) -> bool:
    default = flag.default(version)
    return default is not None and values is not None and len(values) == 1 and flag.same(values[0], default)


def same(flag: Flag | None, one: Sequence[str] | None, other: Sequence[str] | None) -> bool:
    """Whether two values of a setting mean the same to its program; ``flag`` None for a resource or a time, a value None for not set."""
    if one is None or other is None or len(one) != len(other):
        return one == other
    if flag is None:
        return quantity(one[0]) == quantity(other[0])
    return all(flag.same(left, right) for left, right in zip(one, other))


def _on_purpose(flag: Flag | None, live: list[str] | None, target: list[str]) -> str:
    """Why a live value stays for its size; empty where it does not. A larger resource always does."""
    if live is None or len(live) != 1:
        return ""
    parse = flag.parse if flag else quantity
    try:
        ours, theirs = parse(target[0]), parse(live[0])
    except BadValue:
        return ""
    if (flag is None or flag.larger_is_on_purpose) and theirs > ours:
        return f"larger than the profile's {text(target)}"
    if flag and flag.smaller_is_on_purpose and theirs < ours:
        return f"smaller than the profile's {text(target)}, which is stricter"
    return ""


def _wrong_name(component: Component, name: Any) -> str:
    # kube-apiserver takes an underscore for a dash: with one, an identity flag would pass under another name.
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", name):
        return (
            f"{component.name} flag {name!r}: the name is needed as the program's help shows it, without dashes and value, "
            "such as max-wals"
        )
    if name in component.identity:
        return (
            f"{component.name} --{name}: identity, listeners, certificates and paths of a running member are not tuning and "
            f"are never touched in merge mode; remove it from {component.role}_flags"
        )
    return ""


def _wrong_values(component: Component, flag: Flag, values: Sequence[str]) -> list[str]:
    wrong = []
    for value in values:
        try:
            flag.parse(value)
        except BadValue as exc:
            wrong.append(f"{component.name} --{flag.name}: {value!r} is not allowed, {exc}")
    return wrong


def _wrong_resource(component: Component, key: str, value: Any) -> list[str]:
    if key not in RESOURCES:
        return [f"{item(component, key)}: only {', '.join(RESOURCES)} can be set"]
    if value is None:
        return []
    try:
        quantity(value)
    except BadValue as exc:
        return [f"{item(component, key)}: {value!r} is not allowed, {exc}"]
    return []
