# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every step needs: the configuration, the two clients, the journal, and who we are."""

from __future__ import annotations

import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable, Iterator

from .._etcd.client import Client, Tls
from .._etcd.lock import ClusterLock, LockHeld, current_holder
from .config import Config
from .journal import Journal

#: A tuning run of the collection takes it too.
CHANGE_LOCK = "change"
_POLL_SECONDS = 2.0


@dataclass
class Context:
    """
    Attributes:
        host: of this run, as others read it in a lock or a record.
        client: starts with this host's member; `reach_all` adds the others.
        token: of this host's runs; the next one takes over what a killed one still holds (`program.host_lock`).
        dry_run: decide and say, change nothing.
        keep_revisions: of the history, by the way out of NOSPACE; None for ``compaction.min_revisions``.
        proc: where processes are looked for.
        clock: seconds since 1970, the wall clock that hosts share.
    """

    config: Config
    journal: Journal
    host: str
    client: Client
    dry_run: bool = False
    keep_revisions: int | None = None
    proc: Path = Path("/proc")
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def reach_all(self, endpoints: list[str]) -> None:
        """Other members answer for the cluster while this host's own one is being defragmented."""
        self.client.endpoints = [self.config.endpoint, *(each for each in endpoints if each != self.config.endpoint)]

    @contextmanager
    def cluster_lock(self, name: str, step: str) -> Iterator[ClusterLock]:
        """Hold a lock of the cluster; wait for it as long as the configuration says.

        Raises:
            LockHeld: somebody still has it then.
            EtcdError: etcd takes no writes.
        """
        since = datetime.fromtimestamp(self.clock(), timezone.utc).isoformat(timespec="seconds")
        ours = {
            "host": self.host,
            "purpose": f"maintenance ({step})",
            "since": since,
            "run_id": self.run_id,
            "token": self.token,
        }
        deadline = time.monotonic() + self.config.lock_wait_seconds
        waiting = False
        while True:
            held_by = current_holder(self.client, name)
            if held_by is None or held_by.get("token") == self.token:
                try:
                    lock = ClusterLock(self.client, name, ours)
                    lock.acquire()
                    break
                except LockHeld as exc:
                    held_by = exc.holder
            if time.monotonic() >= deadline:
                raise LockHeld(name, held_by)
            if not waiting:
                self.journal.say(
                    step, "waiting", str(LockHeld(name, held_by)), lock=name, wait_seconds=self.config.lock_wait_seconds
                )
                waiting = True
            self.sleep(_POLL_SECONDS)
        try:
            yield lock
        finally:
            lock.release()

    def change(self, step: str, work: Callable[[ClusterLock], bool]) -> bool:
        """Do a step under the lock that everything takes which changes the cluster; False when the lock is not to be had."""
        try:
            with self.cluster_lock(CHANGE_LOCK, step) as lock:
                return work(lock)
        except LockHeld as exc:
            self.journal.say(step, "locked", f"left out: {exc}")
            return False


def client_of(config: Config) -> Client:
    return Client([config.endpoint], Tls(config.ca_file, config.cert_file, config.key_file))
