# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import yaml

from tests.lab import cluster, machines
from tests.lab.nodes import Node
from tests.lab.settings import from_environment

NODES = [
    Node("cp1", "kubetune-cp1", "172.30.9.11", "/dev/loop0", "/dev/loop1"),
    Node("cp2", "kubetune-cp2", "172.30.9.12", "/dev/loop2", "/dev/loop3"),
]


def test_the_inventory_reaches_nodes_through_the_engine() -> None:
    group = yaml.safe_load(cluster.inventory(NODES))["kube_control_plane"]
    assert group["hosts"] == {
        "cp1": {"ansible_host": "kubetune-cp1", "lab_wal_device": "/dev/loop1"},
        "cp2": {"ansible_host": "kubetune-cp2", "lab_wal_device": "/dev/loop3"},
    }
    assert group["vars"]["ansible_connection"] == "community.docker.docker"


def test_kubeadm_is_told_version_and_address() -> None:
    settings = from_environment({"HOME": "/h", "KUBETUNE_LAB_KUBERNETES": "1.35.4"})
    init, whole, kubelet = yaml.safe_load_all(cluster.kubeadm_config(settings, NODES[0], endpoint="cp1"))
    assert init["localAPIEndpoint"]["advertiseAddress"] == "172.30.9.11"
    assert (whole["kubernetesVersion"], whole["controlPlaneEndpoint"]) == ("v1.35.4", "cp1:6443")
    assert kubelet["kind"] == "KubeletConfiguration"


def test_addresses_of_members_and_bare_nodes_never_meet() -> None:
    members = {machines.address("172.30.9", index, bare=False) for index in range(9)}
    bare = {machines.address("172.30.9", index, bare=True) for index in range(100)}
    assert not members & bare
    assert all(int(address.rpartition(".")[2]) < 255 for address in members | bare)


def test_private_files_are_private_from_the_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "certificates" / "key"
    for text in ("one", "two"):
        cluster.private_file(path, text)
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
