# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Merging into manifests that people have worked on: what is changed to the line, or why nothing is."""

from __future__ import annotations

import difflib
from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.node import Request, plan_node
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _static_pods, _yaml

from tests.unit.hosts import FIXTURES, Host

ETCD, API = "etcd", "kube-apiserver"
AWKWARD = FIXTURES / "awkward"
VERSIONS = {ETCD: "3.6.16", API: "1.36.3"}
#: One flag that is there is changed, one is added; one amount is changed, one is added.
WANTED = {
    ETCD: Request(
        profile="upstream",
        flags={"snapshot-count": 50000, "max-wals": 7},
        resources={"requests": {"cpu": "500m"}, "limits": {"memory": "4Gi"}},
    ),
    API: Request(
        profile="upstream",
        flags={"max-requests-inflight": 1600, "request-timeout": "90s"},
        resources={"requests": {"cpu": "1"}, "limits": {"memory": "8Gi"}},
    ),
}


def awkward(name: str) -> tuple[Host, str, str]:
    """(a host that has the manifest, the component, the text)."""
    text = (AWKWARD / f"{name}.yaml").read_bytes().decode()
    component = API if "name: kube-apiserver" in text else ETCD
    host = Host()
    host.write(f"{component}.yaml", text)
    if name != "documents":
        host.run(component, VERSIONS[component], 2**20)
    return host, component, text


def change(host: Host, component: str, request: Request) -> tuple[Any, list[dict[str, Any]]]:
    """(part of the order, report)."""
    requests = {component: request}
    plan = plan_node(requests, host.facts, _static_pods.parse_manifests(host.facts))
    assert plan.problems == []
    order = _static_pods.make_order(plan, requests, host.facts, "run")
    part = order.etcd if component == ETCD else order.kube_apiserver
    container = next(each for each in _yaml.load(part.new)["spec"]["containers"] if each["name"] == component)
    assert list(part.argv) == [*container["command"], *container.get("args", [])]
    assert request.state == "absent" or _yaml.load(part.new) == plan.plans[component].manifest.pod
    return part, plan.report


def changed_lines(before: str, after: str) -> list[str]:
    return [
        line.rstrip("\n")
        for line in difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]


#: Fixture -> the lines that differ, and no other.
GOLDEN: dict[str, list[str]] = {
    "comments": [
        "-    - --max-requests-inflight=800  # was 400",
        "+    - --max-requests-inflight=1600  # was 400",
        "+    - --request-timeout=90s",
        "-        cpu: 250m  # one quarter",
        '+        cpu: "1"  # one quarter',
        "+      limits:",
        "+        memory: 8Gi",
    ],
    "crlf": [
        "-    - --snapshot-count=10000  # kubeadm's\r",
        "+    - --snapshot-count=50000  # kubeadm's\r",
        "+    - --max-wals=7\r",
        "-        cpu: 100m\r",
        "+        cpu: 500m\r",
        "+      limits:\r",
        "+        memory: 4Gi\r",
    ],
    "indentation": [
        '-                - "--max-requests-inflight=800"',
        '+                - "--max-requests-inflight=1600"',
        '+                - "--request-timeout=90s"',
        "-                  cpu: 250m",
        '+                  cpu: "1"',
        "+               limits:",
        "+                   memory: 8Gi",
    ],
    "blocks": [
        "-    - >-",
        "-      --snapshot-count=10000",
        "+    - --snapshot-count=50000",
        "+    - --max-wals=7",
        "-        cpu: 100m",
        "+        cpu: 500m",
        "+      limits:",
        "+        memory: 4Gi",
    ],
    "json": [
        '-          "--snapshot-count=10000",',
        '+          "--snapshot-count=50000",',
        '-          "--watch-progress-notify-interval=5s"',
        '+          "--watch-progress-notify-interval=5s",',
        '+          "--max-wals=7"',
        '-            "cpu": "100m",',
        '+            "cpu": "500m",',
        "-          }",
        '+          }, "limits": {"memory": "4Gi"}',
    ],
    "brackets": [
        '-      "--snapshot-count=10000",',
        '+      "--snapshot-count=50000",',
        '-      "--watch-progress-notify-interval=5s"]',
        '+      "--watch-progress-notify-interval=5s", "--max-wals=7"]',
        "-    resources: {requests: {cpu: 100m, memory: 100Mi}}  # kubeadm's",
        "+    resources: {requests: {cpu: 500m, memory: 100Mi}, limits: {memory: 4Gi}}  # kubeadm's",
    ],
    "anchors": [
        "+    - --max-requests-inflight=1600",
        "+    - --request-timeout=90s",
        "-        cpu: 250m",
        '+        cpu: "1"',
        "+      limits:",
        "+        memory: 8Gi",
    ],
    "args": [
        "-    - --snapshot-count=10000",
        "+    - --snapshot-count=50000",
        "+    - --max-wals=7",
        "-        cpu: 100m",
        "+        cpu: 500m",
        "+      limits:",
        "+        memory: 4Gi",
    ],
    "two-items": [
        '-    - "800"',
        '+    - "1600"',
        "+    - --request-timeout=90s",
        "-        cpu: 250m",
        '+        cpu: "1"',
        "+      limits:",
        "+        memory: 8Gi",
    ],
    "single-dash": [
        "-    - -snapshot-count=10000",
        "+    - -snapshot-count=50000",
        "+    - --max-wals=7",
        "-        cpu: 100m",
        "+        cpu: 500m",
        "+      limits:",
        "+        memory: 4Gi",
    ],
    "duplicates": [
        "-    - --max-requests-inflight=400",
        "-    - --max-requests-inflight=800",
        "+    - --max-requests-inflight=1600",
        "+    - --request-timeout=90s",
        "-        cpu: 250m",
        '+        cpu: "1"',
        "+      limits:",
        "+        memory: 8Gi",
    ],
    "environment": [
        "-    - --snapshot-count=10000",
        "+    - --snapshot-count=50000",
        "+    - --max-wals=7",
        "-        cpu: 100m",
        "+        cpu: 500m",
        "+      limits:",
        "+        memory: 4Gi",
    ],
    "extra-containers": [
        "-    - --snapshot-count=10000",
        "+    - --snapshot-count=50000",
        "+    - --max-wals=7",
        "-        cpu: 100m",
        "+        cpu: 500m",
        "+      limits:",
        "+        memory: 4Gi",
    ],
}
#: What cannot come back to the byte: a folded line has become a plain one, a value that never counted stands elsewhere.
NOT_BACK = {
    "blocks": ["-    - >-", "-      --snapshot-count=10000", "+    - --snapshot-count=10000"],
    "duplicates": ["-    - --max-requests-inflight=400", "+    - --max-requests-inflight=400"],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_only_these_lines_differ(name: str) -> None:
    host, component, text = awkward(name)
    part, report = change(host, component, WANTED[component])
    assert changed_lines(text, part.new) == GOLDEN[name]
    assert not [line for line in report if line["item"].endswith(" layout")]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_way_back_where_somebody_has_been_there_meanwhile(name: str) -> None:
    """The first text is no longer what to go back to: each setting goes back alone."""
    host, component, text = awkward(name)
    part, _report = change(host, component, WANTED[component])
    note = ("" if text.endswith("\n") else "\n") + "# seen on a Friday\n"
    host.write(f"{component}.yaml", part.new + note)
    host.run(component, VERSIONS[component], 2**20)
    host.facts["memory"][component] = part.memory
    back, _report = change(host, component, Request(state="absent"))
    assert changed_lines(text + note, back.new) == NOT_BACK.get(name, [])
    assert _yaml.load(back.new) == _yaml.load(text) or name == "duplicates"


@pytest.mark.parametrize("name", GOLDEN)
def test_the_way_back_where_nobody_has_been_there(name: str) -> None:
    host, component, text = awkward(name)
    part, _report = change(host, component, WANTED[component])
    host.write(f"{component}.yaml", part.new)
    host.run(component, VERSIONS[component], 2**20)
    host.facts["memory"][component] = part.memory
    assert change(host, component, Request(state="absent"))[0].new == text


@pytest.mark.parametrize("name", GOLDEN)
def test_the_profile_fits_too(name: str) -> None:
    host, component, text = awkward(name)
    part, report = change(host, component, Request())
    comments = {line.strip() for line in text.splitlines() if line.strip().startswith("#")}
    assert comments <= {line.strip() for line in part.new.splitlines()}
    assert not [line for line in report if line["item"].endswith(" layout")]


def test_what_the_environment_gives_is_said() -> None:
    host, component, _text = awkward("environment")
    part, report = change(host, component, Request())
    assert not [word for word in part.argv if word.startswith("--quota-backend-bytes")]
    line = next(line for line in report if line["item"] == "etcd --quota-backend-bytes" and line["verdict"] == "kept")
    assert line["value"] == "17179869184" and "ETCD_QUOTA_BACKEND_BYTES" in line["reason"]


def test_a_reference_to_what_changes_costs_the_layout_and_not_the_other_container() -> None:
    host, component, text = awkward("shared-resources")
    part, report = change(host, component, WANTED[component])
    containers = {each["name"]: each for each in _yaml.load(part.new)["spec"]["containers"]}
    assert containers["metrics-proxy"] == _yaml.load(text)["spec"]["containers"][1]
    assert containers["etcd"]["resources"]["requests"] == {"cpu": "500m", "memory": "100Mi"}
    lost = [line for line in report if line["item"] == "etcd layout"]
    assert [(line["verdict"], line["reason"]) for line in lost] == [
        (
            "warning",
            "comments and layout of etcd.yaml are not kept, it is written anew: &small is used in several places of it, and one of "
            "them changes",
        )
    ]
    flags_only = Request(profile="upstream", flags={"max-wals": 7})
    host, component, text = awkward("shared-resources")
    part, report = change(host, component, flags_only)
    assert changed_lines(text, part.new) == ["+    - --max-wals=7"]
    assert not [line for line in report if line["item"] == "etcd layout"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "shell-wrapper",
            "/etc/kubernetes/manifests/kube-apiserver.yaml: the manifest of kube-apiserver starts '/bin/sh', not 'kube-apiserver' itself: "
            "flags behind a wrapper cannot be merged; put the program and each of its flags into the command as an item of its own, as kubeadm does",
        ),
        (
            "no-command",
            "/etc/kubernetes/manifests/etcd.yaml: the manifest of etcd has no command: the image decides what its args mean, and "
            "flags cannot be merged; put 'etcd' first in its command",
        ),
        (
            "config-file",
            "etcd --config-file: etcd takes everything from that file, and ignores all flags and variables: put its settings on the "
            "command line, or set etcd_static_pod_profile to upstream and no flags or resources",
        ),
        (
            "member-in-environment",
            "etcd: the container's environment says who this member is (ETCD_DATA_DIR), and only flags are read: give it with flags "
            "instead",
        ),
    ],
)
def test_what_is_refused(name: str, reason: str) -> None:
    host, component, _text = awkward(name)
    assert plan_node({component: Request()}, host.facts, _static_pods.parse_manifests(host.facts)).problems == [reason]


def test_what_the_kubelet_fills_in_is_refused() -> None:
    host, component, _text = awkward("references")
    process = host.facts["processes"][component][0]
    process["argv"] = [word.replace("$(NODE_IP)", "10.0.0.1") for word in process["argv"]]
    problems = plan_node({component: Request()}, host.facts, _static_pods.parse_manifests(host.facts)).problems
    assert problems == [
        "etcd: the kubelet fills in --advertise-client-urls=https://$(NODE_IP):2379 of its manifest, so that what runs cannot be "
        "compared with it: write the values themselves there"
    ]


def test_several_documents_are_refused() -> None:
    host, _component, _text = awkward("documents")
    with pytest.raises(Refusal, match=r"etcd.yaml holds several YAML documents, and the kubelet reads the first one only"):
        _static_pods.parse_manifests(host.facts)


def test_each_awkward_manifest_is_tried() -> None:
    others = {
        "shared-resources", "shell-wrapper", "no-command", "config-file", "member-in-environment", "references", "documents",
    }
    assert {path.stem for path in AWKWARD.glob("*.yaml")} == set(GOLDEN) | others
