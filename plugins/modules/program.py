#!/usr/bin/python
# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: program
short_description: Installs the collection's program on a host
version_added: 1.0.0
description:
  - Packs the private packages of this collection into one executable file (a zipapp, standard library only) on the
    controller, and installs it on the host when its checksum, mode or owner differ.
  - The maintenance of etcd and the node window are commands of this program, so there is one implementation of both.
  - The same sources give the same file on every controller.
author:
  - kubetune contributors (@kubetune)
extends_documentation_fragment:
  - kubetune.control_plane.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows checksums, not the content.
options:
  path:
    description: Where the program is on the host; its directory is made.
    type: path
    default: /usr/local/lib/kubetune/kubetune.pyz
  state:
    description: V(absent) removes the program, unless a systemd service on the host still runs it.
    type: str
    choices: [present, absent]
    default: present
  leaving:
    description: Services that do not count with O(state=absent), because they go as well.
    type: list
    elements: str
    default: []
requirements:
  - Python 3.9 or newer on the host
"""

EXAMPLES = r"""
- name: Install the program
  kubetune.control_plane.program:

- name: Remove it when nothing runs it any longer
  kubetune.control_plane.program:
    state: absent
"""

RETURN = r"""
checksum:
  description: SHA-256 of the program.
  returned: O(state=present)
  type: str
  sample: 3f0f6b4a9d5f1f9a5c1d0a2f4e8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b
report:
  description: One entry for the summary of a run.
  returned: success
  type: list
  elements: dict
  sample: [{"role": "program", "item": "program", "verdict": "changed", "value": "/usr/local/lib/kubetune/kubetune.pyz"}]
"""
