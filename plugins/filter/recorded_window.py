# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The window that a person means by the name of a run or a window, over all hosts of a play."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible.errors import AnsibleFilterError

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.recorded import window_of

DOCUMENTATION = r"""
name: recorded_window
short_description: The first window of a run, whichever host had it
version_added: 1.0.0
author:
  - kubetune contributors (@kubetune)
description:
  - Looks a run or a window up in what the hosts of a play have on record (C(__node_window_states)).
options:
  _input:
    description: Host names.
    type: list
    elements: str
    required: true
  hostvars:
    description: The play's C(hostvars).
    type: dict
    required: true
  target:
    description: V(latest) for the newest run, or the id of a run or of a window.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show where the newest run began
  ansible.builtin.debug:
    msg: "{{ ansible_play_hosts | kubetune.control_plane.recorded_window(hostvars, 'latest') }}"
"""

RETURN = r"""
_value:
  description: The id of a window.
  type: str
"""


def recorded_window(hosts: Sequence[str], hostvars: Mapping[str, Any], target: str) -> str:
    states = [state for host in hosts for state in (hostvars[host].get("__node_window_states") or {}).get("states") or ()]
    try:
        return window_of(states, target)
    except KubetuneError as exc:
        raise AnsibleFilterError(str(exc)) from None


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"recorded_window": recorded_window}
