#!/usr/bin/python
# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_tuning
short_description: Tunes a host's disk queues, kernel values and limits for etcd
version_added: 1.0.0
description:
  - Takes the whole desired state in one call, sets it at once, makes it survive a reboot, and reads back what is in effect.
  - The disks are found from the paths that they hold, through partitions and stacked devices, never by name.
  - A value that a person gave always wins, and it is an error where this host cannot have it. A value of the profile yields to
    a live one that is stricter or larger on purpose, and where the host cannot have it that is reported.
  - What was there before is recorded in C(/var/lib/kubetune/host-tuning.json). A value that is not wanted any more goes back to
    it, and so does everything with O(state=absent).
  - >-
    Writes C(/etc/udev/rules.d/99-kubetune-block.rules), C(/etc/sysctl.d/99-zz-kubetune.conf),
    C(/etc/security/limits.d/99-zz-kubetune.conf), and the drop-in C(zz-kubetune-nofile.conf) of container runtimes, or of an
    etcd that is a service, whose units ask for too few open files. One of these that is a symbolic link was switched off by
    somebody, and is an error.
  - Whoever else sets the same values is named, with the file and the value - sysctl files as systemd reads them, the active
    profile of tuned, and udev rules of others.
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
    description: V(absent) puts everything back to what it was before the first run; the other options have no effect then.
    type: str
    choices: [present, absent]
    default: present
  profile:
    description: >-
      The values of what is not given. V(guide) tunes; V(upstream) leaves the kernel's and the distribution's own values.
    type: str
    choices: [guide, upstream]
    default: guide
  paths:
    description:
      - Absolute paths whose disks are tuned, such as etcd's data directory, and the one of its WAL.
      - For a path that does not exist the disk of its nearest parent is taken, with a warning. One below another of the paths
        is passed over until it exists - so is the mount point of the WAL, as long as the WAL has no disk of its own.
      - A path without a disk, as on tmpfs or NFS, is reported, or an error where O(scheduler), O(scheduler_by_class) or
        O(read_ahead_kb) is given.
    type: list
    elements: str
    default: [/var/lib/etcd, /var/lib/etcd/wal-disk]
  scheduler:
    description:
      - I/O scheduler of the disks at the bottom, for all classes but V(nvme). V(deadline) and V(noop) are the names of before
        Linux 5.0, and mean V(mq-deadline) and V(none). V(keep) leaves it as it is.
      - Where request-based multipath stands for several disks, that of the multipath device, whose scheduler is the one that acts.
      - V(auto) takes V(mq-deadline) for disks that rotate and for SSDs with one hardware queue, V(none) for SSDs with several,
        and leaves what is virtual, of the network or a loop device as it is.
      - The guide's is V(deadline), and V(none) for NVMe. Disks of the network are left as they are.
    type: str
  scheduler_by_class:
    description:
      - Scheduler for one class of disks - V(nvme), V(ssd), V(rotational), V(virtual) (made up by a hypervisor), V(loop).
      - It wins over O(scheduler).
    type: dict
    default: {}
  read_ahead_kb:
    description:
      - Read-ahead in KiB, 0 to 65536 in whole pages, of the device that the file system is mounted on, which for a partition is
        the whole disk.
      - The guide's is 1024.
    type: int
  read_ahead_mode:
    description: V(at_least) leaves a larger live value; V(keep) leaves every value.
    type: str
    choices: [exact, at_least, keep]
    default: exact
  dirty_limits:
    description:
      - Whether the guide's limits on dirty pages are percentages of the available memory, or V(bytes) - C(vm.dirty_bytes)
        1073741824 and C(vm.dirty_background_bytes) 268435456. On hosts with much memory the percentages amount to tens of GB.
    type: str
    choices: [ratio, bytes]
    default: ratio
  sysctls:
    description:
      - Kernel values by name, such as V(vm.swappiness), over those of the profile. A null takes a value out of the profile.
      - >-
        The guide's are net.core.rmem_max and net.core.wmem_max 134217728, net.ipv4.tcp_rmem and net.ipv4.tcp_wmem
        4096 65536 134217728, vm.dirty_ratio 15, vm.dirty_background_ratio 5, vm.swappiness 1.
      - C(vm.dirty_bytes) replaces the profile's C(vm.dirty_ratio), and C(vm.dirty_background_bytes) its
        C(vm.dirty_background_ratio), for the kernel knows only one of each two.
    type: dict
    default: {}
  nofile:
    description:
      - Open files, 1024 up to fs.nr_open, for logins of the user etcd and as a minimum for the container runtime, from which
        the etcd container inherits, or for the service of an etcd that is no pod. A larger limit of a service is never lowered.
        V(0) leaves limits alone.
      - The guide's is 65536.
    type: int
  restart_container_runtime:
    description:
      - Allows a restart of the container runtime where its limit had to be raised and the running etcd has too few open files.
      - Containers of containerd and CRI-O go on running meanwhile; Docker stops its containers unless live-restore is on.
      - An etcd that is a service is never restarted.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Tune the host by the guide
  kubetune.control_plane.host_tuning:

- name: Tune the disks of two etcd instances by their classes, with dirty limits in bytes, and leave swappiness alone
  kubetune.control_plane.host_tuning:
    paths:
      - /var/lib/etcd
      - /var/lib/etcd-events
    scheduler: auto
    read_ahead_mode: at_least
    dirty_limits: bytes
    sysctls:
      vm.swappiness: null

- name: Put everything back
  kubetune.control_plane.host_tuning:
    state: absent
"""

RETURN = r"""
needs_change:
  description: Whether anything differed from what is wanted; in check mode, whether a run would change something.
  returned: success
  type: bool
report:
  description: One entry for each item, with what became of it.
  returned: success
  type: list
  elements: dict
  contains:
    role:
      description: Always C(host_tuning).
      type: str
      sample: host_tuning
    item:
      description: The setting or the file.
      type: str
      sample: vm.swappiness
    verdict:
      description: >-
        C(changed), C(restored), C(already_right), C(kept) (stricter or larger on purpose), C(pending) (takes effect later),
        C(ignored) (set, without effect here), C(refused) (this host does not take it), C(left_out) or C(warning).
      type: str
      sample: changed
    value:
      description: The value in effect, or in check mode the one that would be.
      type: raw
      sample: "1"
    previous:
      description: The value before this run; null where it did not change.
      type: raw
      sample: "60"
    reason:
      description: Why.
      type: str
      sample: "no swap is in use: it has no effect until there is some"
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._host_tuning.run import run
from ansible_collections.kubetune.control_plane.plugins.module_utils._kernel.tree import Tree


ARGUMENT_SPEC = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "profile": {"type": "str", "choices": ["guide", "upstream"], "default": "guide"},
    "paths": {"type": "list", "elements": "str", "default": ["/var/lib/etcd", "/var/lib/etcd/wal-disk"]},
    "scheduler": {"type": "str"},
    "scheduler_by_class": {"type": "dict", "default": {}},
    "read_ahead_kb": {"type": "int"},
    "read_ahead_mode": {"type": "str", "choices": ["exact", "at_least", "keep"], "default": "exact"},
    "dirty_limits": {"type": "str", "choices": ["ratio", "bytes"], "default": "ratio"},
    "sysctls": {"type": "dict", "default": {}},
    "nofile": {"type": "int"},
    "restart_container_runtime": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(ARGUMENT_SPEC, supports_check_mode=True)
    if os.geteuid() != 0:
        module.fail_json(msg="host_tuning has to run as root: set become to true")
    try:
        outcome = run(Tree(), module.params, check=module.check_mode)
    except KubetuneError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(changed=outcome.changed, needs_change=outcome.changed, report=outcome.report, diff=outcome.diff)


if __name__ == "__main__":
    main()
