# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the maintenance says of itself: the machine's half of its lines, and its metrics."""

from __future__ import annotations

import shlex
import subprocess
from typing import Protocol


class Host(Protocol):
    """A node of the lab, or a virtual machine."""

    def run(self, *command: str, check: bool = True, timeout: float | None = ...) -> subprocess.CompletedProcess[str]: ...

    def output(self, *command: str) -> str: ...


def said(text: str) -> list[dict[str, str]]:
    """The machine's half of each line."""
    return [
        dict(word.split("=", 1) for word in shlex.split(line.rpartition(" | ")[2])) for line in text.splitlines() if " | " in line
    ]


def metrics(text: str) -> dict[str, float]:
    """Name without the prefix, with its labels -> value, of the file for node_exporter."""
    pairs = (line.removeprefix("kubetune_etcd_").rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def run_unit(host: Host, unit: str, fails: bool = False) -> list[dict[str, str]]:
    """Start a unit as its timer does; return what it said in this run, whatever the host's clock."""
    status = host.run("systemctl", "start", unit, check=False, timeout=900).returncode
    invocation = host.output("systemctl", "show", "--property=InvocationID", "--value", unit)
    told = host.output("journalctl", f"_SYSTEMD_INVOCATION_ID={invocation}", "--output=cat", "--no-pager")
    assert (status != 0) == fails, told
    return said(told)
