# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be known without changing anything: members, who did a step last, who holds the lock, which backups are good."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Sequence

from .._errors import KubetuneError
from .._etcd.lock import current_holder
from . import backup, compaction, defragmentation, drill, health, records, retention, verification
from .context import CHANGE_LOCK, Context
from .journal import megabytes

VERIFY = "verify"


def show(ctx: Context) -> int:
    view, _fit = health.check(ctx)
    if view:
        health.measure(ctx, view)
        _shared(ctx)
    _newest_backup(ctx)
    return ctx.journal.exit_status


def check_health(ctx: Context) -> int:
    view, _fit = health.check(ctx)
    if view:
        health.measure(ctx, view)
    return ctx.journal.exit_status


def verify(ctx: Context, files: Sequence[Path], every: bool) -> int:
    """Look through backups and say which are good.

    Args:
        files: which; none of them for this host's newest.
        every: all in the backup directory, of whichever member.
    """
    cluster_id = verification.this_cluster(ctx)
    if cluster_id is None:
        ctx.journal.say(VERIFY, "warning", "etcd does not answer here: of which cluster a backup is, is not compared", reason="no_etcd")
    try:
        wanted = [_named(path) for path in files] or (
            retention.snapshots(Path(ctx.config.backup.directory), None, ctx.clock()) if every else [drill.newest(ctx)]
        )
    except KubetuneError as exc:
        ctx.journal.say(VERIFY, "failed", str(exc))
        wanted = []
    for each in wanted:
        try:
            sidecar, verified_by = verification.verify(ctx, each, cluster_id)
        except (KubetuneError, OSError) as exc:
            ctx.journal.say(VERIFY, "failed", f"{each.path} is refused: {exc}", path=each.path)
            continue
        note = "" if each.encryption == "none" or ctx.config.backup.identity_file else ", encrypted: what is in it was not looked at"
        ctx.journal.say(
            VERIFY,
            "ok",
            f"{each.path} is good: {sidecar.keys} keys at revision {sidecar.revision}, by {verified_by}{note}",
            path=each.path,
            member=sidecar.member,
            revision=sidecar.revision,
            keys=sidecar.keys,
            etcd=sidecar.etcd,
            verified_by=verified_by,
        )
    return ctx.journal.exit_status


def _named(path: Path) -> retention.Snapshot:
    """A file that somebody names may lie anywhere."""
    return retention.of_path(path) or retention.Snapshot(path, 0.0)


def _shared(ctx: Context) -> None:
    last = {compaction.STEP: records.last_done(ctx.client, compaction.STEP), defragmentation.STEP: defragmentation.last_done(ctx)}
    for step, done in last.items():
        if done is None:
            ctx.journal.say(step, "ok", "never done by this program")
            continue
        due = records.is_due(done, ctx.clock(), ctx.config.interval_seconds)
        ctx.journal.say(
            step,
            "ok",
            f"done by {done.host} at {_time(done.at)}, {'due' if due else 'not due'}",
            host=done.host,
            at=_time(done.at),
            due=due,
        )
    holder = current_holder(ctx.client, CHANGE_LOCK)
    if holder:
        sentence = f"the cluster lock is held by {holder.get('host')} for {holder.get('purpose')}"
        ctx.journal.say("run", "ok", sentence, lock=CHANGE_LOCK, holder=holder.get("host", "unknown"))


def _newest_backup(ctx: Context) -> None:
    try:
        _status, member = backup.own_member(ctx, None)
    except KubetuneError as exc:
        ctx.journal.say(backup.STEP, "warning", f"which snapshots are ours is not known: {exc}")
        return
    known = retention.snapshots(Path(ctx.config.backup.directory), member, ctx.clock())
    if not known:
        ctx.journal.say(
            backup.STEP, "warning", f"{member} has no snapshot in {ctx.config.backup.directory}", member=member, kept=0
        )
        return
    newest = known[-1]
    hours = (ctx.clock() - newest.taken_at) / 3600
    size = newest.path.stat().st_size
    sentence = f"the newest of {len(known)} snapshots of {member} is {hours:.1f} hours old and holds {megabytes(size)}"
    ctx.journal.say(
        backup.STEP, "ok", sentence, path=newest.path, member=member, kept=len(known), age_hours=hours, bytes=size
    )


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")
