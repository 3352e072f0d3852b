# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import host_sysctls


class Kernel:
    """A folder shaped like /proc/sys; a ratio and its bytes behave as one setting only in the real kernel."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, value in {
            "vm.swappiness": "60",
            "vm.dirty_ratio": "20",
            "vm.dirty_background_ratio": "10",
            "vm.dirty_bytes": "0",
            "vm.dirty_background_bytes": "0",
            "fs.inotify.max_user_instances": "128",
        }.items():
            self[name] = value

    def __getitem__(self, name: str) -> str:
        return (self.root / name.replace(".", "/")).read_text().strip()

    def __setitem__(self, name: str, value: str) -> None:
        path = self.root / name.replace(".", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path / "sys")


def test_what_the_first_lab_found_comes_back(kernel: Kernel, tmp_path: Path) -> None:
    record = tmp_path / "run" / "sysctls.json"
    host_sysctls.prepare(record, kernel.root)
    kernel["vm.swappiness"] = "1"
    host_sysctls.prepare(record, kernel.root)  # a second lab, on a tuned machine
    host_sysctls.restore(record, kernel.root)
    assert kernel["vm.swappiness"] == "60"
    assert kernel["fs.inotify.max_user_instances"] == "128"
    assert not record.exists()


def test_a_need_is_raised_and_never_lowered(kernel: Kernel, tmp_path: Path) -> None:
    host_sysctls.prepare(tmp_path / "one.json", kernel.root)
    assert kernel["fs.inotify.max_user_instances"] == "1024"
    kernel["fs.inotify.max_user_instances"] = "8192"
    host_sysctls.prepare(tmp_path / "two.json", kernel.root)
    assert kernel["fs.inotify.max_user_instances"] == "8192"


def test_of_a_ratio_and_its_bytes_only_the_one_in_force_is_written(kernel: Kernel, tmp_path: Path) -> None:
    record = tmp_path / "sysctls.json"
    host_sysctls.prepare(record, kernel.root)
    kernel["vm.dirty_bytes"], kernel["vm.dirty_ratio"] = "1048576", "0"
    host_sysctls.restore(record, kernel.root)
    assert kernel["vm.dirty_ratio"] == "20"
    assert kernel["vm.dirty_bytes"] == "1048576"  # the kernel itself sets it to 0 when the ratio is written


def test_without_a_record_nothing_is_written(kernel: Kernel, tmp_path: Path) -> None:
    kernel["vm.swappiness"] = "1"
    host_sysctls.restore(tmp_path / "none.json", kernel.root)
    assert kernel["vm.swappiness"] == "1"
