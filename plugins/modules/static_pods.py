#!/usr/bin/python
# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: static_pods
short_description: Tunes the static pods of a control-plane node, safely
version_added: 1.0.0
description:
  - Plans the wanted flags and resources of etcd and kube-apiserver against what runs, has the target's own binaries judge the
    result, and changes both in one node window.
  - The manifest of kubeadm is merged into, so everything that is not asked for stays as it is. With the C(standalone)
    options a complete manifest is rendered where none is.
  - A failed change is undone on the host by itself; a change is never begun while the etcd cluster is not whole.
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
  apply:
    description: With V(false) it only plans and judges, and reports whether a window is needed.
    type: bool
    default: true
  resume:
    description: Whether a window that is open on the host, or was cut off, is ended first. With V(false) it is an error, as in check mode.
    type: bool
    default: true
  run_id:
    description:
      - The run that this call belongs to. Its first window takes the snapshot, and after a failed one no other is opened.
      - Without it each call is a run of its own.
    type: str
  recorded:
    description:
      - Instead of a state, go back to what the static pods were before a window, given by its id, which may be another host's.
        O(etcd) and O(kube_apiserver) give only their consents and limits then.
      - V(list) changes nothing and returns RV(states).
    type: str
  watch_seconds:
    description: Seconds, 0 to 600, for which the new processes have to stay before the window counts as done.
    type: float
    default: 30
  history_keep:
    description: How many finished windows the host keeps, 1 to 1000.
    type: int
    default: 20
  kube_apiserver:
    description: What is wanted of kube-apiserver. Without it kube-apiserver stays as it is.
    type: dict
    suboptions:
      <<: &part
        state:
          description: V(absent) puts back all that was set before.
          type: str
          choices: [present, absent]
          default: present
        mode:
          description: V(merge) into the live manifest, V(standalone) renders a complete one, V(auto) merges where there is one.
          type: str
          choices: [auto, merge, standalone]
          default: auto
        profile:
          description: V(guide) or V(upstream), which leaves the version's own defaults.
          type: str
          choices: [guide, upstream]
          default: guide
        flags:
          description: Flag without dashes to value; a null takes it out of the profile, a list repeats it.
          type: dict
          default: {}
        resources:
          description: C(requests) and C(limits), each a mapping over the profile (V(cpu), V(memory)), or V(none).
          type: dict
          default: {}
        standalone:
          description: Identity, listeners and paths of a complete manifest.
          type: dict
          default: {}
        allow_downtime:
          description: Consent to the downtime of a cluster which has no member to spare.
          type: bool
          default: false
        allow_unsafe_version:
          description: Consent to etcd 3.5.0 to 3.5.2, which can corrupt data.
          type: bool
          default: false
        certificate_min_days:
          description: Days that every certificate has to be valid for.
          type: float
          default: 7
        startup_seconds:
          description:
            - Seconds that the startup probe gives the container, rounded up to its period; only its C(failureThreshold) is changed.
            - Without it it is raised where the size of the database asks for more than there is.
          type: int
      etcd_servers:
        description:
          - Whom the API server asks. V(all) writes the local member first and then the others, V(local) takes that back, V(as_it_is)
            leaves it. With V(all) one member that hangs stalls requests of every API server.
        type: str
        choices: [as_it_is, local, all]
        default: as_it_is
      termination_grace_seconds:
        description:
          - The pod's C(terminationGracePeriodSeconds). Without it it is raised where the shutdown flags need more than there is.
        type: int
      balancer:
        description:
          - C(interval) in seconds and C(failures) of the checks of the balancer before the API servers, on C(/readyz).
        type: dict
  etcd:
    description: What is wanted of etcd. Without it etcd stays as it is.
    type: dict
    suboptions:
      <<: *part
      wal:
        description:
          - Where the write-ahead log lives. V(own_disk) is C(wal-disk/wal) below the data directory, on a disk that the module
            M(kubetune.control_plane.etcd_wal_disk) has mounted; V(data_directory) takes it back from there; V(as_it_is) leaves it.
          - A running member's WAL is moved within its window, after the member has stopped.
        type: str
        choices: [as_it_is, own_disk, data_directory]
        default: as_it_is
seealso:
  - module: kubetune.control_plane.static_pods_info
  - module: kubetune.control_plane.node_window
"""

EXAMPLES = r"""
- name: Raise etcd's quota and the API server's seats in one window
  kubetune.control_plane.static_pods:
    etcd:
      profile: upstream
      flags:
        quota-backend-bytes: 8589934592
    kube_apiserver:
      profile: upstream
      flags:
        max-requests-inflight: 3000
"""

RETURN = r"""
report:
  description: One entry for each setting, with its verdict and the reason.
  returned: always
  type: list
  elements: dict
  sample: [{"role": "etcd_static_pod", "item": "etcd --max-wals", "verdict": "version_default", "value": "5"}]
needs_change:
  description: Whether a window is needed.
  returned: success
  type: bool
member:
  description: The name of this host's etcd member.
  returned: success
  type: str
  sample: cp1
leads:
  description: Whether that member is the leader.
  returned: success
  type: bool
states:
  description:
    - The states that this host has on record, oldest first. C(id) and C(run_id) name the window that ended each, C(outcome) is
      that window's, and C(differences) tells, line by line, how the host differs now.
  returned: O(recorded=list)
  type: list
  elements: dict
  sample: [{"id": "20261124T191500Z-0a1b2c3d", "run_id": "cp1-1", "outcome": "changed", "differences": ["etcd --max-wals: 6 now, 5 then"]}]
window:
  description: C(outcome), C(seconds), C(snapshot) and C(events) of the node window.
  returned: when a window was opened
  type: dict
"""
