# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of command-line flags: their types, their canonical form, and what is wrong with a bad one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class BadValue(ValueError):
    """The text says what is allowed."""


def duration_seconds(text: str) -> float:
    """Seconds of a Go duration such as ``100ms`` or ``1h30m`` (time.ParseDuration), not negative here."""
    if text == "0":
        return 0.0
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise BadValue("a duration with its unit is needed, such as 100ms, 300s or 1h")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def _whole_number(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text):
        raise BadValue("a whole number is needed")
    return int(text)


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered not in ("true", "false", "t", "f", "1", "0"):
        raise BadValue("true or false is needed")
    return lowered in ("true", "t", "1")


def _retention(text: str) -> float:
    """etcd's auto-compaction-retention: hours as a bare number, or a duration."""
    return int(text) * 3600.0 if text.isdigit() else duration_seconds(text)


def _number(text: str) -> float:
    if not math.isfinite(float(text)):
        raise BadValue("a number is needed")
    return float(text)


def _cache_sizes(text: str) -> str:
    """kube-apiserver's watch-cache-sizes: none, or resource#size each."""
    if text and not all(re.fullmatch(r"[^#]+#\d+", part) for part in text.split(",")):
        raise BadValue("resource#size is needed, several with commas, such as pods#1000,leases.coordination.k8s.io#0")
    return text


def gates_of(values: Sequence[str] | None) -> dict[str, str]:
    """Feature gate -> ``true`` or ``false``; raises `BadValue`. ``kube:`` before a name says what goes without saying."""
    found = {}
    for part in ",".join(values or []).split(","):
        name, equals, value = part.strip().partition("=")
        if not part.strip():
            continue
        if not (name and equals):
            raise BadValue("Gate=true or Gate=false is needed, several with commas")
        found[name.strip().removeprefix("kube:")] = "true" if _boolean(value.strip()) else "false"
    return found


def gates_text(gates: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in gates.items())


#: Type name -> parser to a comparable value; raises `BadValue`.
TYPES: Mapping[str, Callable[[str], Any]] = {
    "bool": _boolean,
    "int": _whole_number,
    "bytes": _whole_number,
    "milliseconds": _whole_number,
    "seconds": _whole_number,
    "duration": duration_seconds,
    "retention": _retention,
    "number": _number,
    "cache sizes": _cache_sizes,
    "gates": lambda text: gates_of([text]),
    "string": str,
}


@dataclass(frozen=True)
class Flag:
    """One flag of a component.

    Attributes:
        name: without dashes.
        type: a key of `TYPES`.
        guide: the guide's value, or None where the guide has none.
        minimum, maximum: inclusive bounds in the unit of the type.
        choices: the allowed texts, where only some are.
        defaults: (since version, default) pairs in rising order; the last one that is not newer applies.
        larger_is_on_purpose: a live value above the profile's stays.
        smaller_is_on_purpose: a live value below the profile's stays.
        note: why the value has no effect, or what to know of it; said in the report.
        no_effect: `note` explains that current versions ignore the value.
        repeatable: each time that it is given counts; of any other flag only the last one does.
        since: the first version that has it by this name; empty for all that the collection knows.
        removed: the first version that has it no more; empty where none is known.
        instead: what to do where it is gone, if anything.
        formerly: its name before ``since``, taken beside the new one (never together with it) until ``formerly_removed``; the
            first version that took it is ``formerly_since``.
        gate: the feature gate that is a boolean's successor from ``gate_since`` on.
    """

    name: str
    type: str
    guide: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    defaults: tuple[tuple[tuple[int, ...], str], ...] = ()
    larger_is_on_purpose: bool = False
    smaller_is_on_purpose: bool = False
    note: str = ""
    no_effect: bool = False
    repeatable: bool = False
    since: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()
    instead: str = ""
    formerly: str = ""
    formerly_since: tuple[int, ...] = ()
    formerly_removed: tuple[int, ...] = ()
    gate: str = ""
    gate_since: tuple[int, ...] = ()

    @property
    def lives(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Each name -> (the first version that has it, the first that has it no more), empty for no bound."""
        former = {self.formerly: (self.formerly_since, self.formerly_removed)} if self.formerly else {}
        return {self.name: (self.since, self.removed), **former}

    def has(self, name: str, version: tuple[int, ...]) -> bool:
        """Whether a version has it by one of its names."""
        since, removed = self.lives[name]
        return since <= version and (not removed or version < removed)

    def name_in(self, version: tuple[int, ...]) -> str:
        """The name to give it by in a version; its present one where the version has it by none."""
        return next((name for name in self.lives if self.has(name, version)), self.name)

    def known(self, version: tuple[int, ...]) -> bool:
        return any(self.has(name, version) for name in self.lives)

    def counted(self, values: Sequence[str] | None) -> list[str] | None:
        """Of the values that are given, in order, those that count."""
        return None if values is None else list(values) if self.repeatable else list(values[-1:])

    def parse(self, text: str) -> Any:
        """The comparable value of ``text``; raises `BadValue` with what is allowed."""
        try:
            value = TYPES[self.type](text)
        except BadValue:
            raise
        except (ValueError, OverflowError) as exc:
            raise BadValue(f"a value of type {self.type} is needed") from exc
        if self.choices and text not in self.choices:
            raise BadValue("one of " + ", ".join(self.choices) + " is needed")
        if self.minimum is not None and value < self.minimum:
            raise BadValue(f"at least {self.minimum:g} is needed")
        if self.maximum is not None and value > self.maximum:
            raise BadValue(f"at most {self.maximum:g} is allowed")
        return value

    def default(self, version: tuple[int, ...]) -> str | None:
        found = None
        for since, value in self.defaults:
            if since <= version:
                found = value
        return found

    def change_of_default(self, version: tuple[int, ...]) -> str:
        """That a version before this one had another default; empty where none had."""
        passed = [each for each in self.defaults if each[0] <= version]
        if len(passed) < 2:
            return ""
        (since, now), before = passed[-1], passed[-2][1]
        return f"the default is {now or 'empty'} since {dotted(since)}, and was {before or 'empty'} before"

    def same(self, one: str, other: str) -> bool:
        """Whether two texts mean the same, such as 300s and 5m."""
        if one == other:
            return True
        try:
            return bool(TYPES[self.type](one) == TYPES[self.type](other))
        except (ValueError, OverflowError):
            return False


def texts_of(value: Any) -> list[str]:
    """A flag's texts from YAML: one value, or a list of them for a flag that is repeated; raises `BadValue`."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise BadValue("a value or a list of them is needed; null takes the flag out of the profile")
    return [_text_of(each) for each in values]


def _text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        raise BadValue("text, a number, true or false is needed, or a list of these for a flag that is repeated")
    text = str(value)
    if not text.isprintable():
        raise BadValue("text without control characters is needed")
    return text


def dotted(version: Sequence[int]) -> str:
    return ".".join(str(part) for part in version)


def version_of(text: str) -> tuple[int, ...]:
    """(1, 36, 3) of ``v1.36.3`` or ``3.6.16-0``; raises `BadValue`."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if not found:
        raise BadValue(f"{text!r} is not a version such as 3.6.16")
    return tuple(int(part) for part in found.groups() if part is not None)
