# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is lost of an etcd cluster, and which way back there is."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Mapping, Sequence

from ansible.errors import AnsibleFilterError

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError, Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore import plan

DOCUMENTATION = r"""
name: restore_plan
short_description: What is lost of an etcd cluster, and which way back there is
version_added: 1.0.0
author:
  - kubetune contributors (@kubetune)
description:
  - Puts together what the hosts of a play found (C(__etcd_restore_read), C(__etcd_restore_member) and C(__etcd_restore_look)), refuses what
    would do harm, and makes the order that each host gets.
options:
  _input:
    description: Host names of those that were reached.
    type: list
    elements: str
    required: true
  hostvars:
    description: The play's C(hostvars).
    type: dict
    required: true
  case:
    description: V(plan), V(member), V(survivor), V(backup), V(cancel) or V(abandon).
    type: str
    required: true
  host:
    description: Inventory name of the member to replace, of the survivor, or of the host with the backup.
    type: str
    default: ""
  backup:
    description: Path of the snapshot on O(host).
    type: str
    default: ""
  without:
    description: Inventory names of hosts that are gone for good, or names of their members; a text has commas between them.
    type: list
    elements: str
    default: []
  everybody:
    description: Inventory names of all hosts that a member belongs on.
    type: list
    elements: str
    default: []
  bump_revision:
    description: By how much the revision of the new cluster is above the snapshot's.
    type: int
    default: 1000000000
  cluster_id:
    description: Hexadecimal, of which cluster the backup has to be.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show which case it is
  ansible.builtin.debug:
    msg: "{{ (ansible_play_hosts | kubetune.control_plane.restore_plan(hostvars, 'plan')).lines }}"
"""

RETURN = r"""
_value:
  description: C(lines) for people, C(case), C(order), C(consent), C(through) and C(resumed).
  type: dict
"""


def restore_plan(
    hosts: Sequence[str],
    hostvars: Mapping[str, Any],
    case: str,
    host: str = "",
    backup: str = "",
    without: Sequence[str] | str = (),
    bump_revision: int = plan.BUMP,
    everybody: Sequence[str] = (),
    cluster_id: str = "",
) -> dict[str, Any]:
    found = {
        name: {
            "read": hostvars[name]["__etcd_restore_read"]["found"],
            "member": hostvars[name]["__etcd_restore_member"],
            "look": hostvars[name]["__etcd_restore_look"]["found"],
        }
        for name in hosts
    }
    gone = without.split(",") if isinstance(without, str) else without
    wanted = plan.Wanted(
        str(case), str(host), str(backup), tuple(str(name).strip() for name in gone), int(bump_revision), str(cluster_id).lower(),
        tuple(map(str, everybody)),
    )  # fmt: skip
    new_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:6]}"
    try:
        # Plain data: ansible-core tags the strings of variables.
        return plan.plan(json.loads(json.dumps(found)), wanted, new_id).to_dict()
    except Refusal as exc:
        raise AnsibleFilterError("refused, and nothing was changed:\n" + "\n".join(f"- {each}" for each in exc.problems)) from None
    except KubetuneError as exc:
        raise AnsibleFilterError(str(exc)) from None


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"restore_plan": restore_plan}
