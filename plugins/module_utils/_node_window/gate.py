# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: whether a window may begin, and, asked again, whether etcd may be stopped now."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Callable, Sequence

from .._errors import KubetuneError
from .._etcd import cluster
from .._etcd.client import Client, EtcdError
from .._etcd.lock import PREFIX, ClusterLock
from .._node import images
from .._node.state import free_bytes, make_state_directory, surplus, sync_directory
from .._static_pod.manifest import memory_limit_in
from . import patience, wal
from .journal import Journal
from .order import Order
from .pod import Pod, until


class Refused(KubetuneError):
    """Nothing was changed."""


def stop_key(order: Order) -> str:
    """The key in etcd which tells the hosts of a run that a window of it has failed."""
    return f"{PREFIX}runs/{order.run_id}/stopped"


class Gate:
    """
    Args:
        etcd, api: the pods of the order, None where it has none.
        api_unready: says why the API server is not ready, empty when it is.
        kubelet: says which one runs, empty where none does.
    """

    def __init__(
        self,
        order: Order,
        journal: Journal,
        state: Path,
        client: Client,
        etcd: Pod | None,
        api: Pod | None,
        api_unready: Callable[[], str],
        kubelet: Callable[[], Sequence[object]],
    ) -> None:
        self._order = order
        self._journal = journal
        self._state = state
        self._client = client
        self._etcd = etcd
        self._api = api
        self._pods = [pod for pod in (etcd, api) if pod]
        self._api_unready = api_unready
        self._kubelet = kubelet

    def open(self, lock: ClusterLock | None) -> int:
        """Let the window begin, after a snapshot where this run has none yet; its name is in the journal.

        Nothing is touched unless all of it can be proved afterwards, the cluster is whole and may miss this member, no
        window of the run failed, and the manifests are those that were planned with.

        Returns:
            The size of the largest member's database in bytes; 0 before there is any.

        Raises:
            Refused: why not; nothing was touched.
        """
        self._take_snapshot()
        self._journal.say("gate", "begin")
        for pod in self._pods:
            if pod.text() != pod.part.old:
                raise Refused(f"{pod.path} has been changed since the plan: run again")
        # First: where the WAL is gone, there is no room to be looked at either.
        self._make_sure_of_the_wal()
        self._make_sure_of_room()
        self._make_sure_of_the_memory()
        self._make_sure_of_the_runtime()
        self._make_sure_of_the_kubelet()
        database = 0
        if not self._order.bootstraps:
            if self._client.get(stop_key(self._order)):
                raise Refused("an earlier window of this run failed: nothing more is changed until a new run")
            view = cluster.survey(self._client)
            problems = self._against_a_stop(view)
            if problems:
                raise Refused("; ".join(problems))
            database = max((each.status.db_size for each in view.members if each.status), default=0)
            if self._etcd and self._etcd.part.changes and self._own(view).status is None:
                self._repair(self._etcd)
        if self._api and self._api.part.old is not None:
            self._make_sure_of_the_api_server(self._api)
        if lock:
            lock.check()
        for pod in self._pods:
            pod.stage()
        return database

    def _make_sure_of_room(self) -> None:
        needed = {Path(self._order.manifests_directory): patience.FREE_BYTES, self._state: patience.FREE_BYTES}
        paths = self._order.wal
        if paths and self._etcd and self._etcd.part.changes:
            # A WAL that moves away leaves room where it was, and its new place is looked at for itself.
            needed |= {Path(each): wal.NEXT_SEGMENTS for each in {paths.data, paths.old} if each and paths.old == paths.new}
        for directory, bytes_needed in needed.items():
            facts = os.statvfs(directory)
            if facts.f_bavail * facts.f_frsize < bytes_needed or (facts.f_files and facts.f_favail < patience.FREE_INODES):
                raise Refused(f"the file system of {directory} is full: make room for {bytes_needed >> 20} MiB")

    def _make_sure_of_the_runtime(self) -> None:
        problem = images.runtime_problem()
        if problem:
            raise Refused(problem)

    def _make_sure_of_the_kubelet(self) -> None:
        """One that is away for a moment, as in a restart, is waited for."""
        try:
            until(self._kubelet, patience.KUBELET, "no kubelet runs", lambda text: self._journal.say("gate", "wait", text))
        except KubetuneError as exc:
            raise Refused(f"{exc}, and without it no pod goes or comes: start it first (systemctl status kubelet)") from exc

    def _make_sure_of_the_wal(self) -> None:
        """A restarted etcd has to find its WAL, or it can be taken to where it will look for it."""
        paths = self._order.wal
        if paths is None or not (self._etcd and self._etcd.part.changes and self._etcd.part.new is not None):
            return
        problems = [wal.unmounted(paths)]
        if not self._order.bootstraps:
            problems.append(wal.missing(paths))
        relocation = wal.relocation(paths, self._order.id)
        if relocation and not any(problems):
            problems += relocation.obstacles()
        if any(problems):
            raise Refused("; ".join(filter(None, problems)))

    def _make_sure_of_the_memory(self) -> None:
        """A starting etcd holds what it wrote since its last snapshot; where the limit is below that, the kernel kills it each time."""
        order, etcd = self._order, self._etcd
        limit = memory_limit_in(etcd.part.new) if etcd and etcd.part.changes and etcd.part.new else None
        if limit is None or order.bootstraps:
            return
        if order.wal:
            log = wal.replayed_bytes(Path(order.wal.old), Path(order.wal.data))
        elif order.defragmentation:
            log = wal.replayed_bytes(Path(order.defragmentation.data, "member/wal"), Path(order.defragmentation.data))
        else:
            return
        if log * patience.REPLAY > limit:
            raise Refused(
                f"etcd would not start again: it reads the {log >> 20} MiB that it wrote since its last snapshot into memory, which takes up to "
                f"{int(log * patience.REPLAY) >> 20} MiB, and limits.memory is {limit >> 20} MiB: raise it in the same run "
                "(etcd_static_pod_resources), or wait until --snapshot-count entries have been written and the next snapshot is there"
            )

    def _make_sure_of_the_api_server(self, api: Pod) -> None:
        """An API server whose health cannot be seen before the change could not be proved after it either.

        One that does not stay up is another matter: a change of its manifest, or of its etcd's, may be what mends it.
        """
        why, seen, away = "", set(), False

        def ready() -> bool:
            nonlocal why, away
            why = self._api_unready()
            running = api.running()
            seen.update(process.key for process in running)
            away = away or not running
            return not why

        if self._etcd and self._journal.reached(f"{self._etcd.component}_repair"):
            return
        try:
            until(ready, patience.API_SERVER_PATIENCE, lambda: f"kube-apiserver is not ready: {why}", lambda _text: None)
        except KubetuneError as exc:
            if not api.part.changes or (len(seen) == 1 and not away):
                raise Refused(f"{exc}: mend it first") from exc
            self._repair(api)

    def _repair(self, pod: Pod) -> None:
        self._journal.say(f"{pod.component}_repair", "begin", "it does not run, or does not stay: this change is tried as its repair")

    def _against_a_stop(self, view: cluster.ClusterView) -> list[str]:
        """Why this host's etcd must not be stopped now; leadership is moved away where it is the leader's turn."""
        if not (self._etcd and self._etcd.part.changes):
            return cluster.problems(view)
        member = self._own(view)
        problems = cluster.gate(view, member.member.member_id, self._order.allow_downtime)
        if not problems and member.status and member.status.is_leader and len(view.voters) > 1:
            self._journal.say("leader", "begin", "this member leads: leadership is moved first")
            to = cluster.hand_over_leadership(self._client, view, time.sleep)
            self._journal.say("leader", "done", f"moved to {to:x}")
        return problems

    def ask_again(self, lock: ClusterLock | None) -> None:
        """Right before etcd is stopped: since the gate minutes may have passed, or a reboot."""
        if self._order.bootstraps:
            return

        def permitted() -> bool:
            nonlocal why
            try:
                why = "; ".join(self._against_a_stop(cluster.survey(self._client)))
            except EtcdError as exc:
                why = str(exc)
            return not why

        why = ""
        until(permitted, patience.WHOLE, lambda: f"etcd is not stopped: {why}", lambda text: self._journal.say("etcd", "wait", text))
        if lock and not lock.held:
            raise KubetuneError("etcd is not stopped: this window was cut off, and the cluster lock is somebody else's meanwhile")
        if lock:
            lock.check()

    def _take_snapshot(self) -> None:
        """Once per run, before etcd is restarted for the first time, from this host's own member."""
        key = f"{PREFIX}runs/{self._order.run_id}/snapshot"
        if self._order.bootstraps or not (self._etcd and self._etcd.part.changes) or self._order.defragmentation or self._client.get(key):
            return  # nothing is changed that a snapshot could bring back, and the maintenance takes backups of its own
        directory = self._state / "snapshots"
        make_state_directory(directory)
        view = cluster.survey(self._client)
        member = self._own(view)
        if member.status is None:  # it is to be repaired: the leader has all that it has
            member = view.leader or member
        if member.status is None:
            raise Refused(f"etcd member {member.label} of this host does not answer, nor does a leader: no snapshot can be taken")
        free = free_bytes(directory)
        if free < member.status.db_size + patience.FREE_MARGIN:
            raise Refused(
                f"{directory} has {free >> 20} MiB free, and the snapshot before the first "
                f"restart needs {member.status.db_size + patience.FREE_MARGIN >> 20} MiB: make room"
            )
        self._journal.say("snapshot", "begin", f"{member.status.db_size >> 20} MiB from {member.label}")
        path = directory / f"{self._order.run_id}.db"
        part = path.with_name(f".{path.name}.part")
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as sink:
                self._client.snapshot(member.endpoint, sink)
                sink.flush()
                os.fsync(sink.fileno())
        except (OSError, EtcdError) as exc:
            part.unlink(missing_ok=True)
            raise Refused(f"the snapshot before the first restart failed: {exc}") from exc
        os.replace(part, path)
        sync_directory(directory)
        self._client.put(key, f"{self._order.host}:{path}", self._client.grant_lease(24 * 3600))
        # Not this one, whatever the clock says that it was when it was written.
        others = sorted((each for each in directory.glob("*.db") if each != path), key=os.path.getmtime)
        for old in surplus(others, patience.SNAPSHOTS_KEPT):
            old.unlink()
        self._journal.say("snapshot", "done", str(path))

    def _own(self, view: cluster.ClusterView) -> cluster.MemberView:
        member = view.by_name(self._order.member)
        if member is None:
            raise KubetuneError(f"etcd member {self._order.member!r} of this host is not in the member list")
        return member
