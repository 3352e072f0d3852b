# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.lab import binaries
from tests.lab.errors import LabError
from tests.lab.settings import from_environment

SETTINGS = from_environment({"HOME": "/h"})


def test_every_pin_of_the_repository_is_a_checksum() -> None:
    assert all(address.startswith("https://") for address in binaries.pins())


@pytest.mark.parametrize("digest", ["", "abc", "G" * 64, "A" * 64])
def test_a_pin_which_is_no_checksum_is_refused(tmp_path: Path, digest: str) -> None:
    file = tmp_path / "downloads.json"
    file.write_text(json.dumps({"https://example.org/kubelet": digest}))
    with pytest.raises(LabError, match="is not a SHA-256"):
        binaries.pins(file)


def test_release_addresses() -> None:
    arch = SETTINGS.architecture
    assert binaries.release_address(SETTINGS, "kubelet").endswith(f"/v1.36.3/bin/linux/{arch}/kubelet")
    assert binaries.release_address(SETTINGS, "etcdctl").endswith(f"/v3.6.16/etcd-v3.6.16-linux-{arch}.tar.gz")


def test_a_download_with_another_checksum_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "kubelet"
    file.write_bytes(b"not what was published")
    right = hashlib.sha256(file.read_bytes()).hexdigest()
    binaries.check(file, right, "https://example.org/kubelet")
    with pytest.raises(LabError, match="nothing was installed"):
        binaries.check(file, "0" * 64, "https://example.org/kubelet")


def test_a_plain_binary_is_placed_executable(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "cache"
    file.write_bytes(b"\x7fELF kubelet")
    folder.mkdir()
    binaries.place(file, folder, ("kubelet",))
    assert (folder / "kubelet").read_bytes() == b"\x7fELF kubelet"
    assert (folder / "kubelet").stat().st_mode & 0o777 == 0o755


def test_out_of_an_archive_come_the_named_files_alone(tmp_path: Path) -> None:
    file, folder = tmp_path / "release.tar.gz", tmp_path / "cache"
    folder.mkdir()
    with tarfile.open(file, "w:gz") as tar:
        for name in ("etcd-v3/etcd", "etcd-v3/README.md", "../../etcdctl"):
            entry = tarfile.TarInfo(name)
            entry.size = len(name)
            tar.addfile(entry, io.BytesIO(name.encode()))
    binaries.place(file, folder, binaries.ETCD)
    assert sorted(path.name for path in folder.iterdir()) == ["etcd", "etcdctl"]
    assert not (tmp_path.parent / "etcdctl").exists()
