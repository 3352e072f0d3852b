#!/usr/bin/python
# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: kubeadm_config_map
short_description: Reads and replaces the ConfigMap kubeadm-config
version_added: 1.0.0
description:
  - The host's part of M(kubetune.control_plane.kubeadm_config), whose action plugin calls it. There is no reason to call it yourself.
  - It replaces the object only if nobody has changed it since it was read, keeps the old one in C(/var/lib/kubetune/kubeadm-config)
    (0600), and has the host's kubeadm judge the new configuration first.
author:
  - kubetune contributors (@kubetune)
extends_documentation_fragment:
  - kubetune.control_plane.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: The action plugin returns the difference.
options:
  operation:
    description: V(read) returns the object, V(replace) puts O(object) in its place.
    type: str
    required: true
    choices: [read, replace]
  kubeconfig:
    description: An administrator's kubeconfig on the host.
    type: path
    default: /etc/kubernetes/admin.conf
  object:
    description: The new object as JSON, with the C(resourceVersion) of the one that was read.
    type: str
requirements:
  - kubectl on the host
"""

EXAMPLES = r"""
- name: Read kubeadm's configuration
  kubetune.control_plane.kubeadm_config_map:
    operation: read
  register: kubeadm
"""

RETURN = r"""
object:
  description: The ConfigMap as JSON; empty where the cluster has none.
  returned: O(operation=read)
  type: str
kept:
  description: Where the old object is kept; empty when somebody else has changed it since it was read, and nothing was done.
  returned: O(operation=replace)
  type: str
  sample: /var/lib/kubetune/kubeadm-config/20261124T150000Z-4711.json
notice:
  description: Why the host's kubeadm could not judge the new configuration; empty when it did.
  returned: O(operation=replace)
  type: str
"""

import json

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.config_map import ConfigMap


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "operation": {"type": "str", "required": True, "choices": ["read", "replace"]},
            "kubeconfig": {"type": "path", "default": "/etc/kubernetes/admin.conf"},
            # A proxy's password may be in it: it is not for the system's log.
            "object": {"type": "str", "no_log": True},
        },
        required_if=[("operation", "replace", ["object"])],
        supports_check_mode=True,
    )
    given = module.params
    config_map = ConfigMap(given["kubeconfig"])
    try:
        if given["operation"] == "read":
            found = config_map.read()
            module.exit_json(changed=False, object=json.dumps(found) if found else "")
        if module.check_mode:
            module.exit_json(changed=True, kept="", notice="")
        done = config_map.replace(json.loads(given["object"]))
        module.exit_json(changed=done is not None, kept=done.kept if done else "", notice=done.notice if done else "")
    except KubetuneError as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
