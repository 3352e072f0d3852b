# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the members say of themselves, and the rules which decide whether one of them may be taken away."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable, Sequence

from .._static_pod.flags import dotted, version_of
from .client import Client, EtcdError, Member, Status, Unreachable

#: A member that has applied this many entries less than the newest one is not caught up. etcd itself turns
#: requests away beyond 5000 (server/etcdserver/v3_server.go, maxGapBetweenApplyAndCommitIndex, 3.6).
MAX_LAG_ENTRIES = 1000
#: Entries that a leader sends on at once before it hands over; small ones, of which a message holds thousands.
_MESSAGE = 100
#: Alarms, as a member's status names them. Each is the whole cluster's, and every member reports it.
ALARMS = ("NOSPACE", "CORRUPT")


@dataclass(frozen=True)
class MemberView:
    """A member and its own status; ``status`` is None where it did not answer, and ``failure`` says why."""

    member: Member
    status: Status | None
    failure: str = ""

    @property
    def label(self) -> str:
        return f"{self.member.name or 'unstarted'} ({self.member.member_id:x})"

    @property
    def endpoint(self) -> str:
        return self.member.client_urls[0] if self.member.client_urls else ""


@dataclass(frozen=True)
class ClusterView:
    members: tuple[MemberView, ...]

    @property
    def voters(self) -> tuple[MemberView, ...]:
        return tuple(view for view in self.members if not view.member.is_learner)

    @property
    def quorum(self) -> int:
        return len(self.voters) // 2 + 1

    @property
    def leader(self) -> MemberView | None:
        """The member that calls itself leader; None during an election."""
        for view in self.members:
            if view.status and view.status.is_leader:
                return view
        return None

    @property
    def revision(self) -> int:
        return max((view.status.revision for view in self.members if view.status), default=0)

    def by_id(self, member_id: int) -> MemberView | None:
        return next((view for view in self.members if view.member.member_id == member_id), None)

    def by_name(self, name: str) -> MemberView | None:
        return next((view for view in self.members if view.member.name == name), None)


def survey(client: Client, timeout: float = 5.0) -> ClusterView:
    """Ask every member for its status at the same time.

    Raises:
        EtcdError: the member list cannot be had, so there is no quorum or no endpoint answers.
    """
    members = client.members()
    with ThreadPoolExecutor(max_workers=max(1, len(members))) as pool:
        return ClusterView(tuple(pool.map(lambda member: _view(client, member, timeout), members)))


def problems(view: ClusterView, ignore_alarms: Sequence[str] = ()) -> list[str]:
    """Everything that makes the cluster unfit for a change, one sentence each; empty when it is whole."""
    found = [problem for each in view.members for problem in problems_of(view, each, ignore_alarms)]
    leaders = {each.status.leader_id for each in view.members if each.status}
    if len(leaders - {0}) > 1:
        found.append("the members do not agree on the leader: an election is under way")
    elif not found and view.leader is None:
        found.append("no member says of itself that it leads: an election is under way")
    return [*found, *_versions_apart(view)]


def _versions_apart(view: ClusterView) -> list[str]:
    """Whether members are more than one minor version apart: etcd is upgraded one minor at a time, and supports no other mix."""
    versions = {each.label: version_of(each.status.version)[:2] for each in view.members if each.status}
    oldest, newest = (choose(versions, key=lambda label: versions[label], default="") for choose in (min, max))
    if not versions or versions[newest] <= (versions[oldest][0], versions[oldest][1] + 1):
        return []
    return [
        f"member {newest} runs etcd {dotted(versions[newest])} and member {oldest} {dotted(versions[oldest])}: one minor version at most "
        f"may lie between them; upgrade {oldest} first, one minor version at a time"
    ]


def problems_of(view: ClusterView, each: MemberView, ignore_alarms: Sequence[str] = ()) -> list[str]:
    """What is wrong with one member."""
    if each.status is None:
        return [f"member {each.label} does not answer: {each.failure}"]
    found = []
    if each.status.leader_id == 0:
        found.append(f"member {each.label} has no leader")
    for error in each.status.errors:
        if not any(alarm in error for alarm in ignore_alarms):
            found.append(f"member {each.label} reports: {error}")
    newest = max(other.status.raft_index for other in view.members if other.status)
    lag = newest - each.status.raft_applied_index
    if lag > MAX_LAG_ENTRIES:
        found.append(f"member {each.label} is {lag} entries behind (at most {MAX_LAG_ENTRIES} are accepted)")
    if each.status.is_learner:
        found.append(f"member {each.label} is a learner: promote or remove it first")
    return found


def gate(view: ClusterView, member_id: int, allow_downtime: bool = False) -> list[str]:
    """Why the member must not be stopped now; empty when it may.

    Args:
        member_id: the member that would be away for a while.
        allow_downtime: consent to the downtime of a cluster of one or two, which has no member to spare.
    """
    away = view.by_id(member_id)
    if away is None:
        return [*problems(view), f"member {member_id:x} is not in the member list"]
    if away.status is None:
        return problems_for_repair(view, away)
    found = problems(view)
    if len(view.voters) <= 2 and not allow_downtime:
        found.append(
            f"member {away.label} is one of {len(view.voters)}: its restart stops the cluster for a while, and that "
            "needs consent (etcd_static_pod_allow_downtime)"
        )
    return [*found, *missed(view, away)]


def problems_for_repair(view: ClusterView, down: MemberView) -> list[str]:
    """Why a member that is down must not be worked on; that it is down is no reason, and nothing is taken from the cluster.

    The others have to be whole all the same, and a quorum: what is done to this one must not be mixed up with what ails them.
    """
    found = problems(ClusterView(tuple(each for each in view.members if each != down)))
    left = sum(1 for each in view.voters if each.status)
    if left < view.quorum:
        found.append(f"only {left} of {len(view.voters)} voters answer, and {view.quorum} are needed")
    return found


def missed(view: ClusterView, away: MemberView) -> list[str]:
    """Why the cluster would not have quorum without a member; one or two members have none to spare, which is no news."""
    left = sum(1 for each in view.voters if each.status and each != away)
    if len(view.voters) <= 2 or left >= view.quorum:
        return []
    return [f"without member {away.label} only {left} of {len(view.voters)} voters are left, and {view.quorum} are needed"]


def best_successor(view: ClusterView, member_id: int) -> MemberView | None:
    """The voter to hand leadership to: not ``member_id``, and as far as any has applied, or a message's worth behind.

    Of several the one with the least free space: it is the last to be defragmented, when leadership would have to move once more.
    """
    able = [(each, each.status) for each in view.voters if each.status and each.member.member_id != member_id]
    if not able:
        return None
    furthest = max(status.raft_applied_index for _each, status in able)
    near = [(each, status) for each, status in able if status.raft_applied_index >= furthest - _MESSAGE]
    return min(near, key=lambda pair: (pair[1].db_size - pair[1].db_size_in_use, -pair[1].raft_applied_index))[0]


def hand_over_leadership(client: Client, view: ClusterView, sleep: Callable[[float], None], attempts: int = 20) -> int:
    """Move leadership from its present holder to the best successor; return the new leader's id.

    Raises:
        EtcdError: nobody can take it, or it did not arrive within ``attempts`` half seconds.
    """
    leader = view.leader
    successor = best_successor(view, leader.member.member_id) if leader else None
    if leader is None or successor is None:
        raise EtcdError("leadership cannot be moved: no leader, or no other voter that answers")
    client.move_leader(leader.endpoint, successor.member.member_id)
    for _attempt in range(attempts):
        try:
            if client.status(successor.endpoint).is_leader:
                return successor.member.member_id
        except Unreachable:
            pass
        sleep(0.5)
    raise EtcdError(f"leadership did not move from {leader.label} to {successor.label}")


def _view(client: Client, member: Member, timeout: float) -> MemberView:
    failure = "it has not started yet: no client URL is known"
    for url in member.client_urls:
        try:
            return MemberView(member, client.status(url, timeout))
        except EtcdError as exc:
            failure = str(exc)
    return MemberView(member, None, failure)
