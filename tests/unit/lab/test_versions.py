# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.lab import binaries, versions
from tests.lab.settings import Settings, from_environment


@pytest.fixture
def lab(tmp_path: Path) -> Settings:
    return dataclasses.replace(from_environment({"HOME": "/h"}), assets=tmp_path)


def have(lab: Settings, version: str, names: tuple[str, ...] = binaries.ETCD) -> Path:
    folder = lab.assets / f"etcd-{version}"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_the_newest_whole_patch_release_counts(lab: Settings) -> None:
    assert versions.etcd_folder(lab, "3.5") is None
    have(lab, "3.5.9")
    newest = have(lab, "3.5.30")
    have(lab, "3.5.31", ("etcd",))
    have(lab, "3.50.1")
    assert versions.etcd_folder(lab, "3.5") == newest


def test_only_what_is_asked_for_is_missing(lab: Settings) -> None:
    asked = (*versions.KUBERNETES_NAMES, "etcd")
    assert sorted(path.name for path in binaries.missing(lab, asked)) == sorted(asked)
    assert {path.name for path in binaries.missing(lab)} == set(binaries.ALL)
    have(lab, lab.etcd)
    assert sorted(path.name for path in binaries.missing(lab, asked)) == sorted(versions.KUBERNETES_NAMES)


def test_the_lab_s_own_versions_are_among_the_tested() -> None:
    lab = from_environment({"HOME": "/h"})
    assert lab.kubernetes in versions.KUBERNETES
    assert lab.etcd in versions.ETCD
