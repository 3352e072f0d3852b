#!/usr/bin/python
# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_restore
short_description: One step of the recovery of an etcd cluster, on one host
version_added: 1.0.0
description:
  - The role P(kubetune.control_plane.etcd_restore#role) calls it, step by step and in the right order over all hosts; use that one.
  - Each step looks at what is there and does what is missing, so that a run that was cut off is run again. What is under way is
    recorded in C(/var/lib/kubetune/restore/pending.json); old data is renamed, and never deleted.
author:
  - kubetune contributors (@kubetune)
extends_documentation_fragment:
  - kubetune.control_plane.attributes
attributes:
  check_mode:
    support: partial
    details: O(operation=read) and O(operation=look) support it; the others are called only to change.
  diff_mode:
    support: none
options:
  operation:
    description:
      - V(read) and V(look) change nothing. V(read) returns manifests and what is under way, V(look) the member's data, its own view of
        the cluster, and this host's backups.
      - V(begin) records O(order). V(shut) keeps O(components) out. V(provide) lays the snapshot ready, V(replace_data) makes this
        member's data of it, V(set_aside) leaves it none.
      - V(open_etcd), V(open_api_server) and V(open_others) put manifests in again, V(wait_whole) waits for the cluster.
      - V(after) drops locks of runs that ended long before, and lists what came back.
      - V(exchange) notes that V(replace_member) is next. That and V(promote) exchange the lost member, from another host.
      - V(finish) ends the restore, V(cancel) takes it back, V(abandon) ends it where it is.
    type: str
    required: true
    choices:
      - read
      - look
      - begin
      - shut
      - provide
      - replace_data
      - set_aside
      - open_etcd
      - wait_whole
      - open_api_server
      - open_others
      - after
      - exchange
      - replace_member
      - promote
      - finish
      - cancel
      - abandon
  order:
    description: What the plan decided, as the package C(_restore) defines it.
    type: dict
  member:
    description: This host's etcd by its manifest, as the filter P(kubetune.control_plane.restore_member#filter) returns it.
    type: dict
  components:
    description: Static pods, by the name of their program.
    type: list
    elements: str
    default: []
  snapshot:
    description: What O(operation=provide) returned on the host which provided the snapshot.
    type: dict
  manifest:
    description: Text of etcd's manifest, instead of the one that was kept out.
    type: str
  tools:
    description: Directory with etcd and etcdutl; by default those in etcd's image are used, for which containerd is needed.
    type: str
    default: ""
  config_file:
    description: The configuration of the maintenance, which knows where backups are and how they are encrypted.
    type: path
    default: /etc/kubetune/etcd-maintenance.json
  timeout:
    description: Seconds for etcd, and for the API server, to be ready.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Read the manifests of the control plane
  kubetune.control_plane.etcd_restore:
    operation: read
  register: there

- name: Look at the member's data, its view of the cluster, and the backups
  kubetune.control_plane.etcd_restore:
    operation: look
    member: "{{ there.found | kubetune.control_plane.restore_member }}"
"""

RETURN = r"""
found:
  description: What the operation found or did.
  returned: success
  type: raw
  sample: {"data": {"there": true, "database_bytes": 25000000}, "etcd": null, "failure": "no answer", "backups": []}
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.discover import manifests_directory
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.host_lock import host_lock
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.data import Member
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.host import Host
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.look import look, read
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.store import Order, Store

READING = ("read", "look")


def _change(given: dict) -> tuple:
    """(whether something changed, what was done)."""
    store = Store()
    host = Host(store, manifests_directory(), lambda text: None, given["timeout"])
    member = Member.from_dict(given["member"]) if given["member"] else None
    order = Order(**given["order"]) if given["order"] else None
    operation = given["operation"]
    if operation == "begin":
        before = store.read()
        begun = store.begin(order, os.path.realpath(member.wal))
        return begun != before, {"data_sha256": begun.data_sha256}
    if operation == "shut":
        taken = host.shut(given["components"])
        return bool(taken), taken
    if operation == "provide":
        return True, host.provide(member, given["tools"], Path(given["config_file"]))
    if operation == "replace_data":
        return host.replace_data(member, given["snapshot"], given["tools"]), {}
    if operation == "set_aside":
        return host.set_aside(member), {}
    if operation == "exchange":
        return True, host.exchange()
    if operation == "open_etcd":
        return host.open_etcd(given["manifest"]), {}
    if operation == "wait_whole":
        return False, host.wait_whole(member.access.client())
    if operation == "open_api_server":
        return host.open_api_server(given["member"]["api_server"]), {}
    if operation == "open_others":
        opened = host.open_others(given["components"])
        return bool(opened), opened
    if operation == "after":
        return True, host.after(member.access.client(), given["member"]["etcd_prefix"])
    if operation == "replace_member":
        return True, host.replace_member(member.access.client(), order, member.name)
    if operation == "promote":
        return True, host.promote(member.access.client(), order)
    if operation == "finish":
        return True, host.finish(member, given["member"]["keys"])
    if operation == "cancel":
        return True, host.cancel(member, given["components"])
    return True, host.abandon(member, given["components"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "operation": {
                "type": "str",
                "required": True,
                "choices": [
                    *READING, "begin", "shut", "provide", "replace_data", "set_aside", "open_etcd", "wait_whole", "open_api_server",
                    "open_others", "after", "exchange", "replace_member", "promote", "finish", "cancel", "abandon",
                ],
            },
            "order": {"type": "dict"},
            "member": {"type": "dict"},
            "components": {"type": "list", "elements": "str", "default": []},
            "snapshot": {"type": "dict"},
            # Manifests may hold secrets, such as a proxy's password: they are not for the system's log.
            "manifest": {"type": "str", "no_log": True},
            "tools": {"type": "str", "default": ""},
            "config_file": {"type": "path", "default": "/etc/kubetune/etcd-maintenance.json"},
            "timeout": {"type": "int", "default": 600},
        },
        required_if=[("operation", "begin", ["order", "member"]), ("operation", "look", ["member"])],
        supports_check_mode=True,
    )
    given = module.params
    try:
        if not 30 <= given["timeout"] <= 86_400:
            raise KubetuneError(f"timeout: {given['timeout']} is not allowed, 30 to 86400 seconds are; correct etcd_restore_timeout_seconds")
        if given["operation"] == "read":
            changed, found = False, read(Store())
        elif given["operation"] == "look":
            changed, found = False, look(Member.from_dict(given["member"]), Path(given["config_file"]))
        elif module.check_mode:
            raise KubetuneError(f"{given['operation']} only changes: a run in check mode ends before it")
        else:
            # A step that a lost controller had begun comes to its end first.
            with host_lock(wait=True):
                changed, found = _change(given)
    except KubetuneError as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"{given['operation']}: {exc}; mend that, and run again")
    module.exit_json(changed=changed, found=found)


if __name__ == "__main__":
    main()
