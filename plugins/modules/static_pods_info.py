#!/usr/bin/python
# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: static_pods_info
short_description: Reads what a control-plane host runs as static pods
version_added: 1.0.0
description:
  - Reads manifests, the processes behind them, their versions, certificates and peak memory, the node's allocatable
    resources, the etcd cluster as its members see it, and what this collection applied before.
  - Changes nothing. The action plugin M(kubetune.control_plane.static_pods) calls it.
author:
  - kubetune contributors (@kubetune)
extends_documentation_fragment:
  - kubetune.control_plane.attributes
  - kubetune.control_plane.attributes.info_module
options:
  as_api_server:
    description:
      - Also ask each member of etcd with the certificate that the API server has for it, and say in C(cluster.unreachable) which do
        not answer.
    type: bool
    default: false
  history:
    description: Also read the states before each finished node window, which the host has on record.
    type: bool
    default: false
requirements:
  - root on a kubeadm control-plane host
"""

EXAMPLES = r"""
- name: Read the static pods of a control-plane host
  kubetune.control_plane.static_pods_info:
  register: static_pods

- name: Say which etcd runs and who leads
  ansible.builtin.debug:
    msg: "{{ static_pods.facts.processes.etcd[0].version }}, leader {{ static_pods.facts.cluster.leader }}"
"""

RETURN = r"""
facts:
  description:
    - C(distribution), C(manifests), C(processes), C(memory), C(allocatable), C(cluster) and C(unfinished), as the packages of
      the collection read them; with O(history) also C(history).
  returned: success
  type: dict
  sample: {"distribution": "kubeadm", "host": "cp1", "cluster": {"name": "cp1", "leader": "cp2", "problems": []}}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.discover import discover
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window import history


def main() -> None:
    module = AnsibleModule(
        argument_spec={"as_api_server": {"type": "bool", "default": False}, "history": {"type": "bool", "default": False}},
        supports_check_mode=True,
    )
    try:
        facts = discover(module.params["as_api_server"])
        module.exit_json(changed=False, facts={**facts, **({"history": history.states()} if module.params["history"] else {})})
    except KubetuneError as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
