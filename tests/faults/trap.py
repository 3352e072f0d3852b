# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Strikes on a node at the moment when its window comes to a step: steps are over in a second."""

from __future__ import annotations

import json
import select
import subprocess

from tests.lab.nodes import Node

#: What a trap saw; on the disk, so that a node that was restarted by its trap still knows.
FILE = "/root/kubetune-trap.json"
#: Steps that are not in a window's journal: the binaries are asked whether they take the flags; the order has just been put down.
PLAN, ORDER = "plan", "order"
#: Seconds for the script's end.
TIMEOUT = 120

_PROGRAM = r"""
import glob, json, os, signal, subprocess, sys, time
step, state, command, file, window = sys.argv[1:]

def journal():
    try:
        lines = open(window + "/journal.jsonl").read().split("\n")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

def judged():
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = open(path, "rb").read().split(b"\0")
        except OSError:
            continue
        if b"--version" in words:
            # It waits for the script, and with it who has asked.
            judge = int(path.split("/")[2])
            try:
                os.kill(judge, signal.SIGSTOP)
            except ProcessLookupError:
                continue
            return judge
    return 0

end = time.monotonic() + 400
while time.monotonic() < end:
    events = journal()
    if step == "plan":
        there = judged()
    elif step == "order":
        there = os.path.exists(window + "/pending.json")
    else:
        there = any(each["step"] == step and each["state"] == state for each in events)
    if there:
        seen = events[-1]["step"] if events else step
        with open(file, "w") as stream:
            json.dump({"step": seen}, stream)
        print("sprung", flush=True)
        status = subprocess.run(["timeout", "90", "bash", "-euo", "pipefail", "-c", command]).returncode
        if step == "plan":
            os.kill(there, signal.SIGCONT)
        sys.exit(status)
    time.sleep(0.004)
sys.exit("the window never came to " + step)
"""


class Trap:
    """Runs a bash script in a node as soon as its journal has an event; nothing but the wait without a script."""

    def __init__(self, node: Node, step: str, script: str = "", state: str = "begin") -> None:
        self._node, self._wanted = node, step
        node.run("rm", "--force", FILE)
        self._process = subprocess.Popen(
            ["docker", "exec", node.container, "python3", "-c", _PROGRAM, step, state, script or "true", FILE, "/var/lib/kubetune/window"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def sprung(self, run: subprocess.Popen[str]) -> None:
        """Return as soon as it sprang; fail when the run has ended without that."""
        assert self._process.stdout
        while not select.select([self._process.stdout], [], [], 1)[0]:
            ended = run.poll() is not None
            assert not ended or select.select([self._process.stdout], [], [], 5)[0], "the run has ended, and its window never came so far"
        line = self._process.stdout.readline()
        assert line == "sprung\n", f"the trap ended without having sprung: {line}{self._process.stdout.read()}"

    def done(self) -> str:
        """Wait for the script's end; return the step at which the window was."""
        assert self._process.stdout
        told = self._process.stdout.read()
        status = self._process.wait(TIMEOUT)
        assert status == 0, f"the trap's script failed ({status}): {told}"
        return self.step()

    def step(self) -> str:
        """Where the window was when the trap sprang."""
        told = self._node.run("cat", FILE, check=False).stdout
        return str(json.loads(told)["step"]) if told else f"{self._wanted}: never came"

    def remove(self) -> None:
        """A trap that never sprang must not spring in the next window."""
        self._node.run("pkill", "--signal", "KILL", "--full", "kubetune-trap[.]json", check=False)
        self._process.kill()
        self._process.communicate()
