# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order for one node window: all that the unit on the host needs, as plain data in one file."""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass, field
from typing import Any, Mapping

from .._node.state import SCHEMA

#: How many finished windows a host keeps unless it is told otherwise.
KEEP = 20


def new_id() -> str:
    """Of a window; in the order of time."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Part:
    """One static pod in the window.

    Attributes:
        old: the text of the manifest now; None where there is none.
        new: the text that it shall have; None removes it.
        argv: the exact command line of the new process.
        old_argv: that of the process which runs from ``old``.
        own_flags: flag -> value which tell this process from others of the same program.
        memory: what to remember once it is proved; None forgets.
        old_memory: what was remembered before; None for nothing.
        grace: seconds that the old pod has to leave (terminationGracePeriodSeconds; Kubernetes' default is 30).
        restart: it goes out and comes in again, whatever its texts are.
    """

    old: str | None
    new: str | None
    argv: tuple[str, ...]
    old_argv: tuple[str, ...]
    own_flags: Mapping[str, str]
    memory: Mapping[str, Any] | None
    old_memory: Mapping[str, Any] | None = None
    grace: int = 30
    restart: bool = False

    @property
    def changes(self) -> bool:
        return self.old != self.new or self.restart


@dataclass(frozen=True)
class Wal:
    """Where etcd's write-ahead log lives, as directories on the host.

    Attributes:
        old: of the process that runs from the old manifest; empty before the first start.
        new: of the process that will run from the new one.
        data: etcd's data directory.
        mount: mount point which has to be mounted for ``new``; empty where there is none.
    """

    old: str
    new: str
    data: str
    mount: str = ""

    @property
    def default(self) -> str:
        """Where etcd looks without ``--wal-dir`` (server/config/config.go, WALDir)."""
        return f"{self.data}/member/wal"


@dataclass(frozen=True)
class Offline:
    """A defragmentation of etcd's database while etcd is out.

    Attributes:
        etcdutl: path of the program, of etcd's own version.
        data: etcd's data directory.
        timeout_seconds: then the database stays as it was.
    """

    etcdutl: str
    data: str
    timeout_seconds: float


@dataclass(frozen=True)
class Order:
    """
    Attributes:
        id: unique; names the journal.
        run_id: the playbook run; the first window of a run takes the snapshot, a failed one stops the others.
        host: for locks and messages.
        etcd, kube_apiserver: the parts; None where this host has no such manifest and gets none.
        etcd_access: endpoints and host paths of CA, certificate and key (`_node.access.EtcdAccess`).
        api_server: the flags which say where the API server answers, with host paths.
        wal: None where no etcd is changed.
        bootstraps: there is no cluster yet; nothing can be asked before etcd's first start.
        allow_downtime: consent to the downtime of a cluster of one.
        watch_seconds: how long the new processes have to stay before the window counts as done.
        keep: how many finished windows the host keeps.
        defragmentation: None where the database stays as it is.
    """

    id: str
    run_id: str
    host: str
    manifests_directory: str
    etcd: Part | None
    kube_apiserver: Part | None
    etcd_access: Mapping[str, Any]
    member: str
    api_server: Mapping[str, list[str]] = field(default_factory=dict)
    wal: Wal | None = None
    bootstraps: bool = False
    allow_downtime: bool = False
    watch_seconds: float = 0
    keep: int = KEEP
    defragmentation: Offline | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Order:
        known = {key: value for key, value in data.items() if key != "schema"}
        for name in ("etcd", "kube_apiserver"):
            part = known[name]
            known[name] = Part(**{**part, "argv": tuple(part["argv"]), "old_argv": tuple(part["old_argv"])}) if part else None
        known["wal"] = Wal(**known["wal"]) if known.get("wal") else None
        known["defragmentation"] = Offline(**known["defragmentation"]) if known.get("defragmentation") else None
        return cls(**known)
