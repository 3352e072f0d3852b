# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One value of the kernel: what it is, what is wanted, and the three-way decision between the two and what was before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Mapping, NamedTuple


class Value(NamedTuple):
    """A value under a name: most settings have one name, the dirty limits have a percentage and a number of bytes."""

    name: str
    text: str


@dataclass(frozen=True)
class Record:
    """A setting that is ours: its value from before us, and the one that we gave it."""

    original: Value
    applied: Value


@dataclass(frozen=True)
class Setting:
    """A value of the kernel, and what is wanted of it.

    Attributes:
        key: in the record of originals.
        item: in the report.
        paths: name of the value -> the kernel's file for it.
        live: as it is; None where the kernel has none.
        wanted: None for a setting which shall be as it was before us.
        explicit: given by a person.
        keeps: whether a live value is so much stricter or larger than the wanted one that it stays.
        obstacle: why it cannot be written; empty when it can.
        note: something that the reader should know, whatever is decided.
        idle: the value is without effect here; ``note`` says why.
    """

    key: str
    item: str
    paths: Mapping[str, str]
    live: Value | None
    wanted: Value | None
    explicit: bool = False
    keeps: Callable[[Value], bool] = lambda live: False
    obstacle: str = ""
    note: str = ""
    idle: bool = False


@dataclass(frozen=True)
class Decision:
    """What is done about a setting.

    Attributes:
        verdict: as in the report.
        target: what the kernel shall have; None leaves it alone.
        record: what is remembered from now on; None for a setting that is not ours, or not any more.
        reason: as in the report.
    """

    setting: Setting
    verdict: str
    target: Value | None
    record: Record | None
    reason: str

    @property
    def writes(self) -> bool:
        return self.target is not None and self.target != self.setting.live


def decide(setting: Setting, record: Record | None) -> Decision:
    """What to do, from what is wanted, what is there, and what we know of before.

    A live value that is not the one we applied is somebody's decision: it is compared with the wanted one as if we had
    never been here. One that we applied stands for the original.
    """
    live, wanted = setting.live, setting.wanted
    before = record.original if record and live == record.applied else live
    if wanted is None:
        return _give_back(setting, record)
    if before is not None and setting.keeps(before):
        shown = before.text if before.name == wanted.name else f"{before.name} = {before.text}"
        if before == live or setting.obstacle:
            return Decision(setting, "kept", None, None, f"{shown} is there, and {wanted.text} would only weaken it")
        return Decision(setting, "restored", before, None, f"{shown} was there, and {wanted.text} would only weaken it")
    if live == wanted:
        verdict = "ignored" if setting.idle else "already_right"
        return Decision(setting, verdict, wanted, Record(record.original if record else wanted, wanted), setting.note)
    if setting.obstacle or live is None:
        return Decision(setting, "refused", None, record, setting.obstacle)
    return Decision(setting, "changed", wanted, Record(record.original if record else live, wanted), setting.note)


def refused(decision: Decision, record: Record | None, reason: str) -> Decision:
    """The same decision after the kernel said no; what was known before stays known."""
    verdict = "refused" if decision.setting.wanted else "left_out"
    return Decision(decision.setting, verdict, None, record, reason)


def _give_back(setting: Setting, record: Record | None) -> Decision:
    """Back to the original, whatever was done to the value since."""
    if record is None:
        return Decision(setting, "already_right", None, None, setting.note)
    if setting.live == record.original:
        return Decision(setting, "restored", None, None, setting.note)
    if setting.obstacle or setting.live is None:
        return Decision(
            setting, "left_out", None, record, f"cannot be put back to {record.original.text}: {setting.obstacle}"
        )
    return Decision(setting, "restored", record.original, None, setting.note)
