# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a restore on real members: their data is destroyed, and what should come back does, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.client import OUT_OF_RANGE, EtcdError
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.lock import ClusterLock, current_holder
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.access import EtcdAccess
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore import membership, snapshot
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.data import ASIDE, Data, Member
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.revived import release_locks, revived
from ansible_collections.kubetune.control_plane.plugins.module_utils._restore.store import Order

from tests.integration import etcd_cluster
from tests.integration.assets import binary
from tests.integration.encryption_keys import METHODS
from tests.integration.etcd_cluster import EtcdCluster
from tests.integration.maintenance_node import Node, wait_for

BUMP = 1_000_000_000


def member_of(cluster: EtcdCluster, each: etcd_cluster.Member, wal: str = "") -> Member:
    access = EtcdAccess((each.client_url,), cluster.tls.ca_file, cluster.tls.cert_file, cluster.tls.key_file)
    data = str(each.data_directory)
    return Member(each.name, "", data, wal or f"{data}/member/wal", (each.peer_url,), access, "/nowhere")


def order_of(cluster: EtcdCluster, case: str, *members: etcd_cluster.Member, old_id: int = 0) -> Order:
    parts = {each.name: {"name": each.name, "peer_urls": [each.peer_url]} for each in members or cluster.members}
    return Order("20261128T000000Z-abcdef", case, "cp1", "", "", parts, f"{old_id:x}" if old_id else "", BUMP)


def programs() -> Path:
    return binary("etcdutl").parent


def write(cluster: EtcdCluster, number: int, prefix: str) -> dict[str, str]:
    client = cluster.client()
    written = {f"/registry/{prefix}/{each:03}": f"{prefix} {each}" for each in range(number)}
    for key, value in written.items():
        client.put(key, value)
    return written


def keys(cluster: EtcdCluster) -> dict[str, str]:
    return {each.key: each.value for each in cluster.client().range("/registry/", "/registry0")}


def destroy(cluster: EtcdCluster, *members: etcd_cluster.Member) -> None:
    """The host dies, and its disk with it."""
    for each in members:
        cluster.stop(each, signal.SIGKILL)
        shutil.rmtree(each.data_directory)


def restore_all(cluster: EtcdCluster, path: Path, order: Order) -> None:
    for each in cluster.members:
        Data(member_of(cluster, each), order.id).put_restored(path, str(programs() / "etcdutl"), order)
    for each in cluster.members:
        cluster.start(each)
    cluster.wait_until_whole()


def test_what_a_lone_survivor_had_committed_comes_back(cluster: EtcdCluster, tmp_path: Path) -> None:
    written = write(cluster, 100, "committed")
    before = cluster.client().status()
    survivor = cluster.members[2]
    # The last commit reaches a follower with the next message of the leader.
    wait_for(lambda: cluster.client(survivor).status().raft_applied_index >= before.raft_index)
    destroy(cluster, *cluster.members[:2])
    with pytest.raises(EtcdError):
        cluster.client(survivor, timeout=1.0).revision()
    cluster.stop(survivor, signal.SIGKILL)
    untouched = sorted((path.name, path.stat().st_mtime_ns) for path in survivor.data_directory.rglob("*"))

    facts = snapshot.from_survivor(member_of(cluster, survivor), tmp_path / "restore/snapshot.db", programs())
    assert (facts["keys"], facts["cluster_id"]) == (100, f"{before.cluster_id:x}")
    assert facts["revision"] >= before.revision
    assert untouched == sorted((path.name, path.stat().st_mtime_ns) for path in survivor.data_directory.rglob("*"))
    assert not (tmp_path / "restore/survivor").exists()
    assert (tmp_path / "restore/snapshot.db").stat().st_mode & 0o777 == 0o600

    restore_all(cluster, tmp_path / "restore/snapshot.db", order_of(cluster, "survivor"))
    assert keys(cluster) == written
    after = cluster.client().status()
    assert after.cluster_id != before.cluster_id
    assert after.revision >= before.revision + BUMP
    assert len({cluster.client(each).status().cluster_id for each in cluster.members}) == 1
    # The survivor's own data is set aside whole, and nothing was there to set aside on the others.
    assert [len(list(each.data_directory.glob(f"*{ASIDE}*"))) for each in cluster.members] == [0, 0, 1]
    # Who knows a revision of the old cluster is told that it is gone.
    with pytest.raises(EtcdError) as told:
        cluster.client().call("/v3/kv/range", {"key": "AA==", "revision": str(before.revision)})
    assert told.value.code == OUT_OF_RANGE and "compacted" in str(told.value)


def test_a_backup_makes_a_new_cluster_where_all_is_lost(cluster: EtcdCluster, program: Path, tmp_path: Path) -> None:
    written = write(cluster, 100, "backed-up")
    client = cluster.client()
    client.put("/registry/clusterrolebindings/revoked", "x")
    client.put("/registry/clusterrolebindings/system:basic-user", "x")
    client.put("/registry/minions/worker-1", "x")
    lock = ClusterLock(client, "change", {"host": "cp1", "purpose": "a run of then"})
    lock.acquire()
    node = Node(program, cluster, cluster.members[0], tmp_path)
    assert node.run("backup").status == 0
    lock.release()
    client.delete("/registry/clusterrolebindings/revoked")
    later = write(cluster, 100, "later")
    cluster_id = f"{client.status().cluster_id:x}"
    destroy(cluster, *cluster.members)

    (path,) = node.snapshots()
    config = node.root / "config.json"
    target = tmp_path / "restore/snapshot.db"
    (newest,) = snapshot.newest_backups(config)
    assert (newest["path"], newest["cluster_id"]) == (str(path), cluster_id)
    facts = snapshot.from_backup(path, cluster_id, target, programs(), config)
    assert facts["taken_at"] and facts["member"] == "cp1"
    restore_all(cluster, target, order_of(cluster, "backup"))

    found = keys(cluster)
    assert written.items() <= found.items() and not later.keys() & found.keys()
    client = cluster.client()
    assert current_holder(client, "change") is not None
    # That of the run of then, and that of the backup itself.
    assert release_locks(client) == 2 and current_holder(client, "change") is None
    back = revived(client, "/registry")
    assert back["grants"]["clusterrolebindings"] == ["revoked"] and back["nodes"] == ["worker-1"]

    # Backups of the new cluster have etcdutl's record of the bump, which no etcd counts, and pass their drill.
    assert node.run("backup").status == 0
    run = node.run("drill")
    assert run.status == 0, run.text


def test_a_file_that_is_no_good_is_refused_before_anything_is_done(
    shared_node: Callable[[], Node], tmp_path: Path
) -> None:
    node = shared_node()
    assert node.run("backup").status == 0
    (path,) = node.snapshots()
    config, target = node.root / "config.json", tmp_path / "restore/snapshot.db"
    with pytest.raises(KubetuneError, match="etcd_restore_cluster_id="):
        snapshot.from_backup(path, "abc", target, programs(), config)
    with pytest.raises(KubetuneError, match="there is no such file on this host"):
        snapshot.from_backup(tmp_path / "none.db", "", target, programs(), config)
    data = path.read_bytes()
    bare = tmp_path / "by-hand.db"
    for content, reason in (
        (data[:-4096], "it was cut"), (data[:9000] + b"?" + data[9001:], "it is damaged"), (b"", "no valid meta page"),
    ):  # fmt: skip
        bare.write_bytes(content)
        with pytest.raises(KubetuneError, match=reason):
            snapshot.from_backup(bare, "", target, programs(), config)
    assert not target.exists()
    # One that etcdctl wrote by hand has no sidecar, and is taken for what it is.
    bare.write_bytes(data)
    facts = snapshot.from_backup(bare, "", target, programs(), Path("/nowhere"))
    assert facts["revision"] and facts["cluster_id"] == "" and target.read_bytes() == data


@pytest.mark.parametrize(("method", "keys"), METHODS)
def test_an_encrypted_backup_takes_its_private_key_or_is_decrypted_elsewhere(
    shared_node: Callable[[], Node], tmp_path_factory: pytest.TempPathFactory, method: str, keys: Callable[[Path], tuple[Path, Path]]
) -> None:
    node = shared_node()
    # gpg's sockets take a short path.
    ours, theirs = tmp_path_factory.mktemp("k"), tmp_path_factory.mktemp("k")
    (recipients, identity), (_others, strange) = keys(ours), keys(theirs)
    node.config["backup"].update(encryption=method, recipients_file=str(recipients))
    assert node.run("backup").status == 0
    (path,) = node.backups.glob(f"*/*.db.{method}")
    sidecar = path.with_name(path.name.replace(f".db.{method}", ".json"))
    config, target = node.root / "config.json", ours / "restore/snapshot.db"
    assert [each["path"] for each in snapshot.newest_backups(config)] == [str(path)]

    def refused(given: Path, reason: str) -> None:
        with pytest.raises(KubetuneError, match=reason):
            snapshot.from_backup(given, "", target, programs(), config)
        assert not target.exists()

    refused(path, f"no private key is configured on this host .* with {sidecar.name} beside it")
    node.config["backup"]["identity_file"] = str(strange)
    node.run("status")
    refused(path, f"{method} failed with status")
    alone = Path(shutil.copy(path, theirs))
    refused(alone, f"its sidecar {sidecar.name} is not beside it")

    node.config["backup"]["identity_file"] = str(identity)
    node.run("status")
    facts = snapshot.from_backup(path, "", target, programs(), config)
    assert facts["member"] == "cp1" and target.stat().st_mode & 0o777 == 0o600
    assert list((node.root / "drill").iterdir()) == []

    # Decrypted where the key is, and brought here with what was recorded of it.
    plain = Path(shutil.copy(target, theirs / path.name.removesuffix(f".{method}")))
    shutil.copy(sidecar, theirs)
    target.unlink()
    node.config["backup"]["identity_file"] = ""
    node.run("status")
    with pytest.raises(KubetuneError, match="etcd_restore_cluster_id="):
        snapshot.from_backup(plain, "abc", target, programs(), config)
    again = snapshot.from_backup(plain, facts["cluster_id"], target, programs(), config)
    assert again == {**facts, "path": str(plain)}
    target.unlink()
    plain.write_bytes(plain.read_bytes()[:-4096])
    refused(plain, "it was cut")


def test_a_host_without_data_has_not_survived(shared_cluster: EtcdCluster, tmp_path: Path) -> None:
    member = member_of(shared_cluster, shared_cluster.members[0])
    gone = Member(**{**vars(member), "data": str(tmp_path / "none"), "wal": str(tmp_path / "none/member/wal")})
    with pytest.raises(KubetuneError, match="this host has not survived"):
        snapshot.from_survivor(gone, tmp_path / "snapshot.db", programs())


@pytest.mark.parametrize("place", ["data/wal-disk", "elsewhere"])
def test_a_wal_of_its_own_gets_its_part(alone: Node, place: str) -> None:
    cluster, each = alone.cluster, alone.member
    written = write(cluster, 20, "kept")
    assert alone.run("backup").status == 0
    cluster.stop(each)
    # As the role etcd_wal leaves it, or by hand: the WAL on another disk, and a link where etcd looks by default.
    disk = each.directory / place
    disk.mkdir()
    link = os.path.relpath(disk / "wal", each.data_directory / "member")
    (each.data_directory / "member/wal").rename(disk / "wal")
    (each.data_directory / "member/wal").symlink_to(link)
    (path,) = alone.snapshots()
    order = order_of(cluster, "backup")
    data = Data(member_of(cluster, each, str(disk / "wal")), order.id)

    # Cut off in the middle, it is done again.
    (disk / ".wal.kubetune-restored").mkdir()
    (each.data_directory / ".kubetune-restored/member").mkdir(parents=True)
    data.put_restored(path, str(programs() / "etcdutl"), order)
    assert sorted(entry.name for entry in disk.iterdir()) == ["wal", f"wal{ASIDE}{order.id}"]
    assert os.readlink(each.data_directory / "member/wal") == link
    assert data.asides() == [f"{each.data_directory}/member{ASIDE}{order.id}", f"{disk}/wal{ASIDE}{order.id}"]
    cluster.start(each)
    cluster.wait_until_whole()
    assert keys(cluster) == written

    # What it was before comes back, too, as long as nobody has started on the new data.
    cluster.stop(each)
    data.take_back(None)
    assert not list(each.data_directory.rglob(f"*{ASIDE}*"))
    cluster.start(each)
    cluster.wait_until_whole()
    assert keys(cluster) == written and cluster.client().status().revision < BUMP


def test_a_lost_member_is_filled_again_by_the_others(cluster: EtcdCluster) -> None:
    lost = cluster.members[1]
    written = write(cluster, 50, "before")
    old = cluster.client(lost).status().member_id
    destroy(cluster, lost)
    written |= write(cluster, 50, "meanwhile")
    order = order_of(cluster, "member", lost, old_id=old)
    client = cluster.client(cluster.members[0])
    initial = membership.replace(client, order, "cp1")
    # Cut off and run again, there is still one learner.
    assert membership.replace(client, order, "cp1") == initial
    assert [each.is_learner for each in client.members()].count(True) == 1
    assert initial.split(",") == [f"{each.name}={each.peer_url}" for each in cluster.members]

    with pytest.raises(KubetuneError, match="has not become a voter"):
        membership.promote(client, order, 1.0, lambda text: None)
    cluster.flags = [*cluster.flags, "--initial-cluster-state=existing"]
    cluster.start(lost)
    membership.promote(client, order, 60.0, lambda text: None)
    membership.promote(client, order, 60.0, lambda text: None)
    view = cluster.wait_until_whole()
    assert len(view.voters) == 3
    assert cluster.client(lost).count() == len(written)
    assert cluster.client(lost).status().member_id != old
    assert current_holder(client, "change") is None


def test_while_another_member_is_away_none_is_replaced(cluster: EtcdCluster) -> None:
    lost = cluster.members[1]
    old = cluster.client(lost).status().member_id
    cluster.stop(lost)
    # Members can still agree, and one more away would be one too many.
    client = cluster.client(cluster.members[0])
    other = cluster.members[2]
    order = order_of(cluster, "member", other, old_id=cluster.client(other).status().member_id)
    with pytest.raises(KubetuneError, match="only one member may be lost"):
        membership.replace(client, order, "cp1")
    assert old in {each.member_id for each in client.members()}
