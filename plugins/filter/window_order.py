# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which hosts get their node windows."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

DOCUMENTATION = r"""
name: window_order
short_description: Hosts that need a node window, followers first
version_added: 1.0.0
author:
  - kubetune contributors (@kubetune)
description:
  - Selects the hosts whose plan (C(__node_window_plan)) needs a change, and puts the one whose etcd member leads last.
  - Each window asks again who leads, and moves leadership away where that has changed.

options:
  _input:
    description: Host names in the order of the play.
    type: list
    elements: str
    required: true
  hostvars:
    description: The play's C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the order
  ansible.builtin.debug:
    msg: "{{ ansible_play_hosts | kubetune.control_plane.window_order(hostvars) }}"
"""

RETURN = r"""
_value:
  description: Host names.
  type: list
  elements: str
"""


def window_order(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> list[str]:
    plans = {host: hostvars[host].get("__node_window_plan") or {} for host in hosts}
    changing = [host for host in hosts if plans[host].get("needs_change")]
    return sorted(changing, key=lambda host: bool(plans[host].get("leads")))


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"window_order": window_order}
