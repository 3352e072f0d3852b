# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A member's data on its host: what is there, the restored data in its place, the old one set aside.

Old data is never deleted: it is renamed, on its own file system, to a name with the restore's id.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Mapping, Sequence

from .._errors import KubetuneError
from .._maintenance.restoration import Identity, restore
from .._node.access import EtcdAccess
from .._node.state import free_bytes, sync_directory
from .._node_window.wal import NEXT_SEGMENTS, segments
from .store import Order

ASIDE = ".kubetune-aside-"
#: What was made of a snapshot, and given up before etcd ran on it.
DROPPED = ".kubetune-dropped-"
_NEW = ".kubetune-restored"


@dataclass(frozen=True)
class Member:
    """A host's etcd by its manifest, each path as the host sees it.

    Attributes:
        data: directory of its data. wal: directory of its WAL, which may be the one in ``data``.
        access: of `EtcdAccess`; its own endpoint comes first.
        manifests: the kubelet's directory.
    """

    name: str
    image: str
    data: str
    wal: str
    peer_urls: tuple[str, ...]
    access: EtcdAccess
    manifests: str

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Member:
        own = {each.name: data[each.name] for each in fields(cls)}
        return cls(**{**own, "peer_urls": tuple(data["peer_urls"]), "access": EtcdAccess.from_dict(data["access"])})

    @property
    def certificates(self) -> dict[str, str]:
        return {"cert-file": self.access.cert_file, "key-file": self.access.key_file, "trusted-ca-file": self.access.ca_file}


class Data:
    """
    Args:
        member: whose.
        restore_id: it is part of the names of what is set aside.
        wal: where the WAL was when the restore was begun; empty for where it is now.
    """

    def __init__(self, member: Member, restore_id: str, wal: str = "") -> None:
        self.member = member
        self.root = Path(member.data)
        self.current = self.root / "member"
        self.wal = Path(wal or os.path.realpath(member.wal))
        self._suffix, self._dropped = f"{ASIDE}{restore_id}", f"{DROPPED}{restore_id}"
        self._new = self.root / _NEW
        self._new_wal = self.wal.with_name(f".{self.wal.name}{_NEW}") if self._own_wal else None

    @property
    def _own_wal(self) -> bool:
        """Whether the WAL lives elsewhere than below ``member``."""
        return self.current not in self.wal.parents and Path(os.path.realpath(self.current)) not in self.wal.parents

    def facts(self) -> dict[str, Any]:
        """``there``: a database and a WAL; sizes and free space in bytes."""
        database = self.current / "snap/db"
        size = database.stat().st_size if database.exists() else 0
        log = segments(self.wal)
        return {
            "there": bool(size and log),
            "database_bytes": size,
            "wal_bytes": sum(each.stat().st_size for each in log),
            "free_bytes": free_bytes(_existing(self.root)),
        }

    def state(self) -> str:
        """Another text once etcd has run on the data: it writes its log first."""
        return ",".join(f"{each.name}:{each.stat().st_size}:{each.stat().st_mtime_ns}" for each in segments(self.wal))

    def in_use(self) -> bool:
        """Whether a process has the database open: etcd holds its lock for as long as it runs (bbolt, db.go, flock)."""
        try:
            with open(self.current / "snap/db", "rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def asides(self) -> list[str]:
        """What this restore has set aside."""
        return [str(path) for path in (self._aside(self.current), self._aside(self.wal)) if path.exists()]

    def present(self) -> tuple[str, ...]:
        """What stands where the data belongs."""
        return tuple(str(path) for path in self._paths if os.path.lexists(path))

    @property
    def _paths(self) -> tuple[Path, ...]:
        return (self.wal, self.current) if self._own_wal else (self.current,)

    def put_restored(self, snapshot: Path, etcdutl: str, order: Order) -> None:
        """Restore a snapshot as this member of the new cluster, then let it take the place of what is there. etcd must not run.

        Raises:
            KubetuneError: no room, or etcdutl refuses it; what is there is untouched then.
        """
        self._check_room(snapshot.stat().st_size)
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in (self._new, self._new_wal):
            if part and part.exists():
                shutil.rmtree(part)  # of a try that was cut off
        identity = Identity(self.member.name, self.member.peer_urls, order.initial_cluster, order.token)
        restore(etcdutl, snapshot, self._new, identity, self._new_wal, order.bump_revision)
        self._same_owner()
        self.set_aside()
        if self._new_wal:
            os.rename(self._new_wal, self.wal)
            sync_directory(self.wal.parent)
        os.rename(self._new / "member", self.current)
        self._link_wal()
        shutil.rmtree(self._new)
        sync_directory(self.root)

    def _link_wal(self) -> None:
        """Who starts etcd without --wal-dir finds the WAL: by the link that was there, or by one as a move of the WAL makes it."""
        default, before = self.current / "wal", self._aside(self.current) / "wal"
        if self._new_wal is None or os.path.lexists(default):
            return
        if before.is_symlink():
            os.symlink(os.readlink(before), default)
        elif self.wal.is_relative_to(self.root):
            os.symlink(os.path.relpath(self.wal, default.parent), default)

    def set_aside(self) -> None:
        """Rename what is there. What stands in its place when that was done before is this restore's own, and goes."""
        for path in self._paths:
            aside = self._aside(path)
            if not os.path.lexists(path):
                continue
            if aside.exists():
                _remove(path)
            else:
                os.rename(path, aside)
            sync_directory(path.parent)

    def take_back(self, before: Sequence[str] | None) -> None:
        """Undo all of it; etcd must not have been started on the new data, which is set aside in its turn.

        Args:
            before: of `present`, before this restore touched anything; None where it did not. What was not there then is this restore's.
        """
        for part in (self._new, self._new_wal):
            if part and part.exists():
                shutil.rmtree(part)
        for path in self._paths:
            aside = self._aside(path)
            if not aside.exists() and (before is None or str(path) in before):
                continue
            if os.path.lexists(path):
                dropped = path.with_name(path.name + self._dropped)
                _remove(dropped)
                os.rename(path, dropped)
            if aside.exists():
                os.rename(aside, path)
            if path.parent.exists():
                sync_directory(path.parent)

    def _aside(self, path: Path) -> Path:
        return path.with_name(path.name + self._suffix)

    def _check_room(self, snapshot_bytes: int) -> None:
        wal_here = NEXT_SEGMENTS if self._new_wal is None else 0
        for place, needed in ((self.root, snapshot_bytes + wal_here), (self.wal.parent, NEXT_SEGMENTS if self._new_wal else 0)):
            free = free_bytes(_existing(place))
            if needed > free:
                raise KubetuneError(
                    f"{place} has {free >> 20} MiB free, and the restored data needs {needed >> 20} beside the old one, which is kept: "
                    "make room, then run again"
                )

    def _same_owner(self) -> None:
        """That of the data directory: an etcd that does not run as root has to be able to write."""
        owner = self.root.stat()
        for top in (self._new, self._new_wal):
            for path in [top, *top.rglob("*")] if top else []:
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
