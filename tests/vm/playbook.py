# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's playbooks, run on a machine as a user runs them."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

from tests.lab.console import run

from .machine import Machine


@dataclass(frozen=True)
class Run:
    """One finished ansible-playbook. changed: number of changed tasks."""

    status: int
    output: str
    changed: int


def play(machine: Machine, name: str, variables: dict[str, Any] | None = None, *options: str) -> Run:
    """Runs one of the collection's playbooks (``host``, ``site``, ...)."""
    return _play(machine, f"kubetune.control_plane.{name}", variables or {}, options)


def play_roles(machine: Machine, roles: list[str], variables: dict[str, Any] | None = None, *options: str) -> Run:
    """Runs single roles of the collection one after the other, as a repository does which imports them."""
    tasks = [{"ansible.builtin.import_role": {"name": f"kubetune.control_plane.{role}"}} for role in roles]
    playbook = machine.state / "roles.json"
    playbook.write_text(json.dumps([{"hosts": "kube_control_plane", "gather_facts": False, "tasks": tasks}]))
    return _play(machine, str(playbook), variables or {}, options)


def _play(machine: Machine, playbook: str, variables: dict[str, Any], options: tuple[str, ...]) -> Run:
    extra = machine.state / "variables.json"
    extra.write_text(json.dumps(variables))
    done = run(
        ["ansible-playbook", "-i", machine.inventory, playbook, "-e", f"@{extra}", *options], check=False, timeout=1800,
        env={**os.environ, "ANSIBLE_PIPELINING": "1", "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip
    output = done.stdout + done.stderr
    changed = re.search(r"^\S+\s+: ok=\d+\s+changed=(\d+)", output, re.MULTILINE)
    return Run(done.returncode, output, int(changed.group(1)) if changed else 0)
