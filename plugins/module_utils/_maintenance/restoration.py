# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A snapshot becomes the data directory of a member: for the drill, for the playbook restore, and by hand."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

from .._commands import ENVIRONMENT, output
from .._errors import KubetuneError
from .._node.state import free_bytes
from .._node_window.wal import NEXT_SEGMENTS
from . import encryption, retention, tools, verification
from .context import Context

STEP = "restore"
#: etcd's own advice for Kubernetes: about a week at 1500 writes a second (etcd's documentation, operations guide, recovery, 3.6).
BUMP = 1_000_000_000
#: Seconds for etcdutl to copy the database and to write its WAL.
_TIMEOUT = 1800


@dataclass(frozen=True)
class Identity:
    """Who the member will be.

    Attributes:
        initial_cluster: ``NAME=PEER_URL``, comma-separated, of all members that are made of the same snapshot.
        token: of the new cluster; members of another one are not let in.
    """

    name: str
    peer_urls: Sequence[str]
    initial_cluster: str
    token: str

    @property
    def flags(self) -> list[str]:
        """As etcd and etcdutl take them."""
        return [
            f"--name={self.name}",
            f"--initial-cluster={self.initial_cluster}",
            f"--initial-cluster-token={self.token}",
            f"--initial-advertise-peer-urls={','.join(self.peer_urls)}",
        ]


def alone(name: str) -> Identity:
    """Of a cluster of one, which calls no peer."""
    peer = "https://127.0.0.1:1"
    return Identity(name, [peer], f"{name}={peer}", name)


def restore(etcdutl: str, snapshot: Path, data: Path, identity: Identity, wal: Path | None = None, bump_revision: int = 0) -> None:
    """
    Args:
        data: has to be empty or not there. wal: not there; None for the one below ``data``.
        bump_revision: by how much the revision goes up; what was before counts as compacted then, so that watches and caches which
            know a later revision than the snapshot's begin anew instead of believing that they are up to date.

    Raises:
        KubetuneError: etcdutl refuses it.
    """
    command = [etcdutl, "snapshot", "restore", str(snapshot), f"--data-dir={data}", *identity.flags]
    command += [f"--wal-dir={wal}"] if wal else []
    command += [f"--bump-revision={bump_revision}", "--mark-compacted"] if bump_revision else []
    output(command, environment=ENVIRONMENT, timeout=_TIMEOUT)


def by_hand(ctx: Context, path: Path, into: Path, identity: Identity, bump_revision: int) -> int:
    """Check a snapshot, and make a member's data of it in a directory of its own; nothing that runs is touched.

    Returns:
        The exit status.
    """
    try:
        if into.exists() and (not into.is_dir() or any(into.iterdir())):
            raise KubetuneError(f"{into} is there already, and not empty: nothing is put into it")
        parent = next(each for each in into.parents if each.exists())
        free, needed = free_bytes(parent), path.stat().st_size + NEXT_SEGMENTS
        if free < needed:
            raise KubetuneError(f"{parent} has {free >> 20} MiB free, and {needed >> 20} are needed: make room")
        snapshot = retention.of_path(path) or retention.Snapshot(path, 0.0)
        with _checked(ctx, snapshot) as plain:
            restore(tools.needed(ctx, "etcdutl"), plain, into, identity, bump_revision=bump_revision)
    except (KubetuneError, OSError) as exc:
        ctx.journal.say(STEP, "failed", f"{path}: {exc}", path=path)
        return ctx.journal.exit_status
    ctx.journal.say(
        STEP, "done", f"{into} is the data of {identity.name}, of a cluster with the token {identity.token}; its owner has to be etcd's",
        path=path, into=into, member=identity.name,
    )  # fmt: skip
    return ctx.journal.exit_status


@contextmanager
def _checked(ctx: Context, snapshot: retention.Snapshot) -> Iterator[Path]:
    """What is in it, once it holds: by its sidecar, or by itself where it has none."""
    etcdutl = tools.tool(ctx, "etcdutl")
    if snapshot.sidecar.exists():
        with verification.opened(snapshot, None, etcdutl, ctx.config) as (_sidecar, plain, _by):
            yield plain
    else:
        # gpg compresses: then it is somewhat more.
        with encryption.plain(ctx.config, snapshot.path, snapshot.encryption, snapshot.path.stat().st_size) as plain:
            verification.check_plain(etcdutl, plain)
            yield plain
