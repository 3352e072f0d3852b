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
from .journal import megabytes
from .rule import Size

HEALTH, SIZE = "health", "size"

#: Share of the quota from which a line becomes a warning; at 1 etcd refuses writes.
_QUOTA_WARNING = 0.8
_PAUSE = 2.0


def check(ctx: Context) -> tuple[ClusterView | None, bool]:
    """(what the members say, whether the cluster is fit for a change); no view where there is no quorum."""
    view, found = look(ctx)
    say(ctx, view, found)
    return view, not found


def look(ctx: Context) -> tuple[ClusterView | None, list[str]]:
    """What the members say, and what is wrong even after a while."""
    # An election at this very moment, or a host that has just booted, is no reason to leave out a day's work.
    deadline = time.monotonic() + ctx.config.settle_seconds
    view, found = _look(ctx)
    while found and time.monotonic() < deadline:
        ctx.sleep(_PAUSE)
        view, found = _look(ctx)
    if view:
        ctx.reach_all([each.endpoint for each in view.members if each.endpoint])
    return view, found


def say(ctx: Context, view: ClusterView | None, found: list[str]) -> None:
    for problem in found:
        ctx.journal.say(HEALTH, "unhealthy", problem)
    if any("NOSPACE" in problem for problem in found):
        ctx.journal.say(
            HEALTH,
            "unhealthy",
            "etcd takes no writes: 'kubetune.pyz maintenance recover-space' compacts, defragments every member, proves that there is "
            "room and takes the alarm away",
            alarm="NOSPACE",
        )
    if view and not found:
        leader = view.leader.member.name if view.leader else ""
        ctx.journal.say(
            HEALTH,
            "ok",
            f"{len(view.members)} members are healthy, {leader} leads",
            members=len(view.members),
            leader=leader,
        )


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
        size = sizes[each.member.member_id] = Size(each.status.db_size, each.status.db_size_in_use, int(quota or 0))
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
