# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person has to know after a restore of etcd."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.report import lines
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.store import Order

DOCUMENTATION = r"""
name: restore_report
short_description: What a person has to know after a restore of etcd
version_added: 1.0.0
author:
  - kubetune contributors (@kubetune)
description:
  - What the cluster serves now, what came back and may have been revoked since, nodes that register again, keys that have to be the old ones,
    and where the old data is.
options:
  _input:
    description: Host names of those that took part.
    type: list
    elements: str
    required: true
  hostvars:
    description: The play's C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say what this run did
  ansible.builtin.debug:
    msg: "{{ ansible_play_hosts | kubetune.control_plane.restore_report(hostvars) }}"
"""

RETURN = r"""
_value:
  description: Sentences.
  type: list
  elements: str
"""


def restore_report(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> list[str]:
    order = Order(**hostvars[hosts[0]]["__etcd_restore_plan"]["order"])
    after = (hostvars[order.source].get("__etcd_restore_after") or {}).get("found")
    finished = {host: hostvars[host]["__etcd_restore_finished"]["found"] for host in hosts}
    return lines(order, after, finished, [hostvars[host]["__etcd_restore_read"]["found"]["node"] for host in hosts])


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"restore_report": restore_report}
