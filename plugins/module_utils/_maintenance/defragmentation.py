# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step 4: give the space that compaction freed back to the disk, one member after another, the leader last.

A member serves nothing while it is defragmented, and clients of its API server stall. So only members with something to
gain are touched, leadership moves away before the leader's turn, and the cluster has to be whole before each of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Mapping, Sequence

from .._errors import KubetuneError
from .._etcd.client import Status
from .._etcd.cluster import ClusterView, MemberView, hand_over_leadership, problems, survey
from .._etcd.lock import ClusterLock
from .._node.state import free_bytes
from . import records
from .config import Defragmentation
from .context import Context
from .journal import megabytes
from .records import Done

STEP = "defragmentation"

#: The copy that etcd makes is about as large as what is in use; that much more has to be free.
_SPACE_FACTOR = 1.1


@dataclass(frozen=True)
class Size:
    """A member's database file. Bytes; ``quota`` 0 where the version does not say."""

    size: int
    in_use: int
    quota: int

    @property
    def reclaimable(self) -> int:
        return max(0, self.size - self.in_use)

    @property
    def fragmentation(self) -> float:
        """Free share of the file."""
        return self.reclaimable / self.size if self.size else 0.0

    @property
    def quota_share(self) -> float:
        """etcd compares the file with the quota, not what is in use."""
        return self.size / self.quota if self.quota > 0 else 0.0


def size_of(status: Status, quota: float | None) -> Size:
    return Size(status.db_size, status.db_size_in_use, int(quota or 0))


def is_due(size: Size, config: Defragmentation) -> bool:
    """Enough to gain, and either much of the file is free or the quota is near."""
    return size.reclaimable >= max(1, config.min_reclaimable_bytes) and (
        size.fragmentation >= config.min_fragmentation or size.quota_share >= config.quota_share
    )


def next_member(view: ClusterView, remaining: Sequence[int]) -> MemberView | None:
    """A follower in the order of names; the leader when only it is left."""
    left = sorted(
        (each for each in view.members if each.member.member_id in remaining), key=lambda each: each.member.name
    )
    followers = [each for each in left if view.leader is None or each.member.member_id != view.leader.member.member_id]
    return next(iter(followers or left), None)


def run(ctx: Context, sizes: Mapping[int, Size]) -> bool:
    """True when members were defragmented."""
    due = plan(ctx, sizes)
    return bool(due) and ctx.change(STEP, lambda lock: _apply(ctx, lock, due))


def plan(ctx: Context, sizes: Mapping[int, Size]) -> list[int]:
    """Ids of the members that are due; empty where nothing is to be done, and the journal says why."""
    if not ctx.config.defragmentation.enabled:
        ctx.journal.say(STEP, "left_out", "switched off by the configuration", reason="off")
        return []
    if records.done_before(ctx, STEP):
        return []
    due = [member_id for member_id, size in sizes.items() if is_due(size, ctx.config.defragmentation)]
    if not due:
        _say_nothing_due(ctx)
    elif ctx.dry_run:
        ctx.journal.say(STEP, "planned", f"would defragment {len(due)} of {len(sizes)} members", members=len(due))
        return []
    return due


def _apply(ctx: Context, lock: ClusterLock, due: Sequence[int]) -> bool:
    """One member after another; the first failure ends it, and it is not recorded as done."""
    if records.done_before(ctx, STEP):
        return False
    remaining = list(due)
    while remaining:
        view = _whole(ctx)
        lock.check()
        member = next_member(view, remaining)
        if member is None:
            raise KubetuneError(f"{len(remaining)} of the members to defragment left the cluster meanwhile")
        view = _lead_away(ctx, view, member)
        _one(ctx, view, member.member.member_id)
        remaining.remove(member.member.member_id)
    _whole(ctx)
    records.record_done(ctx.client, STEP, Done(ctx.clock(), ctx.host, ctx.run_id))
    return True


def _lead_away(ctx: Context, view: ClusterView, member: MemberView) -> ClusterView:
    """Move leadership off the member; the only voter has nobody to give it to, and stalls the cluster for its turn."""
    if view.leader is None or view.leader.member.member_id != member.member.member_id or len(view.voters) == 1:
        return view
    new_leader = view.by_id(hand_over_leadership(ctx.client, view, ctx.sleep))
    name = new_leader.member.name if new_leader else "another member"
    ctx.journal.say(STEP, "ok", f"leadership moved from {member.member.name} to {name}", leader=name)
    return _whole(ctx)


def _one(ctx: Context, view: ClusterView, member_id: int) -> None:
    member = view.by_id(member_id)
    if member is None or member.status is None:
        raise KubetuneError(f"member {member_id:x} is gone")
    _check_space(ctx, member)
    started = time.monotonic()
    ctx.client.defragment(member.endpoint, ctx.config.defragmentation.timeout_seconds)
    seconds = time.monotonic() - started
    after = ctx.client.status(member.endpoint)
    ctx.journal.say(
        STEP,
        "done",
        f"{member.member.name} went from {megabytes(member.status.db_size)} to {megabytes(after.db_size)}",
        member=member.member.name,
        before_bytes=member.status.db_size,
        after_bytes=after.db_size,
        seconds=seconds,
        leader=after.is_leader,
    )


def _check_space(ctx: Context, member: MemberView) -> None:
    """The copy needs room beside the database; only this host's own disk can be looked at."""
    assert member.status is not None
    name = member.member.name
    if member.member.member_id != ctx.client.status(ctx.config.endpoint).member_id:
        ctx.journal.say(STEP, "ok", f"the free space of {name} is not known here", member=name, free_bytes="unknown")
        return
    needed = int(member.status.db_size_in_use * _SPACE_FACTOR)
    try:
        free = free_bytes(ctx.config.data_directory)
    except OSError as exc:
        raise KubetuneError(
            f"the data directory {ctx.config.data_directory} cannot be looked at: {exc.strerror}"
        ) from exc
    if free < needed:
        raise KubetuneError(
            f"{name} needs {megabytes(needed)} free in {ctx.config.data_directory} for its copy, and has {megabytes(free)}"
        )


def _whole(ctx: Context) -> ClusterView:
    """Wait until the cluster is whole; raise KubetuneError with what is wrong when it does not get there."""
    patience = ctx.config.settle_seconds
    deadline = time.monotonic() + patience
    while True:
        try:
            view = survey(ctx.client)
            found = problems(view)
        except KubetuneError as exc:
            found = [str(exc)]
        else:
            if not found:
                return view
        if time.monotonic() >= deadline:
            raise KubetuneError(f"the cluster is not whole after {patience} s: {'; '.join(found)}")
        ctx.sleep(1.0)


def _say_nothing_due(ctx: Context) -> None:
    config = ctx.config.defragmentation
    ctx.journal.say(
        STEP,
        "nothing",
        f"no member has {megabytes(config.min_reclaimable_bytes)} to gain with {config.min_fragmentation:.0%} of its file "
        f"free or {config.quota_share:.0%} of its quota used",
        reason="below_thresholds",
    )
