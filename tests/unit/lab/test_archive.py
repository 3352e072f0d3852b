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

from tests.lab import archive


@pytest.fixture
def image(tmp_path: Path) -> archive.Image:
    binary = tmp_path / "etcd"
    binary.write_bytes(b"\x7fELF etcd")
    return archive.Image("registry.k8s.io/etcd:3.6.8-0", {"/usr/local/bin/etcd": binary}, ("/usr/local/bin/etcd",))


def test_every_digest_is_that_of_the_bytes_it_names(tmp_path: Path, image: archive.Image) -> None:
    target = tmp_path / "images.tar"
    archive.write(target, [image], "amd64")
    with tarfile.open(target) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    (entry,) = json.loads(content["manifest.json"])
    assert entry["RepoTags"] == [image.name]
    settings = content[entry["Config"]]
    assert entry["Config"] == hashlib.sha256(settings).hexdigest() + ".json"
    layers = [content[name] for name in entry["Layers"]]
    assert json.loads(settings)["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    with tarfile.open(fileobj=io.BytesIO(layers[0])) as layer:
        member = layer.getmember("usr/local/bin/etcd")
        assert (member.mode, member.uid, member.gid) == (0o755, 0, 0)
        assert layer.extractfile(member).read() == b"\x7fELF etcd"  # type: ignore[union-attr]


def test_equal_input_gives_equal_bytes(tmp_path: Path, image: archive.Image) -> None:
    for name in ("one", "two"):
        archive.write(tmp_path / name, [image], "amd64")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
