# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maintenance program's decisions: what to compact to, whom to defragment and in which order."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.client import Member, Status
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.cluster import ClusterView, MemberView
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance import (
    compaction,
    defragmentation,
    journal,
    nospace,
    records,
    rule,
)
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.config import Defragmentation
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.records import Done, Sample
from hypothesis import given
from hypothesis import strategies as st

HOUR = 3600.0
DAY = 24 * HOUR
NOW = 1_790_000_000.0


# --- compaction -----------------------------------------------------------------------------------------------


def samples(*pairs: tuple[float, int]) -> list[Sample]:
    """(seconds ago, revision)."""
    return [Sample(NOW - ago, revision, 0) for ago, revision in pairs]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ([], None),
        ([(HOUR - 1, 500)], None),
        ([(HOUR, 500)], 500),
        ([(2 * DAY, 100), (DAY, 400), (600, 900)], 400),
    ],
)
def test_target_was_current_at_least_one_window_ago(known: list[tuple[float, int]], expected: int | None) -> None:
    assert compaction.target(samples(*known), NOW, HOUR) == expected


MOMENTS = st.lists(st.tuples(st.floats(0, 3 * DAY), st.integers(1, 10**9)), max_size=40)


@given(MOMENTS, st.floats(300, 2 * DAY))
def test_history_of_the_window_always_stays(known: list[tuple[float, int]], retention: float) -> None:
    found = compaction.target(samples(*known), NOW, retention)
    assert found is None or any(revision == found and ago >= retention for ago, revision in known)


@given(MOMENTS, st.floats(300, 2 * DAY), st.floats(0, 2 * DAY))
def test_what_is_dropped_from_the_samples_is_never_missed(
    known: list[tuple[float, int]], retention: float, later: float
) -> None:
    """Revisions grow with time; then a later run decides the same with the kept samples as with all of them."""
    times = sorted((ago for ago, _revision in known), reverse=True)
    ordered = [Sample(NOW - ago, number + 1, 0) for number, ago in enumerate(times)]
    kept = compaction.kept(ordered, NOW, retention)
    assert compaction.target(kept, NOW + later, retention) == compaction.target(ordered, NOW + later, retention)


def test_samples_from_the_future_or_beyond_the_revision_do_not_count() -> None:
    known = [Sample(NOW - DAY, 100, 0), Sample(NOW - HOUR, 900, 0), Sample(NOW + HOUR, 50, 0)]
    assert compaction.usable(known, NOW, 500) == known[:1]


@pytest.mark.parametrize(
    ("etcd", "apiserver", "key", "before", "reason"),
    [
        # Nobody: no API server has ever compacted here.
        (None, None, 0, [], ""),
        ({}, {}, 0, [], ""),
        ({"auto-compaction-retention": ["0"]}, None, 0, [], ""),
        # etcd itself.
        (
            {"auto-compaction-retention": ["1h"]},
            None,
            0,
            [],
            "etcd compacts by itself (--auto-compaction-retention=1h)",
        ),
        ({"auto-compaction-retention": ["8"]}, {"etcd-compaction-interval": ["0"]}, 5, [], "etcd compacts by itself"),
        # The API server here, by its default and by its flag.
        ({}, {}, 5, [], "the API server on this host compacts every 5m"),
        ({}, {"etcd-compaction-interval": ["300s"]}, 5, [], "the API server on this host compacts every 300s"),
        # None here or off here: only the movement of the key tells of another host's.
        ({}, {"etcd-compaction-interval": ["0s"]}, 5, [], "is known at the next run"),
        ({}, None, 5, [(60.0, 5)], "is known at the next run"),
        ({}, None, 5, [(DAY, 4)], "an API server on another host compacts"),
        ({}, None, 5, [(DAY, 5)], ""),
        ({}, None, 5, [(DAY, 4), (HOUR, 5)], ""),
    ],
)
def test_other_compactor(etcd: Any, apiserver: Any, key: int, before: list[tuple[float, int]], reason: str) -> None:
    known = [Sample(NOW - ago, 1, old_key) for ago, old_key in before]
    found = compaction.other_compactor(etcd, apiserver, Sample(NOW, 2, key), known)
    assert reason in found and bool(reason) == bool(found)


# --- records --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ago", "due"), [(0.0, False), (DAY - 1, False), (DAY, True), (-200.0, False), (-400.0, True)])
def test_step_is_due_after_its_interval_or_when_the_record_is_from_the_future(ago: float, due: bool) -> None:
    assert records.is_due(Done(NOW - ago, "cp1", "x"), NOW, DAY) is due


def test_step_without_a_record_is_due() -> None:
    assert records.is_due(None, NOW, DAY)


# --- defragmentation ------------------------------------------------------------------------------------------

MB = 1_000_000
RULES = Defragmentation(
    enabled=True,
    method="online",
    online_max_bytes=0,
    rule="dbSizeFree >= 100*1000*1000 && (dbSizeFree / dbSize >= 0.45 || dbQuotaUsage >= 0.8)",
    hours=[],
    timeout_seconds=300,
)


@pytest.mark.parametrize(
    ("size", "in_use", "quota", "due"),
    [
        (1000, 540, 8000, True),
        (1000, 560, 8000, False),  # 44 % free
        (180, 90, 8000, False),  # half of it, but only 90 MB
        (6500, 6300, 8000, True),  # 3 % free, but the quota is near
        (6500, 6450, 8000, False),  # nothing to gain
        (6500, 6300, 0, False),  # the quota is not known
        (0, 0, 8000, False),
    ],
)
def test_member_is_due(size: int, in_use: int, quota: int, due: bool) -> None:
    """Sizes in MB."""
    assert defragmentation.is_due(rule.Size(size * MB, in_use * MB, quota * MB), RULES) is due


def test_member_without_a_free_page_is_never_due() -> None:
    rules = dataclasses.replace(RULES, rule="dbSizeFree >= 0")
    assert not defragmentation.is_due(rule.Size(MB, MB, MB), rules)
    assert defragmentation.is_due(rule.Size(MB, MB - 1, MB), rules)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("dbSize > 999 && dbSizeInUse < 401", True),
        ("dbSizeFree == 600", True),
        ("dbSizeFree/dbSize > 0.6", False),
        ("dbQuotaUsage == 0.5 && dbQuota == 2000", True),
        ("!(dbQuotaUsage > 0.4) || dbSize != 1000", False),
        ("dbSize - dbSizeInUse >= 2 * (100 + 200)", True),
        ("dbSize > 1 || dbSize > 2 && dbSize < 0", True),  # && binds more tightly
        ("-dbSize < 0", True),
    ],
)
def test_rule(text: str, holds: bool) -> None:
    assert rule.Rule(text).holds(rule.Size(1000, 400, 2000)) is holds


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it cannot be read"),
        ("dbSize >", "it cannot be read"),
        ("dbSize = 5", "it cannot be read"),
        ("dbSize", "it is a number"),
        ("dbSize + 1", "it is a number"),
        ("dbsize > 5", "dbsize is not known"),
        ("dbSize > 5 && 1", "1 is a number in a place for the other"),
        ("(dbSize > 5) + 1 > 0", "dbSize > 5 is true or false in a place for the other"),
        ("1 < dbSize < 5", "1 < dbSize < 5 is not known"),
        ("dbSize ** 9 > 1", "dbSize ** 9 is not known"),
        ("open('/etc/shadow') != 0", "open('/etc/shadow') is not known"),
        ("dbSize.real > 0", "dbSize.real is not known"),
        ("'a' == 'a'", "'a' is not known"),
        ("True", "True is not known"),
        ("(" * 5000, "it cannot be read"),
    ],
)
def test_bad_rule_is_refused_with_the_reason(text: str, why: str) -> None:
    assert rule.problem(text) == why or rule.problem(text).startswith(why), rule.problem(text)


@given(st.integers(0, 2**50), st.integers(0, 2**50), st.integers(0, 2**50))
def test_rule_of_the_role_has_an_answer_for_all_sizes(size: int, in_use: int, quota: int) -> None:
    due = defragmentation.is_due(rule.Size(size, in_use, quota), RULES)
    free = max(0, size - in_use)
    assert due == (free >= 100 * MB and (free / size >= 0.45 or (quota > 0 and size / quota >= 0.8)))


@pytest.mark.parametrize(
    ("hours", "now", "allowed"),
    [
        ([], "12:00", True),
        (["01:00-05:00"], "00:59", False),
        (["01:00-05:00"], "01:00", True),
        (["01:00-05:00"], "05:00", False),
        (["22:00-05:00"], "23:30", True),
        (["22:00-05:00"], "04:59", True),
        (["22:00-05:00"], "12:00", False),
        (["01:00-02:00", "12:00-12:30"], "12:29", True),
    ],
)
def test_hours(hours: list[str], now: str, allowed: bool) -> None:
    today = time.localtime()
    moment = time.mktime((today.tm_year, today.tm_mon, today.tm_mday, *map(int, now.split(":")), 0, 0, 0, -1))
    assert defragmentation.is_allowed(hours, moment) is allowed


def view(names: str, leader: str) -> ClusterView:
    """A cluster with one letter per member; its id is the letter's code."""

    def member(name: str) -> MemberView:
        status = Status(ord(name), 1, ord(leader), "3.6.16", 9, 2, 9, 9, MB, MB, (), False)
        return MemberView(Member(ord(name), name, (), (f"https://{name}:2379",), False), status)

    return ClusterView(tuple(member(name) for name in names))


@given(st.permutations("abcde"), st.sampled_from("abcde"), st.sets(st.sampled_from("abcde"), min_size=1))
def test_followers_come_first_by_name_and_the_leader_last(members: list[str], leader: str, due: set[str]) -> None:
    remaining = [ord(name) for name in due]
    order = []
    while remaining:
        found = defragmentation.next_member(view("".join(members), leader), remaining)
        assert found is not None
        remaining.remove(found.member.member_id)
        order.append(found.member.name)
    assert order == sorted(due - {leader}) + sorted(due & {leader})


def test_leader_is_asked_for_again_before_each_turn() -> None:
    remaining = [ord(name) for name in "abc"]
    assert defragmentation.next_member(view("abc", "a"), remaining).member.name == "b"
    # b was done; meanwhile leadership went to c: a is a follower now.
    assert defragmentation.next_member(view("abc", "c"), [ord("a"), ord("c")]).member.name == "a"


def test_member_that_left_is_nobodys_turn() -> None:
    assert defragmentation.next_member(view("ab", "a"), [ord("z")]) is None


# --- NOSPACE --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "is_all"),
    [
        ({}, False),
        ({"a": ["memberID:1 alarm:NOSPACE"], "b": ["memberID:1 alarm:NOSPACE"]}, True),
        ({"a": ["memberID:1 alarm:NOSPACE"], "b": ["memberID:2 alarm:CORRUPT"]}, False),
    ],
)
def test_only_the_alarm_may_be_wrong(errors: dict[str, list[str]], is_all: bool) -> None:
    whole = view("ab", "a")
    members = tuple(
        replace(each, status=replace(each.status, errors=tuple(errors.get(each.member.name, ())))) for each in whole.members
    )
    assert nospace.is_all(ClusterView(members)) is is_all


def test_member_that_does_not_answer_is_more_than_the_alarm() -> None:
    whole = view("abc", "a")
    alarmed = [replace(each, status=replace(each.status, errors=("memberID:1 alarm:NOSPACE",))) for each in whole.members]
    assert nospace.is_all(ClusterView(tuple(alarmed)))
    assert not nospace.is_all(ClusterView((*alarmed[:2], replace(alarmed[2], status=None, failure="refused"))))


def test_every_host_names_the_same_member() -> None:
    assert {nospace.in_charge(view("".join(names), "b")).member.name for names in ("abc", "cba", "bca")} == {"a"}


# --- journal --------------------------------------------------------------------------------------------------


def test_exit_status_is_the_worst_of_what_was_said() -> None:
    said = journal.Journal(io.StringIO())
    for step, outcome, status in (
        ("size", "warning", 0),
        ("compaction", "locked", 10),
        ("health", "unhealthy", 11),
        ("run", "locked", 11),
        ("defragmentation", "failed", 12),
        ("copy", "failed", 15),
        ("verify", "failed", 14),
        ("backup", "failed", 13),
        ("drill", "failed", 13),
        ("backup", "done", 13),
    ):
        said.say(step, outcome, "x")
        assert said.exit_status == status
    assert set(journal.EXIT_STATUS) == {0, 2, 10, 11, 12, 13, 14, 15}


def test_json_lines_hold_the_same_as_the_others(tmp_path: Path) -> None:
    out = io.StringIO()
    journal.Journal(out, priorities=True, as_json=True).say("backup", "done", "all of it", path=tmp_path, seconds=1.5)
    assert json.loads(out.getvalue()) == {
        "step": "backup",
        "outcome": "done",
        "path": str(tmp_path),
        "seconds": 1.5,
        "message": "all of it",
    }


@given(st.text(max_size=40), st.text(max_size=40))
def test_line_is_one_line_and_its_facts_read_back(sentence: str, value: str) -> None:
    out = io.StringIO()
    journal.Journal(out, priorities=True).say("backup", "failed", sentence, member=value, share=0.5, ready=True)
    line, end = out.getvalue()[:-1], out.getvalue()[-1]
    assert end == "\n" and len(line.splitlines()) == 1
    assert line.startswith("<3>backup: ")
    pairs = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)', line.rpartition(" | ")[2])
    facts = {key: json.loads(text) if text.startswith('"') else text for key, text in pairs}
    assert facts == {"step": "backup", "outcome": "failed", "member": value, "share": "0.5", "ready": "true"}
