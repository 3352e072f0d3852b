# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of an etcd member that comes back with no data."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _restore

DOCUMENTATION = r"""
name: rejoining_manifest
short_description: The manifest of an etcd member that joins a cluster
version_added: 1.0.0
author:
  - kubetune contributors (@kubetune)
description:
  - Sets C(--initial-cluster) and C(--initial-cluster-state=existing), and leaves all the rest of the text alone. Once the member has
    data, etcd looks at neither.
options:
  _input:
    description: The manifest's text.
    type: str
    required: true
  initial_cluster:
    description: Names and peer URLs of all members, the new one among them.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show it
  ansible.builtin.debug:
    msg: "{{ text | kubetune.control_plane.rejoining_manifest('cp1=https://10.0.0.1:2380,cp2=https://10.0.0.2:2380') }}"
"""

RETURN = r"""
_value:
  description: The manifest's text.
  type: str
"""


def rejoining_manifest(text: str, initial_cluster: str) -> str:
    try:
        return _restore.rejoining(str(text), str(initial_cluster))
    except KubetuneError as exc:
        raise AnsibleFilterError(str(exc)) from None


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"rejoining_manifest": rejoining_manifest}
