# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshot that a new cluster is made of: a backup that holds, or what a surviving member had committed."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Iterator

from .._errors import KubetuneError
from .._etcd import scratch
from .._etcd.client import Tls
from .._maintenance import restoration, retention, verification
from .._maintenance.config import load
from .._node import images
from .._node.state import free_bytes, make_state_directory, sync_directory
from .._node_window.wal import NEXT_SEGMENTS, segments
from .data import Data, Member
from .store import copy_beside, part_of

#: Seconds for etcd to read a copy of the data, and for one piece of its snapshot.
_START, _PIECE = 600.0, 60.0
_NAME = "kubetune-recovery"


@contextmanager
def programs(image: str, directory: str) -> Iterator[Path]:
    """A directory with etcd and etcdutl.

    Args:
        image: etcd's, whose own programs they are; containerd has to have it.
        directory: where they are instead; empty for the image.
    """
    if directory:
        yield Path(directory)
        return
    with images.mounted(image) as root:
        yield Path(images.program(root, "etcdutl")).parent


def newest_backups(config_file: Path) -> list[dict[str, Any]]:
    """Of each member's backups in this host's directory that have their length the newest, and the one with the highest revision.

    They are two where a cluster began anew with no data, and was backed up.

    Raises:
        KubetuneError: the configuration, which knows where they are, is not there or damaged.
    """
    directory = Path(load(str(config_file)).backup.directory)
    newest: dict[str, dict[str, Any]] = {}
    highest: dict[str, dict[str, Any]] = {}
    for snapshot in retention.snapshots(directory, None, time.time()):
        sidecar = verification.recorded(snapshot)
        if sidecar:
            facts = {
                "path": str(snapshot.path), "taken_at": sidecar.taken_at, "member": sidecar.member, "revision": sidecar.revision,
                "cluster_id": sidecar.cluster_id, "bytes": sidecar.snapshot.bytes, "keys": sidecar.keys,
            }  # fmt: skip
            newest[sidecar.member] = facts
            if facts["revision"] >= highest.get(sidecar.member, facts)["revision"]:
                highest[sidecar.member] = facts
    return list({each["path"]: each for found in (highest, newest) for each in found.values()}.values())


def from_backup(path: Path, cluster_id: str, target: Path, programs_in: Path, config_file: Path) -> dict[str, Any]:
    """Check a backup, and put what is in it at ``target``; return what is known of it.

    Args:
        path: a snapshot of the maintenance, with its sidecar, or any other, such as one that ``etcdctl snapshot save`` wrote.
        cluster_id: which it has to be of; empty where that is not known.
        config_file: of the maintenance, for a backup that is encrypted.

    Raises:
        KubetuneError: with the reason why it is refused.
    """
    etcdutl = str(programs_in / "etcdutl")
    if not path.is_file():
        raise KubetuneError(f"{path}: there is no such file on this host")
    # One that lies elsewhere, as it came back from a copy, has its sidecar beside it all the same.
    snapshot = retention.of_path(path) or retention.Snapshot(path, 0.0)
    facts: dict[str, Any] = {"path": str(path), "taken_at": None, "cluster_id": "", "member": ""}
    try:
        if not snapshot.sidecar.exists():
            if snapshot.encryption != "none":
                raise KubetuneError(f"it is encrypted with {snapshot.encryption}, and its sidecar {snapshot.sidecar.name} is not beside it")
            checked, _content = verification.check_plain(etcdutl, path)
            _copy(path, target)
            facts.update(taken_at=_time(path.stat().st_mtime), revision=checked["revision"], keys=checked["totalKey"])
        else:
            config = load(str(config_file)) if snapshot.encryption != "none" else None
            _same_cluster(verification.read_sidecar(snapshot.sidecar), cluster_id)
            with verification.opened(snapshot, None, etcdutl, config) as (sidecar, plain, _by):
                _copy(plain, target)
            facts.update(
                taken_at=sidecar.taken_at, cluster_id=sidecar.cluster_id, member=sidecar.member, revision=sidecar.revision, keys=sidecar.keys
            )
    except KubetuneError as exc:
        raise KubetuneError(f"{path}: {exc}") from exc
    return {**facts, **content(target)}


def from_survivor(member: Member, target: Path, programs_in: Path) -> dict[str, Any]:
    """Take a snapshot of all that a member, which does not run, had committed. Only a copy of its data is touched.

    etcd drops what it has in its log behind the last commit that it knows of (``--force-new-cluster``): nobody was ever told that
    it was written, unless those who are lost told it.

    Raises:
        KubetuneError: the data is not there or damaged, no room, or etcd does not start on it.
    """
    source = Data(member, "")
    facts = source.facts()
    if not facts["there"]:
        raise KubetuneError(f"{member.data} holds no data of a member, with a database and a WAL: this host has not survived")
    needed = 2 * facts["database_bytes"] + facts["wal_bytes"] + NEXT_SEGMENTS
    make_state_directory(target.parent)
    if free_bytes(target.parent) < needed:
        raise KubetuneError(
            f"{target.parent} has {free_bytes(target.parent) >> 20} MiB free, and a copy of the data with a snapshot of it needs "
            f"{needed >> 20}: make room, then run again"
        )
    work = copy_beside(target)
    shutil.rmtree(work, ignore_errors=True)
    try:
        shutil.copytree(source.current / "snap", work / "member/snap")
        (work / "member/wal").mkdir()
        for each in segments(source.wal):
            shutil.copy2(each, work / "member/wal" / each.name)
        command = [str(programs_in / "etcd"), f"--data-dir={work}", "--force-new-cluster", *restoration.alone(_NAME).flags]
        tls = Tls(member.access.ca_file, member.access.cert_file, member.access.key_file)
        with scratch.serving(command, member.certificates, tls, _START) as client:
            status = client.status()
            keys = client.count(timeout=_PIECE)
            if not keys:
                raise KubetuneError(f"{member.data} holds no key at all: etcd was started anew on this host, and what it had before is gone")
            with _whole(target) as sink:
                client.snapshot(client.endpoints[0], sink, _PIECE)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "path": member.data, "taken_at": None, "cluster_id": f"{status.cluster_id:x}", "member": member.name, "revision": status.revision,
        "keys": keys, **content(target),
    }  # fmt: skip


def _same_cluster(sidecar: verification.Sidecar, cluster_id: str) -> None:
    if cluster_id and sidecar.cluster_id != cluster_id:
        raise KubetuneError(
            f"it is of cluster {sidecar.cluster_id} ({sidecar.member}), and one of {cluster_id} is wanted; where that cluster was made of this one "
            f"by a restore, take this restore back (etcd_restore_case=cancel), and begin anew with etcd_restore_cluster_id={sidecar.cluster_id}"
        )


def _copy(source: Path, target: Path) -> None:
    make_state_directory(target.parent)
    size = source.stat().st_size
    if free_bytes(target.parent) < size:
        raise KubetuneError(f"{target.parent} has {free_bytes(target.parent) >> 20} MiB free, and a copy needs {size >> 20}: make room")
    with open(source, "rb") as stream, _whole(target) as sink:
        shutil.copyfileobj(stream, sink, 1 << 20)


@contextmanager
def _whole(target: Path) -> Iterator[IO[bytes]]:
    """What is written is at ``target``, private and on the disk, once the block has ended well."""
    part = part_of(target)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as sink:
        yield sink
        sink.flush()
        os.fsync(sink.fileno())
    os.replace(part, target)
    sync_directory(target.parent)


def content(path: Path) -> dict[str, Any]:
    """Its length, and its SHA-256."""
    content = verification.hash_file(path).content
    return {"bytes": content.bytes, "sha256": content.sha256}


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
