# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the WAL's disk is where etcd looks for it, for those who wonder why a member does not start."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .._node.state import STATE
from .._static_pod.wal import MOUNT_POINT
from .mount import escape


def missing(state: Path = STATE) -> str:
    """What to tell of a disk that is not mounted; empty where it is, or none was ever prepared."""
    try:
        data = json.loads((state / "wal-disk.json").read_text())
        device, point = data["device"], f"{data['data_directory']}/{MOUNT_POINT}"
    except (OSError, ValueError, KeyError):
        return ""
    if os.path.ismount(point):
        return ""
    return (
        f"the disk of its WAL ({device}, UUID {data.get('uuid')}) is not mounted at {point}, and without it etcd does not start, on "
        f"purpose: bring the disk back, then systemctl start '{escape(point)}.mount'; etcd joins again by itself"
    )
