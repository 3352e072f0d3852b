# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not happen, and what must happen after it did: on real nodes, with a client writing meanwhile.

Marked ``long``: not part of ``make test``; ``make test-faults`` runs all.
"""

from __future__ import annotations

import signal

import pytest

from tests.benchmarks.writer import Writer
from tests.faults.conftest import Playbook, fingerprint, kill_window, reached, wait_for
from tests.lab.nodes import Lab, Node

#: Steps of a window at whose beginning the process is killed, as its journal names them.
STEPS = ("gate", "snapshot", "api_out", "etcd_in", "kube-apiserver_in")


def change(number: int) -> dict:
    """A change of both static pods which differs from test to test, so that each opens a window."""
    return {
        "etcd_static_pod_flags": {"max-wals": 5 + number},
        "kube_apiserver_static_pod_flags": {"max-requests-inflight": 3000 + number},
    }


def runs_with(node: Node, wanted: dict) -> bool:
    """Whether both processes of a node have the flags of a change."""
    etcd, api = node.arguments("etcd"), node.arguments("kube-apiserver")
    return (
        f"--max-wals={wanted['etcd_static_pod_flags']['max-wals']}" in etcd
        and f"--max-requests-inflight={wanted['kube_apiserver_static_pod_flags']['max-requests-inflight']}" in api
    )


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


@pytest.mark.parametrize(
    ("variables", "texts"),
    [
        ({"etcd_static_pod_flags": {"heartbeat-interval": "fast"}}, ["etcd --heartbeat-interval: 'fast' is not allowed"]),
        ({"etcd_static_pod_flags": {"election-timeout": 400}}, ["election-timeout: 400 ms", "at least 500 is needed"]),
        ({"etcd_static_pod_flags": {"quota-backend-bytes": 4096}}, ["4096 is not above the database's"]),
        ({"kube_apiserver_static_pod_flags": {"goaway-chance": 0.5}}, ["kube-apiserver --goaway-chance: '0.5'", "at most 0.02"]),
        (
            {"kube_apiserver_static_pod_resources": {"requests": {"cpu": "900"}}},
            ["kube-apiserver requests.cpu=900", "more than the node's allocatable"],
        ),
        ({"etcd_static_pod_certificate_min_days": 4000}, ["/etc/kubernetes/pki/etcd/server.crt ends in", "kubeadm certs renew"]),
        ({"host_tuning_sysctls": {"vm.swappiness": 900}}, ["vm.swappiness", "900"]),
        ({"etcd_maintenance_calendar": "every other tuesday"}, ["every other tuesday"]),
    ],
    ids=["wrong type", "inconsistent", "quota", "range", "requests", "certificate", "sysctl", "calendar"],
)
def test_bad_input_is_named_and_nothing_is_changed(lab: Lab, playbook: Playbook, variables: dict, texts: list[str]) -> None:
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
        ("mkdir -p /var/lib/rancher/rke2", "rm -r /var/lib/rancher", "this is a RKE2 host"),
        ("mkdir -p /var/lib/rancher/k3s", "rm -r /var/lib/rancher", "this is a k3s host"),
        (
            "echo 'a: [' > /etc/kubernetes/manifests/zz.yaml", "rm /etc/kubernetes/manifests/zz.yaml",
            "/etc/kubernetes/manifests/zz.yaml line",
        ),
    ],
    ids=["RKE2", "k3s", "malformed manifest"],
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


def test_a_process_that_dies_is_rolled_back_and_the_other_nodes_are_left_alone(
    lab: Lab, playbook: Playbook, no_write_lost: Writer
) -> None:
    manifests = {node.name: node.shell("sha256sum /etc/kubernetes/manifests/*").stdout for node in lab.nodes}
    before = {node.name: fingerprint(node) for node in lab.nodes}
    missing = {"kube_apiserver_static_pod_flags": {"kubelet-certificate-authority": "/etc/kubernetes/pki/missing.crt"}}
    run = playbook("site", missing)
    assert run.status != 0
    assert "the old manifests are back and healthy" in run.output
    assert "/etc/kubernetes/pki/missing.crt" in run.output.partition("last lines of the container")[2]
    assert {node.name: node.shell("sha256sum /etc/kubernetes/manifests/*").stdout for node in lab.nodes} == manifests
    changed = [node.name for node in lab.nodes if fingerprint(node) != before[node.name]]
    assert len(changed) == 1, changed


def test_a_window_that_is_killed_goes_on_by_itself(lab: Lab, playbook: Playbook, no_write_lost: Writer) -> None:
    node, wanted = lab.nodes[1], change(1)
    process = playbook.start("site", wanted, "--limit", node.name)
    wait_for(lambda: reached(node, "etcd_in"), 120, "the window has come to etcd")
    kill_window(node)
    run = playbook.finish(process)
    assert run.status == 0, run.output
    assert runs_with(node, wanted)


def test_a_controller_that_is_killed_leaves_a_node_that_finishes(lab: Lab, playbook: Playbook, no_write_lost: Writer) -> None:
    node, wanted = lab.nodes[2], change(2)
    process = playbook.start("site", wanted, "--limit", node.name)
    wait_for(lambda: reached(node, "api_out"), 120, "the window is open")
    process.send_signal(signal.SIGKILL)
    playbook.finish(process)
    wait_for(lambda: not node.exists("/var/lib/kubetune/window/pending.json"), 120, "the window has ended")
    assert runs_with(node, wanted)


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step(lab: Lab, playbook: Playbook, no_write_lost: Writer, step: str) -> None:
    node, wanted = lab.nodes[0], change(10 + STEPS.index(step))
    process = playbook.start("site", wanted, "--limit", node.name)
    wait_for(lambda: reached(node, step), 120, f"the window has come to {step}")
    kill_window(node)
    run = playbook.finish(process)
    assert run.status == 0, run.output
    assert runs_with(node, wanted)


@pytest.mark.long
def test_a_node_that_reboots_in_its_window_finishes_after_it(lab: Lab, playbook: Playbook, no_write_lost: Writer) -> None:
    node, wanted = lab.nodes[0], change(20)
    process = playbook.start("site", wanted, "--limit", node.name)
    wait_for(lambda: reached(node, "etcd_in"), 120, "the window has come to etcd")
    node.reboot()
    playbook.finish(process)
    wait_for(lambda: not node.exists("/var/lib/kubetune/window/pending.json"), 180, "the window has ended")
    assert runs_with(node, wanted)


@pytest.mark.long
def test_an_etcd_that_dies_is_rolled_back(lab: Lab, playbook: Playbook, no_write_lost: Writer) -> None:
    node = lab.nodes[0]
    manifests = node.shell("sha256sum /etc/kubernetes/manifests/*").stdout
    run = playbook("site", {"etcd_static_pod_flags": {"cipher-suites": "NONE_SUCH"}}, "--limit", node.name)
    assert run.status != 0
    assert "the old manifests are back and healthy" in run.output
    assert node.shell("sha256sum /etc/kubernetes/manifests/*").stdout == manifests


@pytest.mark.long
def test_nothing_is_changed_while_a_member_is_away(lab: Lab, playbook: Playbook) -> None:
    away = lab.nodes[2]
    pid = away.pid("etcd")
    before = [fingerprint(node) for node in lab.nodes[:2]]
    away.shell(f"kill -STOP {pid}")
    try:
        run = playbook("site", change(30), "--limit", lab.nodes[0].name)
    finally:
        away.shell(f"kill -CONT {pid}")
    assert run.status != 0
    assert f"member {away.name}" in run.output
    assert "does not answer" in run.output
    assert [fingerprint(node) for node in lab.nodes[:2]] == before


def test_rollback_brings_back_what_was_there(lab: Lab, playbook: Playbook, no_write_lost: Writer) -> None:
    """After all that change something: prepare.yml of the molecule scenario has put the manifests of kubeadm aside."""
    run = playbook("rollback")
    assert run.status == 0, run.output
    for node in lab.nodes:
        assert node.shell("diff -r /root/manifests-before /etc/kubernetes/manifests").stdout == ""
        left = node.shell(
            "ls /etc/systemd/system/etcd-maintenance* /etc/systemd/system/kubetune* /etc/kubetune /usr/local/lib/kubetune "
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
    for line in (
        "-    - --snapshot-count=10000", "+    - --snapshot-count=100000", "+    - --max-requests-inflight=3000", "+OnCalendar=",
    ):
        assert run.output.count(line) == len(lab.nodes), line
    assert "+vm.swappiness = 1" in run.output
    assert [everything(node) for node in lab.nodes] == before
