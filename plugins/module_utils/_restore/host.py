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
from .._etcd.cluster import ALARMS, problems, survey
from .._maintenance import units
from .._node import processes
from .._node.access import api_server
from .._node.state import write_atomically
from .._node_window.pod import until
from .._static_pod.catalogue import ETCD, KUBE_APISERVER
from . import membership, snapshot
from .data import Data, Member
from .fence import Fence
from .revived import release_locks, revived
from .store import Order, Pending, Store

#: What may not be taken back any more: etcd was started on the new data.
STARTED = "etcd_started"
#: Nor this: the lost member has left the cluster.
EXCHANGED = "member_exchanged"
_ASIDE = "data_set_aside"
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
        order, state = pending.order, self._data(member).state()
        if pending.snapshot and self._still_good(pending, state):
            return dict(pending.snapshot)
        if pending.data_sha256 and order.case == "survivor":
            raise KubetuneError(f"{self._store.snapshot} is gone, which this host's data was made of: take the restore back, and begin anew")
        with snapshot.programs(member.image, tools) as programs:
            if order.case == "backup":
                facts = snapshot.from_backup(Path(order.backup), order.cluster_id, self._store.snapshot, programs, config_file)
            else:
                self._must_not_run(member)
                facts = snapshot.from_survivor(member, self._store.snapshot, programs)
        facts["state"] = state
        self._store.keep_snapshot(facts)
        return facts

    def _still_good(self, pending: Pending, state: str) -> bool:
        """Whether the snapshot that lies ready may be used: a survivor that was started by hand since has committed more."""
        if STARTED in pending.steps:
            return True
        unchanged = pending.order.case != "survivor" or bool(pending.data_sha256) or (pending.snapshot or {}).get("state") == state
        return unchanged and self._store.snapshot.exists()

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
        if pending.data_sha256 == facts["sha256"]:
            return False
        if STARTED in pending.steps:
            raise KubetuneError(
                f"etcd was started here on another snapshot (SHA-256 {pending.data_sha256[:12]}...) than the one of {pending.order.source} "
                f"({facts['sha256'][:12]}...): members of one cluster have to be made of the same; end this with etcd_restore_case=abandon"
            )
        self._must_not_run(member)
        if not self._store.snapshot.exists():
            raise KubetuneError(f"{self._store.snapshot} is not there: it should have been copied from {pending.order.source}; run again")
        found = snapshot.content(self._store.snapshot)
        if found["sha256"] != facts["sha256"]:
            raise KubetuneError(
                f"{self._store.snapshot} is not the snapshot of {pending.order.source} (SHA-256 {found['sha256'][:12]}..., and "
                f"{facts['sha256'][:12]}... is needed): remove it, then run again"
            )
        data = self._data(member)
        self._store.keep_before(data.present())
        with snapshot.programs(member.image, tools) as programs:
            data.put_restored(self._store.snapshot, str(programs / "etcdutl"), pending.order)
        self._store.keep_data(facts["sha256"])
        return True

    def set_aside(self, member: Member) -> bool:
        """The data of a member that comes back with nothing."""
        pending = self._store.pending()
        if _ASIDE in pending.steps:
            return False
        self._must_not_run(member)
        data = self._data(member)
        self._store.keep_before(data.present())
        data.set_aside()
        self._store.mark(_ASIDE)
        return True

    def exchange(self) -> None:
        """The next step is another host's; from it on nothing is taken back."""
        self._store.mark(EXCHANGED)

    # --- ordered start ----------------------------------------------------------------------------------------

    def open_etcd(self, text: str | None = None) -> bool:
        """Start etcd on its new data. From here on nothing is taken back."""
        pending = self._store.pending()
        if not pending.data_sha256 and _ASIDE not in pending.steps:
            raise KubetuneError("etcd's data has not been replaced on this host: run again from the start")
        self._store.mark(STARTED)
        return self._fence.open(ETCD, text)

    def wait_whole(self, client: Client) -> None:
        """Until this member answers, and with it the whole cluster."""

        def whole() -> bool:
            try:
                # An alarm comes back with the snapshot, and is the report's to tell.
                self._why = "; ".join(problems(survey(client), ALARMS))
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
        alarms = sorted({each.alarm for each in client.alarms()})
        found = {"locks": release_locks(client), "alarms": alarms, **revived(client, prefix)}
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
            "set_aside": self._data(member).asides(),
        }
        self._store.end("done", **result)
        return {**result, "snapshot": pending.snapshot, "no_backup": "" if pending.order.case == "member" else _begin_backup()}

    def cancel(self, member: Member, components: Sequence[str]) -> list[str]:
        """Everything as it was before; return the components that were put in again.

        Raises:
            KubetuneError: etcd was started on the new data: the way is forward.
        """
        pending = self._store.pending()
        if {STARTED, EXCHANGED} & set(pending.steps):
            raise KubetuneError(f"restore {pending.order.id} cannot be taken back here: see etcd_restore_case=plan")
        if pending.before is not None:
            self._must_not_run(member)
            self._data(member).take_back(pending.before)
        return self._end(components, "cancelled")

    def abandon(self, member: Member, components: Sequence[str]) -> list[str]:
        """The restore ends where it is: all data stays as it is, and what is kept out comes in; return what did.

        Where old data was set aside, and nothing is in its place yet, that comes back. A host with no data at all stays without etcd and API
        server: an etcd that its manifest lets begin a cluster would begin an empty one, and the API server would serve it.
        """
        pending, data = self._store.pending(), self._data(member)
        if STARTED not in pending.steps and data.asides() and not data.facts()["there"]:
            self._must_not_run(member)
            data.take_back(pending.before)
        empty = STARTED not in pending.steps and not data.facts()["there"]
        return self._end([each for each in components if not (empty and each in (ETCD, KUBE_APISERVER))], "abandoned")

    def _end(self, components: Sequence[str], outcome: str) -> list[str]:
        # etcd first: the others wait for it.
        opened = [component for component in reversed(list(components)) if self._fence.open(component)]
        self._store.end(outcome)
        return opened

    def _data(self, member: Member) -> Data:
        pending = self._store.pending()
        return Data(member, pending.order.id, pending.wal)

    def _must_not_run(self, member: Member) -> None:
        running: list[processes.Process] = self._fence.running(ETCD)
        if running or self._data(member).in_use():
            who = f"etcd runs (pid {running[0].pid})" if running else f"a process has the database in {member.data} open"
            raise KubetuneError(f"{who}, and the data is not touched while it does: somebody has put its manifest back; take it away, then run again")

    def _wait(self, look: Callable[[], bool], component: str) -> None:
        self._why = ""
        started = time.time()
        try:
            until(look, self._seconds, lambda: f"{component} is not ready: {self._why}", self._say, _PAUSE)
        except KubetuneError as exc:
            log = "".join(f"\n    {line}" for line in processes.newest_log(component, started))
            raise KubetuneError(f"{exc}; run again when that is mended" + (f"\n  last lines of the container:{log}" if log else "")) from exc


def _begin_backup() -> str:
    """Of the new cluster, for drills and the next restore take no older one without being told to; return why there is none, or nothing."""
    unit = Path(units.DIRECTORY, f"{units.BACKUP}.service")
    try:
        if units.MARK not in unit.read_text():
            return f"{unit} is not the maintenance's"
        output(["systemctl", "start", "--no-block", unit.name])
    except FileNotFoundError:
        return "the maintenance takes none here"
    except (OSError, KubetuneError) as exc:
        return str(exc)  # the restore has ended well, and its report says what is missing
    return ""


def _key(flag: str, path: Path) -> dict[str, Any]:
    try:
        return {"flag": f"--{flag}", "path": str(path), "there": True, "changed_at": _time(path.stat().st_mtime)}
    except OSError:
        return {"flag": f"--{flag}", "path": str(path), "there": False, "changed_at": ""}


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
