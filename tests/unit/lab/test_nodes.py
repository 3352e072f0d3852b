# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.lab import nodes
from tests.lab.errors import LabError
from tests.lab.settings import Settings, from_environment


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return dataclasses.replace(from_environment({"HOME": str(tmp_path)}), state=tmp_path / "state")


@pytest.fixture
def lab(settings: Settings) -> nodes.Lab:
    member = nodes.Node("cp1", "kubetune-cp1", "172.30.9.11", "/dev/loop0", "/dev/loop1")
    single = nodes.Node("solo", "kubetune-solo", "172.30.9.101", "/dev/loop2", "/dev/loop3", bare=True)
    return nodes.Lab("kubetune", settings.state, settings.assets, "1.36.3", "3.6.16", "172.30.9", [member], [single])


def test_a_saved_lab_is_loaded_as_it_was(settings: Settings, lab: nodes.Lab) -> None:
    lab.save()
    assert nodes.load(settings) == lab


def test_a_lab_which_is_not_up_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(LabError, match="make lab"):
        nodes.load(settings)


def test_nodes_are_found_by_either_name(lab: nodes.Lab) -> None:
    assert lab.node("solo") is lab.node("kubetune-solo") is lab.bare[0]
    with pytest.raises(LabError, match="'cp9'; it has: cp1, solo"):
        lab.node("cp9")


def test_clients_talk_to_members_only(lab: nodes.Lab) -> None:
    assert lab.etcd_endpoints == ["https://172.30.9.11:2379"]


def test_a_missing_binary_is_named(lab: nodes.Lab) -> None:
    with pytest.raises(LabError, match="no binary 'etcdhelper'"):
        lab.binary("etcdhelper")
