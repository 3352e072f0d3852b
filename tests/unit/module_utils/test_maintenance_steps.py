# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maintenance program's decisions: what to compact to, whom to defragment and in which order, what to delete."""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.client import Member, Status
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.cluster import ClusterView, MemberView
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance import (
    backup,
    compaction,
    defragmentation,
    journal,
    records,
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
    enabled=True, min_fragmentation=0.45, min_reclaimable_bytes=100 * MB, quota_share=0.8, timeout_seconds=300
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
    assert defragmentation.is_due(defragmentation.Size(size * MB, in_use * MB, quota * MB), RULES) is due


def test_member_without_a_free_page_is_never_due() -> None:
    rules = Defragmentation(
        enabled=True, min_fragmentation=0.0, min_reclaimable_bytes=0, quota_share=0.0, timeout_seconds=300
    )
    assert not defragmentation.is_due(defragmentation.Size(MB, MB, MB), rules)


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


# --- backup ---------------------------------------------------------------------------------------------------


def taken(*days_ago: float) -> list[backup.Snapshot]:
    return [backup.Snapshot(Path(f"/b/{days}"), NOW - days * DAY) for days in sorted(days_ago, reverse=True)]


@pytest.mark.parametrize(
    ("known", "keep", "max_age_days", "gone"),
    [
        ([], 3, 30, []),
        ([0], 1, 1, []),
        ([400], 1, 1, []),  # old, but the only one
        ([0, 1, 2, 3], 3, 30, [3]),
        ([0, 1, 31, 40], 10, 30, [40, 31]),
        ([31, 32], 10, 30, [32]),
    ],
)
def test_expired(known: list[float], keep: int, max_age_days: int, gone: list[float]) -> None:
    expected = [Path(f"/b/{days}") for days in gone]
    assert [each.path for each in backup.expired(taken(*known), NOW, keep, max_age_days)] == expected


@given(st.lists(st.floats(0, 1000), unique=True, max_size=30), st.integers(1, 40), st.integers(1, 400))
def test_newest_snapshot_never_expires(known: list[float], keep: int, max_age_days: int) -> None:
    everything = taken(*known)
    gone = backup.expired(everything, NOW, keep, max_age_days)
    left = [each for each in everything if each not in gone]
    assert left[-1:] == everything[-1:]
    assert len(left) <= keep


def test_snapshots_of_other_members_and_strangers_are_not_ours(tmp_path: Path) -> None:
    names = [
        "20261124/etcd-snapshot-023000-cp1.db",
        "20261123/etcd-snapshot-235959-cp1.db",
        "20261124/etcd-snapshot-023000-xcp1.db",
        "20261124/etcd-snapshot-023000-cp1.db.part",
        "20261124/etcd-snapshot-023000-cp1.db.sha256",
        "20261399/etcd-snapshot-000000-cp1.db",
        "20261124/etcd-snapshot-230000-a-cp1.db",
        "notes/etcd-snapshot-023000-cp1.db",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(each.path.relative_to(tmp_path)) for each in backup.snapshots(tmp_path, "cp1")]
    assert found == ["20261123/etcd-snapshot-235959-cp1.db", "20261124/etcd-snapshot-023000-cp1.db"]


@pytest.mark.parametrize(("name", "expected"), [("cp-1.example", "cp-1.example"), ("a/b c", "a_b_c"), ("", "member")])
def test_member_name_in_a_file_name(name: str, expected: str) -> None:
    assert backup.file_name(name) == expected


def database(pages: int, page_size: int = 4096) -> bytearray:
    """The frame of a bbolt file with its two meta pages (go.etcd.io/bbolt, internal/common/meta.go)."""
    data = bytearray(pages * page_size)
    for page in (0, 1):
        struct.pack_into("<QHHI", data, page * page_size, page, 0x04, 0, 0)
        body = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, page_size, 0, 3, 0, 0xFFFFFFFFFFFFFFFF, pages, 10 + page)
        value = 0xCBF29CE484222325
        for byte in body:
            value = ((value ^ byte) * 0x100000001B3) % 2**64
        data[page * page_size + 16 : page * page_size + 80] = body + struct.pack("<Q", value)
    return data


def with_trailer(data: bytes) -> bytes:
    return bytes(data) + hashlib.sha256(data).digest()


@pytest.mark.parametrize("page_size", [4096, 16384, 65536])
def test_whole_file_is_accepted(tmp_path: Path, page_size: int) -> None:
    path = tmp_path / "snapshot.db"
    path.write_bytes(with_trailer(database(8, page_size)))
    backup.check_file(path)


def test_one_torn_meta_page_is_what_the_other_is_for(tmp_path: Path) -> None:
    data = database(8)
    data[20] ^= 1
    path = tmp_path / "snapshot.db"
    path.write_bytes(with_trailer(data))
    backup.check_file(path)


def test_cut_or_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.db"
    data = database(8)
    for bad, reason in (
        (data[:-4096], "it was cut"),
        (data[:-1], "it was cut"),
        (b"not a database" * 1000, "no valid meta page"),
        (b"", "no valid meta page"),
    ):
        path.write_bytes(with_trailer(bad))
        with pytest.raises(KubetuneError, match=reason):
            backup.check_file(path)


# --- journal --------------------------------------------------------------------------------------------------


def test_exit_status_is_the_worst_of_what_was_said() -> None:
    said = journal.Journal(io.StringIO())
    for step, outcome, status in (
        ("size", "warning", 0),
        ("compaction", "locked", 10),
        ("health", "unhealthy", 11),
        ("run", "locked", 11),
        ("defragmentation", "failed", 12),
        ("backup", "failed", 13),
        ("backup", "done", 13),
    ):
        said.say(step, outcome, "x")
        assert said.exit_status == status
    assert set(journal.EXIT_STATUS) == {0, 2, 10, 11, 12, 13}


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
