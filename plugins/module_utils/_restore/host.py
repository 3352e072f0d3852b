# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a restore on one host. Each looks at what is there and does what is missing, so that a run that was cut off goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

from .._commands import output
from .._errors import KubetuneError
from .._etcd.client import Client, EtcdError
from .._etcd.cluster import problems, survey
from .._node import processes
from .._node.access import api_server
from .._node.state import write_atomically
from .._node_window.pod import until
from .._static_pod.catalogue import ETCD, KUBE_APISERVER
from . import membership, snapshot
from .data import Data, Member
from .fence import Fence
from .revived import release_locks, revived
from .store import Order, Store

#: What may not be taken back any more: etcd was started on the new data.
STARTED = "etcd_started"
_DATA, _ASIDE = "data_replaced", "data_set_aside"
_PAUSE = 1.0


class Host:
    """
    Args:
        store: of what is under way here.
        say: called with a text while something takes long.
        seconds: for etcd, and for the API server, to be ready.
    """

    def __init__(self, store: Store, manifests: Path, say: Callable[[str], None], seconds: float) -> None:
        self._store, self._say, self._seconds = store, say, seconds
        self._fence = Fence(manifests, store.manifests)

    # --- the data of a new cluster ----------------------------------------------------------------------------

    def provide(self, member: Member, tools: str, config_file: Path) -> dict[str, Any]:
        """Lay the snapshot ready; for the case ``survivor`` etcd must not run any more."""
        pending = self._store.pending()
        if pending.snapshot and (self._store.snapshot.exists() or STARTED in pending.steps):
            return dict(pending.snapshot)
        order = pending.order
        with snapshot.programs(member.image, tools) as programs:
            if order.case == "backup":
                facts = snapshot.from_backup(Path(order.backup), order.cluster_id, self._store.snapshot, programs, config_file)
            else:
                self._must_not_run(ETCD)
                facts = snapshot.from_survivor(member, self._store.snapshot, programs)
        self._store.keep_snapshot(facts)
        return facts

    def shut(self, components: Sequence[str]) -> list[str]:
        """Keep components out; not again those that this restore has started."""
        if STARTED in self._store.pending().steps:
            return []
        return self._fence.shut(components, self._say)

    def replace_data(self, member: Member, facts: Mapping[str, Any], tools: str) -> bool:
        """The snapshot, which has been copied here, becomes this member's data; the old data is set aside.

        Args:
            facts: of `provide`, on the host that provided it.
        """
        pending = self._store.pending()
        if _DATA in pending.steps:
            return False
        self._must_not_run(ETCD)
        if not self._store.snapshot.exists():
            raise KubetuneError(f"{self._store.snapshot} is not there: it should have been copied from {pending.order.source}; run again")
        found = snapshot.content(self._store.snapshot)
        if found["sha256"] != facts["sha256"]:
            raise KubetuneError(
                f"{self._store.snapshot} is not the snapshot of {pending.order.source} (SHA-256 {found['sha256'][:12]}..., and "
                f"{facts['sha256'][:12]}... is needed): remove it, then run again"
            )
        with snapshot.programs(member.image, tools) as programs:
            Data(member, pending.order.id).put_restored(self._store.snapshot, str(programs / "etcdutl"), pending.order)
        self._store.mark(_DATA)
        return True

    def set_aside(self, member: Member) -> bool:
        """The data of a member that comes back with nothing."""
        pending = self._store.pending()
        if _ASIDE in pending.steps:
            return False
        self._must_not_run(ETCD)
        Data(member, pending.order.id).set_aside()
        self._store.mark(_ASIDE)
        return True

    # --- ordered start ----------------------------------------------------------------------------------------

    def open_etcd(self, text: str | None = None) -> bool:
        """Start etcd on its new data. From here on nothing is taken back."""
        steps = self._store.pending().steps
        if not {_DATA, _ASIDE} & set(steps):
            raise KubetuneError("etcd's data has not been replaced on this host: run again from the start")
        self._store.mark(STARTED)
        return self._fence.open(ETCD, text)

    def wait_whole(self, client: Client) -> None:
        """Until this member answers, and with it the whole cluster."""

        def whole() -> bool:
            try:
                self._why = "; ".join(problems(survey(client)))
            except EtcdError as exc:
                self._why = str(exc)
            return not self._why

        self._wait(whole, ETCD)

    def open_api_server(self, where: Mapping[str, Sequence[str]]) -> bool:
        opened = self._fence.open(KUBE_APISERVER)
        server = api_server(where)

        def ready() -> bool:
            self._why = "it does not run" if not self._fence.running(KUBE_APISERVER) else server.unready()
            return not self._why

        self._wait(ready, KUBE_APISERVER)
        return opened

    def open_others(self, components: Sequence[str]) -> list[str]:
        """The controllers, and the kubelet anew: what they had in memory is of the cluster that was."""
        opened = [component for component in components if self._fence.open(component)]
        for component in components:
            self._fence.wait_running(component, self._say)
        if "kubelet_restarted" not in self._store.pending().steps:
            output(["systemctl", "restart", "kubelet"])
            self._store.mark("kubelet_restarted")
        return opened

    def after(self, client: Client, prefix: str) -> dict[str, Any]:
        """What came back; before the API servers start, so that no run's lock of then holds."""
        found = {"locks": release_locks(client), **revived(client, prefix)}
        write_atomically(self._store.directory / "revived.json", json.dumps(found, indent=2).encode())
        return found

    # --- one member -------------------------------------------------------------------------------------------

    def replace_member(self, client: Client, order: Order, name: str) -> str:
        return membership.replace(client, order, name)

    def promote(self, client: Client, order: Order) -> None:
        membership.promote(client, order, self._seconds, self._say)

    # --- the end ----------------------------------------------------------------------------------------------

    def finish(self, member: Member, keys: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """
        Args:
            keys: flag of the API server -> paths, of what has to be the same as when the snapshot was taken.
        """
        pending = self._store.pending()
        result = {
            "ended_at": _time(time.time()),
            "keys": [_key(flag, Path(path)) for flag, paths in keys.items() for path in paths],
            "set_aside": Data(member, pending.order.id).asides(),
            "snapshot": pending.snapshot,
        }
        self._store.end(result)
        return result

    def cancel(self, member: Member, components: Sequence[str]) -> list[str]:
        """Everything as it was before; return the components that were put in again.

        Raises:
            KubetuneError: etcd was started on the new data: the way is forward.
        """
        pending = self._store.pending()
        if STARTED in pending.steps:
            raise KubetuneError(
                f"restore {pending.order.id} cannot be taken back: etcd was started on the new data; finish it with the variables that it "
                "was begun with"
            )
        Data(member, pending.order.id).take_back()
        # etcd first: the others wait for it.
        opened = [component for component in reversed(list(components)) if self._fence.open(component)]
        self._store.end({"cancelled": True})
        return opened

    def _must_not_run(self, component: str) -> None:
        running: list[processes.Process] = self._fence.running(component)
        if running:
            raise KubetuneError(
                f"{component} runs (pid {running[0].pid}), and its data is not touched while it does: somebody has put its manifest back; "
                "take it away, then run again"
            )

    def _wait(self, look: Callable[[], bool], component: str) -> None:
        self._why = ""
        started = time.time()
        try:
            until(look, self._seconds, lambda: f"{component} is not ready: {self._why}", self._say, _PAUSE)
        except KubetuneError as exc:
            log = "".join(f"\n    {line}" for line in processes.newest_log(component, started))
            raise KubetuneError(f"{exc}; run again when that is mended" + (f"\n  last lines of the container:{log}" if log else "")) from exc


def _key(flag: str, path: Path) -> dict[str, Any]:
    try:
        return {"flag": f"--{flag}", "path": str(path), "there": True, "changed_at": _time(path.stat().st_mtime)}
    except OSError:
        return {"flag": f"--{flag}", "path": str(path), "there": False, "changed_at": ""}


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
