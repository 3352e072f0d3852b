# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures with real processes; each ends what it started."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from tests.integration.etcd_cluster import EtcdCluster


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
