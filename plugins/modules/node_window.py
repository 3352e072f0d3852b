#!/usr/bin/python
# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: node_window
short_description: Changes the static pods of one node in one window
version_added: 1.0.0
description:
  - Has the target's own binaries judge command lines, starts the transaction which changes etcd and kube-apiserver of this
    node in one go, and follows it.
  - The transaction runs as C(kubetune-window.service) on the host, so it finishes or undoes by itself when the controller is
    lost, and goes on after a reboot.
  - The action plugin M(kubetune.control_plane.static_pods) calls it; use that one.
author:
  - kubetune contributors (@kubetune)
extends_documentation_fragment:
  - kubetune.control_plane.attributes
attributes:
  check_mode:
    support: partial
    details: O(operation=judge), O(operation=follow) and O(operation=forget) support it; the others are called only to change.
  diff_mode:
    support: none
options:
  operation:
    description:
      - V(judge) runs each program with its flags and C(--version).
      - V(start) puts the order down and starts the unit, V(resume) starts the unit for an order that was cut off.
      - V(follow) waits up to O(wait) seconds for news of window O(id).
      - V(forget) drops what is remembered of O(components), and removes the unit where nothing is tuned any more.
    type: str
    required: true
    choices: [judge, start, resume, follow, forget]
  judge:
    description: Component name to C(pid) or C(image), and C(flags).
    type: dict
    default: {}
  order:
    description: The order, as the package C(_node_window) defines it.
    type: dict
  components:
    description: Components which are as they were before the collection.
    type: list
    elements: str
    choices: [etcd, kube-apiserver]
    default: []
  program:
    description: The collection's program on the host, installed by M(kubetune.control_plane.program).
    type: path
    default: /usr/local/lib/kubetune/kubetune.pyz
  id:
    description: The window to follow.
    type: str
  seen:
    description: How many events are known already.
    type: int
    default: 0
  wait:
    description: Seconds to wait for news.
    type: float
    default: 5
"""

EXAMPLES = r"""
- name: Ask the running etcd whether it would take a flag
  kubetune.control_plane.node_window:
    operation: judge
    judge:
      etcd:
        pid: 1234
        flags: [--max-wals=5]
  register: verdict
"""

RETURN = r"""
verdicts:
  description: Component name to C(accepted), C(flag), C(text) and C(notices).
  returned: O(operation=judge)
  type: dict
  sample: {"etcd": {"accepted": false, "flag": "max-walls", "text": "unknown flag: --max-walls", "notices": []}}
forgotten:
  description: Whether the unit was there and is gone.
  returned: O(operation=forget)
  type: bool
events:
  description: What happened in the window since O(seen).
  returned: O(operation=follow)
  type: list
  elements: dict
  sample: [{"time": 1789000000.1, "step": "api_out", "state": "done", "text": ""}]
running:
  description: Whether the unit runs, or is about to.
  returned: O(operation=follow)
  type: bool
result:
  description: C(outcome), C(message), C(log), C(seconds) and C(snapshot); empty while the window is open.
  returned: O(operation=follow)
  type: dict
  sample: {"outcome": "changed", "message": "", "log": [], "seconds": 21.3, "snapshot": ""}
"""

import sys
import time
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._node import images, judge
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.state import STATE, memory_path, read_memory, read_unfinished
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window import unit
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.journal import Journal, follow
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.order import Order
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS


def _judge(programs: dict) -> dict:
    verdicts = {}
    for name, what in programs.items():
        if what.get("pid"):
            verdicts[name] = asdict(judge.judge(f"/proc/{what['pid']}/exe", what["flags"]))
        else:
            with images.mounted(what["image"]) as root:
                verdicts[name] = asdict(judge.judge(images.program(root, name), what["flags"]))
    return {"verdicts": verdicts}


def _start(order: dict, program: str) -> dict:
    """The unit first: once the order is there, a reboot has to find somebody who carries it through."""
    try:
        unit.install(sys.executable, program)
        Journal().begin(Order.from_dict(order))
    except OSError as exc:
        raise KubetuneError(
            f"the order cannot be put down, so nothing was changed: {exc}; make room on the file system of {STATE}, then run again"
        ) from exc
    unit.start()
    return {"changed": True}


def _resume(program: str) -> dict:
    if not unit.active():
        unit.install(sys.executable, program)
        unit.start()
    return {"changed": True}


def _follow(window_id: str, seen: int, wait: float) -> dict:
    """Return at the first news after a moment, so that several steps make one message."""
    end = time.monotonic() + wait
    while True:
        running = unit.active()
        events, result = follow(window_id, seen)
        if result is not None or events or time.monotonic() > end:
            return {"events": events, "result": result or {}, "running": running}
        time.sleep(0.5)


def _forget(components: list, check_mode: bool) -> dict:
    """Drop what is remembered of components that are as they were before; the unit goes with the last of them."""
    if read_unfinished():
        raise KubetuneError("a node window is open on this host: its unit stays until it has ended")
    remembered = [component for component in COMPONENTS if read_memory(component)]
    dropped = [component for component in remembered if component in components]
    if not check_mode:
        for component in dropped:
            memory_path(component).unlink()
    gone = False
    if dropped == remembered:
        gone = unit.PATH.exists() if check_mode else unit.remove()
    return {"changed": gone or bool(dropped), "forgotten": gone}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "operation": {"type": "str", "required": True, "choices": ["judge", "start", "resume", "follow", "forget"]},
            "judge": {"type": "dict", "default": {}},
            # Manifests may hold secrets, such as a proxy's password: they are not for the system's log.
            "order": {"type": "dict", "no_log": True},
            "components": {"type": "list", "elements": "str", "default": [], "choices": list(COMPONENTS)},
            "program": {"type": "path", "default": "/usr/local/lib/kubetune/kubetune.pyz"},
            "id": {"type": "str"},
            "seen": {"type": "int", "default": 0},
            "wait": {"type": "float", "default": 5},
        },
        required_if=[("operation", "start", ["order"]), ("operation", "follow", ["id"])],
        supports_check_mode=True,
    )
    given = module.params
    try:
        if given["operation"] == "judge":
            result = _judge(given["judge"])
        elif given["operation"] == "start":
            result = _start(given["order"], given["program"])
        elif given["operation"] == "resume":
            result = _resume(given["program"])
        elif given["operation"] == "forget":
            result = _forget(given["components"], module.check_mode)
        else:
            result = _follow(given["id"], given["seen"], given["wait"])
    except KubetuneError as exc:
        module.fail_json(msg=str(exc))
    module.exit_json(**{"changed": False, **result})


if __name__ == "__main__":
    main()
