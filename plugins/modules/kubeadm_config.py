#!/usr/bin/python
# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: kubeadm_config
short_description: Keeps the tuned flags in kubeadm's configuration, so that its upgrades keep them
version_added: 1.0.0
description:
  - Writes the flags of etcd and kube-apiserver that this collection has applied into the ClusterConfiguration of the ConfigMap
    C(kube-system/kubeadm-config) (C(extraArgs), v1beta3 and v1beta4). C(kubeadm upgrade) and C(kubeadm init phase) render them again then.
  - Only what is the same on all hosts is written, and nothing at all while members of the etcd cluster are not among them.
    Names, addresses and certificates of nodes never are; C(--wal-dir) only where every member runs with it.
  - What was written is remembered in an annotation, with what stood there before. A flag that is no longer wanted goes back, those
    of others stay, and an edit since is reported and set right.
  - Somebody else's write in between is noticed, and theirs is read again. The old object is kept on the host.
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
    description: V(absent) puts back what stood there before.
    type: str
    choices: [present, absent]
    default: present
  hosts:
    description:
      - All control-plane hosts of the play, as the filter P(kubetune.control_plane.kubeadm_hosts#filter) describes them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: As reports name the host.
        type: str
        required: true
      member:
        description: The name of its etcd member.
        type: str
        default: ""
      members:
        description: The names of all members of the cluster, by its own list.
        type: list
        elements: str
        default: []
      problem:
        description: Why they could not be read. It ends the task.
        type: str
        default: ""
      components:
        description: V(etcd) and V(kube-apiserver), where the host has their manifests.
        type: list
        elements: str
        default: []
      tuned:
        description: Component to flags, without dashes, to the list of values that were applied.
        type: dict
        default: {}
      running:
        description: The same of the processes, with all their flags.
        type: dict
        default: {}
  withdraw:
    description:
      - Only take C(--wal-dir) out where it will not be the same for all members any more. For the time before a write-ahead log
        leaves its disk, since an upgrade would start etcd without it afterwards.
    type: bool
    default: false
  kubeconfig:
    description: An administrator's kubeconfig on the host.
    type: path
    default: /etc/kubernetes/admin.conf
requirements:
  - kubectl on the host
seealso:
  - module: kubetune.control_plane.static_pods
  - module: kubetune.control_plane.kubeadm_config_map
  - module: kubetune.control_plane.kubeadm_patches
"""

EXAMPLES = r"""
- name: Read what is applied
  kubetune.control_plane.static_pods_info:
  register: __kubeadm_persistence_facts

- name: Keep it in kubeadm's configuration
  kubetune.control_plane.kubeadm_config:
    hosts: "{{ ansible_play_hosts | kubetune.control_plane.kubeadm_hosts(hostvars) }}"
  when: inventory_hostname == ansible_play_hosts | first
"""

RETURN = r"""
report:
  description: One entry for each flag, with its verdict and the reason.
  returned: always
  type: list
  elements: dict
  sample: [{"role": "kubeadm_persistence", "item": "kubeadm-config etcd --max-wals", "verdict": "changed", "value": "5"}]
kept:
  description: Where the old object is kept on the host.
  returned: when it was replaced
  type: str
  sample: /var/lib/kubetune/kubeadm-config/20261124T150000Z-4711.json
"""
