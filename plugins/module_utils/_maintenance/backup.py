# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step 5: a verified snapshot of this host's own member, and the old ones removed by policy.

A file under its final name is complete and verified: it is written as ``.part``, synced, checked, and renamed when its
sidecar is there. The names are in `retention`, what a sidecar says in `verification`.
"""

from __future__ import annotations

import os
import tarfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

from .._commands import ENVIRONMENT, background
from .._errors import KubetuneError
from .._etcd.client import EtcdError, Status
from .._etcd.cluster import MAX_LAG_ENTRIES, ClusterView
from .._etcd.lock import LockHeld
from .._node.state import free_bytes, sync_directory, write_atomically
from . import elsewhere, encryption, tools, verification
from .config import Config
from .context import Context
from .journal import megabytes
from .retention import DATE, SUFFIXES, TIME, Snapshot, expired, file_name, of_path, snapshots
from .verification import Content, Sidecar

STEP, PRUNE = "backup", "prune"
ADVICE = "set backup.copy_command, or mount other storage at backup.directory"

#: Seconds without a byte after which a stream is given up; a member that compacts or checks itself may pause.
_STALLED = 60.0
_POLL = 0.02


@dataclass(frozen=True)
class _Member:
    """Whom a snapshot is of.

    Attributes:
        revision: of a linearizable read right before; None where there is no quorum.
    """

    name: str
    status: Status
    revision: int | None


def run(ctx: Context, view: ClusterView | None) -> bool:
    """True when there is a new snapshot; raises KubetuneError or OSError where there is none though there should be."""
    if not ctx.config.backup.enabled:
        ctx.journal.say(STEP, "left_out", "switched off by the configuration", reason="off")
        return False
    status, name = own_member(ctx, view)
    if ctx.dry_run:
        _check_space(ctx.config, status)
        ctx.journal.say(STEP, "planned", f"would write a snapshot of about {megabytes(status.db_size)}", member=name)
        prune(ctx, name)
        return False
    remove_leftovers(ctx.config, name)
    _make_room(ctx, status, name)
    with ExitStack() as stack:
        _take_turn(ctx, stack)
        snapshot = _take(ctx, _Member(name, status, _linearizable_revision(ctx)))
    for what, work in (
        (PRUNE, lambda: prune(ctx, name)),
        (elsewhere.STEP, lambda: elsewhere.copy(ctx, snapshot, name)),
        ("tools", lambda: tools.keep(ctx)),
    ):
        _afterwards(ctx, what, work)
    if elsewhere.only_here(ctx.config.backup.directory, ctx.config.backup.copy_command, elsewhere.mountinfo()):
        ctx.journal.say(STEP, "warning", f"every copy is on this cluster's own machines: {ADVICE}", reason="only_here")
    return True


def _afterwards(ctx: Context, step: str, work: Callable[[], object]) -> None:
    """The snapshot is there, whatever comes of this."""
    try:
        work()
    except (KubetuneError, OSError) as exc:
        ctx.journal.say(step, "failed", str(exc))


def remove_leftovers(config: Config, member: str) -> list[Path]:
    """What a killed run of this host left: unfinished files, and sidecars and archives without a snapshot."""
    directory, name = Path(config.backup.directory), file_name(member)
    known = {path.name for each in snapshots(directory, member, time.time()) for path in each.files()}
    removed = []
    for pattern in (f"*/etcd-snapshot-??????-{name}.*", f"*/.etcd-snapshot-??????-{name}.*.kubetune-tmp"):
        for path in directory.glob(pattern):
            # Another member may be called like us with a dot behind it.
            ours = path.name.lstrip(".")[len("etcd-snapshot-000000-") + len(name) :].startswith((".db", ".json", ".host.tar"))
            if ours and path.name not in known:
                path.unlink()
                removed.append(path)
    return removed


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


def _make_room(ctx: Context, status: Status, member: str) -> None:
    """What no tier holds any more goes before the new one comes, where there is no room for both."""
    try:
        _check_space(ctx.config, status)
    except KubetuneError:
        prune(ctx, member)
        _check_space(ctx.config, status)


def _check_space(config: Config, status: Status) -> None:
    directory = Path(config.backup.directory)
    if not directory.is_dir():
        raise KubetuneError(
            f"the backup directory {directory} does not exist: make it (root, 0700) or run the role again"
        )
    free = free_bytes(directory)
    # What is encrypted stands beside the plain file for a while.
    copies = 1 if config.backup.encryption == "none" else 2
    needed = status.db_size * copies + config.backup.min_free_bytes
    if free < needed:
        raise KubetuneError(
            f"{directory} has {megabytes(free)} free, and {megabytes(needed)} are needed: the database of "
            f"{megabytes(status.db_size)}{' twice, to encrypt it,' if copies == 2 else ''} and "
            f"{megabytes(config.backup.min_free_bytes)} to spare; keep fewer snapshots or give it space"
        )


def _linearizable_revision(ctx: Context) -> int | None:
    try:
        return ctx.client.revision(ctx.config.endpoint)
    except EtcdError as exc:
        ctx.journal.say(
            STEP, "warning", f"no linearizable read, so the newest writes may be missing from it: {exc}", reason="no_quorum"
        )
        return None


def _take_turn(ctx: Context, stack: ExitStack) -> None:
    """One member at a time streams its database; a turn that cannot be had is no reason for no backup."""
    try:
        stack.enter_context(ctx.cluster_lock("backup", STEP))
    except (LockHeld, EtcdError) as exc:
        ctx.journal.say(STEP, "warning", f"goes on without its turn: {exc}", reason="no_lock")


def _take(ctx: Context, member: _Member) -> Snapshot:
    started = time.monotonic()
    # The plain name: what is encrypted gets its suffix when it is.
    plain = _free_path(ctx, member.name)
    directory = plain.parent
    directory.mkdir(mode=0o700, exist_ok=True)
    part = plain.with_name(plain.name + ".part")
    with ExitStack() as undo:
        undo.callback(_remove_parts, part)
        download(ctx, part)
        streamed = time.monotonic() - started
        facts, content = verification.check_plain(tools.tool(ctx, "etcdutl"), part)
        _check_revision(member, facts)
        made = _finished_parts(ctx, plain, part, content, undo)
        final = plain.with_name(plain.name + SUFFIXES[ctx.config.backup.encryption])
        sidecar = _sidecar(ctx, member, facts, content, {path.name: each for path, (_part, each) in made.items()})
        snapshot = of_path(final)
        assert snapshot is not None
        undo.callback(snapshot.sidecar.unlink, missing_ok=True)
        write_atomically(snapshot.sidecar, sidecar.text().encode())
        # The snapshot comes last: without it the others are leftovers.
        for path, (unfinished, _content) in sorted(made.items(), key=lambda each: each[0] == final):
            os.rename(unfinished, path)
        undo.pop_all()
    part.unlink(missing_ok=True)
    sync_directory(directory)
    sync_directory(directory.parent)
    seconds = time.monotonic() - started
    ctx.journal.say(
        STEP,
        "done",
        f"{final} holds {megabytes(sidecar.snapshot.bytes)} of {member.name} at revision {sidecar.revision}, verified by "
        f"{sidecar.verified_by}" + ("" if sidecar.encryption == "none" else f", encrypted with {sidecar.encryption}"),
        path=final,
        member=member.name,
        bytes=sidecar.files[final.name].bytes,
        revision=sidecar.revision,
        etcd=sidecar.etcd,
        taken_at=snapshot.taken_at,
        seconds=seconds,
        stream_seconds=streamed,
        verified_by=sidecar.verified_by,
    )
    return snapshot


def _free_path(ctx: Context, member: str) -> Path:
    """Names count in seconds: a second run within one, or a clock that went back, waits for the next."""
    while True:
        moment = datetime.fromtimestamp(ctx.clock(), timezone.utc)
        name = f"etcd-snapshot-{moment.strftime(TIME)}-{file_name(member)}.db"
        path = Path(ctx.config.backup.directory) / moment.strftime(DATE) / name
        if not list(path.parent.glob(path.name + "*")):
            return path
        ctx.sleep(1.0)


def download(ctx: Context, part: Path) -> None:
    """The member's snapshot, synced.

    The member's own etcdctl is four times as fast as the JSON gateway, which serves where there is no etcdctl.
    """
    etcdctl = tools.tool(ctx, "etcdctl")
    if etcdctl:
        _stream(ctx, etcdctl, part)
    else:
        ctx.journal.say(STEP, "warning", "there is no etcdctl on this host: the slower JSON gateway serves", reason="no_etcdctl")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            ctx.client.snapshot(ctx.config.endpoint, stream)
    os.chmod(part, 0o600)
    descriptor = os.open(part, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stream(ctx: Context, etcdctl: str, part: Path) -> None:
    """etcdctl writes ``NAME.part``, whose growth is watched, and renames it at its end."""
    config = ctx.config
    command = [
        etcdctl,
        f"--endpoints={config.endpoint}",
        f"--cacert={config.ca_file}",
        f"--cert={config.cert_file}",
        f"--key={config.key_file}",
        "snapshot",
        "save",
        str(part),
    ]
    growing = part.with_name(part.name + ".part")
    size, last = 0, time.monotonic()
    with background(command, ENVIRONMENT) as program:
        while program.process.poll() is None:
            now = time.monotonic()
            grown = _size(growing)
            if grown > size:
                size, last = grown, now
            elif now - last > _STALLED:
                raise KubetuneError(f"the snapshot stream stands still after {megabytes(size)}: given up after {_STALLED:g} s")
            time.sleep(_POLL)
        try:
            program.finish(_POLL)
        except KubetuneError as exc:
            raise KubetuneError(f"the snapshot stream broke after {megabytes(size)}: {exc}") from exc


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _remove_parts(part: Path) -> None:
    for path in (part, part.with_name(part.name + ".part")):
        path.unlink(missing_ok=True)


def _check_revision(member: _Member, facts: dict[str, Any]) -> None:
    found = facts.get("revision")
    if member.revision is not None and found is not None and found < member.revision:
        raise KubetuneError(
            f"the snapshot ends with revision {found}, and {member.revision} was acknowledged before it was taken: writes are missing"
        )


def _finished_parts(
    ctx: Context, plain: Path, part: Path, content: Content, undo: ExitStack
) -> dict[Path, tuple[Path, Content]]:
    """Final path -> (its unfinished file, what is in it): the snapshot, and the files of the host where they are asked for."""
    config = ctx.config.backup
    if config.encryption == "none":
        return {plain: (part, content)}
    suffix = SUFFIXES[config.encryption]
    made = {}

    def encrypted(path: Path, write: Callable[[Path], None]) -> None:
        unfinished = path.with_name(path.name + ".part")
        undo.callback(unfinished.unlink, missing_ok=True)
        write(unfinished)
        with open(unfinished, "rb+") as stream:
            os.fsync(stream.fileno())
        made[path] = (unfinished, verification.hash_file(unfinished).content)

    encrypted(plain.with_name(plain.name + suffix), lambda target: encryption.encrypt_file(ctx.config, part, target))
    if config.host_paths:
        archive = plain.with_name(plain.name[: -len(".db")] + ".host.tar" + suffix)
        encrypted(archive, lambda target: _archive(ctx.config, target))
    return made


def _archive(config: Config, target: Path) -> None:
    """A tar of the host's files; they are never written anywhere as they are."""
    missing = [path for path in config.backup.host_paths if not os.path.exists(path)]
    if missing:
        raise KubetuneError(f"backup.host_paths: {', '.join(missing)} does not exist on this host: correct the list")

    with encryption.encrypting(config, target) as sink, tarfile.open(fileobj=sink, mode="w|") as archive:
        for path in config.backup.host_paths:
            # What is asked for is what is there, not where a link leads.
            archive.add(os.path.realpath(path), arcname=path.lstrip("/"))


def _sidecar(ctx: Context, member: _Member, facts: dict[str, Any], plain: Content, files: dict[str, Content]) -> Sidecar:
    return Sidecar(
        taken_at=datetime.fromtimestamp(ctx.clock(), timezone.utc).isoformat(timespec="seconds"),
        host=ctx.host,
        member=member.name,
        member_id=f"{member.status.member_id:x}",
        cluster_id=f"{member.status.cluster_id:x}",
        etcd=member.status.version,
        storage_version=facts.get("version", ""),
        revision=facts.get("revision", member.revision or member.status.revision),
        keys=facts.get("totalKey", 0),
        hash=facts.get("hash", 0),
        verified_by=facts["verified_by"],
        encryption=ctx.config.backup.encryption,
        snapshot=plain,
        files=files,
    )


def prune(ctx: Context, member: str) -> None:
    """Delete what no tier of the policy holds; the newest, also of each cluster, and the last good one stay."""
    now = ctx.clock()
    known = snapshots(Path(ctx.config.backup.directory), member, now)
    for each in known:
        if each.taken_at > now:
            ctx.journal.say(
                PRUNE,
                "warning",
                f"{each.path} bears a time which is still to come: the clock was ahead then, or is behind now; it is no tier's, and stays until that time has come",
                path=each.path,
                reason="clock",
            )
    clusters = {each: sidecar.cluster_id for each in known if (sidecar := verification.recorded(each))}
    for each in (each for each in known if each not in clusters):
        ctx.journal.say(
            PRUNE, "warning", f"{each.path} is not what was written: it stays, and counts for nothing", path=each.path, reason="broken"
        )
    known = list(clusters)
    gone = expired(known, now, ctx.config.backup, lambda each: _is_good(ctx, each), clusters.__getitem__)
    staying = [each for each in known if each not in gone]
    size = sum(path.stat().st_size for each in staying for path in each.files())
    facts = {"removed": len(gone), "kept": len(staying), "bytes": size, "member": member}
    if ctx.dry_run:
        ctx.journal.say(PRUNE, "planned", f"would remove {len(gone)} backups, {len(staying)} would stay", **facts)
        for each in gone:
            ctx.journal.say(PRUNE, "planned", f"would remove {each.path}", path=each.path)
        return
    for each in gone:
        _remove(each)
    ctx.journal.say(
        PRUNE,
        "done" if gone else "nothing",
        f"removed {len(gone)} old backups, {len(staying)} stay with {megabytes(size)}",
        **facts,
    )


def _is_good(ctx: Context, snapshot: Snapshot) -> bool:
    if verification.is_whole(snapshot):
        return True
    ctx.journal.say(PRUNE, "warning", f"{snapshot.path} is damaged: an older one is the last good one", path=snapshot.path, reason="broken")
    return False


def _remove(snapshot: Snapshot) -> None:
    """The snapshot goes first: what is left when this is cut off is a leftover, not a backup without its sidecar."""
    for path in snapshot.files():
        path.unlink()
    if not any(snapshot.path.parent.iterdir()):
        snapshot.path.parent.rmdir()
