# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on the real lab. Every test begins and ends with a whole cluster, tuned by site.yml."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from tests.benchmarks.writer import Writer
from tests.lab import nodes

JOURNAL = "/var/lib/kubetune/window/journal.jsonl"
DATA = "/var/lib/etcd"
DISK = f"{DATA}/wal-disk"
#: The disk is blank: its node's spare loop device.
ON_DISK: dict[str, Any] = {"etcd_wal_device": "{{ lab_wal_device }}", "etcd_wal_format": True}
IN_DATA = {"etcd_wal_state": "absent"}


@dataclass
class Run:
    """One finished ansible-playbook. changed: host -> number of changed tasks."""

    status: int
    output: str
    changed: dict[str, int]


class Playbook:
    """Runs the collection's playbooks on the lab."""

    def __init__(self, lab: nodes.Lab) -> None:
        self._lab = lab

    def start(self, name: str = "site", variables: dict[str, Any] | None = None, *options: str) -> subprocess.Popen[str]:
        extra = tempfile.NamedTemporaryFile("w", suffix=".json", delete=False)
        with extra:
            json.dump(variables or {}, extra)
        return subprocess.Popen(
            ["ansible-playbook", "-i", str(self._lab.inventory), f"kubetune.control_plane.{name}", "-e", f"@{extra.name}", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "ANSIBLE_PIPELINING": "1", "ANSIBLE_NOCOLOR": "1"},
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


@pytest.fixture(scope="session")
def lab() -> nodes.Lab:
    return nodes.load()


@pytest.fixture(scope="session")
def playbook(lab: nodes.Lab) -> Playbook:
    return Playbook(lab)


@pytest.fixture(autouse=True)
def whole_cluster(lab: nodes.Lab) -> Iterator[None]:
    yield
    wait_for(lambda: all(node.etcd_ready() and node.api_ready() for node in lab.nodes), 120, "every node is ready again")
    for node in lab.nodes:
        assert not node.exists("/var/lib/kubetune/window/pending.json"), node.name


@pytest.fixture
def no_write_lost(lab: nodes.Lab) -> Iterator[Writer]:
    """A client writes during the whole test; afterwards every acknowledged key is read through every member."""
    writer = Writer(lab)
    writer.start()
    yield writer
    writer.finish()
    wait_for(lambda: all(node.etcd_ready() for node in lab.nodes), 120, "every member is ready again")
    lost = writer.lost()
    writer.clean_up()
    assert not any(lost.values()), lost


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)


def reached(node: nodes.Node, step: str, state: str = "begin") -> bool:
    """Whether the open window of a node has come to a step."""
    text = node.shell(f"cat {JOURNAL} 2>/dev/null || true").stdout
    return any(
        event["step"] == step and event["state"] == state
        for event in (json.loads(line) for line in text.splitlines() if line.endswith("}"))
    )


def fingerprint(node: nodes.Node) -> str:
    """Processes (pid and start time) and manifests of a node."""
    return node.shell(
        "for name in etcd kube-apiserver; do pid=$(pgrep -xo $name); echo $name $pid $(cut -d' ' -f22 /proc/$pid/stat); done; "
        "sha256sum /etc/kubernetes/manifests/*"
    ).stdout


def kill_window(node: Node) -> None:
    node.shell("kill -KILL $(systemctl show --property MainPID --value kubetune-window)")


def wal_of(node: Node) -> str:
    """Where the running etcd has its WAL open, as its own file descriptors tell."""
    opened = node.shell(f"readlink /proc/{node.pid('etcd')}/fd/* | grep '[.]wal$'").stdout.split()
    (directory,) = {path.rpartition("/")[0] for path in opened}
    return directory
