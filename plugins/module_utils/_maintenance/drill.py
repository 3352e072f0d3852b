# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore drill: the newest backup is restored into a scratch etcd on loopback, counted, compared, timed, thrown away.

It proves that the file is the one that was written, and that it restores, with the tools of this host, to an etcd that serves as
many keys, up to the same revision, as were in the backup when it was taken. The scratch etcd is a cluster of its own and asks for the same
client certificates as the member, so that nobody on the host reads secrets from it.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping

from .._errors import KubetuneError
from .._etcd import scratch
from .._etcd.client import Client, EtcdError, Tls
from .._node.processes import alive, find
from .._node.state import free_bytes
from .._node_window.wal import NEXT_SEGMENTS
from . import restoration, tools, verification
from .backup import own_member
from .context import Context
from .journal import megabytes
from .retention import Snapshot, snapshots
from .verification import Sidecar

STEP = "drill"

_NAME = "kubetune-drill"
_POLL = 0.2


def run(ctx: Context) -> None:
    """
    Raises:
        KubetuneError, OSError: with the reason why the newest backup is no good, or could not be tried.
    """
    snapshot = newest(ctx)
    if ctx.dry_run:
        ctx.journal.say(STEP, "planned", f"would restore {snapshot.path} into {ctx.config.drill.directory}", path=snapshot.path)
        return
    started = time.monotonic()
    try:
        cluster_id = verification.this_cluster(ctx)
        with verification.opened(snapshot, cluster_id, tools.tool(ctx, "etcdutl"), ctx.config) as (sidecar, path, _by):
            with _scratch(ctx, sidecar) as directory:
                facts = _restore(ctx, path, sidecar, directory)
    except KubetuneError as exc:
        raise KubetuneError(f"{snapshot.path}: {exc}") from exc
    ctx.journal.say(
        STEP,
        "done",
        f"{snapshot.path} restores to {facts['keys']} keys at revision {facts['revision']} in "
        f"{facts['restore_seconds']:.1f} s, and serves after {facts['start_seconds']:.1f} s more",
        path=snapshot.path,
        taken_at=snapshot.taken_at,
        bytes=sidecar.snapshot.bytes,
        **facts,
        seconds=time.monotonic() - started,
    )


def newest(ctx: Context) -> Snapshot:
    """This member's newest backup; any member's where etcd is not there to tell who we are."""
    directory = Path(ctx.config.backup.directory)
    try:
        member: str | None = own_member(ctx, None)[1]
    except EtcdError:
        member = None
    known = snapshots(directory, member, ctx.clock())
    if not known:
        raise KubetuneError(f"there is no backup{f' of {member}' if member else ''} in {directory}")
    return known[-1]


@contextmanager
def _scratch(ctx: Context, sidecar: Sidecar) -> Iterator[Path]:
    """A directory of its own; what a killed drill left there, a running etcd too, goes first."""
    parent = Path(ctx.config.drill.directory)
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = parent / "scratch"
    _throw_away(directory)
    needed, free = sidecar.snapshot.bytes + NEXT_SEGMENTS + ctx.config.backup.min_free_bytes, free_bytes(parent)
    if free < needed:
        raise KubetuneError(
            f"{parent} has {megabytes(free)} free, and the drill needs {megabytes(needed)}: give it space, or set drill.directory"
        )
    directory.mkdir(mode=0o700)
    try:
        yield directory
    finally:
        _throw_away(directory)


def _throw_away(directory: Path) -> None:
    # Only ours has its data there; it outlives a program that was killed by hand.
    for process in find("etcd", {"data-dir": str(directory / "data")}):
        os.kill(process.pid, signal.SIGKILL)
        while alive(process):
            time.sleep(_POLL)
    if directory.exists():
        shutil.rmtree(directory)


def _restore(ctx: Context, path: Path, sidecar: Sidecar, directory: Path) -> dict[str, Any]:
    etcdutl, etcd = tools.needed(ctx, "etcdutl"), tools.needed(ctx, "etcd")
    data = directory / "data"
    identity = restoration.alone(_NAME)
    started = time.monotonic()
    restoration.restore(etcdutl, path, data, identity)
    restored = time.monotonic()
    tls = Tls(ctx.config.ca_file, ctx.config.cert_file, ctx.config.key_file)
    command = [etcd, *identity.flags, f"--data-dir={data}"]
    with scratch.serving(command, _certificates(ctx), tls, ctx.config.drill.start_timeout_seconds) as client:
        serving = time.monotonic()
        found = _compared(sidecar, client)
    return {**found, "restore_seconds": restored - started, "start_seconds": serving - restored}


def _certificates(ctx: Context) -> Mapping[str, str]:
    """Those that the member serves with: they are made for 127.0.0.1, and the client knows their CA."""
    flags = tools.member_flags(ctx)
    names = ("cert-file", "key-file", "trusted-ca-file")
    if all(flags.get(name) for name in names):
        return {name: flags[name][-1] for name in names}
    # The member does not run: the client's own serve where they may (kubeadm's may not).
    return {"cert-file": ctx.config.cert_file, "key-file": ctx.config.key_file, "trusted-ca-file": ctx.config.ca_file}


def _compared(sidecar: Sidecar, client: Client) -> dict[str, int]:
    # That the content is the one of then is known by its checksum, which etcdutl has proved once more to restore it. `etcdutl
    # hashkv` would be one more witness, and panics on keys with a lease (3.6.16: no lessor to attach lease).
    revision = client.revision()
    if revision < sidecar.revision:
        raise KubetuneError(f"the restored etcd is at revision {revision}, and the backup was at {sidecar.revision}")
    # As of the backup: a key with a lease, such as an API server's own record, expires here as it does anywhere.
    keys = client.count(revision=sidecar.revision)
    # Before etcd 3.6 etcdutl counts the records of all buckets, not the keys.
    if not sidecar.storage_version:
        if not keys:
            raise KubetuneError("the restored etcd has no key at all")
    # A restore with --bump-revision leaves a record without a key (etcdutl 3.6, snapshot/v3_snapshot.go): etcdutl counts it, etcd does not.
    elif keys not in (sidecar.keys, sidecar.keys - 1):
        raise KubetuneError(f"the restored etcd has {keys} keys, and the backup had {sidecar.keys}")
    return {"keys": keys, "revision": revision}
