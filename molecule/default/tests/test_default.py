# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs after converge: effects, read from processes and the kernel, not from the files that we wrote."""

from __future__ import annotations

import json
import time

import pytest
import tests.conftest  # noqa: F401  makes the collection importable
import yaml
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.manifest import flags_of

testinfra_hosts = ["ansible://kube_control_plane"]


def running_flags(host, component: str) -> dict[str, list[str]]:
    pid = host.check_output("pgrep --exact --oldest %s", component[:15])
    return flags_of(host.check_output("tr '\\0' '\\n' < /proc/%s/cmdline", pid).splitlines()[1:])


def manifest(host, folder: str, component: str) -> dict:
    return yaml.safe_load(host.file(f"{folder}/{component}.yaml").content_string)


@pytest.mark.parametrize("component", COMPONENTS)
def test_process_runs_with_every_flag_of_the_guide(host, component: str) -> None:
    flags = running_flags(host, component)
    for flag in COMPONENTS[component].flags:
        if flag.guide is not None:
            assert flag.same(flags[flag.name][-1], flag.guide), flag.name


@pytest.mark.parametrize("component", COMPONENTS)
def test_manifest_differs_from_before_in_tuning_only(host, component: str) -> None:
    before, after = (manifest(host, folder, component) for folder in ("/root/manifests-before", "/etc/kubernetes/manifests"))
    tuning = {flag.name for flag in COMPONENTS[component].flags}
    left = []
    for pod in (before, after):
        container = pod["spec"]["containers"][0]
        container.pop("resources")
        flags = flags_of(container.pop("command")[1:])
        left.append({name: values for name, values in flags.items() if name not in tuning})
    assert before == after
    assert left[0] == left[1]


def test_resources_fit_the_node(host) -> None:
    """The lab's nodes have two cores: the guide's request for the API server must have been left out (G11)."""
    cpus = int(host.check_output("nproc"))
    request = manifest(host, "/etc/kubernetes/manifests", "kube-apiserver")["spec"]["containers"][0]["resources"]["requests"]
    assert request["cpu"] == ("2000m" if cpus >= 4 else "250m")
    assert request["memory"] == "4Gi"


def test_manifests_directory_holds_nothing_else(host) -> None:
    assert sorted(host.check_output("ls -A /etc/kubernetes/manifests").split()) == [
        "etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml",
    ]


def test_cluster_is_whole(host) -> None:
    members = json.loads(
        host.check_output(
            "/proc/$(pgrep -xo etcd)/root/usr/local/bin/etcdctl --cacert /etc/kubernetes/pki/etcd/ca.crt "
            "--cert /etc/kubernetes/pki/etcd/healthcheck-client.crt --key /etc/kubernetes/pki/etcd/healthcheck-client.key "
            "endpoint health --cluster --write-out=json"
        )
    )
    assert len(members) == 3
    assert all(member["health"] for member in members)


def test_api_server_is_ready(host) -> None:
    address = running_flags(host, "kube-apiserver")["advertise-address"][0]
    assert host.check_output("curl -sS --cacert /etc/kubernetes/pki/ca.crt https://%s:6443/readyz", address) == "ok"


def test_queue_below_the_data_directory(host) -> None:
    device = host.check_output("findmnt --noheadings --output SOURCE --target /var/lib/etcd").rpartition("/")[2]
    assert "[mq-deadline]" in host.file(f"/sys/block/{device}/queue/scheduler").content_string
    assert host.file(f"/sys/block/{device}/queue/read_ahead_kb").content_string.strip() == "1024"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vm.swappiness", "1"), ("vm.dirty_ratio", "15"), ("vm.dirty_background_ratio", "5"),
        ("net.ipv4.tcp_rmem", "4096\t65536\t134217728"), ("net.ipv4.tcp_wmem", "4096\t65536\t134217728"),
    ],
)
def test_kernel_values_are_in_force(host, key: str, value: str) -> None:
    assert host.file("/proc/sys/" + key.replace(".", "/")).content_string.strip() == value


def test_etcd_may_open_enough_files(host) -> None:
    """At least the guide's 65536 (Go takes one less), or all that this machine allows."""
    limits = host.check_output("cat /proc/$(pgrep -xo etcd)/limits")
    soft = int(next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3])
    machine = int(host.check_output("ulimit -Hn"))
    assert soft >= min(65535, machine - 1)


def test_state_is_for_root_alone(host) -> None:
    assert host.file("/var/lib/kubetune").mode == 0o700
    open_ones = host.check_output("find /var/lib/kubetune /etc/kubetune -type f -perm /077")
    assert open_ones == ""


def test_no_window_is_open(host) -> None:
    assert not host.file("/var/lib/kubetune/window/pending.json").exists
    assert host.service("kubetune-window").is_enabled


def test_timer_fires_by_its_calendar_and_the_backup_is_good(host) -> None:
    timer = host.service("etcd-maintenance.timer")
    assert timer.is_enabled and timer.is_running
    deadline = time.monotonic() + 150
    while not (snapshots := host.check_output("find /var/backups/etcd -name '*.db'").split()):
        assert time.monotonic() < deadline, host.check_output("journalctl -u etcd-maintenance --no-pager | tail -20")
        time.sleep(2)
    triggered = host.check_output("systemctl show etcd-maintenance.timer --property=LastTriggerUSec --value")
    assert triggered not in ("", "n/a")
    status = host.check_output("/proc/$(pgrep -xo etcd)/root/usr/local/bin/etcdutl snapshot status --write-out=json %s", snapshots[0])
    assert json.loads(status)["totalKey"] > 0
