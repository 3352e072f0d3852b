# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where etcd's write-ahead log lives, in the terms of its manifest.

A disk of its own is mounted below the data directory, so that the volume which carries the data carries it too, and the
WAL is a sub-directory there: etcd renames a new WAL into place, which a mount point does not allow.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from .plan import Memory, Wish

FLAG = "--wal-dir"
#: Below the data directory: the mount point, and the WAL in it.
MOUNT_POINT, DIRECTORY = "wal-disk", "wal-disk/wal"
PLACES = ("as_it_is", "own_disk", "data_directory")


def data_directory(flags: Mapping[str, Sequence[str]]) -> str:
    """The container's path; etcd's default is NAME.etcd in its working directory, which no static pod relies on."""
    return (flags.get("data-dir") or [f"/{(flags.get('name') or ['default'])[-1]}.etcd"])[-1].rstrip("/")


def directory(flags: Mapping[str, Sequence[str]]) -> str:
    """The container's path of the WAL of an etcd with these flags (server/config/config.go, WALDir, etcd 3.6)."""
    given = (flags.get("wal-dir") or [""])[-1].rstrip("/")
    return given or f"{data_directory(flags)}/member/wal"


def wish(place: str, flags: Mapping[str, Sequence[str]], memory: Memory) -> dict[str, Wish]:
    """What a place of the WAL asks of ``--wal-dir``.

    Args:
        place: one of `PLACES`; ``data_directory`` is only the way back from ``own_disk``.
        flags: of the manifest as it is.
    """
    ours: Mapping[str, Any] | None = memory.settings.get(FLAG)
    if place == "own_disk":
        return {FLAG: Wish([f"{data_directory(flags)}/{DIRECTORY}"], explicit=True)}
    if ours is None:
        return {}
    return {FLAG: Wish(None if place == "data_directory" else list(ours["applied"]), explicit=True)}
