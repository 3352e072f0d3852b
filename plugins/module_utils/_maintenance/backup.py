# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step 5: a verified snapshot of this host's own member, and the old ones removed by policy.

    DIRECTORY/20261124/etcd-snapshot-023012-cp1.db          0600, times in UTC
    DIRECTORY/20261124/etcd-snapshot-023012-cp1.db.sha256   for sha256sum -c

A file under its final name is complete and verified: it is written as ``.part``, checked, synced and renamed. The member's
name is in it so that several members may share a directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, Sequence

from .._errors import KubetuneError
from .._etcd.client import EtcdError, Status
from .._etcd.cluster import MAX_LAG_ENTRIES, ClusterView
from .._etcd.lock import LockHeld
from .._node.processes import find, of_static_pod
from .._node.state import free_bytes, sync_directory, write_atomically
from .config import DAY, Config
from .context import Context
from .journal import megabytes

STEP = "backup"

_DATE, _TIME = "%Y%m%d", "%H%M%S"
#: Everything that this step may leave in its directory.
_DAY = "[0-9]" * 8
PATTERNS = tuple(f"{_DAY}/etcd-snapshot-{'[0-9]' * 6}-*.db{end}" for end in ("", ".sha256", ".part"))
#: Seconds for etcdutl to walk the whole file.
_CHECK_TIMEOUT = 1800


@dataclass(frozen=True)
class Snapshot:
    path: Path
    taken_at: float


def run(ctx: Context, view: ClusterView | None) -> bool:
    """True when there is a new snapshot; raises KubetuneError or OSError where there is none though there should be."""
    if not ctx.config.backup.enabled:
        ctx.journal.say(STEP, "left_out", "switched off by the configuration", reason="off")
        return False
    status, member = own_member(ctx, view)
    _check_space(ctx.config, status)
    if ctx.dry_run:
        ctx.journal.say(STEP, "planned", f"would write a snapshot of about {megabytes(status.db_size)}", member=member)
        return False
    remove_leftovers(ctx.config, member)
    with ExitStack() as stack:
        _take_turn(ctx, stack)
        _take(ctx, status, member)
    _prune(ctx, member)
    return True


def file_name(member: str) -> str:
    """The member's name as it appears in file names."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", member) or "member"


def snapshots(directory: Path, member: str) -> list[Snapshot]:
    """This member's complete snapshots, oldest first."""
    found = []
    for path in directory.glob(f"{_DAY}/etcd-snapshot-*-{file_name(member)}.db"):
        stamp = path.name[len("etcd-snapshot-") :][:6]
        if path.name != f"etcd-snapshot-{stamp}-{file_name(member)}.db":
            continue  # of a member whose name ends like ours
        try:
            taken = datetime.strptime(path.parent.name + stamp, _DATE + _TIME).replace(tzinfo=timezone.utc)
        except ValueError:
            continue
        found.append(Snapshot(path, taken.timestamp()))
    return sorted(found, key=lambda each: (each.taken_at, each.path.name))


def expired(known: Sequence[Snapshot], now: float, keep: int, max_age_days: int) -> list[Snapshot]:
    """Beyond the count or too old; the newest never is.

    Args:
        known: oldest first.
        now: seconds since 1970.
    """
    counted_out = known[:-keep]
    return [each for each in known[:-1] if each in counted_out or now - each.taken_at > max_age_days * DAY]


def remove_leftovers(config: Config, member: str) -> list[Path]:
    """What a killed run of this host left: unfinished files, and checksums without a snapshot."""
    removed = []
    name = file_name(member)
    for path in Path(config.backup.directory).glob(f"{_DAY}/etcd-snapshot-*-{name}.db*"):
        orphan = path.name.endswith(".sha256") and not path.with_suffix("").exists()
        if orphan or path.name.endswith((".part", ".kubetune-tmp")):
            path.unlink()
            removed.append(path)
    return removed


def check_file(path: Path) -> None:
    """Look at the frame of a snapshot: whole pages, a valid meta page, the trailer (bbolt's page.go and db.go).

    Raises:
        KubetuneError: it is no complete bbolt database with a checksum behind it.
    """
    size = path.stat().st_size - hashlib.sha256().digest_size
    with open(path, "rb") as stream:
        # Two meta pages stand at the front; the page size is in them, so the second is looked for at each usual size.
        front = stream.read(2 * 65536 + 80)
    metas = [meta for meta in (_meta(front, offset) for offset in (0, 4096, 8192, 16384, 32768, 65536)) if meta]
    if not metas:
        raise KubetuneError(f"{path} has no valid meta page: it is not a bbolt database")
    page_size, high_water, _transaction = max(metas, key=lambda meta: meta[2])
    if size <= 0 or size % page_size or size < high_water * page_size:
        raise KubetuneError(f"{path} has {size} bytes, and {high_water} pages of {page_size} are needed: it was cut")


def _meta(data: bytes, offset: int) -> tuple[int, int, int] | None:
    """(page size, number of pages, transaction) of the meta page at an offset; None when there is none or it is torn."""
    if len(data) < offset + 80 or struct.unpack_from("<H", data, offset + 8)[0] != 0x04:
        return None
    body = data[offset + 16 : offset + 72]
    magic, version, page_size, _flags, _root, _sequence, _freelist, high_water, transaction = struct.unpack(
        "<IIIIQQQQQ", body
    )
    (checksum,) = struct.unpack_from("<Q", data, offset + 72)
    if magic != 0xED0CDAED or version != 2 or _fnv1a(body) != checksum:
        return None
    return page_size, high_water, transaction


def _fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


class _HashingFile:
    """Writes through to a file, and knows the SHA-256 of all of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._stream.write(data)


def own_member(ctx: Context, view: ClusterView | None) -> tuple[Status, str]:
    """This host's member, which has to be caught up as far as that can be known."""
    status = ctx.client.status(ctx.config.endpoint)
    newest = max((each.status.raft_index for each in view.members if each.status), default=0) if view else 0
    lag = newest - status.raft_applied_index
    if lag > MAX_LAG_ENTRIES:
        raise KubetuneError(f"the member on this host is {lag} entries behind: its snapshot would be old")
    # Without quorum the local view serves: a snapshot is worth most then.
    members = ctx.client.members(linearizable=False)
    name = next((each.name for each in members if each.member_id == status.member_id), "")
    return status, name or ctx.host


def _check_space(config: Config, status: Status) -> None:
    directory = Path(config.backup.directory)
    if not directory.is_dir():
        raise KubetuneError(
            f"the backup directory {directory} does not exist: make it (root, 0700) or run the role again"
        )
    free = free_bytes(directory)
    needed = status.db_size + config.backup.min_free_bytes
    if free < needed:
        raise KubetuneError(
            f"{directory} has {megabytes(free)} free, and {megabytes(needed)} are needed: the database of "
            f"{megabytes(status.db_size)} and {megabytes(config.backup.min_free_bytes)} to spare; keep fewer snapshots or "
            "give it space"
        )


def _take_turn(ctx: Context, stack: ExitStack) -> None:
    """One member at a time streams its database; a turn that cannot be had is no reason for no backup."""
    try:
        stack.enter_context(ctx.cluster_lock("backup", STEP))
    except (LockHeld, EtcdError) as exc:
        ctx.journal.say(STEP, "warning", f"goes on without its turn: {exc}", reason="no_lock")


def _take(ctx: Context, status: Status, member: str) -> None:
    started = time.monotonic()
    final = _free_path(ctx, member)
    directory = final.parent
    directory.mkdir(mode=0o700, exist_ok=True)
    part = final.with_name(final.name + ".part")
    try:
        digest = _download(ctx, part)
        check_file(part)
        facts = _etcdutl_facts(ctx, part)
        checksum = final.with_name(final.name + ".sha256")
        write_atomically(checksum, f"{digest}  {final.name}\n".encode())
        os.rename(part, final)
        sync_directory(directory)
        sync_directory(directory.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    size = final.stat().st_size
    seconds = time.monotonic() - started
    ctx.journal.say(
        STEP,
        "done",
        f"{final} holds {megabytes(size)} of {member}, verified by {facts['verified_by']}",
        path=final,
        member=member,
        bytes=size,
        revision=facts.get("revision", status.revision),
        etcd=status.version,
        seconds=seconds,
        verified_by=facts["verified_by"],
    )


def _free_path(ctx: Context, member: str) -> Path:
    """Names count in seconds: a second run within one, or a clock that went back, waits for the next."""
    while True:
        moment = datetime.fromtimestamp(ctx.clock(), timezone.utc)
        name = f"etcd-snapshot-{moment.strftime(_TIME)}-{file_name(member)}.db"
        path = Path(ctx.config.backup.directory) / moment.strftime(_DATE) / name
        if not path.exists():
            return path
        ctx.sleep(1.0)


def _download(ctx: Context, part: Path) -> str:
    """The stream's own checksum is verified by the client. Return the SHA-256 of the file."""
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        sink = _HashingFile(stream)
        ctx.client.snapshot(ctx.config.endpoint, sink)
        stream.flush()
        os.fsync(stream.fileno())
    return sink.digest.hexdigest()


def _etcdutl_facts(ctx: Context, part: Path) -> dict[str, Any]:
    """What ``etcdutl snapshot status`` says, which walks every page; without it our own checks have to do."""
    program = _etcdutl(ctx)
    if program is None:
        return {"verified_by": "checksum"}
    try:
        done = subprocess.run(
            [program, "snapshot", "status", str(part), "--write-out=json"],
            capture_output=True,
            text=True,
            timeout=_CHECK_TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
            env={"LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise KubetuneError(f"etcdutl ({program}) cannot be run: {exc}") from exc
    if done.returncode != 0:
        raise KubetuneError(f"etcdutl does not accept the snapshot: {(done.stderr or done.stdout).strip()[-300:]}")
    return {**json.loads(done.stdout), "verified_by": "etcdutl"}


def _etcdutl(ctx: Context) -> str | None:
    wanted = ctx.config.backup.etcdutl
    if wanted == "none":
        return None
    if wanted != "auto":
        return wanted
    found = shutil.which("etcdutl", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/opt/bin")
    if found:
        return found
    # Beside etcd in its own image. Reaching it takes CAP_SYS_PTRACE.
    for process in find("etcd", {"data-dir": ctx.config.data_directory}, ctx.proc):
        if not of_static_pod(process, "etcd", ctx.proc):
            continue  # whoever calls himself etcd is not given root
        inside = ctx.proc / str(process.pid) / "root/usr/local/bin/etcdutl"
        if os.access(inside, os.X_OK):
            return str(inside)
    return None


def _prune(ctx: Context, member: str) -> None:
    """After a new snapshot only, so that the last good one is never among those which go."""
    config = ctx.config.backup
    known = snapshots(Path(config.directory), member)
    gone = expired(known, ctx.clock(), config.keep, config.max_age_days)
    for each in gone:
        each.path.unlink()
        each.path.with_name(each.path.name + ".sha256").unlink(missing_ok=True)
        if not any(each.path.parent.iterdir()):
            each.path.parent.rmdir()
    if gone:
        ctx.journal.say(
            STEP,
            "done",
            f"removed {len(gone)} old snapshots, {len(known) - len(gone)} stay (at most {config.keep}, and for "
            f"{config.max_age_days} days)",
            removed=len(gone),
            kept=len(known) - len(gone),
        )
