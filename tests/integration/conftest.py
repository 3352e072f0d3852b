# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures with real processes; each ends what it started."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator

import pytest
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _zipapp

from tests.integration.etcd_cluster import EtcdCluster
from tests.integration.maintenance_node import MB, Node

MODULE_UTILS = Path(__file__).resolve().parents[2] / "plugins/module_utils"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("real")


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """Three members for tests which leave the cluster as it was."""
    cluster = EtcdCluster.create(tmp_path_factory.mktemp("etcd"), ["cp1", "cp2", "cp3"])
    yield cluster
    cluster.stop_all()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EtcdCluster]:
    """Three members of a test's own."""
    cluster = EtcdCluster.create(tmp_path / "etcd", ["cp1", "cp2", "cp3"])
    yield cluster
    cluster.stop_all()


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "kubetune.pyz"
    path.write_bytes(_zipapp.build(MODULE_UTILS))
    return path


@pytest.fixture
def nodes(program: Path, cluster: EtcdCluster, tmp_path: Path) -> list[Node]:
    return [Node(program, cluster, member, tmp_path) for member in cluster.members]


@pytest.fixture(scope="module")
def shared_node(
    program: Path, shared_cluster: EtcdCluster, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Node]:
    def fresh() -> Node:
        shared_cluster.client().delete("/kubetune/", "/kubetune0")
        return Node(program, shared_cluster, shared_cluster.members[0], tmp_path_factory.mktemp("host"))

    return fresh


@pytest.fixture
def full_nodes(program: Path, tmp_path: Path) -> Iterator[list[Node]]:
    """Three members with room for 64 MB, and the host of each."""
    cluster = EtcdCluster.create(tmp_path / "etcd", ["cp1", "cp2", "cp3"], f"--quota-backend-bytes={64 * MB}")
    yield [Node(program, cluster, member, tmp_path) for member in cluster.members]
    cluster.stop_all()


@pytest.fixture
def alone(program: Path, tmp_path: Path) -> Iterator[Node]:
    """A cluster of one with room for 32 MB."""
    cluster = EtcdCluster.create(tmp_path / "etcd", ["cp1"], f"--quota-backend-bytes={32 * MB}")
    yield Node(program, cluster, cluster.members[0], tmp_path)
    cluster.stop_all()
