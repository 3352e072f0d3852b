# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The write-ahead log of a member that stands still is taken to another directory.

There is one WAL at any time, whatever is cut off where: it is copied and compared before it is renamed into place, and
what it was copied from is renamed away before etcd may start again. Where a WAL lives elsewhere below the data
directory, the default place (``member/wal``) is a symbolic link to it: an etcd that was started without ``--wal-dir``,
as after an upgrade which lost the flag, finds the same WAL, and creates none when the disk is missing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

from .._errors import KubetuneError
from .._node.state import free_bytes, sync_directory
from .order import Wal

#: Bytes of the segment that etcd writes next and of the one that it prepares
#: (server/storage/wal/wal.go, SegmentSizeBytes, etcd 3.5 to 3.7).
NEXT_SEGMENTS = 2 * 64 * 1000 * 1000
#: Bytes which etcd needs on top of a copy: these, and as much again.
ROOM = 2 * NEXT_SEGMENTS
_OLD = ".kubetune-old-"
_NEVER_ON_NONE = "bring it back before etcd is started: without it a member forgets what it has voted for and acknowledged"
_CHUNK = 1 << 20
#: Seconds between two words on how far the copy is.
_SAY_EVERY = 5.0


def segments(directory: Path) -> list[Path]:
    """The WAL's files in order; empty where there is no WAL."""
    return sorted(directory.glob("*.wal"))


def replayed_bytes(directory: Path, data: Path) -> int:
    """Of the segments that a starting etcd reads, all of them into memory: those with entries behind its last snapshot.

    Their names end with the index of their first entry (server/storage/wal/wal.go, Open and ReadAll), those of snapshots with the
    one of their last (server/etcdserver/api/snap/snapshotter.go, etcd 3.5 to 3.7).

    Args:
        data: etcd's data directory.
    """
    snapshots = [_index(each) for each in (data / "member/snap").glob("*-*.snap")]
    found = segments(directory)
    behind = [number for number, each in enumerate(found) if _index(each) <= max(snapshots, default=0)]
    return sum(each.stat().st_size for each in found[max(behind, default=0) :])


def _index(path: Path) -> int:
    return int(path.stem.rpartition("-")[2], 16)


@dataclass(frozen=True)
class Relocation:
    """One WAL's way from where it is to where it shall be.

    Attributes:
        source, target: directories on the host, neither of which is a symbolic link while it holds the WAL.
        wal: the order's word on the member's paths.
        window: the window's id, which names what is set aside.
    """

    source: Path
    target: Path
    wal: Wal
    window: str

    @property
    def reverse(self) -> Relocation:
        return Relocation(self.target, self.source, self.wal, self.window)

    @property
    def _aside(self) -> Path:
        return self.source.with_name(f"{self.source.name}{_OLD}{self.window}")

    @property
    def _part(self) -> Path:
        return self.target.with_name(f".{self.target.name}.kubetune-part")

    def obstacles(self) -> list[str]:
        """Why it cannot be moved; asked while etcd still runs."""
        size = sum(each.stat().st_size for each in segments(self.source))
        found = []
        if not size:
            found.append(f"{self.source} holds no WAL")
        if not self.target.parent.is_dir():
            return [*found, f"{self.target.parent}, where etcd's WAL shall live, is not there"]
        if _is_directory(self.target):
            found.append(
                f"{self.target}, where etcd's WAL shall live, is there already, and is not the WAL that etcd uses: look what it "
                "is, and move it away"
            )
        free = free_bytes(self.target.parent)
        if free < size + ROOM:
            found.append(
                f"{self.target.parent} has {free >> 20} MiB free, and the WAL needs {size + ROOM >> 20}: make room"
            )
        return found

    def move(self, say: Callable[[str], None]) -> str:
        """Do it, or what is left of it; etcd must not run. Return what was moved, for people.

        Raises:
            KubetuneError, OSError: it could not be copied, or the copy differs; the WAL is still at its source.
        """
        if _is_directory(self.source):
            # Until the source is gone nothing at the target was ever started on.
            self._clear_target()
            copied = self._copy(say)
            os.rename(self._part, self.target)
            sync_directory(self.target.parent)
            os.rename(self.source, self._aside)
            sync_directory(self.source.parent)
        else:
            if not segments(self.target):
                raise KubetuneError(f"neither {self.source} nor {self.target} holds a WAL: its disk is not there any more; {_NEVER_ON_NONE}")
            copied = "the copy that was made before"
        self._link(self.target)
        return f"{copied}: {self.source} -> {self.target}"

    def take_back(self) -> None:
        """Undo `move`, however far it came, while etcd has not been started on the target yet."""
        if self._aside.exists():
            if self.source.is_symlink():
                self.source.unlink()
            os.rename(self._aside, self.source)
            sync_directory(self.source.parent)
        if not segments(self.source):
            raise KubetuneError(f"{self.source} holds no WAL any more: what is in {self.target} is left alone")
        self._clear_target()
        self._link(self.source)

    def discard_old(self) -> None:
        """Remove every WAL that was set aside: once etcd has started on another one, it must never be used again."""
        for directory in {self.source.parent, self.target.parent}:
            for old in directory.glob(f"*{_OLD}*"):
                shutil.rmtree(old)

    def _clear_target(self) -> None:
        _remove(self._part)
        _remove(self.target)

    def _copy(self, say: Callable[[str], None]) -> str:
        """Copy the segments, and read them back from the disk. What etcd has only prepared (\\*.tmp) it makes anew."""
        source, part = self.source, self._part
        files = segments(source)
        total = sum(each.stat().st_size for each in files)
        part.mkdir(mode=0o700)
        _same_owner_and_mode(source, part)
        done, said = 0, time.monotonic()
        for each in files:
            written = hashlib.sha256()
            copy = part / each.name
            with open(each, "rb") as reader, open(copy, "xb") as writer:
                for chunk in _chunks(reader.fileno()):
                    written.update(chunk)
                    writer.write(chunk)
                    done += len(chunk)
                    if time.monotonic() - said > _SAY_EVERY:
                        said = time.monotonic()
                        say(f"{done >> 20} of {total >> 20} MiB are copied")
                writer.flush()
                os.fsync(writer.fileno())
            _same_owner_and_mode(each, copy)
            if _read_back(copy) != written.digest():
                raise KubetuneError(f"{copy} reads back other than it was written: the disk is not to be trusted")
        sync_directory(part)
        return f"{len(files)} segments, {total >> 20} MiB"

    def _link(self, place: Path) -> None:
        """Let the default place lead to where the WAL is now, as far as a container with the data directory can follow."""
        default = Path(self.wal.default)
        if place == default or not place.is_relative_to(self.wal.data) or _is_directory(default):
            return
        _remove(default)
        os.symlink(os.path.relpath(place, default.parent), default)
        sync_directory(default.parent)


def relocation(wal: Wal, window: str) -> Relocation | None:
    """What has to be moved so that the WAL is where ``wal.new`` says; None when it is there, or there is none yet.

    ``wal.old`` may be the link of an earlier move.
    """
    source, target = Path(os.path.realpath(wal.old)), Path(wal.new)
    if not wal.old or source == target or not segments(source):
        return None
    return Relocation(source, target, wal, window)


def make_sure_of(directory: str) -> None:
    """An etcd that was a member before makes a new WAL where it finds none, and serves.

    Raises:
        KubetuneError: there is none.
    """
    if not segments(Path(directory)):
        raise KubetuneError(f"{directory} holds no WAL, and etcd is not started without: its disk is not there any more; {_NEVER_ON_NONE}")


def missing(wal: Wal) -> str:
    """Why etcd would not find its WAL if it were started now; empty when it would."""
    if not wal.old or segments(Path(wal.old)):
        return ""
    return (
        f"etcd runs, and yet {wal.old} holds no WAL that a restarted etcd could use: the file system with it is not mounted on "
        "this host any more (findmnt, systemctl list-units --type=mount --all); mount it, then run again"
    )


def unmounted(wal: Wal) -> str:
    """Why the WAL's own disk cannot be used; empty when it can, or none is needed."""
    if not wal.mount or os.path.ismount(wal.mount):
        return ""
    return f"{wal.mount}, the mount point of the WAL's own disk, has nothing mounted: the role etcd_wal prepares and mounts it"


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    if _is_directory(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _same_owner_and_mode(source: Path, copy: Path) -> None:
    facts = source.stat()
    os.chown(copy, facts.st_uid, facts.st_gid)
    os.chmod(copy, facts.st_mode & 0o7777)


def _read_back(path: Path) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        # What is in memory proves nothing: drop it, so that the disk is read.
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for chunk in _chunks(stream.fileno()):
            digest.update(chunk)
    return digest.digest()


def _chunks(descriptor: int) -> Iterator[bytes]:
    while True:
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            return
        yield chunk
