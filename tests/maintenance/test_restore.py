# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's etcd is destroyed in three ways, and restored by the playbook: what should come back does, and the cluster serves."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from typing import Any, Callable, Iterator

import pytest

from tests.benchmarks.writer import Etcd, b64
from tests.faults.conftest import at_once, ready, wait_for
from tests.faults.playbook import Playbook, Run, kill
from tests.lab.nodes import Lab, Node

pytestmark = pytest.mark.long

PREFIX = "/kubetune-restore/"
MANIFESTS = "/etc/kubernetes/manifests"
PROGRAM = ("python3", "/usr/local/lib/kubetune/kubetune.pyz", "maintenance")
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


@pytest.fixture(scope="module", autouse=True)
def maintained(lab: Lab, playbook: Playbook) -> None:
    run = playbook("maintenance")
    assert run.status == 0, run.output


@pytest.fixture(autouse=True)
def whole(lab: Lab) -> Iterator[None]:
    """Every test begins and ends with a whole cluster, nothing set aside, nothing under way."""
    yield
    wait_for(lambda: ready(lab.nodes), 180, "every node is ready again")
    for node in lab.nodes:
        # The first one of a new cluster, which a restore begins.
        wait_for(lambda: node.run("systemctl", "is-active", "etcd-backup", check=False).stdout.strip() == "inactive", 120, "its backup has ended")
        assert not node.exists("/var/lib/kubetune/restore/pending.json")
        assert set(node.output("ls", MANIFESTS).split()) == {f"{component}.yaml" for component in COMPONENTS}
        node.shell("rm -rf /var/lib/etcd/*.kubetune-aside-* /var/lib/etcd/wal-disk/*.kubetune-aside-*")


class Keys:
    """A hundred keys, written when they are asked for, and read through each member."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._etcd = lab, Etcd(lab)

    def write(self, name: str, number: int = 100) -> set[str]:
        written = {f"{PREFIX}{name}/{each:03}" for each in range(number)}
        for key in written:
            self._etcd.call(0, "/v3/kv/put", {"key": b64(key), "value": b64(name)})
        return written

    def read(self) -> list[set[str]]:
        """By each member, which has to be the same."""
        found = []
        for node in self._lab.nodes:
            told = self._lab.etcdctl("get", "--prefix", "--keys-only", PREFIX, endpoints=[node.etcd_endpoint]).stdout
            found.append({line for line in told.split() if line})
        return found


@pytest.fixture
def keys(lab: Lab) -> Iterator[Keys]:
    yield Keys(lab)
    lab.etcdctl("del", "--prefix", PREFIX)


def lose_disk(node: Node) -> None:
    """Its member's data is gone while it runs, the process dies of it, and what is left of the disk lets none start.

    Without the latter kubeadm's manifests bring the member back by itself, under its old id: it has forgotten what it voted for.
    """
    node.shell("pid=$(pgrep -xo etcd); rm -rf /var/lib/etcd/member; touch /var/lib/etcd/member; kill -KILL $pid")


def with_consent(playbook: Playbook, **variables: Any) -> dict[str, Any]:
    """As a person does it: the plan first, then the same variables with the consent that it asks for."""
    wanted = {f"etcd_restore_{name}": value for name, value in variables.items()}
    plan = playbook("restore", wanted)
    consent = re.search(r"etcd_restore_consent=([a-z]+-[0-9a-f]{8})", plan.output)
    assert plan.status != 0 and consent and not any(plan.changed.values()), plan.output
    return {**wanted, "etcd_restore_consent": consent.group(1)}


def restore(playbook: Playbook, **variables: Any) -> Run:
    return playbook("restore", with_consent(playbook, **variables))


def advice(playbook: Playbook) -> str:
    run = playbook("restore")
    assert run.status == 0 and not any(run.changed.values()), run.output
    return run.output


def backup(lab: Lab) -> None:
    for node in lab.nodes:
        node.run(*PROGRAM, "backup")


def revision(lab: Lab) -> int:
    return int(json.loads(lab.etcdctl("get", "x", "--write-out=json").stdout)["header"]["revision"])


def cluster_id(lab: Lab) -> str:
    told = json.loads(lab.etcdctl("endpoint", "status", "--write-out=json").stdout)
    (found,) = {each["Status"]["header"]["cluster_id"] for each in told}
    return f"{found:x}"


def is_backed_up(lab: Lab) -> None:
    """Each member of the new cluster, without anybody's doing, so that the next drill finds one of this cluster."""
    of_this_cluster = f"grep -l '\"cluster_id\": \"{cluster_id(lab)}\"' /var/backups/etcd/*/*-{{}}.json"
    for node in lab.nodes:
        wait_for(lambda: node.run("sh", "-c", of_this_cluster.format(node.name), check=False).returncode == 0, 120, f"{node.name} has a backup")
    lab.nodes[0].run("systemctl", "start", "etcd-restore-drill", timeout=300)


def serves(lab: Lab) -> None:
    """The API takes writes, its controllers act on them, and nobody is left with what he knew of the old cluster."""
    lab.kubectl("delete", "namespace", "after-restore", "--ignore-not-found")
    lab.kubectl("create", "namespace", "after-restore")
    # The service account is made by the controller manager, which has to lead again.
    wait_for(lambda: lab.kubectl("-n", "after-restore", "get", "serviceaccount", "default", check=False).returncode == 0, 90, "controllers act")
    lab.kubectl("delete", "namespace", "after-restore", "--wait=false")
    nodes = json.loads(lab.kubectl("get", "nodes", "--output=json").stdout)["items"]
    assert {each["metadata"]["name"] for each in nodes} >= {node.name for node in lab.nodes}


class Watch:
    """A watch that is open while the cluster is restored, by a client which knows a revision of before."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        found = json.loads(lab.kubectl("get", "--raw", "/api/v1/namespaces").stdout)
        self._version = found["metadata"]["resourceVersion"]
        self._open = subprocess.Popen(
            [lab.binary("kubectl"), "--kubeconfig", lab.kubeconfig, "get", "--raw", self._path(600)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def _path(self, seconds: int) -> str:
        return f"/api/v1/namespaces?watch=1&resourceVersion={self._version}&timeoutSeconds={seconds}"

    def lists_again(self) -> None:
        """The open one has ended, going on from where it was is answered 410, and a new list leads to a watch that hears of what comes."""
        self._open.wait(timeout=60)
        told = self._lab.kubectl("get", "--raw", self._path(5), check=False)
        assert '"code":410' in told.stdout, told.stdout
        self._version = json.loads(self._lab.kubectl("get", "--raw", "/api/v1/namespaces").stdout)["metadata"]["resourceVersion"]
        self._lab.kubectl("create", "namespace", "after-the-list")
        told = self._lab.kubectl("get", "--raw", self._path(5))
        self._lab.kubectl("delete", "namespace", "after-the-list", "--wait=false")
        assert "after-the-list" in told.stdout, told.stdout

    def close(self) -> None:
        if self._open.poll() is None:
            self._open.kill()
        self._open.wait()


@pytest.fixture
def watch(lab: Lab) -> Iterator[Watch]:
    it = Watch(lab)
    yield it
    it.close()


def test_one_members_disk(lab: Lab, playbook: Playbook, keys: Keys, seen: Callable[[str], None]) -> None:
    backup(lab)
    written = keys.write("after-the-backup")
    lost, before = lab.nodes[0], cluster_id(lab)
    lose_disk(lost)
    others = [node.etcd_endpoint for node in lab.nodes[1:]]
    # The first one may still be the old leader's to answer.
    wait_for(lambda: lab.etcdctl("put", f"{PREFIX}meanwhile", "x", endpoints=others, check=False).returncode == 0, 60, "the others go on")
    wait_for(lambda: f"etcd_restore_case=member etcd_restore_host={lost.name}" in advice(playbook), 60, "the plan says which member is lost")
    began = time.monotonic()
    run = restore(playbook, case="member", host=lost.name)
    seconds = time.monotonic() - began
    assert run.status == 0, run.output
    assert keys.read() == [written | {f"{PREFIX}meanwhile"}] * 3
    assert cluster_id(lab) == before
    assert len(json.loads(lab.etcdctl("member", "list", "--write-out=json").stdout)["members"]) == 3
    serves(lab)
    seen(f"one member's disk: {len(written)} of {len(written)} keys after the last backup are back, {seconds:.0f} s with the plan")


def test_two_members_disks(lab: Lab, playbook: Playbook, keys: Keys, watch: Watch, seen: Callable[[str], None]) -> None:
    backup(lab)
    written = keys.write("after-the-backup")
    before, old = revision(lab), cluster_id(lab)
    survivor = lab.nodes[2]
    at_once(lose_disk, lab.nodes[:2])
    wait_for(lambda: f"{survivor.name} has data" in advice(playbook), 60, "the plan says who survived")
    began = time.monotonic()
    run = restore(playbook, case="survivor")
    seconds = time.monotonic() - began
    assert run.status == 0, run.output
    # Every key but the very last, whose commit the survivor may not have heard of.
    back = keys.read()
    assert back[0] == back[1] == back[2] and len(written - back[0]) <= 1
    assert cluster_id(lab) != old and revision(lab) >= before + 1_000_000_000
    watch.lists_again()
    is_backed_up(lab)
    serves(lab)
    assert survivor.output("bash", "-c", "ls -d /var/lib/etcd/member.kubetune-aside-*")
    seen(f"two members' disks: {len(back[0] & written)} of {len(written)} keys after the last backup are back, {seconds:.0f} s with the plan")


def test_all_members_disks(lab: Lab, playbook: Playbook, keys: Keys, watch: Watch, seen: Callable[[str], None]) -> None:
    lab.kubectl("create", "clusterrolebinding", "revoked-later", "--clusterrole=view", "--user=mallory")
    kept = keys.write("before-the-backup")
    backup(lab)
    lab.kubectl("delete", "clusterrolebinding", "revoked-later")
    keys.write("after-the-backup")
    old = cluster_id(lab)
    at_once(lose_disk, lab.nodes)
    wait_for(lambda: "no data is left" in advice(playbook), 60, "the plan says that all is lost")
    began = time.monotonic()
    run = restore(playbook, case="backup")
    seconds = time.monotonic() - began
    assert run.status == 0, run.output
    assert keys.read() == [kept] * 3 and cluster_id(lab) != old
    watch.lists_again()
    is_backed_up(lab)
    assert re.search(r"came back, and may have been revoked since: cluster role bindings: [^\"]*revoked-later", run.output), run.output
    assert lab.kubectl("get", "clusterrolebinding", "revoked-later").stdout
    lab.kubectl("delete", "clusterrolebinding", "revoked-later")
    serves(lab)
    seen(f"all members' disks: {len(kept)} of {len(kept)} keys of the backup are back, {seconds:.0f} s with the plan")


def cut_off_and_run_again(playbook: Playbook, wanted: dict[str, Any], step: str) -> None:
    """The controller dies in a step. What was begun refuses other runs, and the same command goes on."""
    process = playbook.start("restore", wanted)
    assert process.stdout
    for line in process.stdout:
        if step in line:
            break
    time.sleep(1.0)
    kill(process)
    assert process.wait() == -signal.SIGKILL, "it had ended before"
    site = playbook("site")
    assert site.status != 0 and "of etcd is under way on this host: finish it with the playbook restore" in site.output, site.output
    run = playbook("restore", wanted)
    assert run.status == 0, run.output


@pytest.mark.parametrize("step", ["Keep API servers, controllers and etcd out", "Make each member's data of it", "Start the API servers"])
def test_the_controller_dies_in_the_middle(lab: Lab, playbook: Playbook, keys: Keys, step: str) -> None:
    kept = keys.write("before-the-backup")
    backup(lab)
    keys.write("after-the-backup")
    cut_off_and_run_again(playbook, with_consent(playbook, case="backup"), step)
    assert keys.read() == [kept] * 3
    serves(lab)


@pytest.mark.parametrize("step", ["Set its old data aside", "Let a learner take the lost member's place", "Start it with no data"])
def test_the_controller_dies_while_a_member_is_replaced(lab: Lab, playbook: Playbook, keys: Keys, step: str) -> None:
    written = keys.write("before")
    lost, before = lab.nodes[1], cluster_id(lab)
    lose_disk(lost)
    wait_for(lambda: f"etcd_restore_case=member etcd_restore_host={lost.name}" in advice(playbook), 60, "the plan says which member is lost")
    cut_off_and_run_again(playbook, with_consent(playbook, case="member", host=lost.name), step)
    assert keys.read() == [written] * 3 and cluster_id(lab) == before
    members = json.loads(lab.etcdctl("member", "list", "--write-out=json").stdout)["members"]
    assert len(members) == 3 and not any(each.get("isLearner") for each in members)
    serves(lab)


@pytest.mark.parametrize("step", ["Take a snapshot of what the survivor had committed", "Make each member's data of it", "Start etcd"])
def test_the_controller_dies_while_a_survivor_is_recovered(lab: Lab, playbook: Playbook, keys: Keys, step: str) -> None:
    written = keys.write("before")
    old = cluster_id(lab)
    at_once(lose_disk, lab.nodes[:2])
    wait_for(lambda: f"{lab.nodes[2].name} has data" in advice(playbook), 60, "the plan says who survived")
    cut_off_and_run_again(playbook, with_consent(playbook, case="survivor"), step)
    back = keys.read()
    assert back[0] == back[1] == back[2] and len(written - back[0]) <= 1 and cluster_id(lab) != old
    serves(lab)


def test_a_restore_is_taken_back_before_the_new_data(lab: Lab, playbook: Playbook, keys: Keys) -> None:
    written = keys.write("before")
    backup(lab)
    written |= keys.write("after-the-backup")
    old, manifests = cluster_id(lab), [node.shell(f"sha256sum {MANIFESTS}/*").stdout for node in lab.nodes]
    # No room for the data of one host: the run ends with everything out, and the data of the others replaced.
    full = lab.nodes[1]
    full.shell("fallocate -l $(($(df --output=avail -B1 /var/lib/etcd | tail -1) - 20000000)) /var/lib/etcd/full")
    try:
        run = restore(playbook, case="backup")
        assert run.status != 0 and "make room, then run again" in run.output, run.output
    finally:
        full.shell("rm -f /var/lib/etcd/full")
    run = restore(playbook, case="cancel")
    assert run.status == 0, run.output
    wait_for(lambda: ready(lab.nodes), 180, "every node is ready again")
    assert cluster_id(lab) == old and keys.read() == [written] * 3
    assert [node.shell(f"sha256sum {MANIFESTS}/*").stdout for node in lab.nodes] == manifests
    serves(lab)
