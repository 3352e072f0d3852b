# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the collection's playbooks on the lab, as a process that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import nodes


#: A window is over with its last proof; what a window does with a process that dies later has a test of its own.
UNWATCHED = {"node_window_watch_seconds": 0}


@dataclass
class Run:
    """One finished ansible-playbook. changed: host -> number of changed tasks."""

    status: int
    output: str
    changed: dict[str, int]


class Playbook:
    def __init__(self, lab: nodes.Lab) -> None:
        self._lab = lab

    def start(self, name: str = "site", variables: dict[str, Any] | None = None, *options: str) -> subprocess.Popen[str]:
        """``name``: of the collection's playbooks, or the path of another one."""
        extra = tempfile.NamedTemporaryFile("w", suffix=".json", delete=False)
        with extra:
            json.dump({**UNWATCHED, **(variables or {})}, extra)
        playbook = name if "/" in name else f"kubetune.control_plane.{name}"
        return subprocess.Popen(
            ["ansible-playbook", "-i", str(self._lab.inventory), playbook, "-e", f"@{extra.name}", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "ANSIBLE_PIPELINING": "1", "ANSIBLE_NOCOLOR": "1"},
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> Run:
        output, _ = process.communicate(timeout=900)
        for word in process.args:  # type: ignore[union-attr]
            if str(word).startswith("@"):
                Path(str(word)[1:]).unlink(missing_ok=True)
        changed = {}
        for line in output.rpartition("PLAY RECAP")[2].splitlines():
            host, colon, counts = line.partition(" :")
            if colon and "changed=" in counts:
                changed[host.strip()] = int(counts.split("changed=")[1].split()[0])
        return Run(process.returncode, output, changed)

    def __call__(self, name: str = "site", variables: dict[str, Any] | None = None, *options: str) -> Run:
        return self.finish(self.start(name, variables, *options))


def kill(process: subprocess.Popen[str]) -> None:
    """The controller dies: ansible-playbook and all that it has started on this machine, at once."""
    for pid in [process.pid, *_descendants(process.pid)]:
        _kill(pid)


def kill_connections(process: subprocess.Popen[str]) -> int:
    """Kill the clients through which a run talks with its hosts; return how many there were."""
    return sum(_kill(pid) for pid in _descendants(process.pid) if _program(pid) == "docker")


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False  # it has ended by itself
    return True


def _program(pid: int) -> str:
    try:
        return os.path.basename(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode())
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _descendants(pid: int) -> list[int]:
    """By their parents: ansible-core's workers have sessions of their own."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, new = [], [pid]
    while new:
        new = [child for each in new for child in children.get(each, [])]
        found += new
    return found
