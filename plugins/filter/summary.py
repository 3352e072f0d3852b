# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The summary at the end of a run."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.kubetune.control_plane.plugins.module_utils._report import VERDICTS

DOCUMENTATION = r"""
name: summary
short_description: What a run did to a host, line by line
version_added: 1.0.0
author:
  - kubetune contributors (@kubetune)
description:
  - Turns the C(report) entries of the collection's modules into lines, grouped by verdict, each with its reason.
options:
  _input:
    description: Report entries.
    type: list
    elements: dict
    required: true
  planned:
    description: The entries are what would be done (check mode).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Say what was done
  ansible.builtin.debug:
    msg: "{{ result.report | kubetune.control_plane.summary }}"
"""

RETURN = r"""
_value:
  description: Lines.
  type: list
  elements: str
"""


#: What the verdicts of a change mean in check mode.
WOULD = {
    "changed": "would be set",
    "restored": "would be put back to what was there before",
    "version_default": "would be set, and is equal to the default of this version: it changes nothing",
    "pending": "would be written, and take effect after the restart that the reason names",
    "warning": "would be applied, and is worth a second look",
}


def summary(entries: Sequence[Mapping[str, Any]], planned: bool = False) -> list[str]:
    lines = []
    for verdict, meaning in VERDICTS.items():
        if planned and verdict in WOULD:
            meaning = WOULD[verdict]
        group = [entry for entry in entries if entry["verdict"] == verdict]
        if not group:
            continue
        lines.append(f"{verdict.replace('_', ' ')} ({len(group)}): {meaning}")
        lines += [f"    {_line(entry)}" for entry in group]
    return lines or ["nothing was asked for"]


def _line(entry: Mapping[str, Any]) -> str:
    line = str(entry["item"])
    if entry["value"] is not None:
        line += f" = {entry['value']}"
    if entry["previous"] is not None:
        line += f" (was {entry['previous']})"
    if entry["reason"]:
        line += f": {entry['reason']}"
    return line


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"summary": summary}
