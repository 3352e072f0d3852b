# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lost member leaves the cluster, and comes back as a learner with nothing, which the others fill."""

from __future__ import annotations

import time
from typing import Callable, TypeVar

from .._errors import KubetuneError
from .._etcd.client import Client, EtcdError, Member
from .._etcd.cluster import problems_of, survey
from .._etcd.lock import ClusterLock
from .._node_window.pod import until
from .store import Order

#: Seconds between two tries to promote; etcd says no until the learner has caught up.
_PAUSE = 1.0
#: Seconds for the members that are left to be connected.
_CONNECTED = 60.0

Found = TypeVar("Found")


def replace(client: Client, order: Order, host: str) -> str:
    """Remove the lost member, and add a learner in its place; return the value for its ``--initial-cluster``.

    What was done before is not done again. The client is that of another host.

    Raises:
        KubetuneError: another member is not well, or somebody has the cluster lock.
    """
    (wanted,) = order.members.values()
    peer_urls = list(wanted["peer_urls"])
    with ClusterLock(client, "change", {"host": host, "purpose": "replacing a lost member", "run_id": order.id, "token": order.id,
                                        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}):  # fmt: skip
        view = survey(client)
        old = view.by_id(int(order.old_member_id, 16)) if order.old_member_id else None
        lost = {each.member.member_id for each in view.members if each is old or set(each.member.peer_urls) & set(peer_urls)}
        wrong = [text for each in view.members if each.member.member_id not in lost for text in problems_of(view, each)]
        if wrong:
            raise KubetuneError(f"{'; '.join(wrong)}: only one member may be lost while it is replaced")
        if old:
            _once_connected(lambda: client.remove_member(old.member.member_id))
        members = client.members()
        if not _of(members, peer_urls):
            members = [*members, _once_connected(lambda: client.add_learner(peer_urls))]
    # Its name is only known to the others once it has started.
    return ",".join(sorted(f"{each.name or wanted['name']}={url}" for each in members for url in each.peer_urls))


def promote(client: Client, order: Order, seconds: float, say: Callable[[str], None]) -> None:
    """Wait until the learner has caught up, and give it its vote.

    Raises:
        KubetuneError: it is not a member, or does not catch up in time.
    """
    (wanted,) = order.members.values()
    peer_urls = list(wanted["peer_urls"])
    why = "it has not started"

    def voter() -> bool:
        nonlocal why
        try:
            found = _of(client.members(), peer_urls)
            if found is None:
                raise KubetuneError(f"no member of the cluster has the peer URL {peer_urls[0]}: run again from the start")
            if found.is_learner and found.name:
                client.promote(found.member_id)
                return True
            return bool(found.name) and not found.is_learner
        except EtcdError as exc:
            why = str(exc)
            return False

    until(voter, seconds, lambda: f"the learner has not become a voter: {why}", say, _PAUSE)


def _once_connected(change: Callable[[], Found]) -> Found:
    """etcd changes its members only when they have been connected for 5 s (server/etcdserver/server.go, HealthInterval, 3.5 to 3.7)."""
    end = time.monotonic() + _CONNECTED
    while True:
        try:
            return change()
        except EtcdError as exc:
            if "unhealthy cluster" not in str(exc) or time.monotonic() > end:
                raise
        time.sleep(_PAUSE)


def _of(members: list[Member], peer_urls: list[str]) -> Member | None:
    return next((each for each in members if set(each.peer_urls) & set(peer_urls)), None)
