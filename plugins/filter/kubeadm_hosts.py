# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hosts of a play have applied, for the one that writes kubeadm's configuration."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.hosts import record

DOCUMENTATION = r"""
name: kubeadm_hosts
short_description: What the hosts of a play have applied to their static pods
version_added: 1.0.0
author:
  - kubetune contributors (@kubetune)
description:
  - Picks from each host's facts (C(__kubeadm_persistence_facts)) what M(kubetune.control_plane.kubeadm_config) compares. A host
    without facts is left out.
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
  planned:
    description: Take what the plans of the static pods (C(__node_window_plan)) would have applied, not what is.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show it
  ansible.builtin.debug:
    msg: "{{ ansible_play_hosts | kubetune.control_plane.kubeadm_hosts(hostvars) }}"
"""

RETURN = r"""
_value:
  description: Elements for the option C(hosts) of M(kubetune.control_plane.kubeadm_config).
  type: list
  elements: dict
"""


def kubeadm_hosts(hosts: Sequence[str], hostvars: Mapping[str, Any], planned: bool = False) -> list[dict[str, Any]]:
    found = []
    for host in hosts:
        facts = (hostvars[host].get("__kubeadm_persistence_facts") or {}).get("facts")
        plan = (hostvars[host].get("__node_window_plan") or {}) if planned else {}
        if facts:
            found.append(record(host, facts, plan.get("report") or ()))
    return found


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"kubeadm_hosts": kubeadm_hosts}
