# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step 4: give the space that compaction freed back to the disk, one member after another, the leader last.

A member serves nothing while it is defragmented, and clients of its API server stall, the longer the more is in use. So only members
with something to gain are touched, and the cluster has to be whole before each of them. Where it takes long, each node does its own in a
window, or leadership moves away before the leader's turn.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable, Mapping, Sequence

from .._errors import KubetuneError
from .._etcd.cluster import ClusterView, MemberView, hand_over_leadership, problems, survey
from .._etcd.lock import ClusterLock
from .._node.state import free_bytes
from . import own_window, records
from .config import Defragmentation
from .context import Context
from .journal import megabytes
from .records import Done
from .rule import Rule, Size

STEP = "defragmentation"

#: The copy that etcd makes is about as large as what is in use; that much more has to be free.
_SPACE_FACTOR = 1.1


def is_due(size: Size, config: Defragmentation) -> bool:
    """Something to gain, and the rule holds."""
    return size.reclaimable > 0 and Rule(config.rule).holds(size)


def is_allowed(hours: Sequence[str], seconds: float) -> bool:
    """Whether a moment (since 1970) lies in one of the times of the host's day, each ``HH:MM-HH:MM``; in no list at all always."""
    moment = time.localtime(seconds)
    now = f"{moment.tm_hour:02}:{moment.tm_min:02}"
    for begin, end in (span.split("-") for span in hours):
        if begin <= now < end or (end <= begin and (now >= begin or now < end)):
            return True
    return not hours


def next_member(view: ClusterView, remaining: Sequence[int]) -> MemberView | None:
    """A follower in the order of names; the leader when only it is left."""
    left = sorted(
        (each for each in view.members if each.member.member_id in remaining), key=lambda each: each.member.name
    )
    followers = [each for each in left if view.leader is None or each.member.member_id != view.leader.member.member_id]
    return next(iter(followers or left), None)


def run(ctx: Context, sizes: Mapping[int, Size]) -> bool:
    """True when members were defragmented."""
    if in_windows(ctx, sizes):
        return _own(ctx, sizes)
    due = plan(ctx, sizes)
    return bool(due) and ctx.change(STEP, lambda lock: _apply(ctx, lock, due))


def in_windows(ctx: Context, sizes: Mapping[int, Size]) -> bool:
    """Whether this host does its own member, in a window.

    Args:
        sizes: of all members, for each host has to come to the same.
    """
    config = ctx.config.defragmentation
    largest = max((size.in_use for size in sizes.values()), default=0)
    return config.may_open_windows and (config.method == "window" or not is_brief(largest, config) and own_window.possible(ctx))


def is_brief(in_use: int, config: Defragmentation) -> bool:
    """Whether so many bytes are copied so soon that what keeps clients from waiting for it would cost them more."""
    return in_use <= config.online_max_bytes


def last_done(ctx: Context) -> records.Done | None:
    """When this host's member was done last, in a window or with all others."""
    names = (STEP, STEP + _own_record(ctx.client.status(ctx.config.endpoint).member_id))
    found = [each for each in (records.last_done(ctx.client, name) for name in names) if each]
    return max(found, key=lambda each: each.at, default=None)


def _own_record(member_id: int) -> str:
    return f"-{member_id:x}"


def _own(ctx: Context, sizes: Mapping[int, Size]) -> bool:
    """Of this host's member alone, in a window; the window has its own lock and gate."""
    own = ctx.client.status(ctx.config.endpoint).member_id
    record = _own_record(own)
    due = plan(ctx, {own: sizes[own]} if own in sizes else {}, record)
    if not due:
        return False
    view = whole(ctx)
    member = view.by_id(own)
    if member is None:
        raise KubetuneError("this host's member left the cluster meanwhile")
    _check_space(ctx, member)
    started = time.monotonic()
    facts = own_window.defragment(ctx, view, member)
    ctx.journal.say(
        STEP,
        "done",
        f"{member.member.name} went from {megabytes(facts['before_bytes'])} to {megabytes(facts['after_bytes'])}, in a window of "
        f"{facts['window_seconds']:.0f} s",
        member=member.member.name,
        seconds=time.monotonic() - started,
        leader=False,
        **facts,
    )
    records.record_done(ctx.client, STEP + record, Done(ctx.clock(), ctx.host, ctx.run_id))
    return True


def plan(ctx: Context, sizes: Mapping[int, Size], of: str = "") -> list[int]:
    """Ids of the members that are due; empty where nothing is to be done, and the journal says why.

    Args:
        of: what the record of the last time has behind its name; empty for that of all members.
    """
    if not ctx.config.defragmentation.enabled:
        ctx.journal.say(STEP, "left_out", "switched off by the configuration", reason="off")
        return []
    if not is_allowed(ctx.config.defragmentation.hours, ctx.clock()):
        ctx.journal.say(STEP, "left_out", f"only done at {', '.join(ctx.config.defragmentation.hours)}", reason="hours")
        return []
    if records.done_before(ctx, STEP, STEP + of):
        return []
    due = [member_id for member_id, size in sizes.items() if is_due(size, ctx.config.defragmentation)]
    if not due:
        _say_nothing_due(ctx)
    elif ctx.dry_run:
        ctx.journal.say(STEP, "planned", f"would defragment {len(due)} of {len(sizes)} members", members=len(due))
        return []
    return due


def _apply(ctx: Context, lock: ClusterLock, due: Sequence[int]) -> bool:
    if records.done_before(ctx, STEP):
        return False

    def go_on() -> bool:
        lock.check()
        return is_allowed(ctx.config.defragmentation.hours, ctx.clock())

    left = take_turns(ctx, due, go_on)
    if left:
        # Not recorded as done: the next run goes on with them.
        ctx.journal.say(STEP, "ok", f"its hours are over, {left} members are left for the next run", reason="hours", members=left)
    else:
        records.record_done(ctx.client, STEP, Done(ctx.clock(), ctx.host, ctx.run_id))
    return left < len(due)


def take_turns(ctx: Context, due: Sequence[int], go_on: Callable[[], bool], ignore_alarms: Sequence[str] = ()) -> int:
    """Defragment one member after another; return how many are left.

    Args:
        due: their ids.
        go_on: asked before each; an error of it ends the work, as does the first failure.
    """
    remaining = list(due)
    while remaining:
        view = whole(ctx, ignore_alarms)
        if not go_on():
            return len(remaining)
        member = next_member(view, remaining)
        if member is None:
            raise KubetuneError(f"{len(remaining)} of the members to defragment left the cluster meanwhile")
        view = _lead_away(ctx, view, member, ignore_alarms)
        _one(ctx, view, member.member.member_id)
        remaining.remove(member.member.member_id)
    whole(ctx, ignore_alarms)
    return 0


def _lead_away(ctx: Context, view: ClusterView, member: MemberView, ignore_alarms: Sequence[str]) -> ClusterView:
    """Move leadership off the member; the only voter has nobody to give it to, and stalls the cluster for its turn.

    A leader that gives its place away drops what is forwarded to it meanwhile, and tells nobody: such a write waits for 5 s and twice the
    election timeout (etcd 3.6, ReqTimeout; issue 8975). So it keeps its place for a moment's work.
    """
    if view.leader is None or view.leader.member.member_id != member.member.member_id or len(view.voters) == 1:
        return view
    if member.status and is_brief(member.status.db_size_in_use, ctx.config.defragmentation):
        return view
    new_leader = view.by_id(hand_over_leadership(ctx.client, view, ctx.sleep))
    name = new_leader.member.name if new_leader else "another member"
    ctx.journal.say(STEP, "ok", f"leadership moved from {member.member.name} to {name}", leader=name)
    return whole(ctx, ignore_alarms)


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
        left = sorted(path.name for path in (Path(ctx.config.data_directory) / "member/snap").glob("db.tmp.*"))
        hint = f"; {', '.join(left)} is what a defragmentation that failed has left there: etcd removes it when it starts" if left else ""
        raise KubetuneError(
            f"{name} needs {megabytes(needed)} free in {ctx.config.data_directory} for its copy, and has {megabytes(free)}{hint}"
        )


def whole(ctx: Context, ignore_alarms: Sequence[str] = ()) -> ClusterView:
    """Wait until the cluster is whole; raise KubetuneError with what is wrong when it does not get there."""
    patience = ctx.config.settle_seconds
    deadline = time.monotonic() + patience
    while True:
        try:
            view = survey(ctx.client)
            found = problems(view, ignore_alarms)
        except KubetuneError as exc:
            found = [str(exc)]
        else:
            if not found:
                return view
        if time.monotonic() >= deadline:
            raise KubetuneError(f"the cluster is not whole after {patience} s: {'; '.join(found)}")
        ctx.sleep(1.0)


def _say_nothing_due(ctx: Context) -> None:
    ctx.journal.say(STEP, "nothing", f"no member has something to gain and meets {ctx.config.defragmentation.rule}", reason="rule")
