# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A WAL that a window moves: cut off anywhere, there is one, it is the newest, and etcd finds no other."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window import wal
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.journal import Journal
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.order import Order, Part, Wal

from tests.unit.module_utils.window_node import (  # fixtures too
    API, ETCD, FORWARD, Killed, Node, assert_done, assert_rolled_back, assert_untouched, at_event, cut_off, finish, hurry,
)


class LoggedNode(Node):
    """A node whose etcd has a WAL: old processes below the data directory, new ones on a disk of its own, or as ``home`` says.

    Each start of etcd reads the WAL and appends to it, as the real one does: what was there at any start has to be there at
    the next, wherever that looks.
    """

    def __init__(self, path: Path, home: str = "old", **options: Any) -> None:
        self.data = path / "etcd"
        self.places = {"old": self.data / "member" / "wal", "new": self.data / "wal-disk" / "wal"}
        if home == "new":
            self.places = {"old": self.places["new"], "new": self.places["old"]}
        self.default, self.acknowledged = self.data / "member" / "wal", b"first "
        for place in self.places.values():
            place.parent.mkdir(parents=True, exist_ok=True)
        self.places["old"].mkdir(mode=0o700)
        (self.places["old"] / "0-0.wal").write_bytes(b"sealed")
        (self.places["old"] / "1-1.wal").write_bytes(self.acknowledged)
        (self.places["old"] / "0.tmp").write_bytes(b"prepared")
        if home == "new":
            self.default.symlink_to("../wal-disk/wal")
        super().__init__(path, **options)
        self.kubelet.on_start = self.start_etcd

    def start_etcd(self, component: str, command: list[str]) -> None:
        if component != ETCD:
            return
        which = next(word for word in command if word.startswith("--tuning="))[len("--tuning=") :]
        newest = self.places[which] / "1-1.wal"
        for way in {newest, self.default / "1-1.wal"}:  # with the flag and without
            found = way.read_bytes() if way.exists() else b"nothing"
            if found != self.acknowledged:
                self.wrongs.append(f"etcd started on {found!r} in {way.parent}, and had acknowledged {self.acknowledged!r}")
        self.acknowledged += which.encode() + b" "
        if newest.exists():
            newest.write_bytes(self.acknowledged)

    def order(self, etcd: Part | None = None, api: Part | None = None, **changes: Any) -> Order:
        wal = Wal(str(self.places["old"]), str(self.places["new"]), str(self.data))
        return super().order(etcd, api, **{"wal": wal, **changes})

    def assert_wal(self, which: str) -> None:
        """It is in one place, and whole; nothing else is left anywhere."""
        place, other = self.places[which], self.places["new" if which == "old" else "old"]
        assert (place / "1-1.wal").read_bytes() == self.acknowledged
        assert (place / "0-0.wal").read_bytes() == b"sealed"
        assert place.stat().st_mode & 0o777 == 0o700
        link = self.data.joinpath("member", "wal").is_symlink()
        assert link is (place != self.default)
        left = {path for path in self.data.glob("*/*")} - {place, *([self.default] if link else [])}
        assert not left
        assert other.is_symlink() or not other.exists()


MOVED = [
    *FORWARD[:8], "wal_move begin", "wal_move done", "etcd_in begin", "etcd_in done", "cluster done", "wal_old done",
    "kube-apiserver_in begin", "kube-apiserver_in done",
]
#: The new API server dies: the WAL, on which the new etcd has run, goes back too.
MOVED_BACK = [
    *MOVED[:-1], "undo begin", "api_out begin", "api_out done", "wal_back begin", "etcd_out begin", "etcd_out done", "wal_back done",
    "etcd_back begin", "etcd_back done", "cluster done", "wal_old done", "kube-apiserver_back begin", "kube-apiserver_back done",
]


@pytest.mark.parametrize("home", ["old", "new"])
def test_the_wal_is_moved_there_and_back(tmp_path: Path, home: str) -> None:
    node = LoggedNode(tmp_path, home=home)
    try:
        assert node.run(node.both())["outcome"] == "changed"
        assert node.steps() == MOVED
        node.assert_all("new")
        node.assert_wal("new")
    finally:
        node.kubelet.close()


@pytest.mark.parametrize("home", ["old", "new"])
@pytest.mark.parametrize(("before", "reboots"), [(True, False), (False, False), (False, True)])
def test_cut_off_at_any_event_there_is_one_wal_and_it_is_the_newest(
    tmp_path: Path, home: str, before: bool, reboots: bool
) -> None:
    for cut in range(1, len(MOVED) + 1):
        node = LoggedNode(tmp_path / str(cut), home=home)
        assert cut_off(node, node.both(), cut, before)
        if reboots:
            node.kubelet.reboot()
        assert_done(node, node.both(), finish(node, node.both()))
        node.assert_wal("new")
        node.kubelet.close()


@pytest.mark.parametrize("home", ["old", "new"])
@pytest.mark.parametrize(("before", "reboots"), [(True, False), (False, False), (False, True)])
def test_cut_off_at_any_event_the_newest_wal_goes_back(tmp_path: Path, home: str, before: bool, reboots: bool) -> None:
    for cut in range(1, len(MOVED_BACK) + 2):
        node = LoggedNode(tmp_path / str(cut), home=home)
        order = node.order(node.part(ETCD), node.dying_api())
        assert cut_off(node, order, cut, before) is (cut <= len(MOVED_BACK))
        if cut > len(MOVED_BACK):
            assert node.steps() == MOVED_BACK
            node.assert_wal("old")
        else:
            if reboots:
                node.kubelet.reboot()
            assert_rolled_back(node, finish(node, order), "kube-apiserver was started 3 times")
            node.assert_wal("old")
        node.kubelet.close()


@pytest.mark.parametrize(("home", "call"), [*(("old", number) for number in range(10)), *(("new", number) for number in range(8))])
@pytest.mark.parametrize("fails", [False, True], ids=["goes on", "cannot go on"])
def test_killed_or_failing_between_two_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, fails: bool, call: int
) -> None:
    """Within the move itself: killed at its n-th change of a directory, then taken up again; or failing there for good."""
    node = LoggedNode(tmp_path, home=home)
    calls = 0

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            if str(node.data) in f"{arguments}":
                calls += 1
                if calls == call + 1:
                    raise OSError(28, "No space left on device") if fails else Killed
            return real(*arguments, **options)

        return change

    try:
        with monkeypatch.context() as patch:
            for name in ("rename", "symlink", "mkdir", "unlink", "chmod"):
                patch.setattr(os, name, watched(getattr(os, name)))
            try:
                result = node.run(node.both())
            except Killed:
                result = {}
        assert calls > call, "there are fewer changes than this test cuts at"
        if not result:
            result = finish(node, node.both())
        if result["outcome"] == "rolled_back":
            assert "No space left" in result["message"]
            node.assert_all("old")
            node.assert_wal("old")
        else:
            assert result["outcome"] == "changed", result
            node.assert_all("new")
            node.assert_wal("new")
    finally:
        node.kubelet.close()


def test_a_wal_that_reads_back_other_than_written_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "_read_back", lambda _path: b"other")
    node = LoggedNode(tmp_path)
    try:
        assert_rolled_back(node, node.run(node.both()), "reads back other than it was written")
        node.assert_wal("old")
    finally:
        node.kubelet.close()


def test_a_disk_that_dies_after_the_first_start_never_brings_the_old_wal_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = LoggedNode(tmp_path)
    real = wal.Relocation._copy

    def copy(self: Any, say: Any) -> str:
        if self.source == node.places["new"]:
            raise OSError(5, "Input/output error")
        return real(self, say)

    monkeypatch.setattr(wal.Relocation, "_copy", copy)
    try:
        result = node.run(node.order(node.part(ETCD), node.dying_api()))
        assert result["outcome"] == "broken"
        assert "the newest WAL" in result["message"] and "replace this member" in result["message"]
        assert node.running(ETCD) == []
        assert (node.places["new"] / "1-1.wal").read_bytes() == node.acknowledged
        assert not node.default.exists() or node.default.is_symlink()
    finally:
        node.kubelet.close()


@pytest.mark.parametrize(("home", "step"), [("new", "wal_move begin"), ("old", "wal_move done"), ("old", "etcd_in begin")])
def test_a_host_that_comes_back_without_the_wal_starts_no_etcd(tmp_path: Path, home: str, step: str) -> None:
    """Its disk does not come back; an etcd that was a member before makes a new WAL where it finds none, and serves."""
    node = LoggedNode(tmp_path, home=home)
    try:
        assert cut_off(node, node.both(), MOVED.index(step) + 1, before=False)
        (node.data / "wal-disk").rename(tmp_path / "gone")
        (node.data / "wal-disk").mkdir()
        result = node.run(node.both())
        assert result["outcome"] == "broken" and "its disk is not there any more" in result["message"], result["message"]
        assert node.running(ETCD) == []
    finally:
        node.kubelet.close()


def test_a_host_that_comes_back_without_the_new_disk_leaves_the_wal_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = LoggedNode(tmp_path)
    mount = node.data / "wal-disk"
    order = node.order(
        node.part(ETCD), node.part(API), wal=Wal(str(node.places["old"]), str(node.places["new"]), str(node.data), str(mount))
    )
    try:
        with monkeypatch.context() as mounted:
            mounted.setattr(os.path, "ismount", lambda path: path == str(mount))
            assert cut_off(node, order, MOVED.index("etcd_out done") + 1, before=False)
        assert_rolled_back(node, node.run(order), "has nothing mounted")
        node.assert_wal("old")
    finally:
        node.kubelet.close()


def test_a_disk_that_is_gone_on_the_way_back_starts_no_etcd_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = LoggedNode(tmp_path)
    at_event(monkeypatch, "wal_back", lambda: (node.data / "wal-disk").rename(tmp_path / "gone"))
    try:
        result = node.run(node.order(node.part(ETCD), node.dying_api()))
        assert result["outcome"] == "broken" and "holds a WAL" in result["message"], result["message"]
        assert node.running(ETCD) == []
    finally:
        node.kubelet.close()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda node: node.places["new"].mkdir(), "is there already, and is not the WAL that etcd uses"),
        (lambda node: node.places["new"].parent.rmdir(), "where etcd's WAL shall live, is not there"),
        (lambda node: [each.unlink() for each in node.places["old"].iterdir()], "holds no WAL that a restarted etcd could use"),
    ],
    ids=["something is there", "no directory", "no WAL"],
)
def test_a_wal_that_cannot_be_moved_is_refused(tmp_path: Path, spoil: Callable[[LoggedNode], object], text: str) -> None:
    node = LoggedNode(tmp_path)
    try:
        spoil(node)
        assert_untouched(node, node.both(), text)
    finally:
        node.kubelet.close()


def test_a_disk_that_is_not_mounted_or_full_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = LoggedNode(tmp_path)
    try:
        order = node.order(
            node.part(ETCD), wal=Wal(str(node.places["old"]), str(node.places["new"]), str(node.data), str(node.data / "wal-disk"))
        )
        assert_untouched(node, order, "the mount point of the WAL's own disk, has nothing mounted")
        Journal(node.state).finish(order, {"outcome": "refused"})
        monkeypatch.setattr(wal, "ROOM", 1 << 60)
        assert_untouched(node, dataclasses.replace(order, id="2", wal=node.order().wal), "MiB free, and the WAL needs")
    finally:
        node.kubelet.close()


def test_a_wal_that_is_where_it_shall_be_stays(tmp_path: Path) -> None:
    """The flag was lost, as by an upgrade, and comes back: the link led etcd to the same WAL meanwhile."""
    node = LoggedNode(tmp_path, home="new")
    try:
        order = node.order(node.part(ETCD), wal=Wal(str(node.default), str(node.places["old"]), str(node.data)))
        node.places["new"] = node.places["old"]
        assert node.run(order)["outcome"] == "changed"
        assert "wal_move begin" not in node.steps()
        assert node.default.is_symlink()
    finally:
        node.kubelet.close()


def test_a_data_disk_without_room_for_the_next_segments_is_found_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = LoggedNode(tmp_path)
    stays = Wal(str(node.places["old"]), str(node.places["old"]), str(node.data))
    monkeypatch.setattr(wal, "NEXT_SEGMENTS", 2**62)
    try:
        assert_untouched(node, node.order(node.part(ETCD), wal=stays), "is full: make room")
    finally:
        node.kubelet.close()


# --- the memory that the next start takes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segments", "snapshots", "replayed"),
    [
        ({"0-0": 64, "1-2710": 64, "2-4e20": 30}, ["2-2710"], 94),  # 2710 begins the segment itself
        ({"0-0": 64, "1-2710": 64, "2-4e20": 30}, ["2-270f"], 158),
        ({"0-0": 64, "1-2710": 64, "2-4e20": 30}, ["1-100", "2-4e21"], 30),
        ({"0-0": 64, "1-2710": 64}, [], 128),  # none was made yet
        ({"7-4e20": 64, "8-4e30": 10}, [], 74),  # the first ones are purged
        ({}, ["1-100"], 0),
    ],
)
def test_a_start_reads_what_stands_behind_the_last_snapshot(
    tmp_path: Path, segments: dict[str, int], snapshots: list[str], replayed: int
) -> None:
    log, snap = tmp_path / "member/wal", tmp_path / "member/snap"
    log.mkdir(parents=True)
    snap.mkdir()
    for name, size in segments.items():
        number, index = name.split("-")
        (log / f"{number:0>16}-{index:0>16}.wal").write_bytes(b"x" * size)
    for name in snapshots:
        term, index = name.split("-")
        (snap / f"{term:0>16}-{index:0>16}.snap").touch()
    (snap / "db").touch()
    (log / "0.tmp").write_bytes(b"prepared")
    assert wal.replayed_bytes(log, tmp_path) == replayed


@pytest.mark.parametrize(("limit", "refused"), [("1Gi", True), ("4Gi", False), ("", False)])
def test_an_etcd_that_its_limit_would_kill_at_its_start_is_not_stopped(
    tmp_path: Path, limit: str, refused: bool
) -> None:
    node = LoggedNode(tmp_path)
    try:
        with open(node.places["old"] / "0-0.wal", "ab") as segment:
            segment.truncate(700 << 20)
        part = node.part(ETCD)
        text = json.loads(part.new or "")
        text["resources"] = {"limits": {"memory": limit} if limit else {}}
        order = node.order(dataclasses.replace(part, new=json.dumps(text)), wal=Wal(str(node.places["old"]), str(node.places["old"]), str(node.data)))
        if refused:
            assert_untouched(node, order, r"reads the 700 MiB that it wrote since its last snapshot into memory, which takes up to 1050 MiB")
        else:
            node.places["new"] = node.places["old"]
            assert node.run(order)["outcome"] == "changed"
    finally:
        node.kubelet.close()


def test_a_wal_that_is_gone_with_its_disk_is_said_as_such(tmp_path: Path) -> None:
    """Its directory was on the disk: there is nothing to be asked for its room."""
    node = LoggedNode(tmp_path)
    try:
        gone = str(tmp_path / "wal-disk/gone")
        assert_untouched(node, node.order(node.part(ETCD), wal=Wal(gone, gone, str(node.data))), "gone holds no WAL that a restarted etcd could use")
    finally:
        node.kubelet.close()
