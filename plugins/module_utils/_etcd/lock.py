# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock that all hosts of a cluster see: a key with a lease, outside of Kubernetes' own prefix."""

from __future__ import annotations

import json
import threading
from typing import Any

from .._errors import KubetuneError
from .client import Client, EtcdError, KeyValue, Unreachable

PREFIX = "/kubetune/"


class LockHeld(KubetuneError):
    """Somebody else has it. ``holder`` is what they said of themselves."""

    def __init__(self, name: str, holder: dict[str, Any]) -> None:
        self.holder = holder
        super().__init__(
            f"the cluster lock {name!r} is held by {holder.get('host', 'an unknown host')} for "
            f"{holder.get('purpose', 'an unknown purpose')} since {holder.get('since', 'an unknown time')}"
        )


class ClusterLock:
    """Held while the process lives and etcd answers; it ends by itself ``ttl`` seconds after the last renewal.

    Args:
        client: with the endpoints of several members, so that one of them may be away.
        name: what is locked, such as ``change``.
        holder: said to whoever finds the lock held: host, purpose, since, run_id. A ``token`` in it lets the same
            transaction take its own lock over after it was cut off.
        ttl: seconds; has to outlast the restart of a member (etcd's lessor counts in whole seconds).

    Use as a context manager. `check` proves that the lock is still ours, right before a step that cannot wait.
    """

    def __init__(self, client: Client, name: str, holder: dict[str, Any], ttl: int = 120) -> None:
        self._client = client
        self._key = f"{PREFIX}lock/{name}"
        self._name = name
        self._holder = holder
        self._ttl = ttl
        self._lease = 0
        self._stop = threading.Event()
        self._renewer: threading.Thread | None = None

    def __enter__(self) -> ClusterLock:
        self.acquire()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.release()

    def acquire(self) -> None:
        self._lease = self._client.grant_lease(self._ttl)
        try:
            in_the_way = self._client.create(self._key, json.dumps(self._holder), self._lease)
        except Unreachable:
            # The answer was lost: the key tells whether the write happened.
            in_the_way = self._client.get(self._key)
            if in_the_way is None:
                raise
        if in_the_way is not None and in_the_way.lease != self._lease:
            holder = _holder_of(in_the_way)
            if not self._holder.get("token") or holder.get("token") != self._holder["token"]:
                self._client.revoke_lease(self._lease)
                raise LockHeld(self._name, holder)
            self._client.put(self._key, json.dumps(self._holder), self._lease)
        self._renewer = threading.Thread(target=self._renew, name=f"lock-{self._name}", daemon=True)
        self._renewer.start()

    @property
    def held(self) -> bool:
        """Whether it was acquired; `check` asks whether it still is."""
        return self._renewer is not None

    def check(self) -> None:
        """Raises KubetuneError when the lock was lost."""
        found = self._client.get(self._key)
        if found is None or found.lease != self._lease:
            raise KubetuneError(f"the cluster lock {self._name!r} was lost: etcd did not see us for {self._ttl} s")

    def release(self) -> None:
        """Give it back; when etcd is away, the lease does so by itself."""
        self._stop.set()
        if self._renewer:
            self._renewer.join(timeout=self._client.timeout)
        try:
            self._client.revoke_lease(self._lease)
        except EtcdError:
            pass

    def _renew(self) -> None:
        while not self._stop.wait(self._ttl / 6):
            try:
                self._client.keep_alive(self._lease)
            except EtcdError:
                continue  # the next turn, or another member; `check` finds out when it is too late


def current_holder(client: Client, name: str) -> dict[str, Any] | None:
    """What the present holder of a lock says of itself; None when it is free."""
    found = client.get(f"{PREFIX}lock/{name}")
    return _holder_of(found) if found else None


def _holder_of(found: KeyValue) -> dict[str, Any]:
    try:
        holder = json.loads(found.value)
    except ValueError:
        return {"purpose": found.value}
    return holder if isinstance(holder, dict) else {"purpose": found.value}
