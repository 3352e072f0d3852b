# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Input that is refused, a second run, the way back, and check mode: on real nodes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks.writer import Writer
from tests.faults.conftest import fingerprint
from tests.faults.fault import change
from tests.faults.playbook import Playbook
from tests.lab.nodes import Lab, Node


def test_a_second_run_touches_nothing(lab: Lab, playbook: Playbook) -> None:
    assert playbook().status == 0
    before = [fingerprint(node) for node in lab.nodes]
    run = playbook()
    assert run.status == 0, run.output
    assert run.changed == {node.name: 0 for node in lab.nodes}
    assert [fingerprint(node) for node in lab.nodes] == before


def test_a_flag_that_the_binary_refuses_stops_before_any_change(lab: Lab, playbook: Playbook) -> None:
    before = [fingerprint(node) for node in lab.nodes]
    run = playbook("site", {"etcd_static_pod_flags": {"max-walls": 5}})
    assert run.status != 0
    for node in lab.nodes:
        assert f"{node.name}: refused, and nothing was changed" in run.output
    assert "etcd --max-walls: the binary on this host refuses it: flag provided but not defined" in run.output
    assert set(run.changed.values()) == {0}
    assert [fingerprint(node) for node in lab.nodes] == before


def refusal(name: str, variables: dict, *texts: str, long: bool = True) -> Any:
    """Variables that are refused, and what the refusal has to say; those that are not long are part of `make test`."""
    return pytest.param(variables, texts, id=name, marks=[pytest.mark.long] if long else [])


@pytest.mark.parametrize(
    ("variables", "texts"),
    [
        refusal("wrong type", {"etcd_static_pod_flags": {"heartbeat-interval": "fast"}}, "etcd --heartbeat-interval: 'fast' is not allowed"),
        refusal(
            "inconsistent", {"etcd_static_pod_flags": {"election-timeout": 400}},
            "election-timeout: 400 ms", "at least 500 is needed", long=False,
        ),
        refusal("quota", {"etcd_static_pod_flags": {"quota-backend-bytes": 4096}}, "4096 is not above the database's"),
        refusal(
            "range", {"kube_apiserver_static_pod_flags": {"goaway-chance": 0.5}}, "kube-apiserver --goaway-chance: '0.5'", "at most 0.02"
        ),
        refusal(
            "requests", {"kube_apiserver_static_pod_resources": {"requests": {"cpu": "900"}}},
            "kube-apiserver requests.cpu=900", "more than the node's allocatable", long=False,
        ),
        refusal(
            "certificate", {"etcd_static_pod_certificate_min_days": 4000},
            "/etc/kubernetes/pki/etcd/server.crt ends in", "kubeadm certs renew",
        ),
        refusal("sysctl", {"host_tuning_sysctls": {"vm.swappiness": 900}}, "vm.swappiness", "900", long=False),
        refusal("calendar", {"etcd_maintenance_calendar": "every other tuesday"}, "every other tuesday", long=False),
    ],
)
def test_bad_input_is_named_and_nothing_is_changed(lab: Lab, playbook: Playbook, variables: dict, texts: tuple[str, ...]) -> None:
    before = [fingerprint(node) for node in lab.nodes]
    run = playbook("site", variables)
    assert run.status != 0
    assert set(run.changed.values()) == {0}, run.output
    for text in [lab.nodes[0].name, *texts]:
        assert text in run.output
    assert [fingerprint(node) for node in lab.nodes] == before


@pytest.mark.parametrize(
    ("make", "undo", "text"),
    [
        pytest.param(
            "mkdir -p /var/lib/rancher/rke2", "rm -r /var/lib/rancher", "this is a RKE2 host", id="RKE2", marks=pytest.mark.long
        ),
        pytest.param("mkdir -p /var/lib/rancher/k3s", "rm -r /var/lib/rancher", "this is a k3s host", id="k3s", marks=pytest.mark.long),
        pytest.param(
            "echo 'a: [' > /etc/kubernetes/manifests/zz.yaml", "rm /etc/kubernetes/manifests/zz.yaml",
            "/etc/kubernetes/manifests/zz.yaml line", id="malformed manifest",
        ),
    ],
)
def test_one_unfit_host_stops_all(lab: Lab, playbook: Playbook, make: str, undo: str, text: str) -> None:
    before = [fingerprint(node) for node in lab.nodes[1:]]
    lab.nodes[0].shell(make)
    try:
        run = playbook("site", change(3))
    finally:
        lab.nodes[0].shell(undo)
    assert run.status != 0
    assert text in run.output
    assert set(run.changed.values()) == {0}, run.output
    assert [fingerprint(node) for node in lab.nodes[1:]] == before


def test_rollback_brings_back_what_was_there(lab: Lab, playbook: Playbook, no_write_lost: Writer) -> None:
    """After all that change something: prepare.yml of the molecule scenario has put the manifests of kubeadm aside."""
    run = playbook("rollback")
    assert run.status == 0, run.output
    for node in lab.nodes:
        assert node.shell("diff -r /root/manifests-before /etc/kubernetes/manifests").stdout == ""
        left = node.shell(
            "ls /etc/systemd/system/etcd-maintenance* /etc/systemd/system/etcd-backup* /etc/systemd/system/etcd-restore-drill* /var/lib/node_exporter/textfile_collector/kubetune* /etc/systemd/system/kubetune* /etc/kubetune /usr/local/lib/kubetune "
            "/etc/udev/rules.d/*kubetune* /etc/sysctl.d/*kubetune* /etc/security/limits.d/*kubetune* 2>/dev/null || true"
        ).stdout
        assert left == "", left
    again = playbook("rollback")
    assert again.status == 0 and set(again.changed.values()) == {0}, again.output


def everything(node: Node) -> str:
    """Each file that the collection might write, each value that it might set, and the processes."""
    files = "find /etc /usr/local /var/lib/kubetune /var/backups /var/lib/systemd -xdev -type f -printf '%p %s %T@ %m\\n' | sort"
    values = (
        "sysctl vm.swappiness vm.dirty_ratio vm.dirty_background_ratio net.ipv4.tcp_rmem net.ipv4.tcp_wmem; "
        "device=$(findmnt --noheadings --output SOURCE --target /var/lib/etcd); "
        "cat /sys/block/${device##*/}/queue/scheduler /sys/block/${device##*/}/queue/read_ahead_kb"
    )
    return node.shell(f"{{ {files}; }} 2>/dev/null; {values}").stdout + fingerprint(node)


def test_check_mode_on_untouched_nodes_shows_the_change_and_writes_nothing(lab: Lab, playbook: Playbook) -> None:
    before = [everything(node) for node in lab.nodes]
    run = playbook("site", None, "--check", "--diff")
    assert run.status == 0, run.output
    assert min(run.changed.values()) > 0
    for line in ("-    - --snapshot-count=10000", "+    - --snapshot-count=100000", "+    - --max-requests-inflight=3000"):
        assert run.output.count(line) == len(lab.nodes), line
    timers = ("maintenance", "restore drill")
    assert run.output.count("+OnCalendar=") == len(timers) * len(lab.nodes)
    assert "+vm.swappiness = 1" in run.output
    assert [everything(node) for node in lab.nodes] == before
