# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be true of this node's processes and of the cluster before a step of the window counts as done."""

from __future__ import annotations

import time
from typing import Callable, Sequence

from .._errors import KubetuneError
from .._etcd import cluster
from .._etcd.client import Client, EtcdError
from .._node.processes import Process
from .._static_pod import timing
from . import patience
from .gate import stop_key
from .journal import Journal
from .order import Order
from .pod import Pod, until


class Needed(KubetuneError):
    """The cluster cannot miss this host's member, which runs."""


class Proof:
    """
    Args:
        client: of the etcd cluster, the local member first.
        api_unready: says why the API server is not ready, empty when it is.
    """

    def __init__(self, order: Order, journal: Journal, client: Client, api_unready: Callable[[], str]) -> None:
        self._order = order
        self._journal = journal
        self._client = client
        self._api_unready = api_unready

    def unready(self, component: str) -> str:
        """Why a static pod's process does not serve; empty when it does."""
        return self._etcd_unready() if component == "etcd" else self._api_unready()

    def seconds(self, component: str) -> float:
        """How long a process may take until it serves."""
        shortest = patience.ETCD_READY if component == "etcd" else patience.API_SERVER_READY
        gate = self._journal.reached("gate", "done") or {}
        return shortest + timing.startup_seconds(component, gate.get("database_bytes")) - timing.STARTUP_STEPS[0]

    def cluster(self, starting: bool = False) -> str:
        """Every member is well again. Return what ails others for good; a member of ours that is not well raises.

        A change is not undone for the sake of others: that would take our member away when the cluster can miss it least.

        Args:
            starting: our member may be starting only now.
        """
        if self._order.bootstraps:
            return ""

        def whole() -> bool:
            nonlocal why, ours
            try:
                view = cluster.survey(self._client)
            except EtcdError as exc:
                why = ours = str(exc)
                return False
            own = view.by_name(self._order.member)
            why = "; ".join(cluster.problems(view))
            # An alarm is the whole cluster's, whichever member reports it: it is no reason to undo.
            ours = "; ".join(cluster.problems_of(view, own, cluster.ALARMS)) if own else "this host's member is gone"
            return not why

        why = ours = ""
        try:
            seconds = patience.WHOLE + (self.seconds("etcd") if starting else 0)
            until(whole, seconds, lambda: f"the cluster is not whole: {why}", lambda text: self._journal.say("cluster", "wait", text))
        except KubetuneError as exc:
            if ours:
                raise
            self._journal.say("cluster", "failed", str(exc))
            return str(exc)
        self._journal.say("cluster", "done", "every member is healthy and caught up")
        return ""

    def quorum_without_us(self) -> None:
        """
        Raises:
            Needed: our member runs, and the cluster cannot miss it: it stays as it is.
        """
        if self._order.bootstraps:
            return

        def spare() -> bool:
            nonlocal why
            try:
                view = cluster.survey(self._client)
            except EtcdError:
                return True  # there is no quorum to break
            own = view.by_name(self._order.member)
            why = "; ".join(cluster.missed(view, own)) if own and own.status else ""
            return not why

        why = ""
        try:
            until(
                spare,
                patience.WHOLE,
                lambda: f"etcd's old manifest is not put back: {why}",
                lambda text: self._journal.say("etcd_back", "wait", text),
            )
        except KubetuneError as exc:
            raise Needed(str(exc)) from exc

    def watch(self, staying: Sequence[tuple[Pod, Process]]) -> None:
        """The new processes have to stay for a while: one that does not goes back before another node is touched.

        Raises:
            KubetuneError: one has ended by itself, or is not ready any more.
        """
        seconds = self._order.watch_seconds
        if not seconds:
            return
        begun = self._journal.reached("watch")
        if begun is None:
            self._journal.say("watch", "begin", f"{seconds:g} s, in which the new processes have to stay")
        else:
            seconds = min(seconds, max(0.0, begun["time"] + seconds - time.time()))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for pod, process in staying:
                pod.make_sure_it_stays(process)
            time.sleep(min(patience.WATCH_POLL, seconds))
        for pod, process in staying:
            until(
                lambda pod=pod: not self.unready(pod.component),  # type: ignore[misc]
                patience.API_SERVER_PATIENCE,
                f"{pod.component} was ready, and is not any more",
                lambda text: self._journal.say("watch", "wait", text),
            )
            pod.make_sure_it_stays(process)
        self._journal.say("watch", "done")

    def _etcd_unready(self) -> str:
        """Why the local member is not one that serves; empty when a linearizable read through it succeeds."""
        local = self._client.endpoints[0]
        try:
            if not self._client.status(local, 2.0).leader_id:
                return "it has no leader"
            self._client.get(stop_key(self._order), local)
        except EtcdError as exc:
            return str(exc)
        return ""
