# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps 1 and 2: is the cluster whole, and how large is each member's database."""

from __future__ import annotations

import time

from .._errors import KubetuneError
from .._etcd.client import EtcdError
from .._etcd.cluster import ClusterView, problems, survey
from .context import Context
from .defragmentation import Size, size_of
from .journal import megabytes

HEALTH, SIZE = "health", "size"

#: Share of the quota from which a line becomes a warning; at 1 etcd refuses writes.
_QUOTA_WARNING = 0.8
_PAUSE = 2.0


def check(ctx: Context) -> tuple[ClusterView | None, bool]:
    """(what the members say, whether the cluster is fit for a change); no view where there is no quorum."""
    # An election at this very moment, or a host that has just booted, is no reason to leave out a day's work.
    deadline = time.monotonic() + ctx.config.settle_seconds
    view, found = _look(ctx)
    while found and time.monotonic() < deadline:
        ctx.sleep(_PAUSE)
        view, found = _look(ctx)
    for problem in found:
        ctx.journal.say(HEALTH, "unhealthy", problem)
    if any("NOSPACE" in problem for problem in found):
        ctx.journal.say(
            HEALTH,
            "unhealthy",
            "etcd takes no writes, so the lock for compaction and defragmentation cannot be taken: compact, defragment each "
            "member and disarm the alarm by hand, then delete data or raise --quota-backend-bytes",
            alarm="NOSPACE",
        )
    if view:
        ctx.reach_all([each.endpoint for each in view.members if each.endpoint])
    if view and not found:
        leader = view.leader.member.name if view.leader else ""
        ctx.journal.say(
            HEALTH,
            "ok",
            f"{len(view.members)} members are healthy, {leader} leads",
            members=len(view.members),
            leader=leader,
        )
    return view, not found


def _look(ctx: Context) -> tuple[ClusterView | None, list[str]]:
    try:
        view = survey(ctx.client)
    except KubetuneError as exc:
        return None, [f"the member list cannot be had, so there is no quorum or no local member: {exc}"]
    return view, problems(view)


def measure(ctx: Context, view: ClusterView) -> dict[int, Size]:
    """Size per member id, said for each member that answers."""
    sizes = {}
    for each in sorted(view.members, key=lambda each: each.member.name):
        if each.status is None:
            continue
        try:
            quota = ctx.client.metric("etcd_server_quota_backend_bytes", each.endpoint)
        except EtcdError:
            quota = None
        size = sizes[each.member.member_id] = size_of(each.status, quota)
        share = f"{size.quota_share:.1%} of its quota" if size.quota else "its quota is unknown"
        ctx.journal.say(
            SIZE,
            "warning" if size.quota_share >= _QUOTA_WARNING else "ok",
            f"{each.member.name} has {megabytes(size.size)}, {share}, {size.fragmentation:.1%} of it free",
            member=each.member.name,
            size_bytes=size.size,
            in_use_bytes=size.in_use,
            quota_bytes=size.quota or "unknown",
            quota_share=size.quota_share,
            fragmentation=size.fragmentation,
        )
    return sizes
