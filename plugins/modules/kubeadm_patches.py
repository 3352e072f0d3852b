#!/usr/bin/python
# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: kubeadm_patches
short_description: Keeps tuned requests, limits and times of pods as patches for kubeadm
version_added: 1.0.0
description:
  - Writes the requests, limits, termination grace periods and startup budgets of etcd and kube-apiserver that this collection has
    applied on the host into files which C(kubeadm upgrade --patches) takes. Flags are kept by M(kubetune.control_plane.kubeadm_config), without any patches.
author:
  - kubetune contributors (@kubetune)
extends_documentation_fragment:
  - kubetune.control_plane.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  state:
    description: V(absent) removes the files, and the directory where nothing else is in it.
    type: str
    choices: [present, absent]
    default: present
  directory:
    description: Where the files are.
    type: path
    default: /etc/kubernetes/kubetune-patches
  report:
    description: The report of a plan of the static pods which is to be looked at as if it were done. For check mode.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Keep requests, limits and times for kubeadm upgrade
  kubetune.control_plane.kubeadm_patches:
"""

RETURN = r"""
report:
  description: One entry for each file, for the summary of a run.
  returned: success
  type: list
  elements: dict
  sample: [{"role": "kubeadm_persistence", "item": "kubeadm patch etcd+strategic.yaml", "verdict": "changed", "value": "requests.cpu 1"}]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm import patches
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.state import read_memory
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "directory": {"type": "path", "default": "/etc/kubernetes/kubetune-patches"},
            "report": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        wanted = {
            name: patches.settings(component, read_memory(name), given["report"])
            for name, component in COMPONENTS.items()
            if given["state"] == "present"
        }
        done = patches.apply(Path(given["directory"]), wanted, module.check_mode)
    except KubetuneError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=done.changed, report=done.report, diff=done.diff)


if __name__ == "__main__":
    main()
