# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's etcd by its manifest, for the module etcd_restore."""

from __future__ import annotations

import json
from typing import Any, Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _restore

DOCUMENTATION = r"""
name: restore_member
short_description: A host's etcd by its manifest
version_added: 1.0.0
author:
  - kubetune contributors (@kubetune)
description:
  - Reads the manifests of etcd and kube-apiserver, where they are kept out too, and says where data, WAL and certificates are.
options:
  _input:
    description: What M(kubetune.control_plane.etcd_restore) with O(kubetune.control_plane.etcd_restore#module:operation=read) found.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show where the data is
  ansible.builtin.debug:
    msg: "{{ (there.found | kubetune.control_plane.restore_member).data }}"
"""

RETURN = r"""
_value:
  description: What the module takes as its option C(member).
  type: dict
"""


def restore_member(found: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return _restore.member(json.loads(json.dumps(found)))
    except KubetuneError as exc:
        raise AnsibleFilterError(f"{found.get('host', 'this host')}: {exc}") from None


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"restore_member": restore_member}
