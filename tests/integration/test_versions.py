# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One inventory on every version: planned on kubeadm's own manifests, judged by that version's binaries, and really started.

Of the versions that are not the lab's own, only ``make test-versions`` provides the binaries; it also writes docs/versions.md.
Kubernetes 1.29 to 1.32 do not build here: their plan is held against the table of flags.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.hosts import Host as ClusterHost
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.hosts import record
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.plan import plan as plan_kubeadm
from ansible_collections.kubetune.control_plane.plugins.module_utils._node import judge
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod import standalone
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS, ETCD, KUBE_APISERVER
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.flags import dotted, gates_of, version_of
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.manifest import Manifest
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.node import NodePlan, Request, plan_node
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _static_pods

from tests.integration.api_server import Pki, running
from tests.integration.etcd_cluster import EtcdCluster, free_port
from tests.lab import settings, versions
from tests.unit.hosts import FIXTURES, Host

LAB = settings.from_environment()
ALL = os.environ.get("KUBETUNE_TEST_VERSIONS") == "all"
PAGE = settings.REPOSITORY / "docs" / "versions.md"
#: The inventory of all versions: the guide, a flag with two names, a boolean that became a feature gate, and plain ones.
FLAGS = {
    ETCD: {
        "experimental-corrupt-check-time": "12h", "warning-apply-duration": "200ms", "experimental-stop-grpc-service-on-defrag": True,
        "watch-progress-notify-interval": "10s", "max-request-bytes": 2097152,
    },
    KUBE_APISERVER: {"goaway-chance": 0.001, "delete-collection-workers": 4, "shutdown-delay-duration": "2s"},
}
REQUESTS = {name: Request(flags=flags) for name, flags in FLAGS.items()}
#: Those of them that etcd 3.6 has by another name, as one setting each.
NEW_IN_3_6 = {
    "--corrupt-check-time", "--warning-apply-duration", "--watch-progress-notify-interval", "--feature-gates",
    "--experimental-stop-grpc-service-on-defrag",
}
#: kubeadm's release -> the minor version of the etcd whose image it names.
KUBEADM = {"1.33.13": "3.5", "1.34.4": "3.6", "1.35.4": "3.6", "1.36.3": "3.6", "1.37.2": "3.7"}


@dataclass
class Set:
    """One kubeadm release with the etcd that belongs to it. programs: component -> binary."""

    kubernetes: str
    programs: dict[str, Path]
    versions: dict[str, str]
    plan: NodePlan


@dataclass
class Row:
    kubernetes: str
    etcd: str
    flags: dict[str, int]
    seconds: dict[str, float]


@dataclass
class Step:
    """One release of an upgrade: how many of the tuned flags kubeadm brought along, and which the collection then changed."""

    kubernetes: str
    etcd: str
    kept: int
    changed: list[str]


@dataclass
class Results:
    rows: list[Row]
    steps: list[Step]


@pytest.fixture(scope="module")
def results() -> Iterator[Results]:
    found = Results([], [])
    yield found
    if ALL and len(found.rows) == len(found.steps) == len(KUBEADM):
        PAGE.write_text(page(found), encoding="utf-8")


@pytest.fixture(scope="module", params=KUBEADM)
def versioned(request: pytest.FixtureRequest) -> Set:
    kubernetes = str(request.param)
    if not ALL and kubernetes != LAB.kubernetes:
        pytest.skip(f"Kubernetes {kubernetes} is not the lab's version: make test-versions builds it and runs this")
    folder = versions.etcd_folder(LAB, KUBEADM[kubernetes])
    programs = {ETCD: folder / "etcd" if folder else None, KUBE_APISERVER: LAB.assets / f"kubernetes-{kubernetes}" / KUBE_APISERVER}
    missing = [name for name, path in programs.items() if path is None or not path.exists()]
    assert not missing, f"{' and '.join(missing)} for {kubernetes}: make test-versions builds what is missing"
    real = {name: path for name, path in programs.items() if path}
    said = {name: judge.version(str(path)) for name, path in real.items()}
    return Set(kubernetes, real, said, planned(kubernetes, said))


def planned(kubernetes: str, said: dict[str, str]) -> NodePlan:
    """What the collection makes of kubeadm's manifests."""
    host = Host(FIXTURES / f"kubeadm-{kubernetes}")
    for name, version in said.items():
        host.run(name, version, 2**20)
    plan = plan_node(REQUESTS, host.facts, host.pods)
    assert plan.problems == []
    return plan


def tuning(plan: NodePlan, name: str) -> list[str]:
    return flags_without_identity(plan.plans[name].manifest.pod, name)


def flags_without_identity(pod: dict[str, Any], name: str) -> list[str]:
    """The flags of a manifest but for those which say who and where the process is."""
    identity = COMPONENTS[name].identity
    return [f"--{flag}={value}" for flag, values in Manifest(pod, name).flags().items() if flag not in identity for value in values]


def test_the_manifests_are_those_of_every_version_that_is_built() -> None:
    assert tuple(KUBEADM) == versions.KUBERNETES
    assert set(KUBEADM.values()) == {versions.DEBIAN_MINOR, *(dotted(version_of(each)[:2]) for each in versions.ETCD)}


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_binary_accepts_what_is_rendered(versioned: Set, name: str) -> None:
    verdict = judge.judge(str(versioned.programs[name]), versioned.plan.plans[name].manifest.argv[1:])
    assert verdict.accepted, verdict.text
    # What is deprecated is only what kubeadm or the guide says itself.
    ours = {f"--{flag}" for flag in FLAGS[name]} - {"--experimental-corrupt-check-time", "--experimental-stop-grpc-service-on-defrag"}
    assert not [notice for notice in verdict.notices if any(flag in notice for flag in ours)]


@pytest.mark.parametrize("minor", sorted(set(KUBEADM.values())))
def test_etcd_s_flags_have_the_types_of_the_table(minor: str) -> None:
    """Its help tells no types; kube-apiserver's does (tests/unit/module_utils/test_catalogue.py)."""
    if not ALL and minor != dotted(version_of(LAB.etcd)[:2]):
        pytest.skip(f"etcd {minor} is not the lab's version: make test-versions builds it and runs this")
    folder = versions.etcd_folder(LAB, minor)
    assert folder
    program = str(folder / "etcd")
    version = version_of(judge.version(program))
    # A text is taken whatever it is, and a retention is one until etcd starts.
    typed = [flag for flag in COMPONENTS[ETCD].flags if flag.known(version) and flag.type not in ("string", "retention")]
    assert len(typed) > 20
    for flag in typed:
        name = flag.name_in(version)
        value = flag.default(version)
        if value is None:
            value = "false"  # of a boolean that the table has for its name only
        assert judge.judge(program, [f"--{name}={value}"]).accepted, name
        assert not judge.judge(program, [f"--{name}=neither"]).accepted, name
        takes_duration = judge.judge(program, [f"--{name}=90s"]).accepted
        assert takes_duration is (flag.type == "duration"), name


def test_the_inventory_is_there_by_the_names_of_the_version(versioned: Set) -> None:
    flags = versioned.plan.plans[ETCD].manifest.flags()
    old = version_of(versioned.versions[ETCD]) < (3, 6)
    prefix = "experimental-" if old else ""
    assert flags[f"{prefix}corrupt-check-time"] == ["12h"]
    assert flags[f"{prefix}warning-apply-duration"] == ["200ms"]
    if old:
        assert flags["experimental-stop-grpc-service-on-defrag"] == ["true"]
        assert "feature-gates" not in flags
    else:
        assert not [flag for flag in flags if flag.startswith("experimental-")]
        assert gates_of(flags["feature-gates"]) == {"InitialCorruptCheck": "true", "StopGRPCServiceOnDefrag": "true"}


def test_both_start_and_work(versioned: Set, results: Results, tmp_path: Path) -> None:
    """etcd with its rendered flags, and before it an API server with kubeadm's manifest, tuned, and this test's identity."""
    flags = {name: tuning(versioned.plan, name) for name in COMPONENTS}
    began = time.monotonic()
    etcd = EtcdCluster.create(tmp_path / "etcd", ["cp1"], *flags[ETCD], program=versioned.programs[ETCD])
    seconds = {ETCD: time.monotonic() - began}
    try:
        started = etcd.members[0].log_entries("starting an etcd server")[0]
        assert started["etcd-version"] == versioned.versions[ETCD]
        assert started["quota-backend-bytes"] == 8589934592 and started["snapshot-count"] == 100000
        pki = Pki(tmp_path / "pki").directory
        argv = api_server_argv(versioned, etcd, pki)
        for server in running(tmp_path, argv, versioned.programs[KUBE_APISERVER]):
            seconds[KUBE_APISERVER] = server.seconds
            assert f'"gitVersion": "v{versioned.kubernetes}"' in server.ask("/version").read().decode()
            assert server.ask("/api/v1/namespaces/kube-system").status == 200
            assert etcd.client().get("/registry/namespaces/kube-system")
            seats = re.findall(r"^apiserver_flowcontrol_nominal_limit_seats\{.*\} (\S+)$", server.ask("/metrics").read().decode(), re.M)
            assert 4000 <= sum(map(float, seats)) <= 4000 + len(seats)
    finally:
        etcd.stop_all()
    count = {name: sum(change.key.startswith("--") for change in versioned.plan.plans[name].changes) for name in COMPONENTS}
    results.rows.append(Row(versioned.kubernetes, versioned.versions[ETCD], count, seconds))


def api_server_argv(versioned: Set, etcd: EtcdCluster, pki: Path) -> list[str]:
    """kubeadm's command line, tuned; who and where it is are the test's."""
    manifest = Manifest(versioned.plan.plans[KUBE_APISERVER].manifest.pod, KUBE_APISERVER)
    given: dict[str, Any] = {
        "image": manifest.image, "advertise_address": "127.0.0.1", "secure_port": free_port(), "service_cluster_ip_range": "10.96.0.0/16",
        "etcd_servers": etcd.members[0].client_url, "pki_dir": str(pki),
    }
    own = Manifest(standalone.render(KUBE_APISERVER, given), KUBE_APISERVER).flags()
    for name in COMPONENTS[KUBE_APISERVER].identity:
        manifest.set_flag(name, own.get(name))
    manifest.set_flag("bind-address", ["127.0.0.1"])
    # No Endpoints can hold a loopback address, which 1.37 checks at its start.
    manifest.set_flag("endpoint-reconciler-type", ["none"])
    for flag, path in (("etcd-cafile", etcd.tls.ca_file), ("etcd-certfile", etcd.tls.cert_file), ("etcd-keyfile", etcd.tls.key_file)):
        manifest.set_flag(flag, [path])
    return manifest.argv


@pytest.mark.skipif(not ALL, reason="it takes the binaries of all versions: make test-versions builds them and runs this")
def test_one_inventory_over_all_upgrades(results: Results, tmp_path: Path) -> None:
    """From 1.33 to 1.37, on the data of one etcd: kubeadm writes each release's manifests from what is persisted, the member starts
    with them as they are, the collection plans on them, the member starts with that, and it is persisted for the next release."""
    configuration: dict[str, Any] = {"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration"}
    annotation: str | None = None
    memory: dict[str, Any] = {name: None for name in COMPONENTS}
    etcd: EtcdCluster | None = None
    try:
        for number, (kubernetes, minor) in enumerate(KUBEADM.items()):
            folder = versions.etcd_folder(LAB, minor)
            assert folder
            host = Host(kubeadm_manifests(kubernetes, configuration, tmp_path / kubernetes))
            said = {ETCD: judge.version(str(folder / "etcd")), KUBE_APISERVER: kubernetes}
            for name, version in said.items():
                host.run(name, version, 2**20)
            host.facts["memory"] = memory
            as_upgraded = flags_without_identity(host.pod(ETCD), ETCD)
            if etcd is None:
                etcd = EtcdCluster.create(tmp_path / "etcd", ["cp1"], *as_upgraded, program=folder / "etcd")
            else:
                restart(etcd, folder / "etcd", as_upgraded)
            plan = plan_node(REQUESTS, host.facts, host.pods)
            assert plan.problems == []
            judged = judge.judge(
                str(LAB.assets / f"kubernetes-{kubernetes}" / KUBE_APISERVER), plan.plans[KUBE_APISERVER].manifest.argv[1:]
            )
            assert judged.accepted, judged.text
            restart(etcd, folder / "etcd", tuning(plan, ETCD))
            assert [etcd.client().get(f"/{earlier}").value for earlier in range(number)] == list(KUBEADM)[:number]
            etcd.client().put(f"/{number}", kubernetes)
            order = _static_pods.make_order(plan, REQUESTS, host.facts, "run")
            # What kubeadm was given is right already, but for the names that are new in etcd 3.6.
            changed = {name: {change.key for change in plan.plans[name].changes if change.key.startswith("--")} for name in COMPONENTS}
            if number == 1:
                assert changed[ETCD] == NEW_IN_3_6
            assert [name for name in COMPONENTS if changed[name]] == [list(COMPONENTS), [ETCD], [], [], []][number]
            right = [line for line in plan.report if " --" in line["item"] and line["verdict"] != "warning"]
            by_us = sorted(f"{name} `{key}`" for name, keys in changed.items() for key in keys)
            results.steps.append(Step(kubernetes, said[ETCD], len(right) - len(by_us), by_us))
            for name, part in ((ETCD, order and order.etcd), (KUBE_APISERVER, order and order.kube_apiserver)):
                if part and part.changes:
                    host.write(f"{name}.yaml", part.new)
                    host.run(name, said[name], 2**20)
                    memory[name] = part.memory
            host.facts["memory"] = memory
            kept = plan_kubeadm(configuration, annotation, [ClusterHost(**{**record("cp1", host.facts), "members": [], "member": ""})])
            configuration, annotation = kept.configuration.data, kept.memory.to_annotation()
        assert not [flag for flag in host.pod(ETCD)["spec"]["containers"][0]["command"] if "experimental" in flag]
        # Nothing is wanted any more: kubeadm's own manifest is back.
        gone = plan_node({name: Request(state="absent") for name in COMPONENTS}, host.facts, host.pods)
        assert gone.problems == []
        for name in COMPONENTS:
            pure = Manifest(Host(FIXTURES / f"kubeadm-{kubernetes}").pod(name), name)
            identity = COMPONENTS[name].identity
            assert {flag: values for flag, values in gone.plans[name].manifest.flags().items() if flag not in identity} == {
                flag: values for flag, values in pure.flags().items() if flag not in identity
            }
    finally:
        if etcd:
            etcd.stop_all()


def restart(etcd: EtcdCluster, program: Path, flags: list[str]) -> None:
    (member,) = etcd.members
    etcd.stop(member)
    etcd.program, etcd.flags = program, flags
    etcd.start(member)
    etcd.wait_until_whole()


def kubeadm_manifests(kubernetes: str, configuration: dict[str, Any], root: Path) -> Path:
    """The folder of manifests that a kubeadm release writes of a configuration, in a root directory of its own."""
    (root / "etc").mkdir(parents=True)
    node = {"name": "cp1", "criSocket": "unix:///run/containerd/containerd.sock"}
    init = {
        "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "InitConfiguration", "localAPIEndpoint": {"advertiseAddress": "10.0.0.1"},
        "nodeRegistration": node,
    }
    text = yaml.safe_dump_all([init, {**configuration, "kubernetesVersion": f"v{kubernetes}"}])
    (root / "etc" / "kubeadm.yaml").write_text(text)
    for phase in (["etcd", "local"], ["control-plane", "all"]):
        command = [LAB.assets / f"kubernetes-{kubernetes}" / "kubeadm", "init", "phase", *phase, "--rootfs", root]
        subprocess.run([*command, "--config", "/etc/kubeadm.yaml"], check=True, capture_output=True, timeout=60)
    return root / "etc" / "kubernetes" / "manifests"


@pytest.mark.parametrize("kubernetes", ["1.29.15", "1.30.14", "1.31.14", "1.32.13"])
def test_older_versions_hold_against_the_table(kubernetes: str) -> None:
    """Their kubeadm writes etcd 3.5 the same flags as 1.33's, and the API server only flags that all of these versions have."""
    said = {ETCD: "3.5.24", KUBE_APISERVER: kubernetes}
    plan = planned("1.33.13", said)
    for name, component in COMPONENTS.items():
        flags = plan.plans[name].manifest.flags()
        version = version_of(said[name])
        assert all(component.flag(flag).has(flag, version) for flag in flags)
        for given, value in FLAGS[name].items():
            flag = component.flag(given)
            assert flag.same(flags[flag.name_in(version)][-1], str(value).lower()), given
        assert {flag.name for flag in component.flags if flag.guide is not None} <= set(flags)


def page(results: Results) -> str:
    lines = [
        "<!-- Written by `make test-versions` (tests/integration/test_versions.py): run it again. -->",
        "# Versions",
        "",
        f"Run on {time.strftime('%Y-%m-%d', time.gmtime())}: one inventory, with the guide's profile and the explicit flags",
        "",
        *(f"- {name}: {', '.join(f'`{flag}`' for flag in flags)}" for name, flags in FLAGS.items()),
        "",
        "on the manifests that each kubeadm release writes. The binaries of each version judged the rendered command lines (`--version`",
        "behind all flags), and then ran with them: one etcd member, and an API server on it until `/readyz` was well and its seats were",
        "the guide's. `make test-versions` builds the binaries and does it again.",
        "",
        "| Kubernetes | etcd | Flags changed: kube-apiserver, etcd | Accepted by both binaries | Ready after: etcd, kube-apiserver |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.kubernetes} | {row.etcd} | {row.flags[KUBE_APISERVER]}, {row.flags[ETCD]} | yes | "
        f"{row.seconds[ETCD]:.1f} s, {row.seconds[KUBE_APISERVER]:.1f} s |"
        for row in sorted(results.rows, key=lambda row: version_of(row.kubernetes))
    ]
    lines += [
        "",
        "## Upgrades",
        "",
        "The same inventory from the first release to the last, on the data of one etcd member. At each step kubeadm wrote the manifests",
        "from the ClusterConfiguration that the collection keeps, etcd started with them as they were, then with what the collection made",
        "of them, and every key written before was there; kube-apiserver's binary judged its flags. At the end `state: absent` gave",
        "kubeadm's own back.",
        "",
        "| Kubernetes | etcd | Tuned flags that kubeadm brought along | Changed by the run after the upgrade |",
        "| --- | --- | --- | --- |",
    ]
    for step in results.steps:
        changed = "all others: the first run" if step is results.steps[0] else ", ".join(step.changed) or "none"
        lines.append(f"| {step.kubernetes} | {step.etcd} | {step.kept} | {changed} |")
    lines += [
        "",
        "## Older versions",
        "",
        "Kubernetes 1.29 to 1.32 cannot be built from their published modules alone. The same inventory is planned for them, and every",
        "flag is one that the [table of flags](flags.md) has in that version; no binary has judged it here. On a host the binary that runs",
        "there does, before anything is written.",
        "",
    ]
    return "\n".join(lines)
