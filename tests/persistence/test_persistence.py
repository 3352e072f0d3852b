# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kubeadm itself makes of the configuration that the collection keeps for it, on the real lab."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from typing import Any, Callable, Iterator

import pytest
import yaml
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.resources import quantity

from tests.faults.conftest import DISK, IN_DATA, ON_DISK, Playbook, wait_for, wal_of
from tests.lab.nodes import Lab, Node

ETCD, API = "etcd", "kube-apiserver"
ANNOTATION = "kubetune.control-plane/persistence"
WAL = f"--wal-dir={DISK}/wal"
PATCHES = "/etc/kubernetes/kubetune-patches"
#: Where distributions keep what /etc/ssl/certs links to (kubeadm, controlplane/volumes.go).
CERTIFICATES = "/etc/pki/ca-trust /etc/pki/tls/certs /etc/ca-certificates /usr/share/ca-certificates /usr/local/share/ca-certificates"
#: etcd reads them at its first start only, and kubeadm writes them differently at an upgrade.
FIRST_START = ("--initial-cluster=", "--initial-cluster-state=")


def config_map(lab: Lab) -> dict[str, Any]:
    return dict(json.loads(lab.kubectl("--namespace=kube-system", "get", "configmap", "kubeadm-config", "--output=json").stdout))


def configuration(lab: Lab) -> dict[str, Any]:
    return dict(yaml.safe_load(config_map(lab)["data"]["ClusterConfiguration"]))


def extra_args(found: dict[str, Any]) -> dict[str, list[str]]:
    """Component -> flags as a command line has them."""
    sections = {ETCD: found["etcd"]["local"], API: found["apiServer"]}
    return {
        name: [f"--{each['name']}={each['value']}" for each in section.get("extraArgs", [])] for name, section in sections.items()
    }


def applied(node: Node, component: str) -> set[str]:
    """What the collection has set on a node, by its own memory."""
    settings = json.loads(node.read(f"/var/lib/kubetune/applied/{component}.json"))["settings"]
    return {f"{key}={value}" for key, setting in settings.items() if key.startswith("--") for value in setting["applied"]}


def edit(lab: Lab, **sections: list[tuple[str, str]]) -> None:
    """Set flags of apiServer or etcd as a person does with kubectl edit."""
    found = config_map(lab)
    data = yaml.safe_load(found["data"]["ClusterConfiguration"])
    for name, flags in sections.items():
        section = data["etcd"]["local"] if name == "etcd" else data[name]
        kept = [each for each in section.get("extraArgs", []) if each["name"] not in dict(flags)]
        section["extraArgs"] = [*kept, *({"name": flag, "value": value} for flag, value in flags)]
    found["data"]["ClusterConfiguration"] = yaml.safe_dump(data)
    lab.kubectl("replace", "--filename=-", stdin=json.dumps(found))


def whole_configuration(lab: Lab, node: Node, patches: bool = False) -> str:
    """What a node gives to kubeadm init: its own part, and what is in the cluster."""
    head = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": node.address},
        "nodeRegistration": {"name": node.name, "criSocket": "unix:///run/containerd/containerd.sock"},
        **({"patches": {"directory": PATCHES}} if patches else {}),
    }
    return str(yaml.safe_dump_all([head, configuration(lab)]))


def render(lab: Lab, node: Node, patches: bool = False) -> dict[str, dict[str, Any]]:
    """The manifests that kubeadm's init phases make on a node of the configuration in the cluster, below a directory of their own."""
    root = node.output("mktemp", "--directory", "/root/kubeadm-XXXXXX")
    node.run("mkdir", "--parents", f"{root}/etc", root + PATCHES)
    node.run("cp", "--recursive", f"{PATCHES}/.", root + PATCHES)
    # kubeadm mounts those of them that are there.
    node.shell(f"for place in {CERTIFICATES}; do if [ -d $place ]; then mkdir --parents {root}$place; fi; done")
    node.write(f"{root}/etc/kubeadm.yaml", whole_configuration(lab, node, patches))
    try:
        found = {}
        for phase in ("etcd local", "control-plane all"):
            node.run("kubeadm", "init", "phase", *phase.split(), "--rootfs", root, "--config", "/etc/kubeadm.yaml")
        for name in (ETCD, API):
            found[name] = yaml.safe_load(node.read(f"{root}/etc/kubernetes/manifests/{name}.yaml"))
        return found
    finally:
        node.run("rm", "-r", root)


def meaning(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest in which the order of the flags, how an amount is written, and what etcd reads at its first start tell nothing."""
    found = copy.deepcopy(manifest)
    container = found["spec"]["containers"][0]
    container["resources"] = resources(manifest)
    container["command"] = lasting(container["command"])
    return found


def command(manifest: dict[str, Any]) -> set[str]:
    return set(manifest["spec"]["containers"][0]["command"])


def upgrade(node: Node, *options: str) -> None:
    """To the version that runs, as after a change of kubeadm's configuration."""
    node.run("kubeadm", "upgrade", "node", "--ignore-preflight-errors=all", *options, timeout=600)


def resources(manifest: dict[str, Any]) -> dict[str, Any]:
    """As numbers: where kubeadm applies a patch it writes 2 for 2000m."""
    found = manifest["spec"]["containers"][0]["resources"]
    return {kind: {name: float(quantity(amount)) for name, amount in amounts.items()} for kind, amounts in found.items()}


def live(node: Node) -> dict[str, dict[str, Any]]:
    return {name: yaml.safe_load(node.read(f"/etc/kubernetes/manifests/{name}.yaml")) for name in (ETCD, API)}


def mirror(lab: Lab, node: Node, component: str) -> dict[str, Any]:
    """The pod as the kubelet runs it."""
    return dict(json.loads(lab.kubectl("--namespace=kube-system", "get", "pod", f"{component}-{node.name}", "--output=json").stdout))


def lasting(words: list[str]) -> set[str]:
    return {word for word in words if not word.startswith(FIRST_START)}


def replace_module(lab: Lab, node: Node, found: dict[str, Any]) -> dict[str, Any]:
    """The host's part alone, with an object that was read at some time before."""
    done = subprocess.run(
        [
            "ansible", node.name, "-i", str(lab.inventory), "-m", "kubetune.control_plane.kubeadm_config_map",
            "-a", json.dumps({"operation": "replace", "object": json.dumps(found)}),
        ],
        capture_output=True, text=True, check=False, env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )
    return dict(json.loads(done.stdout.rpartition(" => ")[2]))


@pytest.fixture(scope="session")
def tuned(lab: Lab, playbook: Playbook) -> None:
    run = playbook("site")
    assert run.status == 0, run.output


@pytest.fixture
def kept(playbook: Playbook, tuned: None) -> None:
    """What the nodes have is in kubeadm's configuration, whatever a test before has made of it."""
    run = playbook("persistence")
    assert run.status == 0, run.output


@pytest.fixture
def kept_on_disk(lab: Lab, playbook: Playbook) -> Iterator[None]:
    run = playbook("site", ON_DISK)
    assert run.status == 0, run.output
    yield
    run = playbook("site", IN_DATA)
    assert run.status == 0, run.output
    # Taken out before the first member leaves its disk, not after the last.
    until_first_window = run.output.partition(" gate begin")[0]
    assert "changed:" in until_first_window.rpartition("Take the directory out of kubeadm's configuration")[2]
    assert WAL not in extra_args(configuration(lab))[ETCD]


def test_every_flag_is_kept_and_a_second_run_changes_nothing(lab: Lab, playbook: Playbook, kept: None) -> None:
    found = extra_args(configuration(lab))
    for component in (ETCD, API):
        assert applied(lab.nodes[0], component) == set(found[component])
        assert len(found[component]) >= 10
    before = config_map(lab)["metadata"]["resourceVersion"]
    run = playbook("persistence")
    assert run.status == 0 and set(run.changed.values()) == {0}, run.output
    assert config_map(lab)["metadata"]["resourceVersion"] == before


def test_kubeadm_renders_every_flag(lab: Lab, kept: None, seen: Callable[[str], None]) -> None:
    for node in lab.nodes:
        manifests = render(lab, node)
        for component in (ETCD, API):
            ours = applied(node, component)
            assert ours <= command(manifests[component])
            assert lasting([*command(manifests[component])]) == lasting(node.arguments(component))
            seen(f"{node.name} kubeadm init phase: {component} has all {len(ours)} flags of ours, and none but what runs")


def test_kubeadm_renders_our_manifests_with_the_patches(lab: Lab, kept: None) -> None:
    for node in lab.nodes:
        without = render(lab, node)
        for component, rendered in render(lab, node, patches=True).items():
            assert meaning(rendered) == meaning(live(node)[component])
            assert resources(rendered) != resources(without[component])


@pytest.mark.long
def test_what_others_have_set_stays_drift_is_set_right_and_all_goes_back(lab: Lab, playbook: Playbook, kept: None) -> None:
    run = playbook("persistence", {"kubeadm_persistence_state": "absent"})
    assert run.status == 0, run.output
    assert ANNOTATION not in config_map(lab)["metadata"].get("annotations", {})
    original = configuration(lab)
    assert extra_args(original) == {ETCD: [], API: []}
    try:
        edit(lab, apiServer=[("v", "3"), ("max-requests-inflight", "800")])
        theirs = configuration(lab)
        told = playbook("persistence", {}, "--check", "--diff")
        assert told.status == 0 and configuration(lab) == theirs and "-    value: '800'" in told.output, told.output
        run = playbook("persistence")
        assert run.status == 0, run.output
        assert "kubeadm-config kube-apiserver --max-requests-inflight = 3000 (was 800)" in run.output
        edit(lab, etcd=[("max-wals", "9")])
        run = playbook("persistence")
        assert "kubeadm-config etcd --max-wals = 5 (was 9): it had drifted from 5" in run.output
        found = extra_args(configuration(lab))
        assert "--max-wals=5" in found[ETCD] and "--v=3" in found[API]
        # Drift becomes what to go back to: somebody meant it.
        run = playbook("persistence", {"kubeadm_persistence_state": "absent"})
        assert run.status == 0, run.output
        assert extra_args(configuration(lab)) == {ETCD: ["--max-wals=9"], API: ["--v=3", "--max-requests-inflight=800"]}
    finally:
        found = config_map(lab)
        found["data"]["ClusterConfiguration"] = yaml.safe_dump(original)
        lab.kubectl("replace", "--filename=-", stdin=json.dumps(found))


def test_a_write_of_somebody_else_in_between_is_noticed(lab: Lab, kept: None) -> None:
    stale = config_map(lab)
    lab.kubectl("--namespace=kube-system", "annotate", "configmap", "kubeadm-config", "somebody=else")
    try:
        now = config_map(lab)
        answer = replace_module(lab, lab.nodes[0], stale)
        assert answer["kept"] == "" and not answer["changed"]
        assert config_map(lab) == now
        # The API's own word, for a write between the module's look and its replacement.
        refused = lab.kubectl("replace", "--filename=-", stdin=json.dumps(stale), check=False)
        assert refused.returncode != 0 and "(Conflict)" in refused.stderr
    finally:
        lab.kubectl("--namespace=kube-system", "annotate", "configmap", "kubeadm-config", "somebody-")


def test_the_old_one_is_kept_and_kubeadm_has_to_take_the_new_one(lab: Lab, kept: None) -> None:
    node = lab.nodes[1]
    before = config_map(lab)
    wrong = copy.deepcopy(before)
    wrong["data"]["ClusterConfiguration"] = wrong["data"]["ClusterConfiguration"].replace("networking:", "nettworking:")
    answer = replace_module(lab, node, wrong)
    assert "kept" not in answer and 'unknown field "nettworking"' in answer["msg"] and "is as it was" in answer["msg"]
    assert config_map(lab) == before
    new = copy.deepcopy(before)
    new["metadata"].setdefault("labels", {})["kubetune-test"] = "x"
    answer = replace_module(lab, node, new)
    assert json.loads(node.read(answer["kept"])) == before
    assert node.output("stat", "--format=%a %U", answer["kept"]) == "600 root"
    lab.kubectl("--namespace=kube-system", "label", "configmap", "kubeadm-config", "kubetune-test-")


@pytest.mark.long
def test_a_play_that_sees_only_some_members_changes_only_their_patches(lab: Lab, playbook: Playbook, kept: None) -> None:
    before, node = config_map(lab), lab.nodes[1]
    run = playbook("persistence", {"kubeadm_persistence_state": "absent"}, "--limit", node.name)
    assert run.status == 0, run.output
    assert "cp1, cp3 of the etcd cluster are not in this play: run without --limit" in run.output
    assert config_map(lab) == before
    assert [each.exists(PATCHES) for each in lab.nodes] == [True, False, True]


@pytest.mark.long
def test_a_cluster_without_kubeadm_s_configuration_is_left_alone(lab: Lab, playbook: Playbook, kept: None) -> None:
    before = config_map(lab)
    lab.kubectl("--namespace=kube-system", "delete", "configmap", "kubeadm-config")
    try:
        run = playbook("persistence")
        assert run.status == 0 and set(run.changed.values()) == {0}, run.output
        assert "left out (1)" in run.output and "this cluster has none" in run.output
    finally:
        for name in ("resourceVersion", "uid", "creationTimestamp"):
            del before["metadata"][name]
        lab.kubectl("create", "--filename=-", stdin=json.dumps(before))


@pytest.mark.long
def test_a_missing_kubeconfig_is_said(playbook: Playbook) -> None:
    run = playbook("persistence", {"kubeadm_persistence_kubeconfig": "/etc/kubernetes/nobody.conf"})
    assert run.status != 0
    assert "/etc/kubernetes/nobody.conf is not on this host: give an administrator's kubeconfig" in run.output


@pytest.mark.long
def test_an_upgrade_without_patches_keeps_every_flag(
    lab: Lab, playbook: Playbook, kept: None, seen: Callable[[str], None]
) -> None:
    node = lab.nodes[1]
    before = {component: node.arguments(component) for component in (ETCD, API)}
    pid = node.pid(ETCD)
    upgrade(node)
    assert node.pid(ETCD) != pid
    for component, words in before.items():
        assert lasting(node.arguments(component)) == lasting(words)
        assert "limits" not in resources(live(node)[component])
        seen(f"{node.name} kubeadm upgrade node: {component} runs with all {len(applied(node, component))} flags of ours, without our limits")
    annotation = config_map(lab)["metadata"]["annotations"][ANNOTATION]
    # As `kubeadm upgrade apply` does: it writes its configuration anew.
    node.write("/root/kubeadm-upload.yaml", whole_configuration(lab, node))
    node.run("kubeadm", "init", "phase", "upload-config", "kubeadm", "--config", "/root/kubeadm-upload.yaml")
    node.run("rm", "/root/kubeadm-upload.yaml")
    assert config_map(lab)["metadata"]["annotations"][ANNOTATION] == annotation
    run = playbook("persistence")
    assert run.status == 0 and set(run.changed.values()) == {0}, run.output


@pytest.mark.long
def test_an_upgrade_with_patches_keeps_requests_and_limits_too(lab: Lab, kept: None, seen: Callable[[str], None]) -> None:
    node = lab.nodes[0]
    before, words = live(node), {component: node.arguments(component) for component in (ETCD, API)}
    rendered = render(lab, node)
    upgrade(node, f"--patches={PATCHES}")
    for component, manifest in live(node).items():
        assert resources(before[component]) != resources(rendered[component])
        assert resources(manifest) == resources(before[component]) == resources(mirror(lab, node, component))
        assert lasting(node.arguments(component)) == lasting(words[component])
        seen(f"{node.name} kubeadm upgrade node --patches: {component} has our flags and {json.dumps(resources(manifest), sort_keys=True)}")


@pytest.mark.long
def test_nothing_in_the_cluster_makes_an_upgrade_take_patches(lab: Lab, kept: None) -> None:
    """kubeadm takes the directory from its command line or from a file given there; its ClusterConfiguration has no place for it."""
    found = config_map(lab)
    data = {**configuration(lab), "patches": {"directory": PATCHES}}
    found["data"]["ClusterConfiguration"] = yaml.safe_dump(data)
    answer = replace_module(lab, lab.nodes[0], found)
    assert "kept" not in answer and 'unknown field "patches"' in answer["msg"]


@pytest.mark.long
def test_the_wal_stays_on_its_disk(lab: Lab, kept_on_disk: None, seen: Callable[[str], None]) -> None:
    first, last = lab.nodes[0], lab.nodes[2]
    assert WAL in extra_args(configuration(lab))[ETCD]
    for node in lab.nodes:
        assert WAL in command(render(lab, node)[ETCD])
    upgrade(last)
    assert WAL in last.arguments(ETCD) and wal_of(last) == f"{DISK}/wal" and last.etcd_ready()
    # The init phase on the live manifest, which the kubelet takes up.
    pid = first.pid(ETCD)
    first.write("/root/kubeadm-init.yaml", whole_configuration(lab, first))
    first.run("kubeadm", "init", "phase", "etcd", "local", "--config", "/root/kubeadm-init.yaml")
    first.run("rm", "/root/kubeadm-init.yaml")
    wait_for(lambda: first.pid(ETCD) not in (None, pid) and first.etcd_ready(), 240, "etcd runs from kubeadm's manifest")
    assert WAL in first.arguments(ETCD) and wal_of(first) == f"{DISK}/wal"
    members = json.loads(lab.etcdctl("endpoint", "status", "--write-out=json").stdout)
    assert len(members) == 3 and len({each["Status"]["header"]["cluster_id"] for each in members}) == 1
    seen(f"{last.name} kubeadm upgrade node, {first.name} kubeadm init phase etcd local: the WAL is still in {DISK}/wal")
