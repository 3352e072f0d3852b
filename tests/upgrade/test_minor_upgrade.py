# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tuned cluster goes from one Kubernetes minor to the next with kubeadm: every value stays, and the same inventory still fits.

The tests follow each other on one lab: `tests/upgrade/run.sh` starts it with the older version.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.faults.conftest import Playbook, wait_for
from tests.lab import binaries, images, settings
from tests.lab.errors import LabError
from tests.lab.nodes import Lab, Node
from tests.persistence.test_persistence import API, ETCD, PATCHES, applied, configuration, extra_args, lasting, live, resources

#: The same before and after.
INVENTORY: dict[str, Any] = {
    "kube_apiserver_static_pod_flags": {"event-ttl": "2h", "max-requests-inflight": 3200},
    "etcd_static_pod_flags": {"max-wals": 7},
    "node_window_watch_seconds": 0,
}


@pytest.fixture(scope="session")
def newer() -> settings.Settings:
    """What the cluster is taken to."""
    version = os.environ.get("KUBETUNE_UPGRADE_TO", "1.36.3")
    return dataclasses.replace(settings.from_environment(), kubernetes=version)


def bring(node: Node, archive: Path, programs: list[Path]) -> None:
    """A release onto a node: its images, and its programs, of which the kubelet is only restarted later."""
    with open(archive, "rb") as stream:
        subprocess.run(
            ["docker", "exec", "--interactive", node.container, "ctr", "-n", "k8s.io", "images", "import", "-"],
            stdin=stream, check=True, capture_output=True,
        )
    for program in programs:
        subprocess.run(["docker", "cp", "--quiet", str(program), f"{node.container}:/usr/bin/{program.name}.new"], check=True)
        node.run("mv", f"/usr/bin/{program.name}.new", f"/usr/bin/{program.name}")


def runs_with(node: Node, component: str, flags: set[str]) -> bool:
    """Another kubelet starts the static pods once more: a process may end while it is looked at."""
    try:
        return flags <= set(node.arguments(component))
    except LabError:
        return False


def image_of(node: Node, component: str) -> str:
    return str(live(node)[component]["spec"]["containers"][0]["image"])


def test_the_older_version_is_tuned(lab: Lab, playbook: Playbook) -> None:
    run = playbook("site", INVENTORY)
    assert run.status == 0, run.output
    for node in lab.nodes:
        assert image_of(node, API).endswith(f":v{lab.kubernetes}")
    again = playbook("site", INVENTORY)
    assert again.status == 0 and set(again.changed.values()) == {0}, again.output


def test_kubeadm_upgrades_it_and_every_value_stays(lab: Lab, newer: settings.Settings, seen: Callable[[str], None]) -> None:
    binaries.provide(newer)
    archive = images.provide_archive(newer)
    programs = [binaries.kubernetes_dir(newer) / name for name in ("kubeadm", "kubectl", "kubelet")]
    before = {node.name: {component: (applied(node, component), resources(live(node)[component])) for component in (ETCD, API)} for node in lab.nodes}
    kept = extra_args(configuration(lab))
    for number, node in enumerate(lab.nodes):
        bring(node, archive, programs)
        what = ["apply", f"v{newer.kubernetes}", "--yes"] if number == 0 else ["node"]
        # The lab has no addons and no registry.
        options = ["--ignore-preflight-errors=all", "--skip-phases=addon", f"--patches={PATCHES}"]
        node.run("kubeadm", "upgrade", *what, *options, timeout=900)
        node.run("systemctl", "restart", "kubelet")
        wait_for(lambda node=node: node.etcd_ready() and node.api_ready(), 240, f"{node.name} is ready")  # type: ignore[misc]
        for component in (ETCD, API):
            flags, amounts = before[node.name][component]
            wait_for(lambda: runs_with(node, component, flags), 60, f"{component} of {node.name} runs with every flag of ours")  # noqa: B023
            assert resources(live(node)[component]) == amounts
        assert image_of(node, API).endswith(f":v{newer.kubernetes}")
        seen(
            f"{node.name} kubeadm upgrade {what[0]} from {lab.kubernetes} to {newer.kubernetes}: all {len(before[node.name][ETCD][0])} flags of etcd and "
            f"{len(before[node.name][API][0])} of kube-apiserver, requests and limits are kept; etcd's image is {image_of(node, ETCD)}"
        )
    assert extra_args(configuration(lab)) == kept
    assert str(configuration(lab)["kubernetesVersion"]) == f"v{newer.kubernetes}"


def test_the_same_inventory_changes_nothing_after_it(lab: Lab, playbook: Playbook, newer: settings.Settings) -> None:
    run = playbook("site", INVENTORY)
    assert run.status == 0, run.output
    assert set(run.changed.values()) == {0}, run.output
    assert f"equals the default of {newer.kubernetes}" in run.output


def test_an_upgrade_without_patches_is_reported_as_drift_and_repaired_on_request(
    lab: Lab, playbook: Playbook, seen: Callable[[str], None]
) -> None:
    node = lab.nodes[2]
    before = {component: (lasting(node.arguments(component)), resources(live(node)[component])) for component in (ETCD, API)}
    node.run("kubeadm", "upgrade", "node", "--ignore-preflight-errors=all", "--skip-phases=addon", timeout=900)
    assert all(lasting(node.arguments(component)) == before[component][0] for component in before)
    assert all("limits" not in resources(live(node)[component]) for component in before)
    told = playbook("site", INVENTORY, "--check", "--diff")
    assert told.status == 0 and told.changed[node.name] > 0, told.output
    assert {name for name, count in told.changed.items() if count} == {node.name}
    assert "etcd limits.memory = 4Gi: it had drifted from 4Gi" in told.output and "+      limits:" in told.output
    assert all("limits" not in resources(live(node)[component]) for component in before)
    run = playbook("site", INVENTORY)
    assert run.status == 0, run.output
    assert {component: (lasting(node.arguments(component)), resources(live(node)[component])) for component in before} == before
    seen(f"{node.name} kubeadm upgrade node without --patches: requests and limits are gone, reported as drift, and back after site.yml")
