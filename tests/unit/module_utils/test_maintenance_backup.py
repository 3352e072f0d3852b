# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups: which of them stay, what a whole file looks like, what a sidecar says, where copies are, the metrics."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
import shutil
import struct
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.client import Client
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance import (
    backup,
    elsewhere,
    metrics,
    retention,
    tools,
    verification,
)
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.config import Backup, parse
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.context import Context
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.journal import Journal
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.retention import Snapshot
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.verification import Content, Sidecar
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.processes import of_static_pod
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.module_utils.test_maintenance_config import GOOD

HOUR = 3600
DAY = 24 * HOUR
NOW = 1_790_000_000


# --- retention ------------------------------------------------------------------------------------------------


def policy(hourly: int = 0, daily: int = 0, weekly: int = 0, monthly: int = 0) -> Backup:
    counts = {"keep_hourly": hourly, "keep_daily": daily, "keep_weekly": weekly, "keep_monthly": monthly}
    return Backup(**{**GOOD["backup"], **counts})


def at(moment: float) -> Snapshot:
    when = datetime.fromtimestamp(moment, timezone.utc)
    snapshot = retention.of_path(Path(when.strftime("/b/%Y%m%d/etcd-snapshot-%H%M%S-cp1.db")))
    assert snapshot is not None and snapshot.taken_at == moment
    return snapshot


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def one_cluster(_snapshot: Snapshot) -> str:
    return "c0ffee"


def left(moments: list[str], rules: Backup) -> list[str]:
    known = [at(utc(text)) for text in moments]
    gone = retention.expired(known, max(each.taken_at for each in known), rules, lambda _each: True, one_cluster)
    return [text for text, each in zip(moments, known) if each not in gone]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        # The newest of an hour, of so many hours that have any.
        (policy(hourly=2), ["2026-11-24T11:50", "2026-11-24T13:05"]),
        (policy(daily=2), ["2026-11-23T23:59", "2026-11-24T13:05"]),
        # 22 November 2026 is a Sunday: ISO weeks begin on Mondays.
        (policy(weekly=2), ["2026-11-22T02:00", "2026-11-24T13:05"]),
        (policy(weekly=3), ["2026-11-01T02:00", "2026-11-22T02:00", "2026-11-24T13:05"]),
        (policy(monthly=12), ["2025-12-31T02:00", "2026-10-31T02:00", "2026-11-24T13:05"]),
        (policy(hourly=1, daily=1, weekly=1, monthly=1), ["2026-11-24T13:05"]),
    ],
)
def test_each_tier_keeps_the_newest_of_its_last_periods(rules: Backup, expected: list[str]) -> None:
    moments = [
        "2025-12-31T02:00",
        "2026-10-31T01:00",
        "2026-10-31T02:00",
        "2026-11-01T02:00",
        "2026-11-22T02:00",
        "2026-11-23T02:00",
        "2026-11-23T23:59",
        "2026-11-24T11:10",
        "2026-11-24T11:50",
        "2026-11-24T13:05",
    ]
    assert left(moments, rules) == expected


MOMENTS = st.lists(st.integers(0, 800 * DAY), unique=True, min_size=1, max_size=60).map(
    lambda ago: [at(NOW - each) for each in sorted(ago, reverse=True)]
)
COUNTS = st.integers(0, 8)
POLICIES = st.builds(policy, COUNTS, COUNTS, COUNTS, COUNTS)


@given(MOMENTS, POLICIES, st.data())
def test_last_good_one_and_the_newest_never_expire(known: list[Snapshot], rules: Backup, data: st.DataObject) -> None:
    good = data.draw(st.sets(st.sampled_from(known)))
    gone = retention.expired(known, NOW, rules, good.__contains__, one_cluster)
    if good:
        assert max(good, key=lambda each: each.taken_at) not in gone and known[-1] not in gone
    else:
        assert gone == []


@given(MOMENTS, POLICIES)
def test_second_time_nothing_expires_and_the_tiers_bound_what_stays(known: list[Snapshot], rules: Backup) -> None:
    gone = retention.expired(known, NOW, rules, lambda _each: True, one_cluster)
    staying = [each for each in known if each not in gone]
    assert retention.expired(staying, NOW, rules, lambda _each: True, one_cluster) == []
    bound = rules.keep_hourly + rules.keep_daily + rules.keep_weekly + rules.keep_monthly
    assert len(staying) <= max(1, bound)


@given(MOMENTS, POLICIES)
def test_every_tier_is_full_as_long_as_there_is_something_for_it(known: list[Snapshot], rules: Backup) -> None:
    gone = retention.expired(known, NOW, rules, lambda _each: True, one_cluster)
    for count, length in ((rules.keep_hourly, 13), (rules.keep_daily, 10), (rules.keep_monthly, 7)):

        def periods(snapshots: list[Snapshot], length: int = length) -> list[str]:
            moments = (datetime.fromtimestamp(each.taken_at, timezone.utc).isoformat() for each in snapshots)
            return sorted({moment[:length] for moment in moments}, reverse=True)

        staying = [each for each in known if each not in gone]
        assert periods(staying)[:count] == periods(known)[:count]


def test_a_snapshot_of_a_clock_that_ran_ahead_makes_the_others_not_old() -> None:
    assert left(["2026-11-23T02:00", "2026-11-24T02:00", "2036-01-01T00:00"], policy(daily=3)) == [
        "2026-11-23T02:00",
        "2026-11-24T02:00",
        "2036-01-01T00:00",
    ]


def test_what_a_clock_set_back_takes_is_the_newest(tmp_path: Path) -> None:
    """Three backups of the hour that is repeated, and one from a clock that was years ahead."""
    for name in ("20360101/etcd-snapshot-000000", "20261124/etcd-snapshot-145000", "20261124/etcd-snapshot-142000", "20261124/etcd-snapshot-141000"):
        path = tmp_path / f"{name}-cp1.db"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    now = datetime(2026, 11, 24, 14, 20, tzinfo=timezone.utc).timestamp()
    known = retention.snapshots(tmp_path, "cp1", now)
    assert [each.stem[14:20] for each in known] == ["145000", "000000", "141000", "142000"]
    gone = retention.expired(known, now, policy(hourly=2), lambda _each: True, one_cluster)
    assert [each.stem[14:20] for each in gone] == ["141000"]


def test_what_a_clock_that_was_ahead_took_pushes_no_other_out() -> None:
    days = [at(NOW - each * DAY) for each in range(5, -1, -1)]
    ahead = [at(NOW + each * DAY) for each in range(1, 9)]
    gone = retention.expired([*ahead, *days], NOW, policy(daily=4), lambda _each: True, one_cluster)
    assert gone == days[:2]


def test_a_restore_does_not_push_the_newest_of_before_out() -> None:
    """The new cluster is backed up in the same hour; what it was restored from may have been the wrong one."""
    moments = [utc(f"2026-11-24T{time}:00") for time in ("09:50", "10:01", "10:05", "10:25", "10:40")]
    known = [at(each) for each in moments]
    cluster_of = {each: "before" if each.taken_at < utc("2026-11-24T10:10:00") else "after" for each in known}
    cluster_of[known[1]] = ""  # its sidecar cannot be read
    gone = retention.expired(known, utc("2026-11-24T11:00:00"), policy(hourly=1, daily=1), lambda _each: True, cluster_of.__getitem__)
    assert gone == [known[0], known[1], known[3]]


def test_snapshots_of_other_members_and_strangers_are_not_ours(tmp_path: Path) -> None:
    names = [
        "20261124/etcd-snapshot-023000-cp1.db",
        "20261124/etcd-snapshot-043000-cp1.db.age",
        "20261123/etcd-snapshot-235959-cp1.db",
        "20261124/etcd-snapshot-023000-xcp1.db",
        "20261124/etcd-snapshot-023000-cp1.db.part",
        "20261124/etcd-snapshot-023000-cp1.json",
        "20261399/etcd-snapshot-000000-cp1.db",
        "20261124/etcd-snapshot-230000-a-cp1.db",
        "notes/etcd-snapshot-023000-cp1.db",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(each.path.relative_to(tmp_path)) for each in retention.snapshots(tmp_path, "cp1", NOW + 100 * DAY)]
    assert found == [
        "20261123/etcd-snapshot-235959-cp1.db",
        "20261124/etcd-snapshot-023000-cp1.db",
        "20261124/etcd-snapshot-043000-cp1.db.age",
    ]
    assert len(retention.snapshots(tmp_path, None, NOW + 100 * DAY)) == 5


def test_leftovers_of_this_member_go_and_nothing_else(tmp_path: Path) -> None:
    stay = [
        "etcd-snapshot-023000-cp1.db",
        "etcd-snapshot-023000-cp1.json",
        "etcd-snapshot-033000-cp1.db.age",
        "etcd-snapshot-033000-cp1.json",
        "etcd-snapshot-033000-cp1.host.tar.age",
        "etcd-snapshot-043000-cp1.example.db.part",
        "etcd-snapshot-043000-cp2.db.part",
        "notes.json",
    ]
    go = [
        "etcd-snapshot-043000-cp1.db.part",
        "etcd-snapshot-043000-cp1.db.part.part",
        "etcd-snapshot-043000-cp1.db.age.part",
        "etcd-snapshot-053000-cp1.json",
        "etcd-snapshot-053000-cp1.host.tar.age",
        ".etcd-snapshot-063000-cp1.json.kubetune-tmp",
    ]
    (tmp_path / "20261124").mkdir()
    for name in (*stay, *go):
        (tmp_path / "20261124" / name).touch()
    config = parse({**GOOD, "backup": {**GOOD["backup"], "directory": str(tmp_path)}})
    assert sorted(path.name for path in backup.remove_leftovers(config, "cp1")) == sorted(go)
    assert sorted(path.name for path in (tmp_path / "20261124").iterdir()) == sorted(stay)


@pytest.mark.parametrize(("name", "expected"), [("cp-1.example", "cp-1.example"), ("a/b c", "a_b_c"), ("", "member")])
def test_member_name_in_a_file_name(name: str, expected: str) -> None:
    assert retention.file_name(name) == expected


# --- verification ---------------------------------------------------------------------------------------------


def database(pages: int, page_size: int = 4096, layout: int = 2) -> bytearray:
    """The frame of a bbolt file with its two meta pages (go.etcd.io/bbolt, internal/common/meta.go)."""
    data = bytearray(pages * page_size)
    for page in (0, 1):
        struct.pack_into("<QHHI", data, page * page_size, page, 0x04, 0, 0)
        body = struct.pack("<IIIIQQQQQ", 0xED0CDAED, layout, page_size, 0, 3, 0, 0xFFFFFFFFFFFFFFFF, pages, 10 + page)
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
    verification.check_file(path)


def test_one_torn_meta_page_is_what_the_other_is_for(tmp_path: Path) -> None:
    data = database(8)
    data[20] ^= 1
    path = tmp_path / "snapshot.db"
    path.write_bytes(with_trailer(data))
    verification.check_file(path)


def test_cut_or_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.db"
    data = database(8)
    for bad, reason in (
        (data[:-4096], "it was cut"),
        (data[:-1], "it was cut"),
        (b"not a database" * 1000, "no valid meta page"),
        (b"", "no valid meta page"),
        (database(8, layout=3), "bbolt's layout 3, and etcd's is 2"),
    ):
        path.write_bytes(with_trailer(bad))
        with pytest.raises(KubetuneError, match=reason):
            verification.check_file(path)


@given(st.binary(max_size=400), st.lists(st.integers(0, 432), max_size=6), st.integers(0, 400))
def test_checksum_at_the_end_is_found_however_the_bytes_come_in(data: bytes, cuts: list[int], flipped: int) -> None:
    whole = with_trailer(data)
    places = sorted({0, *(cut for cut in cuts if cut < len(whole)), len(whole)})
    hashed = verification.Hash()
    for begin, end in zip(places, places[1:]):
        hashed.update(whole[begin:end])
    assert hashed.matches
    assert hashed.content == Content(len(whole), hashlib.sha256(whole).hexdigest())
    damaged = bytearray(whole)
    damaged[flipped % len(whole)] ^= 4
    other = verification.Hash()
    other.update(bytes(damaged))
    assert not other.matches


SIDECAR = Sidecar(
    taken_at="2026-11-24T02:30:00+00:00",
    host="cp1",
    member="cp1",
    member_id="8e9e05c52164694d",
    cluster_id="cdf818194e3a8c32",
    etcd="3.6.16",
    storage_version="3.6.0",
    revision=1234,
    keys=56,
    hash=407184359,
    verified_by="etcdutl 3.6.16",
    encryption="none",
    snapshot=Content(20512, "aa"),
    files={"etcd-snapshot-023000-cp1.db": Content(20512, "aa")},
)


def test_sidecar_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "etcd-snapshot-023000-cp1.json"
    path.write_text(SIDECAR.text())
    assert verification.read_sidecar(path) == SIDECAR


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "its sidecar s.json is missing"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"schema": 1}', "is damaged"),
        ('{"schema": 2}', "has schema 2, and this release reads 1"),
    ],
)
def test_sidecar_that_is_none_is_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / "s.json").write_text(text)
    with pytest.raises(KubetuneError, match=reason):
        verification.read_sidecar(tmp_path / "s.json")


@pytest.mark.parametrize(
    ("etcdutl", "storage", "read"),
    [("3.6.16", "3.6.0", True), ("3.7.3", "3.6.0", True), ("3.6.16", "3.7.0", False), ("3.5.30", "", True), ("", "3.6.0", True)],
)
def test_newer_storage_takes_a_newer_etcdutl(etcdutl: str, storage: str, read: bool) -> None:
    assert tools.reads(etcdutl, storage) is read


def test_etcdutl_of_the_running_member_is_kept_and_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod is that of the kubelet by its cgroup and a directory of its logs."""
    uid = "0b8d2a4c-31c7-4a55-9d55-3f4c8a3e9b10"
    logs, proc, kept = tmp_path / "logs", tmp_path / "proc", tmp_path / "kept/etcdutl"
    (logs / f"kube-system_etcd-cp1_{uid}").mkdir(parents=True)
    inside = proc / "77/root/usr/local/bin"
    inside.mkdir(parents=True)
    (proc / "77/cmdline").write_bytes(b"etcd\0--data-dir=/var/lib/etcd\0")
    (proc / "77/stat").write_text("77 (etcd) S" + " 0" * 40)
    (proc / "77/cgroup").write_text(f"0::/kubelet/kubepods/burstable/pod{uid}/cafe\n")
    monkeypatch.setattr(tools, "of_static_pod", functools.partial(of_static_pod, logs=logs))
    out = io.StringIO()
    config = parse({**GOOD, "tools_directory": str(kept.parent)})
    ctx = Context(config, Journal(out), "cp1", Client(["https://127.0.0.1:1"]), proc=proc)

    def install(version: str) -> None:
        (inside / "etcdutl").write_text(f"#!/bin/sh\necho 'etcdutl version: {version}'\n")
        (inside / "etcdutl").chmod(0o755)

    install("3.6.16")
    tools.keep(ctx)
    assert tools.version(str(kept)) == "3.6.16" and kept.stat().st_mode & 0o777 == 0o755
    tools.keep(ctx)
    assert out.getvalue().count("is kept as") == 1
    install("3.7.3")
    tools.keep(ctx)
    assert tools.version(str(kept)) == "3.7.3"
    assert tools.tool(ctx, "etcdutl") == str(inside / "etcdutl")
    # No etcd any more: what was kept is what there is, unless the host has one of its own.
    (proc / "77/cmdline").unlink()
    assert tools.tool(ctx, "etcdutl") == (shutil.which("etcdutl", path="/usr/local/bin:/usr/bin") or str(kept))
    assert [path.name for path in kept.parent.iterdir()] == ["etcdutl"]


# --- elsewhere ------------------------------------------------------------------------------------------------

MOUNTS = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /srv rw - ext4 /dev/vdb rw
31 30 0:41 /export /srv/off\040site rw,relatime shared:7 - nfs4 nas:/export rw
32 22 0:42 / /var/backups rw - cifs //nas/etcd rw
"""


@pytest.mark.parametrize(
    ("directory", "command", "here"),
    [
        ("/var/lib/backups", [], True),
        ("/srv/etcd", [], True),
        ("/srv/off site/etcd", [], False),
        ("/var/backups/etcd", [], False),
        ("/var/backups-old", [], True),
        ("/var/lib/backups", ["rclone", "copy"], False),
    ],
)
def test_copies_are_elsewhere_by_a_command_or_by_a_mount(directory: str, command: list[str], here: bool) -> None:
    assert elsewhere.only_here(directory, command, MOUNTS) is here


# --- metrics --------------------------------------------------------------------------------------------------

SIZE = {"member": "cp1", "size_bytes": 1000, "in_use_bytes": 400, "quota_bytes": "unknown", "fragmentation": 0.6}
GOOD_RUN: list[dict[str, Any]] = [
    {"step": "health", "outcome": "ok"},
    {"step": "size", "outcome": "ok", **SIZE},
    {"step": "compaction", "outcome": "nothing", "reason": "done_before"},
    {"step": "defragmentation", "outcome": "done", "seconds": 1.5},
    {"step": "defragmentation", "outcome": "done", "seconds": 2.0},
    {"step": "backup", "outcome": "done", "taken_at": 90.0, "bytes": 1032, "revision": 77, "seconds": 3.25},
    {"step": "backup", "outcome": "warning", "reason": "only_here"},
    {"step": "prune", "outcome": "nothing", "kept": 4, "bytes": 4128},
]


def samples(known: Any) -> dict[str, float]:
    """As Prometheus reads the text format: each sample after the HELP and TYPE of its name."""
    found, announced = {}, ""
    for line in metrics.text(known).splitlines():
        if line.startswith("# "):
            announced = line.split()[2]
            continue
        parsed = re.fullmatch(r'([a-z_]+)((?:\{[a-z]+="(?:[^"\\]|\\.)*"\})?) (\S+)', line)
        assert parsed and parsed.group(1) == announced
        found[parsed.group(1) + parsed.group(2)] = float(parsed.group(3))
    return found


def test_metrics_of_a_good_run() -> None:
    found = samples(metrics.updated({}, GOOD_RUN, 100.0))
    for name, value in {
        'step_success{step="backup"}': 1,
        'step_last_success_timestamp_seconds{step="compaction"}': 100,
        'step_duration_seconds{step="defragmentation"}': 3.5,
        'database_fragmentation_ratio{member="cp1"}': 0.6,
        "backup_timestamp_seconds": 90,
        "backup_size_bytes": 1032,
        "backups": 4,
        "backup_copied_elsewhere": 0,
    }.items():
        assert found[f"kubetune_etcd_{name}"] == value
    assert not [name for name in found if "drill" in name or "quota" in name]


def test_a_failure_leaves_what_was_known() -> None:
    before = metrics.updated({}, GOOD_RUN, 100.0)
    after = samples(metrics.updated(before, [{"step": "backup", "outcome": "failed"}, {"step": "drill", "outcome": "failed"}], 200.0))
    assert after.pop('kubetune_etcd_step_success{step="drill"}') == 0
    expected = samples(before)
    expected['kubetune_etcd_step_success{step="backup"}'] = 0
    assert after == expected


def test_a_step_that_was_left_out_is_no_success() -> None:
    before = metrics.updated({}, GOOD_RUN, 100.0)
    after = metrics.updated(before, [{"step": "compaction", "outcome": "left_out"}], 200.0)
    assert after == before


def test_member_that_left_is_forgotten_and_names_are_escaped() -> None:
    known = metrics.updated({}, GOOD_RUN, 100.0)
    line = {**GOOD_RUN[1], "member": 'a"b\\c'}
    text = metrics.text(metrics.updated(known, [line], 200.0))
    assert r'kubetune_etcd_database_size_bytes{member="a\"b\\c"} 1000' in text and 'member="cp1"' not in text


def test_metrics_are_kept_between_commands_and_damage_starts_anew(tmp_path: Path) -> None:
    state, directory = tmp_path / "state", tmp_path / "collector"
    for path in (state, directory):
        path.mkdir()
    metrics.write(state, str(directory), GOOD_RUN, 100.0)
    metrics.write(state, str(directory), [{"step": "drill", "outcome": "done", "taken_at": 90.0, "keys": 5}], 200.0)
    text = (directory / metrics.FILE).read_text()
    assert "kubetune_etcd_drill_keys 5" in text and "kubetune_etcd_backup_revision 77" in text
    assert (directory / metrics.FILE).stat().st_mode & 0o777 == 0o644
    assert (state / metrics.STATE).stat().st_mode & 0o777 == 0o600
    (state / metrics.STATE).write_text("{")
    metrics.write(state, "", [{"step": "health", "outcome": "ok"}], 300.0)
    assert json.loads((state / metrics.STATE).read_text()) == {"steps": {"health": {"success": 1, "at": 300.0}}}
