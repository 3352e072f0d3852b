# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known now, without changing anything: members, who did a step last, who holds the lock, the newest backup."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from .._errors import KubetuneError
from .._etcd.lock import current_holder
from . import backup, compaction, defragmentation, health, records
from .context import CHANGE_LOCK, Context
from .journal import megabytes


def show(ctx: Context) -> int:
    view, _fit = health.check(ctx)
    if view:
        health.measure(ctx, view)
        _shared(ctx)
    _newest_backup(ctx)
    return ctx.journal.exit_status


def _shared(ctx: Context) -> None:
    for step in (compaction.STEP, defragmentation.STEP):
        done = records.last_done(ctx.client, step)
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
    known = backup.snapshots(Path(ctx.config.backup.directory), member)
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
