# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a backup, and ways to damage them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

from tests.integration.maintenance_node import Node


def sidecar_of(snapshot: Path) -> Path:
    return snapshot.with_name(re.sub(r"\.db(\.age|\.gpg)?$", ".json", snapshot.name))


def files(node: Node) -> list[str]:
    return sorted(path.name for path in node.backups.glob("*/*"))


def flip(path: Path, place: int) -> None:
    with open(path, "r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ 1]))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def adopt(path: Path) -> None:
    """Make the sidecar fit the file, as somebody who means well may do: only what is in the file can tell then."""
    data = json.loads(sidecar_of(path).read_text())
    digest = subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True).stdout.split()[0]
    data["snapshot"] = data["files"][path.name] = {"bytes": path.stat().st_size, "sha256": digest}
    sidecar_of(path).write_text(json.dumps(data))


def flip_and_adopt(path: Path) -> None:
    flip(path, path.stat().st_size // 2)
    adopt(path)


def other_layout(path: Path) -> None:
    """The same file by a bbolt of a later layout: both meta pages say so, and their checksums are right."""
    with open(path, "r+b") as stream:
        for page in (0, 4096):
            stream.seek(page + 16)
            body = bytearray(stream.read(56))
            body[4] = 3
            value = 0xCBF29CE484222325
            for byte in body:
                value = ((value ^ byte) * 0x100000001B3) % 2**64
            stream.seek(page + 16)
            stream.write(bytes(body) + value.to_bytes(8, "little"))


def later_etcd(path: Path) -> None:
    """The same file with the storage version of a later etcd (schema bucket ``meta``), and the checksum that etcd would put behind it."""
    content = bytearray(path.read_bytes()[:-32])
    assert b"storageVersion3.6.0" in content
    content = content.replace(b"storageVersion3.6.0", b"storageVersion3.9.0")
    path.write_bytes(content + hashlib.sha256(content).digest())
    adopt(path)


def no_database(path: Path) -> None:
    path.write_bytes(b"<html>404 not found</html>" * 1000)
