# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore that is under way on a host: its order, what is done of it, and what it has taken away meanwhile.

Everything below one directory: ``pending.json``, the manifests of the components that are kept out, the snapshot.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Mapping

from .._errors import KubetuneError
from .._node.state import SCHEMA, STATE, make_state_directory, read_record, sync_directory, write_atomically

DIRECTORY = STATE / "restore"
_ADVICE = "move it away, and look by hand which of the manifests beside it are missing in the kubelet's directory"


@dataclass(frozen=True)
class Order:
    """What the plan decided, the same on each host that takes part.

    Attributes:
        id: of this restore; it names what is set aside, and the new cluster's token.
        case: ``member``, ``survivor`` or ``backup``.
        source: inventory name of the host with the backup or the surviving data; of the member to replace for ``member``.
        backup: path of the snapshot on it; empty unless the case is ``backup``.
        cluster_id: hexadecimal, of which cluster the backup has to be; empty where that is not known.
        members: inventory name -> ``name`` and ``peer_urls`` of each member of the new cluster.
        old_member_id: hexadecimal, of the member that is replaced; empty unless the case is ``member``.
        consent: what was said to the plan when it was begun.
        bump_revision: by how much the new cluster's revision is above the snapshot's.
    """

    id: str
    case: str
    source: str
    backup: str
    cluster_id: str
    members: Mapping[str, Mapping[str, Any]]
    old_member_id: str
    bump_revision: int
    consent: str = ""

    @property
    def token(self) -> str:
        return f"kubetune-{self.id}"

    @property
    def initial_cluster(self) -> str:
        return ",".join(f"{each['name']}={url}" for each in self.members.values() for url in each["peer_urls"])


@dataclass(frozen=True)
class Pending:
    """
    Attributes:
        steps: what is done on this host.
        wal: where this host's WAL was when it was begun; a link that leads there may be gone since.
        snapshot: facts of the snapshot that lies ready, None before.
        data_sha256: of the snapshot that this host's data was made of; empty before.
        before: what stood where the data belongs when this restore first touched it; None before that.
    """

    order: Order
    steps: tuple[str, ...] = ()
    wal: str = ""
    snapshot: Mapping[str, Any] | None = None
    data_sha256: str = ""
    before: tuple[str, ...] | None = None


class Store:
    """
    Args:
        directory: where all of it is.
    """

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self.directory = directory
        self.manifests = directory / "manifests"
        self.snapshot = directory / "snapshot.db"
        self._pending = directory / "pending.json"
        self._last = directory / "last.json"

    def read(self) -> Pending | None:
        """The restore that is under way on this host.

        Raises:
            KubetuneError: its record is damaged, or of another release.
        """
        data = read_record(self._pending, _ADVICE)
        if data is None:
            return None
        try:
            return _pending(Order(**data["order"]), data)
        except (KeyError, TypeError) as exc:
            raise KubetuneError(f"{self._pending} is damaged ({exc}): {_ADVICE}") from exc

    def last(self) -> dict[str, Any] | None:
        """The record of the restore that ended last on this host."""
        return read_record(self._last, "move it away")

    def begin(self, order: Order, wal: str) -> Pending:
        """Put the order down; one of the same id goes on where it was.

        Args:
            wal: where this host's WAL is.

        Raises:
            KubetuneError: another one is under way.
        """
        pending = self.read()
        if pending and pending.order.id != order.id:
            raise KubetuneError(
                f"restore {pending.order.id} (case {pending.order.case}) is under way on this host: finish it with the variables that it "
                "was begun with, or take it back with etcd_restore_case=cancel"
            )
        if pending:
            return pending
        last = self.last()
        if last and last["order"]["id"] == order.id and last["outcome"] == "done":
            # It has ended here, and not on every host: here nothing is done anew.
            return self._write(_pending(order, last))
        make_state_directory(self.directory.parent)
        make_state_directory(self.directory)
        self._clear()
        return self._write(Pending(order, wal=wal))

    def pending(self) -> Pending:
        """
        Raises:
            KubetuneError: none is under way.
        """
        found = self.read()
        if found is None:
            raise KubetuneError("no restore is under way on this host")
        return found

    def mark(self, step: str) -> None:
        pending = self.pending()
        if step not in pending.steps:
            self._write(replace(pending, steps=(*pending.steps, step)))

    def keep_snapshot(self, facts: Mapping[str, Any]) -> None:
        self._write(replace(self.pending(), snapshot=facts))

    def keep_before(self, paths: tuple[str, ...]) -> None:
        """Once: what is there later is this restore's own."""
        if self.pending().before is None:
            self._write(replace(self.pending(), before=paths))

    def keep_data(self, sha256: str) -> None:
        self._write(replace(self.pending(), data_sha256=sha256))

    def end(self, outcome: str, **result: Any) -> None:
        """The restore is over; what it was stays on record.

        Args:
            outcome: done, cancelled or abandoned.
        """
        pending = self.pending()
        record = {"schema": SCHEMA, **asdict(pending), "outcome": outcome, **result}
        write_atomically(self._last, json.dumps(record, indent=2).encode())
        self._pending.unlink()
        self._clear()
        sync_directory(self.directory)

    def _clear(self) -> None:
        """All of it holds every secret of the cluster."""
        for path in (self.snapshot, part_of(self.snapshot)):
            path.unlink(missing_ok=True)
        shutil.rmtree(copy_beside(self.snapshot), ignore_errors=True)

    def _write(self, pending: Pending) -> Pending:
        write_atomically(self._pending, json.dumps({"schema": SCHEMA, **asdict(pending)}, indent=2).encode())
        return pending


def part_of(snapshot: Path) -> Path:
    """What becomes the snapshot once it is whole."""
    return snapshot.with_name(snapshot.name + ".part")


def copy_beside(snapshot: Path) -> Path:
    """Where a survivor's data is copied to for its snapshot."""
    return snapshot.with_name("survivor")


def _pending(order: Order, data: Mapping[str, Any]) -> Pending:
    before = data.get("before")
    return Pending(order, tuple(data["steps"]), data["wal"], data["snapshot"], data["data_sha256"], None if before is None else tuple(before))
