# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which restore is proposed, which is refused, and what is kept of one that is under way."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError, Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance import units
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.state import refuse_while_restoring
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore import host as restore_host
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.data import Data
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.fence import Fence
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.host import EXCHANGED, STARTED, Host
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.plan import Plan, Wanted, plan
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.report import lines
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.store import Order, Store, copy_beside, part_of

IDS = {"cp1": "a1", "cp2": "b2", "cp3": "c3"}
ORDER = Order("one", "backup", "cp1", "/backups/x.db", "c0ffee", {"cp1": {"name": "cp1", "peer_urls": ["https://10.0.0.1:2380"]}}, "", 5)


def peer(name: str) -> str:
    return f"https://10.0.0.{name[-1]}:2380"


def view(name: str, quorum: bool = True, names: tuple[str, ...] = tuple(IDS), **more: Any) -> dict[str, Any]:
    members = [{"id": IDS[each], "name": each, "peer_urls": [peer(each)], "learner": False} for each in names]
    return {
        "cluster_id": "c0ffee", "member_id": IDS[name], "version": "3.6.16", "term": 2, "index": 100, "revision": 90, "errors": [],
        "leads": False, "learner": False, "members": members, "quorum": quorum, **more,
    }  # fmt: skip


def host(
    name: str,
    etcd: dict[str, Any] | None = None,
    data: bool = True,
    backups: tuple[dict[str, Any], ...] = (),
    order: Order | None = None,
    kubelet: str = "active",
    steps: tuple[str, ...] = (),
    ended: dict[str, str] | None = None,
    known: tuple[str, ...] = tuple(IDS),
    unmounted: str = "",
) -> dict[str, Any]:
    return {
        "read": {"order": asdict(order) if order else None, "kubelet": kubelet, "steps": list(steps), "ended": ended},
        "member": {"name": name, "peer_urls": [peer(name)], "known": list(known)},
        "look": {
            "etcd": etcd,
            "failure": "" if etcd else "no answer",
            "data": {
                "there": data and not unmounted, "database_bytes": data * 30 << 20, "wal_bytes": (data and not unmounted) * 64 << 20,
                "unmounted": unmounted,
            },
            "backups": list(backups),
            "unseen": "",
        },
    }


def backup(day: int, cluster_id: str = "c0ffee") -> dict[str, Any]:
    return {"path": f"/backups/{day}.db", "taken_at": f"2026-11-{day:02}T00:00:00+00:00", "revision": day, "cluster_id": cluster_id}


def planned(hosts: list[dict[str, Any]], case: str, **wanted: Any) -> Plan:
    return plan({each["member"]["name"]: each for each in hosts}, Wanted(case, **wanted), "new")


def refused(hosts: list[dict[str, Any]], case: str, **wanted: Any) -> str:
    with pytest.raises(Refusal) as told:
        planned(hosts, case, **wanted)
    return str(told.value)


WHOLE = [host(name, view(name)) for name in IDS]
ONE_LOST = [host("cp1", view("cp1")), host("cp2", data=False), host("cp3", view("cp3"))]
TWO_LOST = [host("cp1", data=False), host("cp2", data=False), host("cp3", view("cp3", quorum=False))]
ALL_LOST = [host(name, data=False, backups=(backup(day),)) for name, day in zip(IDS, (20, 22, 21))]
#: kubeadm's first node begins a cluster of its own when its data is gone.
ANEW = host("cp1", view("cp1", names=("cp1",), cluster_id="f00"))


def begun(*started: str, order: Order = replace(ORDER, members={name: {"name": name, "peer_urls": [peer(name)]} for name in IDS})) -> list[dict[str, Any]]:
    """A restore that was cut off, with etcd started on the new data on some hosts."""
    return [host(name, order=order, steps=(STARTED,) if name in started else ()) for name in IDS]


@pytest.mark.parametrize(
    ("hosts", "advice"),
    [
        (WHOLE, "nothing has to be restored"),
        (ONE_LOST, "etcd_restore_case=member etcd_restore_host=cp2"),
        (TWO_LOST, "etcd_restore_case=survivor"),
        (ALL_LOST, "etcd_restore_case=backup"),
        ([{**ANEW, "look": {**ANEW["look"], "etcd": view("cp1", names=("cp1",))}}, *WHOLE[1:]], "etcd_restore_case=member etcd_restore_host=cp1"),
        ([ANEW, host("cp2", view("cp2")), host("cp3", view("cp3"))], "etcd_restore_case=member etcd_restore_host=cp1"),
        ([ANEW, host("cp2", data=False), host("cp3", view("cp3", quorum=False))], "and cp3 has data"),
        ([host("cp1", view("cp1", names=("cp1",)), backups=(backup(200),)), host("cp2", data=False), host("cp3", data=False)], "no data is left"),
        # One node whose data is gone, and kubeadm's manifest began again.
        ([host("cp1", view("cp1", names=("cp1",)), known=("cp1",), backups=(backup(200),))], "no data is left"),
        # A cluster that shrank to one is sound: nobody knows better, and no backup is ahead of it.
        ([host("cp1", view("cp1", names=("cp1",)), known=("cp1",), backups=(backup(20),))], "nothing has to be restored"),
        ([host("cp1", data=False, known=("cp1",))], "no data is left"),
        # The others are left out by --limit.
        ([host("cp1", data=False)], "what cp2, cp3 has is not known: bring them up, run without --limit"),
        ([host(name, unmounted="its disk is not mounted") for name in IDS], "the disk of the WAL is not mounted on cp1, cp2, cp3"),
        ([host(name) for name in IDS], "mend what keeps them from starting"),
        ([host(name, view(name, errors=["alarm:NOSPACE"])) for name in IDS], "alarm:NOSPACE: that is mended first"),
        (begun(), "restore one is under way: finish it with etcd_restore_case=backup and the other variables that it was begun with, or take it back"),
        (begun("cp2"), "or give it up where it is with etcd_restore_case=abandon (etcd was started on the new data on cp2)"),
    ],
)
def test_the_plan_says_which_case_it_is(hosts: list[dict[str, Any]], advice: str) -> None:
    found = planned(hosts, "plan")
    assert advice in found.lines[-1]
    assert found.order is None and len(found.lines) > 1


def test_one_lost_member_is_replaced_through_another_host() -> None:
    found = planned(ONE_LOST, "member", host="cp2")
    members = {"cp2": {"name": "cp2", "peer_urls": [peer("cp2")]}}
    assert found.order == Order("new", "member", "cp2", "", "c0ffee", members, "b2", 0, found.consent)
    assert found.through == "cp1"
    # One that was removed by hand is only added.
    gone = [host(name, view(name, names=("cp1", "cp3"))) for name in ("cp1", "cp3")]
    order = planned([*gone, host("cp2", data=False)], "member", host="cp2").order
    assert order and order.old_member_id == ""


def test_the_survivor_that_knows_most_to_be_committed_is_taken() -> None:
    def survivor(name: str, term: int, index: int, **more: Any) -> dict[str, Any]:
        return host(name, view(name, quorum=False, term=term, index=index, **more))

    # A term is what a member has heard of, the index what it knows to be committed.
    order = planned([survivor("cp1", 2, 900), survivor("cp2", 3, 5), host("cp3", data=False)], "survivor").order
    assert order and order.source == "cp1" and order.bump_revision == 1_000_000_000
    assert sorted(order.members) == sorted(IDS)
    assert order.initial_cluster == ",".join(f"{name}={peer(name)}" for name in IDS)
    order = planned([survivor("cp1", 2, 900, learner=True), survivor("cp2", 3, 5), host("cp3", data=False)], "survivor").order
    assert order and order.source == "cp2"
    assert "name one as etcd_restore_host" in refused([survivor("cp1", 2, 9), host("cp2"), host("cp3", data=False)], "survivor")
    chosen = planned([survivor("cp1", 2, 9), host("cp2"), host("cp3", data=False)], "survivor", host="cp2").order
    assert chosen and chosen.source == "cp2"


def test_the_backup_with_the_highest_revision_is_taken_unless_one_is_named() -> None:
    order = planned(ALL_LOST, "backup").order
    assert order and (order.source, order.backup, order.cluster_id) == ("cp2", "/backups/22.db", "c0ffee")
    order = planned(ALL_LOST, "backup", host="cp1").order
    assert order and (order.source, order.backup) == ("cp1", "/backups/20.db")
    # The last night's is that of an empty cluster, which the first node began when its data was gone.
    empty = {**backup(28), "revision": 3}
    order = planned([host("cp1", data=False, backups=(empty, backup(20))), *ALL_LOST[1:]], "backup").order
    assert order and order.source == "cp2"
    order = planned(ALL_LOST, "backup", host="cp3", backup="/root/by-hand.db").order
    # Of the hosts' own backups it is known which cluster it has to be of.
    assert order and (order.source, order.backup, order.cluster_id) == ("cp3", "/root/by-hand.db", "c0ffee")


def test_with_data_left_the_plan_of_a_backup_says_so() -> None:
    hosts = [*ALL_LOST[:2], host("cp3", view("cp3", quorum=False))]
    assert "cp3 has data of the cluster, which is newer than any backup" in planned(hosts, "backup").lines[-1]


@pytest.mark.parametrize(
    ("hosts", "case", "wanted", "reason"),
    [
        (WHOLE, "everything", {}, "etcd_restore_case: 'everything' is not allowed; one of plan, member"),
        ([], "plan", {}, "no host was reached"),
        (WHOLE, "backup", {"bump_revision": 0}, "etcd_restore_bump_revision: 0 is not allowed; 1 to 1000000000000 is"),
        (WHOLE, "member", {"host": "cp2"}, "member cp2 of cp2 is well"),
        (ONE_LOST, "member", {"host": "cp9"}, "etcd_restore_host: 'cp9' is not allowed; the host whose member is lost is needed, one of cp1"),
        (TWO_LOST, "member", {"host": "cp1"}, "needs a cluster that has its quorum"),
        (ONE_LOST, "survivor", {}, "is for a cluster without a quorum"),
        (ALL_LOST, "survivor", {}, "none has it"),
        (TWO_LOST, "survivor", {"host": "cp1"}, "cp1 has no data; cp3 has"),
        (TWO_LOST, "backup", {}, "there is no backup of cluster c0ffee on cp1, cp2, cp3"),
        (TWO_LOST[1:], "survivor", {}, "cp1 is not in this run: bring it up, run without --limit, or, when it is gone for good"),
        ([host("cp1", data=False, backups=(backup(9),), known=("cp1",))], "backup", {"everybody": ("cp1", "cp2")}, "cp2 is not in this run"),
        ([*TWO_LOST[:2], host("cp3", unmounted="its disk is away")], "backup", {}, "cp3: its disk is away; where it is lost for good"),
        ([ONE_LOST[0], host("cp2", unmounted="its disk is away"), ONE_LOST[2]], "member", {"host": "cp2"}, "cp2: its disk is away"),
        ([*TWO_LOST[:2], host("cp3", view("cp3", quorum=False), kubelet="failed")], "survivor", {}, "cp3: the kubelet does not run (failed)"),
        (WHOLE, "cancel", {}, "none is"),
        (WHOLE, "abandon", {}, "none is"),
        (begun(), "survivor", {}, "restore one with etcd_restore_case=backup is under way"),
        (begun(), "backup", {"backup": "/other.db"}, "etcd_restore_backup: /other.db is not what restore one was begun with"),
        (begun()[:2], "backup", {}, "restore one goes on with all its hosts, and cp3 is not in this run"),
        (begun()[:2], "cancel", {}, "is taken back on all its hosts or on none, and cp3 is not in this run"),
        (begun("cp2"), "cancel", {}, "cannot be taken back: etcd was started on the new data on cp2; finish it"),
        ([*begun()[:2], host("cp3", ended={"id": "one", "outcome": "done"})], "cancel", {}, "etcd was started on the new data on cp3"),
        ([host("cp1", order=ORDER), host("cp2", order=replace(ORDER, id="two"))], "backup", {}, "different restores are under way"),
    ],
)  # fmt: skip
def test_what_would_do_harm_is_refused(hosts: list[dict[str, Any]], case: str, wanted: dict[str, Any], reason: str) -> None:
    assert reason in refused(hosts, case, **wanted)


def test_a_host_that_is_gone_for_good_is_left_out_by_name() -> None:
    order = planned(TWO_LOST[1:], "survivor", without=("cp1",), everybody=tuple(IDS)).order
    assert order and sorted(order.members) == ["cp2", "cp3"]


def test_consent_is_to_one_plan_and_to_what_is_there() -> None:
    first, again = planned(ALL_LOST, "backup"), planned(ALL_LOST, "backup")
    assert first.consent == again.consent and first.consent.startswith("backup-")
    ended = [{**each, "read": {**each["read"], "ended": {"id": "new", "outcome": "done"}}} for each in ALL_LOST]
    others = [
        planned(ALL_LOST, "backup", host="cp1"),
        planned([*ALL_LOST[:2], host("cp3", backups=(backup(21),))], "backup"),  # its data is there after all
        planned([host(name, view(name), backups=(backup(day),)) for name, day in zip(IDS, (20, 22, 21))], "backup"),
        planned(ended, "backup"),
    ]
    assert len({first.consent, *(each.consent for each in others)}) == 5
    assert "NOTE: cp1, cp2, cp3 serves: everything that was written since the backup is lost" in others[2].lines[-1]
    assert planned(WHOLE, "plan").consent == ""


def test_the_same_command_goes_on_unless_the_cluster_serves_again() -> None:
    first = planned(ALL_LOST, "backup").order
    assert first
    resumed = planned([host(name, data=False, order=first) for name in IDS], "backup")
    assert resumed.resumed and resumed.order == first and resumed.consent == first.consent
    # Somebody has brought it back meanwhile: what it has now is more than what there was.
    serving = planned([host(name, view(name), order=first) for name in IDS], "backup")
    assert serving.order == first and serving.consent != first.consent and "serves" in serving.lines[-1]
    # Once etcd has been started on the new data, it is that which serves.
    assert planned([host(name, view(name), order=first, steps=(STARTED,)) for name in IDS], "backup").consent == first.consent
    again = [host(name, view(name), order=replace(first, case="survivor", backup="")) for name in IDS]
    assert "the cluster has its quorum again: take the restore back" in refused(again, "survivor")


def test_what_cannot_be_finished_can_be_given_up_with_consent() -> None:
    found = planned(begun("cp2"), "abandon")
    assert found.case == "abandon" and found.consent.startswith("abandon-") and "all data stays as it is" in found.lines[-1]
    taken_back = planned(begun(), "cancel")
    assert taken_back.case == "cancel" and taken_back.consent.startswith("cancel-")


def test_of_several_clusters_a_person_says_whose_backup_it_is() -> None:
    """A host that was in another cluster before has backups of both, and a restore makes a cluster with another id."""
    strange = [host("cp1", data=False, backups=(backup(20), backup(99, "beef"))), *ALL_LOST[1:]]
    told = refused(strange, "backup")
    assert "there are backups of different clusters: beef, c0ffee" in told and "etcd_restore_cluster_id" in told
    order = planned(strange, "backup", cluster_id="c0ffee").order
    assert order and (order.source, order.backup, order.cluster_id) == ("cp2", "/backups/22.db", "c0ffee")
    order = planned(strange, "backup", host="cp1", backup="/backups/99.db", cluster_id="beef").order
    assert order and (order.backup, order.cluster_id) == ("/backups/99.db", "beef")
    assert "0xBEEF" in refused(strange, "backup", cluster_id="0xBEEF")
    # Named, and of whichever cluster: that it is not compared is said.
    by_hand = planned(strange, "backup", host="cp1", backup="/root/x.db")
    assert by_hand.order and by_hand.order.cluster_id == "" and "is not compared" in by_hand.lines[-1]

    restored = [host(name, view(name, cluster_id="f00d"), backups=(backup(20),)) for name in IDS]
    assert "there is no backup of cluster f00d on" in refused(restored, "backup")
    told = refused(restored, "backup", host="cp1", backup="/backups/20.db")
    assert "/backups/20.db is of cluster c0ffee, and one of f00d is wanted" in told and "etcd_restore_cluster_id=c0ffee" in told
    order = planned(restored, "backup", host="cp1", backup="/backups/20.db", cluster_id="c0ffee").order
    assert order and order.cluster_id == "c0ffee"


def test_a_host_that_could_not_look_for_backups_says_why() -> None:
    unseen = [host(name, data=False) for name in IDS]
    unseen[1]["look"]["unseen"] = "/etc/kubetune/etcd-maintenance.json is not there"
    assert "cp2: /etc/kubetune/etcd-maintenance.json is not there: name one" in refused(unseen, "backup")
    assert "no backup was looked for: /etc/kubetune" in planned(unseen, "plan").lines[1]


# --- what is kept of it ---------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "kubetune/restore")


def test_an_order_is_begun_once_and_goes_on(store: Store) -> None:
    assert store.read() is None
    store.begin(ORDER, "/wal")
    store.mark("data_set_aside")
    again = store.begin(ORDER, "/elsewhere")
    assert again.steps == ("data_set_aside",) and again.wal == "/wal"
    assert store.directory.stat().st_mode & 0o777 == 0o700
    with pytest.raises(KubetuneError, match=r"restore one \(case backup\) is under way on this host: finish it"):
        store.begin(replace(ORDER, id="two"), "/wal")


def test_what_has_ended_here_is_not_done_again_for_the_sake_of_another_host(store: Store) -> None:
    store.begin(ORDER, "/wal")
    store.keep_snapshot({"sha256": "abc"})
    store.keep_data("abc")
    store.mark("etcd_started")
    store.end("done")
    assert store.read() is None
    again = store.begin(ORDER, "/wal")
    assert again.steps == ("etcd_started",) and again.snapshot == {"sha256": "abc"} and again.data_sha256 == "abc"
    store.end("cancelled")
    assert store.begin(ORDER, "/wal").steps == ()
    store.end("done")
    assert store.begin(replace(ORDER, id="two"), "/wal").steps == ()


def test_a_damaged_record_is_not_guessed_at(store: Store) -> None:
    store.begin(ORDER, "/wal")
    path = store.directory / "pending.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "order": {"id": "one"}}))
    with pytest.raises(KubetuneError, match="is damaged"):
        store.read()
    path.write_text("{")
    with pytest.raises(KubetuneError, match="move it away, and look by hand which of the manifests"):
        store.read()


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    directory = tmp_path / "manifests"
    directory.mkdir()
    for name in ("etcd", "kube-apiserver"):
        (directory / f"{name}.yaml").write_text(f"of {name}\r\n", newline="")
    return directory


def test_manifests_leave_and_come_back_as_they_were(store: Store, manifests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.kubetune.control_plane.plugins.module_utils._restore.fence._SURE", 0)
    (manifests.parent / "proc").mkdir()
    store.begin(ORDER, "/wal")
    fence = Fence(manifests, store.manifests, manifests.parent / "proc")
    assert fence.shut(["kube-scheduler", "kube-apiserver", "etcd"], print) == ["kube-apiserver", "etcd"]
    assert list(manifests.iterdir()) == []
    assert fence.shut(["kube-apiserver", "etcd"], print) == []
    assert fence.manifest("etcd") == ("of etcd\r\n", True) and fence.manifest("kube-scheduler") == ("", False)
    assert {path.stat().st_mode & 0o777 for path in store.manifests.iterdir()} == {0o600}
    assert fence.open("etcd") and not fence.open("etcd")
    assert (manifests / "etcd.yaml").read_bytes() == b"of etcd\r\n" and fence.manifest("etcd")[1] is False
    assert fence.open("kube-apiserver", "another text")
    assert (manifests / "kube-apiserver.yaml").read_text() == "another text"


def test_etcd_is_not_started_on_data_that_was_not_replaced(store: Store, manifests: Path) -> None:
    store.begin(ORDER, "/wal")
    host = Host(store, manifests, print, 1)
    with pytest.raises(KubetuneError, match="has not been replaced on this host"):
        host.open_etcd()
    store.keep_data("abc")
    host.open_etcd()
    with pytest.raises(KubetuneError, match="restore one cannot be taken back here"):
        host.cancel(SimpleNamespace(data="/nowhere", wal="/nowhere/wal"), ["etcd"])  # type: ignore[arg-type]


class Disk:
    """A host's etcd, stopped, with a restore under way."""

    def __init__(self, store: Store, manifests: Path, wal: str = "data/member/wal") -> None:
        root = manifests.parent
        self.store, self.manifests, self.data, self.wal = store, manifests, root / "data", root / wal
        self.member: Any = SimpleNamespace(name="cp1", data=str(self.data), wal=str(self.wal), peer_urls=("https://10.0.0.1:2380",))
        self.host = Host(store, manifests, print, 1)
        self.host._fence = Fence(manifests, store.manifests, root / "proc")
        (root / "proc").mkdir()
        store.begin(ORDER, str(self.wal))
        store.manifests.mkdir()
        for path in manifests.iterdir():
            path.rename(store.manifests / path.name)

    def put(self, what: str) -> None:
        for path in (self.data / "member/snap", self.wal):
            path.mkdir(parents=True, exist_ok=True)
        (self.data / "member/snap/db").write_text(what)
        (self.wal / "0-0.wal").write_text(what)

    def found(self) -> tuple[str, str]:
        """(database, WAL), empty where there is none."""
        return tuple(path.read_text() if path.exists() else "" for path in (self.data / "member/snap/db", self.wal / "0-0.wal"))  # type: ignore[return-value]

    def touch(self) -> Data:
        """What a restore does before anything of its own is there."""
        data = Data(self.member, ORDER.id, str(self.wal))
        self.store.keep_before(data.present())
        return data


@pytest.fixture
def disk(store: Store, manifests: Path) -> Disk:
    return Disk(store, manifests)


def started(disk: Disk) -> set[str]:
    return {path.stem for path in disk.manifests.iterdir()}


def test_cancel_leaves_no_new_data_on_a_host_that_had_none(disk: Disk) -> None:
    disk.touch().set_aside()
    disk.put("restored")
    disk.host.cancel(disk.member, ["kube-apiserver", "etcd"])
    assert disk.found() == ("", "") and started(disk) == {"etcd", "kube-apiserver"}
    assert [path.name for path in disk.data.iterdir()] == ["member.kubetune-dropped-one"]


def test_cancel_touches_no_data_that_the_restore_has_not(disk: Disk) -> None:
    disk.put("old")
    disk.host.cancel(disk.member, ["kube-apiserver", "etcd"])
    assert disk.found() == ("old", "old")


def test_cancel_after_a_cut_before_the_old_data_was_set_aside(disk: Disk) -> None:
    disk.put("old")
    disk.touch()
    disk.host.cancel(disk.member, ["etcd"])
    assert disk.found() == ("old", "old")


def test_cancel_takes_a_wal_of_its_own_from_a_disk_that_was_blank(store: Store, manifests: Path) -> None:
    disk = Disk(store, manifests, "wal-disk/wal")
    disk.put("old")
    shutil.rmtree(disk.wal)
    disk.touch().set_aside()
    disk.put("restored")
    disk.host.cancel(disk.member, ["etcd"])
    assert disk.found() == ("old", "")


def test_abandon_brings_back_what_nothing_has_taken_the_place_of(disk: Disk) -> None:
    disk.put("old")
    disk.touch().set_aside()
    disk.store.mark(EXCHANGED)
    disk.host.abandon(disk.member, ["kube-apiserver", "etcd"])
    assert disk.found() == ("old", "old") and started(disk) == {"etcd", "kube-apiserver"}


def test_abandon_keeps_new_data_and_starts_no_etcd_on_none(disk: Disk) -> None:
    disk.put("old")
    disk.touch().set_aside()
    disk.put("restored")
    disk.host.abandon(disk.member, ["etcd"])
    assert disk.found() == ("restored", "restored") and "etcd" in started(disk)


def test_abandon_starts_no_etcd_without_data(disk: Disk) -> None:
    disk.touch().set_aside()
    disk.host.abandon(disk.member, ["kube-scheduler", "kube-apiserver", "etcd"])
    assert started(disk) == set() and disk.store.read() is None
    # For the restore that comes then.
    assert disk.host._fence.manifest("etcd") == ("of etcd\r\n", True)


def test_nothing_secret_is_left_of_a_restore_that_was_cut_off(disk: Disk) -> None:
    for path in (disk.store.snapshot, part_of(disk.store.snapshot), copy_beside(disk.store.snapshot) / "member/snap/db"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    disk.host.cancel(disk.member, ["etcd"])
    assert {path.name for path in disk.store.directory.iterdir()} == {"last.json", "manifests"}


@pytest.mark.parametrize(
    ("case", "unit", "fails", "begun", "why_not"),
    [
        ("backup", f"{units.MARK}\n[Unit]\n", False, True, ""),
        ("survivor", f"{units.MARK}\n[Unit]\n", False, True, ""),
        ("member", f"{units.MARK}\n[Unit]\n", False, False, ""),
        ("backup", "", False, False, "the maintenance takes none here"),
        ("backup", "[Unit]\n", False, False, "etcd-backup.service is not the maintenance's"),
        ("backup", f"{units.MARK}\n[Unit]\n", True, True, "no systemd"),
    ],
)
def test_a_new_cluster_gets_a_backup(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, unit: str, fails: bool, begun: bool, why_not: str
) -> None:
    said = []

    def output(command: list[str]) -> str:
        assert disk.store.read() is None, "the restore has ended"
        said.append(command)
        if fails:
            raise KubetuneError("no systemd")
        return ""

    monkeypatch.setattr(restore_host, "output", output)
    monkeypatch.setattr(units, "DIRECTORY", str(tmp_path / "units"))
    (tmp_path / "units").mkdir()
    if unit:
        (tmp_path / "units/etcd-backup.service").write_text(unit)
    disk.store.end("cancelled")
    disk.store.begin(replace(ORDER, case=case), str(disk.wal))
    assert disk.host.finish(disk.member, {})["no_backup"].endswith(why_not)
    assert said == [["systemctl", "start", "--no-block", "etcd-backup.service"]] * begun


# --- what is said after it ------------------------------------------------------------------------------------


def test_the_report_names_what_came_back_and_the_keys_of_then() -> None:
    key = {"flag": "--service-account-key-file", "path": "/pki/sa.pub", "there": True, "changed_at": "2026-11-23T00:00:00Z"}
    old = {"flag": "--encryption-provider-config", "path": "/enc.yaml", "there": False, "changed_at": ""}
    snapshot = {"keys": 9, "revision": 80, "taken_at": "2026-11-22T00:00:00+00:00", "path": "/backups/22.db"}
    finished = {"cp1": {"keys": [key, old, {**key, "changed_at": "2026-11-01T00:00:00Z"}], "set_aside": ["/var/lib/etcd/member.x"], "snapshot": snapshot, "no_backup": ""}}
    after = {"alarms": ["NOSPACE"], "grants": {"clusterrolebindings": ["revoked"], "secrets": [f"ns/s{each}" for each in range(50)], "rolebindings": []}, "nodes": ["cp1"]}
    said = "\n".join(lines(ORDER, after, finished, ["cp1", "cp2", ""]))
    for text in (
        "serves 9 keys of revision 80, taken at 2026-11-22T00:00:00+00:00, from /backups/22.db on cp1",
        "came back, and may have been revoked since: cluster role bindings: revoked",
        "the alarm NOSPACE came back with the data: the API servers' writes are refused until it is mended (kubetune.pyz maintenance recover",
        "ns/s39 and 10 more",
        "nodes of this run that are not known, and register anew now: cp2",
        "cp1: /pki/sa.pub (--service-account-key-file) was changed at 2026-11-23T00:00:00Z, after the backup",
        "cp1: /enc.yaml (--encryption-provider-config) is missing",
        "cp1: the old data is set aside, and yours to remove when you are sure: /var/lib/etcd/member.x",
    ):
        assert text in said
    assert "cp1: a first backup of the new cluster is being taken" in said
    mixed = "\n".join(lines(ORDER, after, {**finished, "cp2": {**finished["cp1"], "no_backup": "no systemd"}}, ["cp1"]))
    assert "cp1: a first backup" in mixed and "cp2: take a backup now (no systemd)" in mixed
    assert said.count("was changed at") == 1 and "role bindings: \n" not in said
    alone = lines(replace(ORDER, case="member"), None, {"cp1": {"set_aside": [], "keys": [], "snapshot": None}}, [])
    assert alone == ["the member of cp1 is a voter again, and the cluster is whole"]


def test_meanwhile_nobody_else_takes_the_manifests_for_missing(store: Store) -> None:
    state = store.directory.parent
    refuse_while_restoring(state)
    store.begin(ORDER, "/wal")
    with pytest.raises(KubetuneError, match="restore one of etcd is under way on this host: finish it with the playbook restore"):
        refuse_while_restoring(state)
    store.end("cancelled")
    refuse_while_restoring(state)
