# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorded states of a host, for a person who chooses one."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

DOCUMENTATION = r"""
name: recorded_states
short_description: The states to which a host can go back, as lines
version_added: 1.0.0
author:
  - kubetune contributors (@kubetune)
description:
  - Turns what M(kubetune.control_plane.static_pods) returns with O(kubetune.control_plane.static_pods#module:recorded=list) into
    lines, newest first.
options:
  _input:
    description: States, oldest first.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the states
  ansible.builtin.debug:
    msg: "{{ result.states | kubetune.control_plane.recorded_states }}"
"""

RETURN = r"""
_value:
  description: Lines.
  type: list
  elements: str
"""


def recorded_states(states: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for state in reversed(states):
        lines.append(f"before window {state['id']} of run {state['run_id']} ({state['outcome']}):")
        lines += [f"    {line}" for line in state["differences"] or ["as it is now"]]
    return lines or ["no window has changed the static pods of this host, or their history is gone"]


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"recorded_states": recorded_states}
