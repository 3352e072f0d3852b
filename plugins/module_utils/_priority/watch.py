# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service: waits for etcd, sets the weights of its pod, and sleeps until that etcd ends."""

from __future__ import annotations

import os
import select
import socket
import time
from pathlib import Path
from typing import Callable, Mapping

from .._kernel.tree import Tree
from .._node.processes import Process, alive
from .systemd import Execute, systemctl
from .weights import group_of, running_etcd, settle

#: How often it looks for an etcd where none runs.
SEARCH_SECONDS = 1.0
#: How often it looks at the weights of one that runs: the kubelet sets a pod's CPU weight anew when its requests are
#: resized in place, and bfq's files come with its module.
CHECK_SECONDS = 60.0


class Watch:
    """
    Args:
        wanted: controller -> weight.
        say: takes a line for the journal.
        ready: called once etcd has its weights, or does not run.
        execute: runs systemctl.
    """

    def __init__(
        self, tree: Tree, wanted: Mapping[str, int], say: Callable[[str], None], ready: Callable[[], None], execute: Execute = systemctl
    ) -> None:
        self._tree = tree
        self._wanted = wanted
        self._say = say
        self._ready = ready
        self._execute = execute
        self._process: Process | None = None
        self._said: dict[tuple[str, str], str] = {}

    def forever(self) -> None:
        while True:
            process = self.once()
            self._ready()
            if process is None:
                time.sleep(SEARCH_SECONDS)
            else:
                sleep_until_end(process, CHECK_SECONDS)

    def once(self) -> Process | None:
        """Set the weights of the etcd that runs now; what goes wrong is said once, not each time."""
        process = self._running()
        group = group_of(self._tree, process) if process else ""
        if process is None or not self._alive(process):
            return None
        if not group:
            self._complain("", "group", f"etcd (process {process.pid}) is in no pod's control group: its weights cannot be set")
            return process
        settled = settle(self._tree, group, self._wanted, self._execute)
        for each in settled.written:
            self._say(f"{group}: {each.name} {each.after} (was {each.before})")
        for controller, problem in settled.problems.items():
            self._complain(group, controller, f"{controller} weight of {group}: {problem}")
        return process

    def _running(self) -> Process | None:
        """The etcd of last time, as long as it lives: no look at all processes for it."""
        if self._process is None or not self._alive(self._process):
            self._process = running_etcd(self._tree)
        return self._process

    def _alive(self, process: Process) -> bool:
        return alive(process, Path(self._tree.locate("/proc")))

    def _complain(self, group: str, what: str, problem: str) -> None:
        if self._said.get((group, what)) != problem:
            self._said = {key: text for key, text in self._said.items() if key[0] == group}
            self._said[group, what] = problem
            self._say(problem)


def sleep_until_end(process: Process, seconds: float) -> None:
    """Return when a process has ended, at the latest after a time."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # a Python or a kernel (before 5.3) without it
        time.sleep(SEARCH_SECONDS)
        return
    try:
        if alive(process):  # the process of this number may be another one by now
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(seconds * 1000)
    finally:
        os.close(descriptor)


def notify_ready() -> None:
    """Tell systemd that the service is up (sd_notify(3)); nothing to do where it was not started by it."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.send(b"READY=1")
