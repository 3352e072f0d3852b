# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel values that a container shares with its host: recorded by the first lab, put back by the last."""

from __future__ import annotations

import json
from pathlib import Path

from .console import say
from .settings import HOST_STATE

# vm.* written in a container reaches the host, and the collection writes these.
SHARED = ("vm.swappiness", "vm.dirty_ratio", "vm.dirty_background_ratio", "vm.dirty_bytes", "vm.dirty_background_bytes")
# What many systemd processes under one kernel need, and the least that they get.
NEEDED = {"fs.inotify.max_user_instances": 1024}
_RECORD = HOST_STATE / "sysctls.json"


def _path(name: str, root: Path) -> Path:
    return root / name.replace(".", "/")


def prepare(file: Path = _RECORD, root: Path = Path("/proc/sys")) -> None:
    """Writes the values down unless a lab before this one did, and raises those that nodes need higher."""
    if not file.exists():
        values = {name: _path(name, root).read_text().strip() for name in (*SHARED, *NEEDED)}
        file.parent.mkdir(mode=0o700, exist_ok=True)
        partial = file.with_suffix(".part")
        partial.write_text(json.dumps(values, indent=2) + "\n")
        partial.rename(file)
    for name, least in NEEDED.items():
        path = _path(name, root)
        if int(path.read_text()) < least:
            path.write_text(f"{least}\n")


def restore(file: Path = _RECORD, root: Path = Path("/proc/sys")) -> None:
    """Puts recorded values back and forgets them; says which ones differed."""
    if not file.exists():
        return
    values: dict[str, str] = json.loads(file.read_text())
    for name, value in values.items():
        path = _path(name, root)
        found = path.read_text().strip()
        # A ratio and its bytes are one setting: writing either sets the other to 0, so a recorded 0 is never written.
        if found != value and not (value == "0" and name != "vm.swappiness"):
            say(f"{name}: {found} back to {value}")
            path.write_text(value + "\n")
    file.unlink()
