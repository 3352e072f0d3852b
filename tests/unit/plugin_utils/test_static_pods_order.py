# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the manifests of real kubeadm releases to the order for a host. `fixtures/record-kubeadm.sh` recorded them."""

from __future__ import annotations

import difflib
import json
from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.order import Order
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.node import Request, plan_node
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _static_pods, _yaml

from tests.unit.hosts import FIXTURES, Host

ETCD, API = "etcd", "kube-apiserver"
BOTH = {ETCD: Request(), API: Request()}
RELEASES = sorted(path for path in FIXTURES.glob("kubeadm-*") if path.is_dir())


def version_of_image(pod: dict[str, Any]) -> str:
    return str(pod["spec"]["containers"][0]["image"]).rpartition(":")[2].lstrip("v").partition("-")[0]


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def release(request: pytest.FixtureRequest) -> Host:
    host = Host(request.param)
    for component in (ETCD, API):
        host.run(component, version_of_image(host.pod(component)), 2**28)
    return host


# --- plan and order -------------------------------------------------------------------------------------------


def test_each_release_is_tuned_without_a_problem(release: Host) -> None:
    plan = plan_node(BOTH, release.facts, release.pods)
    assert plan.problems == []
    for name, component in COMPONENTS.items():
        flags = plan.plans[name].manifest.flags()
        for flag in component.flags:
            if flag.guide is not None and plan.plans[name].change_of(f"--{flag.name}"):
                assert flags[flag.name] == [flag.guide], flag.name


def test_a_diff_shows_nothing_but_tuning(release: Host) -> None:
    order = _static_pods.make_order(plan_node(BOTH, release.facts, release.pods), BOTH, release.facts, "run")
    shown = _static_pods.diffs(order, release.facts)
    assert [diff["before_header"] for diff in shown] == [f"/etc/kubernetes/manifests/{name}.yaml" for name in (ETCD, API)]
    for diff, component in zip(shown, COMPONENTS.values()):
        assert diff["before"] == release.facts["manifests"][component.manifest]["text"]
        tuning = {f"- --{flag.name}" for flag in component.flags}
        changed = [
            line[1:].strip() for line in difflib.ndiff(diff["before"].splitlines(), diff["after"].splitlines()) if line[0] in "+-"
        ]
        others = [line for line in changed if line.partition("=")[0] not in tuning]
        assert all(line.partition(":")[0] in ("limits", "requests", "cpu", "memory") for line in others), others
        assert len(changed) > len(others) > 0


def test_kubeadm_s_own_layout_stays(release: Host) -> None:
    """Whether it is edited or written anew makes no difference there."""
    plan = plan_node(BOTH, release.facts, release.pods)
    order = _static_pods.make_order(plan, BOTH, release.facts, "run")
    for name, part in ((ETCD, order.etcd), (API, order.kube_apiserver)):
        assert part.new == _yaml.dump(plan.plans[name].manifest.pod)
        assert [line for line in plan.report if line["item"] == f"{name} layout"] == []


def test_an_order_carries_what_the_host_needs(release: Host) -> None:
    plan = plan_node(BOTH, release.facts, release.pods)
    order = _static_pods.make_order(plan, BOTH, release.facts, "run-1")
    assert Order.from_dict(json.loads(json.dumps(order.to_dict()))) == order
    for name, part in ((ETCD, order.etcd), (API, order.kube_apiserver)):
        assert _yaml.load(part.new) == plan.plans[name].manifest.pod
        assert list(part.argv) == _yaml.load(part.new)["spec"]["containers"][0]["command"]
        assert list(part.old_argv) == release.pod(name)["spec"]["containers"][0]["command"]
        assert part.memory["original_text"] == part.old
    assert order.etcd.own_flags == {"name": "cp1", "data-dir": "/var/lib/etcd"}
    assert order.kube_apiserver.own_flags == {"advertise-address": "10.0.0.1", "secure-port": "6443"}
    assert (order.member, order.run_id, order.bootstraps) == ("cp1", "run-1", False)
    assert order.etcd_access["endpoints"] == ["https://10.0.0.1:2379", "https://10.0.0.2:2379"]
    assert order.etcd_access["cert_file"] == "/etc/kubernetes/pki/etcd/server.crt"
    assert order.api_server == {
        "advertise-address": ["10.0.0.1"], "secure-port": ["6443"], "client-ca-file": ["/etc/kubernetes/pki/ca.crt"],
    }


def test_the_role_of_one_part_leaves_the_other_as_it_is(release: Host) -> None:
    only = {API: Request()}
    order = _static_pods.make_order(plan_node(only, release.facts, release.pods), only, release.facts, "run")
    assert order.kube_apiserver.changes and not order.etcd.changes
    assert order.etcd.memory is None and order.etcd.argv == order.etcd.old_argv


def test_absent_gives_back_the_bytes_of_each_release(release: Host) -> None:
    order = _static_pods.make_order(plan_node(BOTH, release.facts, release.pods), BOTH, release.facts, "run")
    before = {name: file["text"] for name, file in release.facts["manifests"].items()}
    for name, part in ((ETCD, order.etcd), (API, order.kube_apiserver)):
        process = release.facts["processes"][name][0]
        release.write(f"{name}.yaml", part.new)
        release.run(name, process["version"], process["peak_rss_bytes"])
        release.facts["memory"][name] = part.memory
    absent = {name: Request(state="absent") for name in BOTH}
    order = _static_pods.make_order(plan_node(absent, release.facts, release.pods), absent, release.facts, "run")
    assert (order.etcd.new, order.kube_apiserver.new) == (before["etcd.yaml"], before["kube-apiserver.yaml"])
    assert order.etcd.memory is None and order.kube_apiserver.memory is None


def test_a_part_tells_how_long_the_old_pod_may_take_to_leave(host: Host) -> None:
    text = host.facts["manifests"]["kube-apiserver.yaml"]["text"]
    host.write("kube-apiserver.yaml", text.replace("spec:\n", "spec:\n  terminationGracePeriodSeconds: 90\n", 1))
    order = _static_pods.make_order(plan_node(BOTH, host.facts, host.pods), BOTH, host.facts, "run")
    assert (order.etcd.grace, order.kube_apiserver.grace) == (30, 90)
    only = {ETCD: Request()}
    order = _static_pods.make_order(plan_node(only, host.facts, host.pods), only, host.facts, "run")
    assert order.kube_apiserver.grace == 90


def test_no_change_makes_no_order(host: Host) -> None:
    nothing = {name: Request(profile="upstream") for name in BOTH}
    plan = plan_node(nothing, host.facts, host.pods)
    assert _static_pods.make_order(plan, nothing, host.facts, "run") is None
    assert _static_pods.diffs(None, host.facts) == []


def test_paths_are_told_as_the_host_sees_them(host: Host) -> None:
    text = host.facts["manifests"]["etcd.yaml"]["text"]
    host.write("etcd.yaml", text.replace("path: /etc/kubernetes/pki/etcd", "path: /srv/pki"))
    order = _static_pods.make_order(plan_node(BOTH, host.facts, host.pods), BOTH, host.facts, "run")
    assert order.etcd_access["ca_file"] == "/srv/pki/ca.crt"
    assert order.etcd_access["key_file"] == "/srv/pki/server.key"


def test_a_change_needs_a_member_that_proves_it(host: Host) -> None:
    api = host.facts["manifests"]["kube-apiserver.yaml"]["text"]
    host.facts["manifests"] = {}
    host.write("kube-apiserver.yaml", api.replace("    - --etcd-servers=https://127.0.0.1:2379\n", ""))
    host.run(API, "1.36.3", 2**20)
    host.facts.update(cluster=None)
    only = {API: Request()}
    plan = plan_node(only, host.facts, host.pods)
    assert plan.problems == []
    with pytest.raises(KubetuneError, match="this host has no member"):
        _static_pods.make_order(plan, only, host.facts, "run")


def test_without_a_member_a_change_can_only_be_foreseen(host: Host) -> None:
    """A bare host in check mode: the task that starts etcd has started nothing."""
    host.facts.update(manifests={}, processes={ETCD: [], API: []}, cluster=None)
    requests = {
        API: Request(
            standalone={
                "image": "registry.k8s.io/kube-apiserver:v1.36.3", "advertise_address": "10.0.0.9",
                "service_cluster_ip_range": "10.96.0.0/12",
            }
        )
    }
    plan = plan_node(requests, host.facts, host.pods)
    with pytest.raises(KubetuneError, match="this host has no member"):
        _static_pods.make_order(plan, requests, host.facts, "run")
    order = _static_pods.make_order(plan, requests, host.facts, "run", foresee=True)
    assert order.kube_apiserver.old is None
    assert len(_static_pods.diffs(order, host.facts)) == 1
