# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node whose windows can be cut off anywhere: processes, manifests, journal and /proc are real; `node_simulator` has the rest."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._node import images, processes, state
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window import patience, pod
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.journal import Journal
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.order import Order, Part
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.window import Window

from tests.unit.module_utils.node_simulator import DIES, RUNS, Kubelet, MemoryClient, MemoryEtcd, manifest

ETCD, API = "etcd", "kube-apiserver"
LOCK = "/kubetune/lock/change"
STOP = "/kubetune/runs/run-1/stopped"
SNAPSHOT = "/kubetune/runs/run-1/snapshot"
#: Seconds for what has to happen, however busy the machine is; tests of what does not happen set less.
PATIENT = 30


class Killed(BaseException):
    """The window's process is gone: no handler of its own runs any more."""


class CutJournal(Journal):
    """A journal whose process is killed at its ``cut``-th event, before or after the event is on the disk."""

    def __init__(self, node: Node, cut: int, before: bool, kill: Callable[[], None]) -> None:
        super().__init__(node.state)
        self._left, self._before, self._kill = cut, before, kill
        self._node = node

    def say(self, step: str, state: str, text: str = "", **facts: Any) -> None:
        if state == "done":
            self._node.watch_claim(step)
        self._left -= 1
        if self._left == 0 and self._before:
            self._kill()
        super().say(step, state, text, **facts)
        if self._left == 0:
            self._kill()


class Node:
    """A control-plane host with both static pods running from their old manifests."""

    def __init__(self, path: Path, members: int = 3, parts: tuple[str, ...] = (ETCD, API), program: str = RUNS) -> None:
        self.path = path
        self.manifests, self.state, self.proc = path / "manifests", path / "state", path / "proc"
        self.manifests.mkdir(parents=True)
        self.proc.mkdir()
        self.name = "cp1"
        self.parts, self.program = parts, program
        self.kubelet = Kubelet(self.manifests, self.proc)
        self.etcd = MemoryEtcd([self.name, *(f"peer{number}" for number in range(1, members))], lambda: self.kubelet.is_up(ETCD))
        self.wrongs: list[str] = []
        self.api_unready_with = ""
        self.kubelet.on_stop = self._watch_stop
        for component in (ETCD, API):
            if component in parts:
                (self.manifests / f"{component}.yaml").write_text(manifest(self.argv(component, "old")))
        self.kubelet.sync()
        self.kubelet.start()

    def argv(self, component: str, which: str, program: str = "") -> list[str]:
        return [component, "-c", program or self.program, f"--name={self.name}", f"--tuning={which}"]

    def same_arguments(self, component: str) -> Part:
        """Something else than the arguments changes, such as the resources: no command line tells old from new."""
        part = self.part(component, new="old")
        return dataclasses.replace(part, new=manifest(list(part.argv)) + "\n")

    def part(self, component: str, new: str | None = "new", program: str = "", old: str | None = "old") -> Part:
        """``new`` None takes the pod away, ``old`` None means that there was none."""
        return Part(
            old=manifest(self.argv(component, old)) if old else None,
            new=manifest(self.argv(component, new, program)) if new else None,
            argv=tuple(self.argv(component, new or "gone", program)),
            old_argv=tuple(self.argv(component, old)) if old else (),
            own_flags={"name": self.name},
            memory={"schema": state.SCHEMA, "component": component} if new else None,
            grace=0,
        )

    def order(self, etcd: Part | None = None, api: Part | None = None, **changes: Any) -> Order:
        return dataclasses.replace(
            Order(
                id="20261124T100000Z-1", run_id="run-1", host="cp1", manifests_directory=str(self.manifests),
                etcd=etcd, kube_apiserver=api, etcd_access={}, member=self.name,
            ),
            **changes,
        )

    def both(self, **changes: Any) -> Order:
        return self.order(self.part(ETCD), self.part(API), **changes)

    def dying_api(self) -> Part:
        """It stays long enough to be seen."""
        return self.part(API, program=f"sleep 0.03; {DIES}")

    def run(self, order: Order, cut: int = 0, before: bool = False) -> dict[str, Any]:
        """Like kubetune-window.service: take the order up from the disk, and end with a result; or be killed."""
        client = MemoryClient(self.etcd)

        def kill() -> None:
            def nothing_more(_call: str) -> None:
                raise Killed

            client.on_call = nothing_more
            raise Killed

        journal = CutJournal(self, cut, before, kill)
        if journal.order() is None:
            journal.begin(order)
        return self.window(journal, client).run()

    def window(self, journal: Journal, client: MemoryClient) -> Window:
        order = journal.order()
        assert order
        return Window(order, journal, self.state, client, self.api_unready, self.proc)

    def api_unready(self) -> str:
        if not self.kubelet.is_up(API):
            return "no answer: connection refused"
        command = self.kubelet.command(API)
        if DIES in " ".join(command) or f"--tuning={self.api_unready_with}" in command:
            return "HTTP 500: [-]etcd failed"
        return ""

    def steps(self) -> list[str]:
        return [f"{event['step']} {event['state']}" for event in Journal(self.state).events() if event["state"] != "wait"]

    def manifest_texts(self) -> dict[str, str]:
        return {path.stem: path.read_text() for path in self.manifests.iterdir()}

    def files(self) -> dict[str, tuple[bytes, int, int]]:
        """Content, time and inode of each manifest: a file that was written again shows."""
        facts = ((path, path.stat()) for path in self.manifests.iterdir())
        return {path.name: (path.read_bytes(), fact.st_mtime_ns, fact.st_ino) for path, fact in facts}

    def processes(self) -> list[list[processes.Process]]:
        return [processes.find(component, {}, self.proc) for component in (ETCD, API)]

    def running(self, component: str) -> list[list[str]]:
        return [list(each.argv) for each in processes.find(component, {}, self.proc)]

    def assert_all(self, which: str, *components: str) -> None:
        """Manifest and process of each component are the ``which`` ones, and there is nothing else."""
        for component in components or self.parts:
            argv = self.argv(component, which)
            assert self.manifest_texts()[component] == manifest(argv), component
            assert self.running(component) == [argv], component
        assert not [path for path in self.manifests.iterdir() if path.name.startswith(".")]
        assert self.wrongs == []

    def assert_free(self) -> None:
        assert LOCK not in self.etcd.keys

    def watch_claim(self, step: str) -> None:
        """A step is done when the process runs from the manifest that is there, not from the one before."""
        component = step.removesuffix("_in")
        if component in (ETCD, API) and self.kubelet.text(component) != self.manifest_texts().get(component, ""):
            self.wrongs.append(f"{step} was called done while the process from before ran")

    def _watch_stop(self, component: str) -> None:
        """What must never be, seen at the moment when a process is stopped."""
        if component == ETCD:
            if len(self.etcd.names) > 2 and len(self.etcd.down) > 0:
                self.wrongs.append("etcd was stopped while another member was down")
            if self.etcd.leader == self.name and len(self.etcd.names) > 1:
                self.wrongs.append("etcd was stopped while it was the leader")
            # One that dies again and again may be started once more in the very moment when its manifest goes.
            if self.kubelet.is_up(API) and DIES not in " ".join(self.kubelet.command(API)):
                self.wrongs.append("etcd was stopped under a running API server")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)  # processes are killed here, disks are not
    monkeypatch.setattr(pod, "POLL", 0.002)
    for name in ("EXIT", "ETCD_READY", "API_SERVER_READY", "WHOLE"):
        monkeypatch.setattr(patience, name, PATIENT)
    for name, seconds in (("LOCK_WAIT", 0.2), ("LOCK_WAIT_CUT_OFF", 0.2), ("LOCK_PAUSE", 0.01), ("FORGOTTEN", 0.0)):
        monkeypatch.setattr(patience, name, seconds)
    monkeypatch.setattr(patience, "WATCH_POLL", 0.002)
    monkeypatch.setattr(Window, "_kubelet", lambda self: [["this boot", 1, 100]])
    monkeypatch.setattr(images, "runtime_problem", lambda: "")  # whatever runs where the tests do


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def new(**options: Any) -> Node:
        nodes.append(Node(tmp_path / f"node{len(nodes)}", **options))
        return nodes[-1]

    yield new
    for node in nodes:
        node.kubelet.close()


@pytest.fixture
def node(make: Callable[..., Node]) -> Node:
    return make()


FORWARD = [
    "snapshot begin", "snapshot done", "gate begin", "gate done", "api_out begin", "api_out done", "etcd_out begin",
    "etcd_out done", "etcd_in begin", "etcd_in done", "cluster done", "kube-apiserver_in begin", "kube-apiserver_in done",
]


def scenario(node: Node, name: str) -> Order:
    if name == "both on the leader":
        node.etcd.leader = node.name
    if name == "etcd alone":
        return node.order(node.part(ETCD), node.part(API, new="old"))
    if name == "API server alone":
        return node.order(node.part(ETCD, new="old"), node.part(API))
    if name == "resources":
        return node.order(node.same_arguments(ETCD), node.same_arguments(API))
    return node.both()


def assert_untouched(node: Node, order: Order, text: str) -> None:
    before, files = node.processes(), node.files()
    result = node.run(order)
    assert result["outcome"] == "refused"
    assert text in result["message"]
    assert node.processes() == before
    assert node.files() == files
    assert "gate done" not in node.steps()


def assert_rolled_back(node: Node, result: dict[str, Any], text: str) -> None:
    assert result["outcome"] == "rolled_back", result
    assert text in result["message"]
    node.assert_all("old")
    node.assert_free()
    assert node.etcd.keys[STOP].value == "cp1"
    assert state.read_memory(ETCD, node.state) is None


def at_event(monkeypatch: pytest.MonkeyPatch, step: str, act: Callable[[], None]) -> None:
    """Call ``act`` after the first event of a step."""
    say = Journal.say
    left = [act]

    def say_and_act(journal: Journal, said: str, event: str, text: str = "", **facts: Any) -> None:
        say(journal, said, event, text, **facts)
        if said == step and left:
            left.pop()()

    monkeypatch.setattr(Journal, "say", say_and_act)


def impatient(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Wait in vain for a short while only, and as long as needed on the way back."""
    monkeypatch.setattr(patience, name, 0.5)
    at_event(monkeypatch, "undo", lambda: monkeypatch.setattr(patience, name, PATIENT))


def cut_off(node: Node, order: Order, cut: int, before: bool) -> bool:
    """Run until the ``cut``-th event; False where the window ended before it."""
    try:
        node.run(order, cut, before)
    except Killed:
        return True
    return False


def finish(node: Node, order: Order) -> dict[str, Any]:
    """The unit takes the journal up again, and clears up after the result."""
    result = node.run(order)
    Journal(node.state).finish(order, result)
    return result


def assert_done(node: Node, order: Order, result: dict[str, Any]) -> None:
    assert result["outcome"] == "changed", result
    for component, part in ((ETCD, order.etcd), (API, order.kube_apiserver)):
        assert node.manifest_texts()[component] == part.new
        assert node.running(component) == [list(part.argv)]
        assert node.kubelet.text(component) == part.new, "the process is from before"
        assert (state.read_memory(component, node.state) is not None) is part.changes
    assert node.wrongs == []
    node.assert_free()
    assert STOP not in node.etcd.keys
    assert state.read_unfinished(node.state) is None
