# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the WAL's disk is where etcd looks for it, for those who wonder why a member does not start."""

from __future__ import annotations

import os
from pathlib import Path

from .._errors import KubetuneError
from .._node.state import STATE, read_record
from .._static_pod.wal import MOUNT_POINT
from .mount import escape

#: What we made, below /var/lib/kubetune.
RECORD = "wal-disk.json"


def missing(state: Path = STATE) -> str:
    """What to tell of a disk that is not mounted; empty where it is, or none was ever prepared."""
    try:
        record = read_record(state / RECORD)
    except KubetuneError:
        return ""  # the role says so
    if record is None:
        return ""
    point = f"{record['data_directory']}/{MOUNT_POINT}"
    if os.path.ismount(point):
        return ""
    return (
        f"the disk of its WAL ({record['device']}, UUID {record['uuid']}) is not mounted at {point}, and without it etcd does not start, on "
        f"purpose: bring the disk back, then systemctl start '{escape(point)}.mount'; etcd joins again by itself"
    )
