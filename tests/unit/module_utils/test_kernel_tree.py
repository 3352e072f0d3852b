# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading and writing below a root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._kernel.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(str(tmp_path))


def test_replace_makes_its_directories_and_leaves_no_temporary_file(tree: Tree, tmp_path: Path) -> None:
    assert tree.missing_directories("/etc/a/b") == ["/etc", "/etc/a", "/etc/a/b"]
    tree.replace("/etc/a/b/file", "one\n", 0o600)
    tree.replace("/etc/a/b/file", "two\n", 0o640)
    assert tree.read("/etc/a/b/file") == "two\n"
    assert tree.mode("/etc/a/b/file") == 0o640
    assert tree.names("/etc/a/b") == ["file"]


def test_bytes_that_are_not_text_survive(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"caf\xe9\n")
    tree.replace("/copy", tree.read("/file") or "", 0o644)
    assert (tmp_path / "copy").read_bytes() == b"caf\xe9\n"


def test_set_never_creates(tree: Tree) -> None:
    with pytest.raises(FileNotFoundError):
        tree.set("/proc/sys/vm/nothing", "1")
    assert not tree.exists("/proc")


def test_what_is_not_there(tree: Tree) -> None:
    assert tree.read("/nothing") is None and tree.names("/nothing") == []
    tree.remove("/nothing")
    tree.remove_directory("/nothing")


def test_a_directory_with_something_in_it_stays(tree: Tree) -> None:
    tree.replace("/d/file", "", 0o644)
    tree.remove_directory("/d")
    assert tree.exists("/d/file")


def test_device_of_this_machine() -> None:
    number = os.stat("/").st_dev
    assert Tree().device("/") == (os.major(number), os.minor(number))
    assert Tree().resolve("/proc/self") == f"/proc/{os.getpid()}"
