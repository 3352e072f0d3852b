#!/usr/bin/python
# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_wal_disk
short_description: Prepares a disk of its own for etcd's write-ahead log
version_added: 1.0.0
description:
  - Makes a file system on a blank disk, and mounts it at C(wal-disk) below etcd's data directory by a systemd unit. The WAL is
    moved there and back by M(kubetune.control_plane.static_pods); etcd is neither stopped nor started here.
  - Only a disk that holds nothing is taken - no signature of a file system, partition table, LVM, md, LUKS or swap, no byte other
    than zero where it is looked at, no mount, holder or other user - and only with consent.
  - The mount point's own directory is immutable, so that an etcd whose disk is missing fails instead of starting on an empty WAL.
    Nothing depends on the mount, the boot goes on without the disk, and when it comes back it is mounted again.
  - What is made is recorded in C(/var/lib/kubetune/wal-disk.json) before it is made; a run that was cut off is completed by the next.
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
    description: V(absent) unmounts the disk and makes it blank again; refused while a WAL is on it.
    type: str
    choices: [present, absent]
    default: present
  device:
    description:
      - The block device, best by a name that stays, such as C(/dev/disk/by-id/NAME). At least 1 GiB, better 10.
      - Without it the disk of an earlier run is kept as it should be; where there was none, nothing is done.
    type: path
  data_directory:
    description: etcd's data directory, on a file system with an immutable flag (ext4, xfs, btrfs).
    type: path
    default: /var/lib/etcd
  file_system:
    description: The file system that is made.
    type: str
    choices: [ext4, xfs]
    default: ext4
  mount_options:
    description: Options of the mount, comma-separated.
    type: str
    default: noatime
  format:
    description: Consent to make a file system on the blank disk.
    type: bool
    default: false
seealso:
  - module: kubetune.control_plane.static_pods
"""

EXAMPLES = r"""
- name: Give etcd's WAL a disk
  kubetune.control_plane.etcd_wal_disk:
    device: /dev/disk/by-id/nvme-Samsung_SSD_990_PRO_1TB_S6Z1NF0W123456
    format: true

- name: Take it away, after the WAL has been moved back
  kubetune.control_plane.etcd_wal_disk:
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
  sample: [{"role": "etcd_wal", "item": "mount point /var/lib/etcd/wal-disk", "verdict": "changed", "value": "/dev/nvme1n1"}]
mount_point:
  description: Where the disk is mounted.
  returned: success
  type: str
  sample: /var/lib/etcd/wal-disk
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError, Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._wal_disk.disk import MAKE, WalDisk, Wanted


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "device": {"type": "path"},
            "data_directory": {"type": "path", "default": "/var/lib/etcd"},
            "file_system": {"type": "str", "choices": list(MAKE), "default": "ext4"},
            "mount_options": {"type": "str", "default": "noatime"},
            "format": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = dict(module.params)
    state = given.pop("state")
    try:
        disk = WalDisk(given["data_directory"], module.check_mode)
        outcome = disk.remove() if state == "absent" else disk.ensure(Wanted(**given))
    except Refusal as exc:
        module.fail_json(msg="refused, and nothing was changed: " + "; ".join(exc.problems))
    except (KubetuneError, OSError) as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(
        changed=outcome.changed, needs_change=outcome.changed, report=outcome.report, diff=outcome.diff, mount_point=disk.mount_point
    )


if __name__ == "__main__":
    main()
