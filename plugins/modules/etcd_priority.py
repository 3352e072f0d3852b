#!/usr/bin/python
# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_priority
short_description: Gives etcd's static pod a CPU and I/O weight that survives its restarts
version_added: 1.0.0
description:
  - Nothing in Kubernetes sets a weight of I/O, and the kubelet makes the CPU weight of a pod's control group from its requests,
    anew for each pod. So a small service, C(kubetune-etcd-priority.service), sets both whenever the pod is made anew, and looks
    again every minute. It needs no capability, and sleeps until etcd ends.
  - The weights are those of cgroup v2, on the group of the pod, with either cgroup driver. They count among the pods of the same
    quality-of-service class, and only when the CPU or the disk is contended.
  - What was there before is recorded in C(/var/lib/kubetune/etcd-priority.json). A weight that is not wanted any more goes back to
    it, and so do both with O(state=absent).
  - Whether the disks below etcd honour a weight of I/O is reported for each - the scheduler C(bfq) does, and C(blk-iocost) does
    under any scheduler; C(mq-deadline), which is the guide's, C(kyber) and C(none) do not.
  - On a host with cgroup v1 nothing is done, and the report says so.
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
    description: V(absent) removes the service and puts the weights back; so does V(present) without a weight.
    type: str
    choices: [present, absent]
    default: present
  cpu_weight:
    description:
      - C(cpu.weight) of etcd's pod, 1 to 10000. The kubelet's comes from the pod's CPU request; 100m, which is kubeadm's, gives 4
        with Kubernetes 1.36.
      - Without it the weight stays the kubelet's.
    type: int
  io_weight:
    description:
      - C(io.weight) of etcd's pod, 1 to 10000; that of other pods is 100. For C(bfq) it is converted to that scheduler's scale.
      - Without it the weight stays as it is.
    type: int
  paths:
    description: Absolute paths whose disks are looked at, for the report. Those that do not exist are passed over.
    type: list
    elements: str
    default: [/var/lib/etcd, /var/lib/etcd/wal-disk]
  program:
    description: The collection's program on the host, which M(kubetune.control_plane.program) installs.
    type: path
    default: /usr/local/lib/kubetune/kubetune.pyz
  checksum:
    description: SHA-256 of the program; with another one the service is restarted.
    type: str
    default: ""
requirements:
  - systemd and cgroup v2 on the host
  - Python 3.9 or newer on the host
seealso:
  - module: kubetune.control_plane.host_tuning
  - module: kubetune.control_plane.program
"""

EXAMPLES = r"""
- name: Install the program
  kubetune.control_plane.program:
  register: program

- name: Let etcd have ten times the I/O of another pod of its class
  kubetune.control_plane.etcd_priority:
    io_weight: 1000
    checksum: "{{ program.checksum }}"

- name: Put the weights back
  kubetune.control_plane.etcd_priority:
    state: absent
"""

RETURN = r"""
needs_change:
  description: Whether anything differed from what is wanted; in check mode, whether a run would change something.
  returned: success
  type: bool
report:
  description: One entry for the service, each weight and each disk, for the summary of a run.
  returned: success
  type: list
  elements: dict
  sample:
    - role: etcd_priority
      item: weight of I/O on sda
      verdict: ignored
      value: 1000
      reason: its scheduler, mq-deadline, knows no weights
"""

import os
import sys

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError, Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._kernel.tree import Tree
from ansible_collections.kubetune.control_plane.plugins.module_utils._priority.run import Request, check_request, run

ARGUMENT_SPEC = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "cpu_weight": {"type": "int"},
    "io_weight": {"type": "int"},
    "paths": {"type": "list", "elements": "str", "default": ["/var/lib/etcd", "/var/lib/etcd/wal-disk"]},
    "program": {"type": "path", "default": "/usr/local/lib/kubetune/kubetune.pyz"},
    "checksum": {"type": "str", "default": ""},
}


def main() -> None:
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)
    given = module.params
    if os.geteuid() != 0:
        module.fail_json(msg="etcd_priority has to run as root: set become to true")
    weights = {"cpu": given["cpu_weight"], "io": given["io_weight"]}
    wanted = {} if given["state"] == "absent" else {name: each for name, each in weights.items() if each is not None}
    try:
        check_request({f"{name}_weight": weight for name, weight in weights.items()})
        request = Request(wanted, given["paths"], given["program"], given["checksum"], sys.executable)
        outcome = run(Tree(), request, module.check_mode)
    except Refusal as exc:
        module.fail_json(msg="refused, and nothing was changed: " + "; ".join(exc.problems))
    except (KubetuneError, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=outcome.changed, needs_change=outcome.changed, report=outcome.report, diff=outcome.diff)


if __name__ == "__main__":
    main()
