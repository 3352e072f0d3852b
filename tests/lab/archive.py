# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container images without an engine: static binaries packed in the format of ``docker save``."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Image:
    """name: with its tag. files: path in the image -> file on this machine. entrypoint: may be empty."""

    name: str
    files: Mapping[str, Path]
    entrypoint: Sequence[str] = ()


def layer(files: Mapping[str, Path]) -> bytes:
    """One layer: the files, executable, owned by root, with a fixed time, so that equal input gives equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, source in sorted(files.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.mode = 0o755
            entry.size = source.stat().st_size
            with open(source, "rb") as stream:
                tar.addfile(entry, stream)
    return buffer.getvalue()


def config(image: Image, architecture: str, layer_digest: str) -> bytes:
    """The image's configuration, whose digest is the image's id."""
    return json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/usr/local/bin"], "Entrypoint": list(image.entrypoint) or None},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created_by": "the lab"}],
        },
        sort_keys=True,
    ).encode()


def write(target: Path, images: Sequence[Image], architecture: str) -> None:
    """Writes one archive with all images."""

    def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))

    manifest = []
    with tarfile.open(target, mode="w") as tar:
        for image in images:
            content = layer(image.files)
            layer_digest = hashlib.sha256(content).hexdigest()
            settings = config(image, architecture, layer_digest)
            settings_name = f"{hashlib.sha256(settings).hexdigest()}.json"
            add(tar, f"{layer_digest}/layer.tar", content)
            add(tar, settings_name, settings)
            manifest.append({"Config": settings_name, "RepoTags": [image.name], "Layers": [f"{layer_digest}/layer.tar"]})
        add(tar, "manifest.json", json.dumps(manifest).encode())
