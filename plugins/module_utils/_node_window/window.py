# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transaction: gate, snapshot, API server out, etcd in, API server in; or everything back as it was."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

from .._commands import ENVIRONMENT, output
from .._errors import KubetuneError
from .._etcd.client import Client, EtcdError
from .._etcd.lock import ClusterLock, LockHeld
from .._node import processes
from .._node.access import EtcdAccess, api_server
from .._node.processes import Process, kubelet_log, newest_log
from .._node.state import STATE, make_state_directory, memory_path, write_atomically
from . import patience, wal
from .gate import Gate, Refused, stop_key
from .journal import BEFORE, Journal
from .order import Order, Part
from .pod import Pod, until
from .proof import Needed, Proof

BOOT = Path("/proc/sys/kernel/random/boot_id")


class Window:
    """Runs an order to its end, from the start or from wherever a process before this one was cut off.

    Every step may be done twice: it looks first at what is there. Forward is the way after an interruption, too;
    back is taken when a step fails, and once taken it is not left again.

    Args:
        client: of the etcd cluster, the local member first; by default with the order's own access.
        api_unready: says why the API server is not ready, empty when it is; by default its /readyz, when there is one.
        proc: where the host's processes are seen.

    Raises:
        KubetuneError: a certificate for etcd or the CA of the API server cannot be used.
    """

    def __init__(
        self,
        order: Order,
        journal: Journal,
        state: Path = STATE,
        client: Client | None = None,
        api_unready: Callable[[], str] | None = None,
        proc: Path = Path("/proc"),
    ) -> None:
        self._order = order
        self._journal = journal
        self._state = state
        self._proc = proc
        self._etcd = self._pod("etcd", order.etcd)
        self._api = self._pod("kube-apiserver", order.kube_apiserver)
        self._client = client or EtcdAccess.from_dict(order.etcd_access).client()
        unready = api_unready or _readiness(order)
        self._proof = Proof(order, journal, self._client, unready)
        self._gate = Gate(order, journal, state, self._client, self._etcd, self._api, unready, self._kubelet)
        self._started = time.monotonic()
        self._proved: dict[str, Process] = {}

    def run(self) -> dict[str, Any]:
        """Return the result. ``outcome`` is one of

        changed: the node is as ordered, and the cluster is whole;
        degraded: the node is as ordered and healthy, and another member is not;
        refused: nothing was touched;
        rolled_back: the old manifests are back, and healthy;
        broken: neither the new nor the old manifests make this node healthy.
        """
        holder = {
            "host": self._order.host,
            "purpose": "a change of static pods",
            "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "run_id": self._order.run_id,
            "token": self._order.id,
        }
        lock = None if self._order.bootstraps else ClusterLock(self._client, "change", holder)
        try:
            if lock:
                self._take(lock)
            return self._forward_or_back(lock)
        except Refused as exc:
            return self._result("refused", str(exc))
        finally:
            for pod in self._pods:
                pod.unstage()
            if lock:
                lock.release()

    @property
    def _pods(self) -> list[Pod]:
        return [pod for pod in (self._etcd, self._api) if pod]

    @property
    def _past_gate(self) -> bool:
        return self._journal.reached("gate", "done") is not None

    @property
    def _touched(self) -> bool:
        """Whether something on this node is not as it was before, or is about to be."""
        return any(self._journal.reached(step) for step in ("api_out", "etcd_out", "etcd_in", "kube-apiserver_in")) or self._journal.undone() is not None

    def _forward_or_back(self, lock: ClusterLock | None) -> dict[str, Any]:
        cause = self._journal.undone()
        if cause is None:
            try:
                others = self._forward(lock)
                if others:
                    self._stop_the_run()
                return self._result("degraded" if others else "changed", others)
            except Exception as exc:  # whatever it was: a node is not left half changed
                why = _text(exc)
                if not self._past_gate:
                    raise Refused(why) from exc
                cause = {"text": why, "log": self._logs()}
        self._journal.undo(cause["text"], cause["log"])
        return self._back(cause)

    # --- forward ----------------------------------------------------------------------------------------------

    def _forward(self, lock: ClusterLock | None) -> str:
        """Return what ails the other members, empty when they are well."""
        if not self._past_gate:
            database = self._gate.open(lock)
            self._journal.say("gate", "done", database_bytes=database, kubelet=self._kubelet())
        if self._etcd and self._etcd.part.changes and not self._journal.reached("etcd_in", "done"):
            self._make_sure_of_the_kubelet(self._etcd)
            self._api_out()
            self._make_sure_of_the_kubelet(self._etcd)
            if self._etcd.text() == self._etcd.part.old:
                self._gate.ask_again(lock)
            if self._etcd.part.old is not None and not self._journal.reached("etcd_in"):
                self._etcd_out(self._etcd)
                self._move_wal()
                self._defragment()
            self._swap(self._etcd, self._etcd.part.new, self._etcd.part.argv)
        others = ""
        if self._etcd and self._etcd.part.changes and self._etcd.part.new is not None:
            # Not proved by this process: it starts with the host, and reads its database first.
            others = self._proof.cluster(starting="etcd" not in self._proved)
            self._discard_old_wal()
        if self._api:
            if self._api.part.changes and not self._journal.reached("kube-apiserver_in"):
                if not self._journal.reached("etcd_in"):
                    self._make_sure_of_the_kubelet(self._api)
                self._api_out()
            self._swap(self._api, self._api.part.new, self._api.part.argv)
        self._watch()
        self._remember()
        return others

    def _make_sure_of_the_kubelet(self, pod: Pod) -> None:
        """One that has started since ends no pod before it has heard from its API server, and starts no other of the same name until then
        (pkg/kubelet/config, SeenAllSources, Kubernetes 1.36): with the API server out it would wait for ever.

        Raises:
            KubetuneError: what has not left yet had better stay.
        """
        then = (self._journal.reached("gate", "done") or {}).get("kubelet")
        if then is not None and pod.part.old is not None and pod.text() == pod.part.old and self._kubelet() != then:
            raise KubetuneError(
                f"the kubelet has ended or was started anew since the gate, and would not let go of {pod.component} while the API server is out"
            )

    def _kubelet(self) -> list[list[Any]]:
        """Which one it is; empty where none runs."""
        return [[BOOT.read_text().strip(), *process.key] for process in processes.find("kubelet", {}, self._proc)]

    def _api_out(self) -> None:
        """Without the API server no watch holds the old etcd, and the kubelet's calls fail at once, not after 34 s."""
        if self._api is None or (self._api.text() is None and not self._api.running()):
            return
        self._journal.say("api_out", "begin")
        self._api.take_out(self._api.part.grace + patience.EXIT)
        self._journal.say("api_out", "done")

    def _etcd_out(self, etcd: Pod) -> None:
        """Out and in again takes the kubelet some 4 s, a changed manifest 15 (see `Pod.take_out`)."""
        self._journal.say("etcd_out", "begin")
        etcd.take_out(etcd.part.grace + patience.EXIT)
        self._journal.say("etcd_out", "done")

    def _move_wal(self) -> None:
        """Where the new manifest has the WAL elsewhere. From etcd's first start on it only the newest WAL may be used."""
        relocation = self._relocation
        if relocation is None or self._journal.reached("wal_move", "done"):
            return
        problem = wal.unmounted(relocation.wal)
        if problem:
            raise KubetuneError(problem)
        self._journal.say("wal_move", "begin", source=str(relocation.source), target=str(relocation.target))
        moved = relocation.move(lambda text: self._journal.say("wal_move", "wait", text))
        self._journal.say("wal_move", "done", f"{moved}; from etcd's start on it there is no way back but to copy it again")

    def _defragment(self) -> None:
        """Clients of this member have moved on to another one; an etcd that is defragmented while it runs holds them up instead."""
        offline = self._order.defragmentation
        if offline is None or self._journal.reached("defragment", "done"):
            return
        database = Path(offline.data) / "member/snap/db"
        before = database.stat().st_size
        self._journal.say("defragment", "begin", f"{before >> 20} MiB")
        output([offline.etcdutl, "defrag", f"--data-dir={offline.data}"], environment=ENVIRONMENT, timeout=offline.timeout_seconds)
        # The new file is root's: an etcd of another user has to be able to open it.
        owner = database.parent.stat()
        os.chown(database, owner.st_uid, owner.st_gid)
        after = database.stat().st_size
        self._journal.say("defragment", "done", f"{before >> 20} to {after >> 20} MiB", before_bytes=before, after_bytes=after)

    @property
    def _relocation(self) -> wal.Relocation | None:
        """As it was begun; as the host is, where it was not."""
        order = self._order.wal
        begun = self._journal.reached("wal_move")
        if order is None or begun is None:
            return wal.relocation(order, self._order.id) if order else None
        return wal.Relocation(Path(begun["source"]), Path(begun["target"]), order, self._order.id)

    def _discard_old_wal(self) -> None:
        relocation = self._relocation
        if relocation and self._journal.reached("wal_move"):
            relocation.discard_old()
            self._journal.say("wal_old", "done", "the WAL from before is removed")

    def _swap(self, pod: Pod, text: str | None, argv: tuple[str, ...]) -> None:
        """Put a manifest in and prove the process. What runs already as wanted, and was not there before, stays."""
        step = f"{pod.component}_in"
        if text == pod.text() and not pod.part.changes and not self._journal.reached(step) and pod.running():
            return
        old = self._replaced(step, pod, text)
        self._make_sure_of_the_wal(pod, text)
        pod.put(text)
        if text is None:
            pod.wait_none(pod.part.grace + patience.EXIT)
            self._journal.say(step, "done", "it is gone")
            return
        pod.wait_gone(old, pod.part.grace + patience.EXIT)
        process = self._proved[pod.component] = pod.wait_new(old, argv, lambda: self._proof.unready(pod.component), self._proof.seconds(pod.component))
        self._journal.say(step, "done", f"pid {process.pid}")

    def _make_sure_of_the_wal(self, pod: Pod, text: str | None) -> None:
        """Behind the gate a disk may have gone, or the host may have come up without it."""
        order = self._order.wal
        if pod is self._etcd and order and order.old and text is not None and not self._order.bootstraps:
            wal.make_sure_of(order.new if text == pod.part.new else order.old)

    def _replaced(self, step: str, pod: Pod, text: str | None) -> list[Process]:
        """The processes which have to go before ``text`` counts: those that ran when its manifest was not there yet."""
        begun = self._journal.reached(step)
        if begun and pod.text() == text:
            return [each for each in pod.running() if list(each.key) in begun["old"]]
        # Not written yet: what runs is from before, also when it came with a reboot after we had said so.
        old = pod.running()
        self._journal.say(step, "begin", old=[list(each.key) for each in old])
        return old

    def _watch(self) -> None:
        pods = [pod for pod in self._pods if pod.part.changes and pod.part.new is not None]
        if pods and not self._journal.reached("watch", "done"):
            self._proof.watch([(pod, self._proved.get(pod.component) or pod.process()) for pod in pods])
        for pod in pods:
            if pod.text() != pod.part.new:
                raise KubetuneError(f"{pod.path} was changed by somebody else meanwhile: it is left as it is")

    def _remember(self) -> None:
        for component, part in (("etcd", self._order.etcd), ("kube-apiserver", self._order.kube_apiserver)):
            if part is None or not part.changes:
                continue
            path = memory_path(component, self._state)
            make_state_directory(path.parent)
            if part.memory is None:
                path.unlink(missing_ok=True)
            else:
                write_atomically(path, json.dumps(part.memory).encode())

    # --- back -------------------------------------------------------------------------------------------------

    def _back(self, cause: dict[str, Any]) -> dict[str, Any]:
        """The old manifests again, each proved; then the other hosts of the run are told to stop."""
        message, log = cause["text"], cause.get("log", [])
        trouble, needed = "", ""
        for put_back in (self._etcd_back, self._api_back):
            try:
                put_back()
            except Exception as exc:  # the other one comes back all the same
                needed = needed or (_text(exc) if isinstance(exc, Needed) else "")
                trouble = trouble or _text(exc)
        self._stop_the_run()
        if not trouble:
            return self._result("rolled_back", message, log)
        return self._result("broken", f"{message}; and the way back failed too: {trouble}\n{self._by_hand(needed)}", log)

    def _by_hand(self, needed: str) -> str:
        """What a person has to do on this node when neither manifest makes it healthy, as commands.

        Args:
            needed: why this node's etcd, which runs from its new manifest, must not be stopped; empty where it may.
        """
        before = self._journal.folder_of(self._order) / BEFORE
        steps = ["systemctl status kubelet containerd    # both have to run, and the disks must not be full"]
        for pod in self._pods:
            saved = before / pod.path.name
            if needed and pod is self._etcd:
                steps.append(f"leave {pod.path} as it is, with the new flags, until that is mended: {needed}")
                continue
            steps += [f"cp --preserve=mode {saved} {pod.path}"] if pod.part.old is not None else [f"rm --force {pod.path}"]
            steps.append(f"tail /var/log/pods/kube-system_{pod.component}-*/{pod.component}/*.log    # why it does not stay")
        begun = self._journal.reached("wal_move")
        if begun:
            steps.insert(
                1,
                f"ls -l {begun['source']} {begun['target']}    # etcd may be started on the newest WAL only: where the last of these files "
                "is newest, --wal-dir has to point; never start it on the other one",
            )
        lines = "\n".join(f"  {number}. {step}" for number, step in enumerate(steps, 1))
        return f"By hand, on {self._order.host} (the manifests from before are in {before}), then run the playbook again:\n{lines}"

    def _etcd_back(self) -> None:
        if not self._etcd or not self._etcd_was_out:
            return
        if self._etcd.text() != self._etcd.part.old:
            self._proof.quorum_without_us()
        self._api_out()
        self._wal_back(self._etcd)
        self._restore(self._etcd)
        if self._etcd.part.old is not None:
            self._proof.cluster()
            self._discard_old_wal()

    @property
    def _etcd_was_out(self) -> bool:
        return bool(self._journal.reached("etcd_in") or self._journal.reached("etcd_out"))

    def _wal_back(self, etcd: Pod) -> None:
        """A WAL that etcd was never started on is dropped; one that it may have been started on is the newest."""
        relocation = self._relocation
        if relocation is None or not self._journal.reached("wal_move") or self._journal.reached("wal_back", "done"):
            return
        self._journal.say("wal_back", "begin")
        if self._journal.reached("etcd_in"):
            self._etcd_out(etcd)
            try:
                text = relocation.reverse.move(lambda text: self._journal.say("wal_back", "wait", text))
            except (KubetuneError, OSError) as exc:
                raise KubetuneError(
                    f"the newest WAL, in {relocation.target}, cannot be taken back to {relocation.source}: {_text(exc)}; etcd must "
                    "never be started on an older one: mend the disk, then put the new manifest in, or replace this member"
                ) from exc
        else:
            relocation.take_back()
            text = f"{relocation.source}, on which etcd ran last"
        self._journal.say("wal_back", "done", text)

    def _api_back(self) -> None:
        if self._api and (self._journal.reached("api_out") or self._journal.reached("kube-apiserver_in")):
            self._restore(self._api)

    def _restore(self, pod: Pod) -> None:
        step = f"{pod.component}_back"
        there = pod.text() == pod.part.old
        # Put back by a process before this one, it is there as well, and nothing is proved.
        untouched = there and not self._journal.reached(step)
        old = self._replaced(step, pod, pod.part.old)
        if pod.part.old is None:
            pod.put(None)
            pod.wait_none(pod.part.grace + patience.EXIT)
        elif self._journal.reached(f"{pod.component}_repair"):
            pod.put(pod.part.old)
            raise KubetuneError(f"{pod.component} did not run before this change either; its manifest from before is there again")
        elif not untouched or not old:
            ended = (there and not old) or self._ended(pod)
            self._make_sure_of_the_wal(pod, pod.part.old)
            pod.put(pod.part.old)
            try:
                if not ended:
                    pod.wait_gone(old, pod.part.grace + patience.EXIT)
            except KubetuneError:
                # A kubelet that took no notice of any of it has left the process from before alone.
                if [each.argv for each in pod.running()] != [pod.part.old_argv] or self._proof.unready(pod.component):
                    raise
            else:
                if pod is self._api and self._etcd and self._etcd_was_out and not self._etcd.running():
                    # Its etcd has had its time. Minutes spent on an API server that cannot become ready only delay the word to a person.
                    raise KubetuneError("kube-apiserver's manifest from before is there again; it waits for this node's etcd")
                pod.wait_new(old, pod.part.old_argv, lambda: self._proof.unready(pod.component), self._proof.seconds(pod.component))
        self._journal.say(step, "done")

    def _ended(self, pod: Pod) -> bool:
        """Take the pod out, so that the next one starts at once; False when the kubelet does not end it."""
        try:
            pod.take_out(pod.part.grace + patience.EXIT)
        except KubetuneError as exc:
            self._journal.say(f"{pod.component}_back", "wait", str(exc))
            return False
        return True

    def _stop_the_run(self) -> None:
        try:
            self._client.put(stop_key(self._order), self._order.host, self._client.grant_lease(3600))
        except EtcdError as exc:
            self._journal.say("undo", "wait", f"the other hosts could not be told through etcd: {exc}")

    # --- helpers ----------------------------------------------------------------------------------------------

    def _pod(self, component: str, part: Part | None) -> Pod | None:
        if part is None:
            return None
        directory = Path(self._order.manifests_directory)
        return Pod(component, part, directory, lambda text: self._journal.say(component, "wait", text), self._proc)

    def _take(self, lock: ClusterLock) -> None:
        """The cluster lock. A window that was cut off when it had begun to stop something goes on without it when it cannot be had: the
        node has to be mended, and everybody else's gate is shut while its member is away. An etcd that still runs is not stopped then."""

        def take() -> bool:
            nonlocal why
            try:
                lock.acquire()
            except (LockHeld, EtcdError) as exc:
                why = str(exc)
                return False
            return True

        why = ""
        seconds = patience.LOCK_WAIT_CUT_OFF if self._touched else patience.LOCK_WAIT
        try:
            until(take, seconds, lambda: why, lambda text: self._journal.say("lock", "wait", text), patience.LOCK_PAUSE)
        except KubetuneError as exc:
            if not self._touched:
                raise Refused(str(exc)) from exc
            self._journal.say("lock", "failed", f"going on without it: {exc}")

    def _logs(self) -> list[str]:
        """What the component that was put in last wrote."""
        for name in ("kube-apiserver", "etcd"):
            begun = self._journal.reached(f"{name}_in")
            if begun:
                return newest_log(name, begun["time"]) or kubelet_log(name)
        return []

    def _result(self, outcome: str, message: str, log: list[str] | None = None) -> dict[str, Any]:
        snapshot = self._journal.reached("snapshot", "done")
        return {
            "outcome": outcome,
            "message": message,
            "log": log or [],
            "seconds": round(time.monotonic() - self._started, 1),
            "snapshot": snapshot["text"] if snapshot else "",
        }


def _readiness(order: Order) -> Callable[[], str]:
    return api_server(order.api_server).unready if order.api_server else lambda: ""


def _text(exc: Exception) -> str:
    """What a person reads; an exception that nobody expected is named by its type too."""
    return str(exc) if isinstance(exc, (KubetuneError, OSError)) else f"{type(exc).__name__}: {exc}"
