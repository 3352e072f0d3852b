# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Out of the alarm NOSPACE: compact, defragment every member, prove that there is room, and only then take the alarm away.

Under this alarm etcd turns puts and leases away (server/etcdserver/apply, applierV3Capped, 3.6), so no lock can be taken in it.
One host alone may do this instead: that of the voter with the lowest id, which every member names in the same way, and there
the host's own lock keeps two runs apart. Who got the cluster's lock before the alarm still has it, and is waited for.
"""

from __future__ import annotations

import time

from .._errors import KubetuneError
from .._etcd.cluster import ClusterView, MemberView, problems, survey
from .._etcd.lock import LockHeld, current_holder
from . import compaction, defragmentation, health, records
from .context import CHANGE_LOCK, Context
from .journal import megabytes
from .records import Done

STEP = "nospace"
ALARM = "NOSPACE"


def is_all(view: ClusterView) -> bool:
    """Whether the alarm is there, and nothing else is wrong with the cluster."""
    return bool(problems(view)) and not problems(view, (ALARM,))


def in_charge(view: ClusterView) -> MemberView:
    """Whose host may do it."""
    return min(view.voters, key=lambda each: each.member.member_id)


def run(ctx: Context, view: ClusterView) -> bool:
    """True when the alarm is gone.

    Raises:
        KubetuneError: it cannot be taken away, and what to do.
    """
    member = in_charge(view)
    if ctx.client.status(ctx.config.endpoint).member_id != member.member.member_id:
        ctx.journal.say(
            STEP, "left_out", f"the host of member {member.member.name} does it: under the alarm no lock can be taken in etcd",
            reason="other_host", member=member.member.name,
        )  # fmt: skip
        return False
    holder = current_holder(ctx.client, CHANGE_LOCK)
    if holder and holder.get("token") != ctx.token:
        ctx.journal.say(STEP, "locked", f"left out: {LockHeld(CHANGE_LOCK, holder)}")
        return False
    revision = _compaction(ctx, view)
    sizes = health.measure(ctx, view)
    due = [member_id for member_id, size in sizes.items() if size.reclaimable]
    if ctx.dry_run:
        first = f"would compact to revision {revision}, then " if revision else "would "
        ctx.journal.say(STEP, "planned", f"{first}defragment members with something to gain and take the alarm away", members=len(due))
        return False
    started = time.monotonic()
    if revision:
        ctx.client.compact(revision, timeout=600.0)
        compaction.settle(ctx)
        ctx.journal.say(STEP, "ok", f"compacted to revision {revision}", revision=revision)
        sizes = health.measure(ctx, survey(ctx.client))
        due = [member_id for member_id, size in sizes.items() if size.reclaimable]
    defragmentation.take_turns(ctx, due, lambda: True, (ALARM,))
    _prove_room(ctx)
    for alarm in ctx.client.alarms():
        if alarm.alarm == ALARM:
            ctx.client.disarm(alarm)
    defragmentation.whole(ctx)
    # A write, and so the proof that there are writes again.
    records.record_done(ctx.client, defragmentation.STEP, Done(ctx.clock(), ctx.host, ctx.run_id))
    ctx.journal.say(STEP, "done", "there is room, the alarm is gone and etcd takes writes again", seconds=time.monotonic() - started)
    return True


def _compaction(ctx: Context, view: ClusterView) -> int | None:
    """The revision to compact to: as far as the retention allows, or all but the newest ones; None for nothing to gain.

    The alarm costs more than history that is older than that: watches and continued lists on it start anew.
    """
    config = ctx.config.compaction
    if config.mode == "off":
        return None
    now = ctx.clock()
    known = compaction.target(
        compaction.usable(records.samples(ctx.client), now, view.revision), now, config.retention_seconds
    )
    kept = config.min_revisions if ctx.keep_revisions is None else ctx.keep_revisions
    revision = max(known or 0, view.revision - kept)
    return revision if revision > compaction.compacted_to(ctx) else None


def _prove_room(ctx: Context) -> None:
    room = ctx.config.nospace.room
    full = []
    for member_id, size in health.measure(ctx, survey(ctx.client)).items():
        if not size.quota:
            full.append(f"the quota of member {member_id:x} is not known")
        elif size.quota_share > room:
            full.append(f"member {member_id:x} has {megabytes(size.size)} of {megabytes(size.quota)}, {size.quota_share:.0%}")
    if full:
        raise KubetuneError(
            f"the alarm stays, since it would come back: {'; '.join(full)}, and {room:.0%} at most is room; delete what is not needed "
            "(deletions are taken under the alarm: find the largest prefix with etcdctl get / --prefix --keys-only), then run "
            "'kubetune.pyz maintenance recover-space --keep-revisions 0', since the history still has what was deleted; where all of it is "
            "needed, raise --quota-backend-bytes in the manifest of one member after the other, then run it again: windows need a lock, "
            "which etcd refuses now"
        )
