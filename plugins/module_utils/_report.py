# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to kubetune.control_plane: it may change in any release.
"""What a run says about each setting: one entry per item, none is silent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: Verdict -> what it tells the reader. The order is the order in a summary.
VERDICTS = {
    "changed": "set by this run",
    "restored": "put back to what was there before",
    "already_right": "was already as wanted",
    "version_default": "set, and equal to the default of this version: it changes nothing",
    "kept": "a live value which is stricter or larger on purpose stays",
    "pending": "written, and takes effect after the restart that the reason names",
    "ignored": "has no effect here",
    "refused": "the target does not take it",
    "left_out": "not applied",
    "warning": "applied, and worth a second look",
}


def entry(
    role: str, item: str, verdict: str, value: Any = None, previous: Any = None, reason: str = ""
) -> dict[str, Any]:
    """One line of the summary.

    Args:
        role: the role that owns the item, such as ``host_tuning``.
        item: the setting as its users call it, such as ``vm.swappiness`` or ``etcd --quota-backend-bytes``.
        verdict: a key of `VERDICTS`.
        value: the effective value, in the unit of the item; None where there is none.
        previous: the value before this run; None where it did not change.
        reason: why, in one sentence; required for every verdict but changed, restored and already_right.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"unknown verdict {verdict!r}")
    return {"role": role, "item": item, "verdict": verdict, "value": value, "previous": previous, "reason": reason}


def difference(header: object, before: str, after: str) -> dict[str, str]:
    """One element of a module's diff. header: what it is of, such as a path."""
    return {"before_header": str(header), "after_header": str(header), "before": before, "after": after}


@dataclass
class Outcome:
    """What a run did, or in check mode would do.

    Attributes:
        report: of `entry`. diff: of `difference`.
    """

    changed: bool = False
    report: list[dict[str, Any]] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)
