# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What other tests rely on in a lab that is up. Nothing here changes a node's state."""

from __future__ import annotations

import json

import pytest

from . import nodes

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab() -> nodes.Lab:
    return nodes.load()


def test_every_node_is_a_voting_member_of_one_cluster(lab: nodes.Lab) -> None:
    statuses = json.loads(lab.etcdctl("endpoint", "status", "--write-out=json").stdout)
    assert len(statuses) == len(lab.nodes)
    assert len({status["Status"]["header"]["cluster_id"] for status in statuses}) == 1
    assert len({status["Status"]["leader"] for status in statuses}) == 1
    assert not any(status["Status"].get("isLearner") for status in statuses)


def test_every_api_server_and_kubelet_is_ready(lab: nodes.Lab) -> None:
    assert all(node.api_ready() for node in lab.nodes)
    items = json.loads(lab.kubectl("get", "nodes", "--output", "json").stdout)["items"]
    ready = {item["metadata"]["name"]: {c["type"]: c["status"] for c in item["status"]["conditions"]}["Ready"] for item in items}
    assert ready == {node.name: "True" for node in lab.nodes}


def test_etcd_lies_on_its_own_disk_whose_queue_can_be_written(lab: nodes.Lab) -> None:
    for node in lab.nodes:
        assert node.output("findmnt", "--noheadings", "--output", "SOURCE", "/var/lib/etcd") == node.data_device
        queue = f"/sys/block/{node.data_device.removeprefix('/dev/')}/queue/scheduler"
        scheduler = node.read(queue)
        current = scheduler.partition("[")[2].partition("]")[0]
        assert "mq-deadline" in scheduler
        node.shell(f"echo {current} >{queue}")  # what is in force already


def test_a_node_sees_only_its_own_pods_cgroups(lab: nodes.Lab) -> None:
    for node in lab.nodes:
        found = node.shell("find /sys/fs/cgroup -type d -path '*/kubepods/*' -name 'pod*' -printf '%f\\n' | sort --unique").stdout.split()
        selector = ("--field-selector", f"spec.nodeName={node.name}")
        pods = json.loads(lab.kubectl("get", "pods", "--all-namespaces", "--output", "json", *selector).stdout)["items"]
        # A static pod's cgroup carries its file's hash, which the mirror pod keeps as an annotation.
        assert found == sorted("pod" + pod["metadata"]["annotations"]["kubernetes.io/config.hash"] for pod in pods)


def test_limits_and_clock_are_those_of_a_host_that_is_not_ours(lab: nodes.Lab) -> None:
    for node in lab.nodes:
        bits = int(node.output("sed", "-n", "s/^CapBnd:[[:space:]]*//p", "/proc/1/status"), 16)
        assert not bits & (1 << 24), "CAP_SYS_RESOURCE"
        assert not bits & (1 << 25), "CAP_SYS_TIME"


def test_units_of_a_node_are_well(lab: nodes.Lab) -> None:
    for node in lab.nodes:
        assert node.output("systemctl", "list-units", "--failed", "--plain", "--no-legend") == ""
