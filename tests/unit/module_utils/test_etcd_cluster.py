# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a member may be taken away, and who leads then. `tests/integration/test_etcd_client.py` asks real members."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.client import EtcdError, Member, Status
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.cluster import (
    MAX_LAG_ENTRIES,
    ClusterView,
    MemberView,
    best_successor,
    gate,
    hand_over_leadership,
    problems,
)
from hypothesis import given
from hypothesis import strategies as st

LEADER = 1


def member(number: int, learner: bool = False, **status: Any) -> MemberView:
    """Member ``number`` is named cpN and follows member 1; ``status`` changes what it says of itself."""
    said = {
        "member_id": number, "cluster_id": 7, "leader_id": LEADER, "version": "3.6.16", "revision": 50, "raft_term": 2,
        "raft_index": 100, "raft_applied_index": 100, "db_size": 2**20, "db_size_in_use": 2**19, "errors": (),
        "is_learner": learner, **status,
    }
    return MemberView(Member(number, f"cp{number}", (), (f"https://10.0.0.{number}:2379",), learner), Status(**said))


def silent(number: int, learner: bool = False) -> MemberView:
    return MemberView(Member(number, f"cp{number}", (), (f"https://10.0.0.{number}:2379",), learner), None, "connection refused")


def cluster(*members: MemberView) -> ClusterView:
    return ClusterView(members)


def whole(size: int) -> ClusterView:
    return cluster(*(member(number) for number in range(1, size + 1)))


# --- what is wrong with a cluster -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_whole_cluster_has_no_problem(size: int) -> None:
    assert problems(whole(size)) == []


@pytest.mark.parametrize(
    ("sick", "text"),
    [
        (silent(2), "member cp2 (2) does not answer: connection refused"),
        (member(2, leader_id=0), "member cp2 (2) has no leader"),
        (member(2, errors=("memberID:2 alarm:NOSPACE",)), "member cp2 (2) reports: memberID:2 alarm:NOSPACE"),
        (member(2, learner=True), "member cp2 (2) is a learner: promote or remove it first"),
    ],
)
def test_each_problem_names_the_member(sick: MemberView, text: str) -> None:
    assert problems(cluster(member(1), sick, member(3))) == [text]


@pytest.mark.parametrize("versions", [("3.5.30", "3.6.16", "3.6.0"), ("3.6.16", "3.7.3", "3.6.16"), ("3.7.0", "3.7.3", "3.7.1")])
def test_members_of_neighbouring_versions_are_an_upgrade(versions: tuple[str, ...]) -> None:
    assert problems(cluster(*(member(number, version=version) for number, version in enumerate(versions, start=1)))) == []


@pytest.mark.parametrize("versions", [("3.7.3", "3.6.16", "3.5.30"), ("3.7.3", "3.5.30", "3.7.3"), ("4.0.0", "3.7.3", "3.5.30")])
def test_members_two_minor_versions_apart_are_refused(versions: tuple[str, ...]) -> None:
    (problem,) = problems(cluster(*(member(number, version=version) for number, version in enumerate(versions, start=1))))
    oldest = versions.index("3.5.30") + 1
    assert f"member cp1 (1) runs etcd {versions[0][:3]} and member cp{oldest} ({oldest}) 3.5" in problem
    assert f"upgrade cp{oldest} ({oldest}) first" in problem


def test_two_leaders_are_an_election() -> None:
    assert problems(cluster(member(1), member(2), member(3, leader_id=3))) == [
        "the members do not agree on the leader: an election is under way"
    ]


def test_lag_is_counted_from_the_newest_log_of_all() -> None:
    newest = 5000
    at_the_limit, behind = newest - MAX_LAG_ENTRIES, newest - MAX_LAG_ENTRIES - 1
    view = cluster(
        member(1, raft_index=newest, raft_applied_index=newest),
        member(2, raft_index=at_the_limit, raft_applied_index=at_the_limit),
        member(3, raft_index=behind, raft_applied_index=behind),
    )
    assert problems(view) == [f"member cp3 (3) is {MAX_LAG_ENTRIES + 1} entries behind (at most {MAX_LAG_ENTRIES} are accepted)"]


def test_an_alarm_can_be_what_the_caller_came_to_mend() -> None:
    view = cluster(member(1), member(2, errors=("memberID:2 alarm:NOSPACE",)), member(3, errors=("memberID:3 alarm:CORRUPT",)))
    assert problems(view, ignore_alarms=["NOSPACE"]) == ["member cp3 (3) reports: memberID:3 alarm:CORRUPT"]


def test_all_problems_are_told_at_once() -> None:
    assert len(problems(cluster(silent(1), silent(2), member(3, leader_id=0, errors=("etcdserver: no leader",))))) == 4


def test_a_member_that_never_started_has_no_name_yet() -> None:
    added = MemberView(Member(0xAB, "", ("https://10.0.0.9:2380",), (), False), None, "it has not started yet")
    assert problems(cluster(member(1), member(2), added)) == ["member unstarted (ab) does not answer: it has not started yet"]


# --- the gate -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 5])
def test_one_of_many_may_go(size: int) -> None:
    for number in range(1, size + 1):
        assert gate(whole(size), number) == []


@pytest.mark.parametrize("size", [1, 2])
def test_small_clusters_need_consent(size: int) -> None:
    refused, = gate(whole(size), 1)
    assert f"member cp1 (1) is one of {size}" in refused and "etcd_static_pod_allow_downtime" in refused
    assert gate(whole(size), 1, allow_downtime=True) == []


def test_consent_to_downtime_is_no_consent_to_a_broken_cluster() -> None:
    assert gate(cluster(member(1), silent(2)), 1, allow_downtime=True) == ["member cp2 (2) does not answer: connection refused"]


def test_consent_does_not_open_the_gate_of_a_larger_cluster() -> None:
    view = cluster(member(1), member(2), silent(3))
    assert "without member cp1 (1) only 1 of 3 voters are left, and 2 are needed" in gate(view, 1, allow_downtime=True)


def test_a_cluster_with_one_member_down_may_not_lose_another() -> None:
    view = cluster(*(member(number) for number in range(1, 5)), silent(5))
    assert gate(view, 2) == ["member cp5 (5) does not answer: connection refused"]


def test_a_learner_does_not_count_as_a_voter() -> None:
    view = cluster(member(1), member(2), member(3, learner=True))
    assert view.quorum == 2
    assert any("is one of 2" in each for each in gate(view, 2))


def test_a_stranger_is_no_member() -> None:
    assert gate(whole(3), 0xBEEF) == ["member beef is not in the member list"]


@st.composite
def views(draw: st.DrawFn) -> ClusterView:
    """Clusters in any state: up to seven members, each silent, leaderless, behind, alarmed, a learner, or well."""
    members = []
    for number in range(1, draw(st.integers(1, 7)) + 1):
        learner = draw(st.sampled_from([False, False, False, True]))
        if draw(st.sampled_from([True, True, True, False])):
            members.append(
                member(
                    number, learner,
                    leader_id=draw(st.sampled_from([LEADER, LEADER, LEADER, 0, 2])),
                    raft_applied_index=draw(st.sampled_from([100, 100, 90])),
                    raft_index=draw(st.sampled_from([100, 100, 5000])),
                    errors=draw(st.sampled_from([(), (), (), ("memberID:1 alarm:NOSPACE",)])),
                )
            )
        else:
            members.append(silent(number, learner))
    return ClusterView(tuple(members))


@given(view=views(), number=st.integers(1, 7), consent=st.booleans())
def test_the_gate_never_breaks_quorum(view: ClusterView, number: int, consent: bool) -> None:
    voters = [each for each in view.members if not each.member.is_learner]
    left = [each for each in voters if each.status and each.member.member_id != number]
    if len(left) < len(voters) // 2 + 1 and not (consent and len(voters) <= 2):
        assert gate(view, number, consent)


@given(view=views(), number=st.integers(1, 7), consent=st.booleans())
def test_the_gate_is_open_only_where_everybody_is_well(view: ClusterView, number: int, consent: bool) -> None:
    """One that is down may be mended, while all others are well."""
    if not gate(view, number, consent):
        others = tuple(each for each in view.members if each.status or each.member.member_id != number)
        assert problems(ClusterView(others)) == []
        assert all(each.status and each.status.leader_id == LEADER for each in others)


# --- leadership -----------------------------------------------------------------------------------------------


def test_the_leader_is_who_says_so_itself() -> None:
    assert whole(3).leader == whole(3).by_name("cp1")
    assert cluster(silent(1), member(2), member(3)).leader is None


def test_the_furthest_voter_succeeds() -> None:
    view = cluster(
        member(1, raft_applied_index=1000), member(2, raft_applied_index=899), member(3, raft_applied_index=1000), silent(4),
        member(5, learner=True),
    )  # fmt: skip
    assert best_successor(view, LEADER) == view.by_name("cp3")
    assert best_successor(view, 3) == view.by_name("cp1")


def test_of_those_that_are_far_enough_the_one_that_is_defragmented_succeeds() -> None:
    fragmented = {"db_size": 900, "db_size_in_use": 300}
    view = cluster(
        member(1), member(2, raft_applied_index=1000, **fragmented), member(3, raft_applied_index=900, db_size=400, db_size_in_use=300),
        member(4, raft_applied_index=899, db_size=300, db_size_in_use=300),
    )  # fmt: skip
    assert best_successor(view, LEADER) == view.by_name("cp3")


@given(view=views(), number=st.integers(1, 7))
def test_a_successor_can_lead(view: ClusterView, number: int) -> None:
    successor = best_successor(view, number)
    able = [
        each for each in view.members
        if each.status and not each.member.is_learner and each.member.member_id != number
    ]
    if successor is None:
        assert able == []
    else:
        assert successor in able
        assert all(each.status.raft_applied_index <= successor.status.raft_applied_index + 100 for each in able)


@pytest.mark.parametrize("view", [whole(1), cluster(silent(1), member(2), member(3)), cluster(member(1), silent(2), silent(3))])
def test_nobody_to_lead(view: ClusterView) -> None:
    with pytest.raises(EtcdError, match="leadership cannot be moved"):
        hand_over_leadership(None, view, sleep=lambda _seconds: None)
