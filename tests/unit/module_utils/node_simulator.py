# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node for tests of the window: a kubelet that starts real processes from manifests, and an etcd cluster in memory."""

from __future__ import annotations

import json
import subprocess
import threading
import uuid
from pathlib import Path
from typing import BinaryIO, Callable

from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.client import (
    EtcdError,
    KeyValue,
    Member,
    Status,
    Unreachable,
)

#: What a component does, as a shell program. It ends with the test at the latest: nobody holds its input open then.
RUNS = "read _"
DIES = "exit 3"
STAYS = 'trap "" TERM; read _'

#: Seconds that a process has to end (terminationGracePeriodSeconds).
GRACE = 0.6


class Kubelet(threading.Thread):
    """Makes the processes be what the manifests say, as the kubelet does: the old one ends before the new one starts,
    one that ends by itself is started again, files whose names start with a dot do not count.

    A manifest is JSON with the ``command`` to run. Processes are real; ``proc`` is /proc with nothing but them.
    """

    def __init__(self, directory: Path, proc: Path) -> None:
        super().__init__(daemon=True)
        self._directory = directory
        self._proc = proc
        self._running: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}
        self._stop_asked = threading.Event()
        self._lock = threading.RLock()
        self._paused = False
        self.on_stop: Callable[[str], None] = lambda _component: None
        self.on_start: Callable[[str, list[str]], None] = lambda _component, _command: None

    def run(self) -> None:
        while not self._stop_asked.wait(0.003):
            with self._lock:
                if not self._paused:
                    self.sync()

    @property
    def paused(self) -> bool:
        return self._paused

    @paused.setter
    def paused(self, value: bool) -> None:
        """What it was doing is done when this returns."""
        with self._lock:
            self._paused = value

    def sync(self) -> None:
        with self._lock:
            wanted = dict(filter(None, map(_read, self._directory.glob("[!.]*.yaml"))))
            if not all(text.endswith(("}", "}\n")) for text in wanted.values()):
                return  # a test has not written all of it yet
            for name, (text, process) in list(self._running.items()):
                if wanted.get(name) != text:
                    self.on_stop(name)
                    process.terminate()
                elif process.poll() is None:
                    continue
                self._end(process)
                del self._running[name]
            for name, text in wanted.items():
                if name not in self._running:
                    command = json.loads(text)["command"]
                    self.on_start(name, command)
                    self._running[name] = (text, self._start(command))

    def is_up(self, component: str) -> bool:
        running = self._running.get(component)
        return running is not None and running[1].poll() is None

    def text(self, component: str) -> str:
        """The manifest from which the process was started."""
        running = self._running.get(component)
        return running[0] if running else ""

    def command(self, component: str) -> list[str]:
        running = self._running.get(component)
        return list(json.loads(running[0])["command"]) if running else []

    def reboot(self) -> None:
        """All processes end at once, and come back from the manifests that are there."""
        self.power_off()
        self.sync()

    def power_off(self) -> None:
        """All processes end at once."""
        with self._lock:
            self._kill_all()

    def close(self) -> None:
        self._stop_asked.set()
        self.join()
        self._kill_all()

    def _kill_all(self) -> None:
        for _text, process in self._running.values():
            process.kill()
            self._end(process)
        self._running.clear()

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, executable="/bin/sh", stdin=subprocess.PIPE)
        (self._proc / str(process.pid)).symlink_to(f"/proc/{process.pid}")
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin
        process.stdin.close()
        (self._proc / str(process.pid)).unlink()


def _read(path: Path) -> tuple[str, str] | None:
    try:
        return path.stem, path.read_text()
    except FileNotFoundError:
        return None


class MemoryEtcd:
    """A cluster of named members; ``local_up`` tells whether this node's own (the first) runs."""

    def __init__(self, names: list[str], local_up: Callable[[], bool]) -> None:
        self.names = names
        self.leader = names[-1]
        self.down: set[str] = set()
        self.alarms: tuple[str, ...] = ()
        self.keys: dict[str, KeyValue] = {}
        self.leases: set[int] = set()
        self.revision = 1
        self._local_up = local_up

    def up(self, name: str) -> bool:
        return name not in self.down and (name != self.names[0] or self._local_up())

    @property
    def has_quorum(self) -> bool:
        return sum(map(self.up, self.names)) > len(self.names) // 2

    def elect(self) -> str:
        """The leader's name; another member takes over from one that is away."""
        if not self.has_quorum:
            return ""
        if not self.up(self.leader):
            self.leader = next(name for name in self.names if self.up(name))
        return self.leader

    def put(self, key: str, value: str, lease: int = 0) -> int:
        if lease and lease not in self.leases:
            raise EtcdError("etcdserver: requested lease not found", 5)
        self.revision += 1
        self.keys[key] = KeyValue(key, value, self.revision, self.revision, lease)
        return self.revision


class MemoryClient:
    """What the window and the lock ask of `_etcd.client.Client`, answered by a `MemoryEtcd`.

    ``on_call`` is told each call's name: a test can raise there what a killed process would be spared.
    """

    def __init__(self, etcd: MemoryEtcd) -> None:
        self._etcd = etcd
        self.endpoints = [f"https://{name}:2379" for name in etcd.names]
        self.timeout = 5.0
        self.on_call: Callable[[str], None] = lambda _name: None

    def members(self, linearizable: bool = True) -> list[Member]:
        self._quorum("members")
        return [Member(self._id(name), name, (), (f"https://{name}:2379",), False) for name in self._etcd.names]

    def status(self, endpoint: str, timeout: float | None = None) -> Status:
        self.on_call("status")
        name = _name(endpoint)
        if not self._etcd.up(name):
            raise Unreachable(f"etcd at {endpoint} does not answer: connection refused")
        leader = self._etcd.elect()
        return Status(
            self._id(name), 1, self._id(leader) if leader else 0, "3.6.16", self._etcd.revision, 2, 100, 100, 2**20, 2**19,
            self._etcd.alarms, False,
        )

    def move_leader(self, endpoint: str, target_id: int, timeout: float = 10.0) -> None:
        self._quorum("move_leader")
        self._etcd.leader = self._etcd.names[target_id - 1]

    def snapshot(self, endpoint: str, sink: BinaryIO, timeout: float = 60.0) -> int:
        self._quorum("snapshot")
        return sink.write(b"snapshot")

    def get(self, key: str, endpoint: str | None = None) -> KeyValue | None:
        self._quorum("get")
        if endpoint and not self._etcd.up(_name(endpoint)):
            raise Unreachable(f"etcd at {endpoint} does not answer: connection refused")
        return self._etcd.keys.get(key)

    def put(self, key: str, value: str, lease: int = 0) -> int:
        self._quorum("put")
        return self._etcd.put(key, value, lease)

    def create(self, key: str, value: str, lease: int = 0) -> KeyValue | None:
        self._quorum("create")
        if key in self._etcd.keys:
            return self._etcd.keys[key]
        self._etcd.put(key, value, lease)
        return None

    def grant_lease(self, ttl: int) -> int:
        self._quorum("grant_lease")
        lease = uuid.uuid4().int >> 66
        self._etcd.leases.add(lease)
        return lease

    def keep_alive(self, lease: int) -> int:
        self._quorum("keep_alive")
        return 60 if lease in self._etcd.leases else 0

    def revoke_lease(self, lease: int) -> None:
        self._quorum("revoke_lease")
        if lease not in self._etcd.leases:
            raise EtcdError("etcdserver: requested lease not found", 5)
        self._etcd.leases.discard(lease)
        self._etcd.keys = {key: found for key, found in self._etcd.keys.items() if found.lease != lease}

    def _quorum(self, name: str) -> None:
        self.on_call(name)
        if not self._etcd.elect():
            raise Unreachable("etcd does not answer: no quorum")

    def _id(self, name: str) -> int:
        return self._etcd.names.index(name) + 1


def manifest(command: list[str]) -> str:
    return json.dumps({"kind": "Pod", "command": command})


def _name(endpoint: str) -> str:
    return endpoint.removeprefix("https://").removesuffix(":2379")
