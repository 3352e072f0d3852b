# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup's way to another place, by a tool of the user's choice.

The contract of the command: it is called once for each new backup, after that is complete, with the paths of the backup's
files behind its own arguments (the snapshot, its sidecar, and files of the host where they are asked for), and with

    KUBETUNE_BACKUP_FILE      the snapshot
    KUBETUNE_BACKUP_SIDECAR   its sidecar
    KUBETUNE_BACKUP_DIRECTORY backup.directory
    KUBETUNE_BACKUP_MEMBER    the member's name
    HOME, XDG_CACHE_HOME      a directory that it may write to, and keep things in

beside the service's own environment. Status 0 says that every byte is in the other place for good. Anything else is said, makes
the unit fail and leaves the metric old; the next backup is copied by the next call, so a tool that synchronizes the whole
directory catches up. It never deletes here, and nothing here is deleted because of what it did.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from .._commands import background
from .context import Context
from .retention import Snapshot

STEP = "copy"

#: File systems whose files are on another machine.
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "lustre")


def copy(ctx: Context, snapshot: Snapshot, member: str) -> None:
    """
    Raises:
        KubetuneError: the command failed, with its last lines.
    """
    command = ctx.config.backup.copy_command
    if not command:
        return
    home = Path(ctx.config.state_directory) / "copy"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "KUBETUNE_BACKUP_FILE": str(snapshot.path),
        "KUBETUNE_BACKUP_SIDECAR": str(snapshot.sidecar),
        "KUBETUNE_BACKUP_DIRECTORY": ctx.config.backup.directory,
        "KUBETUNE_BACKUP_MEMBER": member,
    }
    started = time.monotonic()
    with background([*command, *map(str, snapshot.files())], environment) as program:
        program.finish(ctx.config.backup.copy_timeout_seconds)
        said = program.said.splitlines()[-1:]
    ctx.journal.say(
        STEP,
        "done",
        f"{command[0]} has taken {snapshot.path.name} elsewhere" + (f": {said[0][:200]}" if said else ""),
        path=snapshot.path,
        member=member,
        seconds=time.monotonic() - started,
    )


def only_here(directory: str, command: list[str], mounts: str) -> bool:
    """Whether every copy of a backup is on the cluster's own machines, as far as this host can know.

    Args:
        mounts: /proc/self/mountinfo.
    """
    return not command and _file_system(directory, mounts) not in _REMOTE


def _file_system(directory: str, mounts: str) -> str:
    """Type of the file system that a path is on: of the longest mount point above it, the last one mounted there."""
    best, found = -1, ""
    for line in mounts.splitlines():
        left, _bar, right = line.partition(" - ")
        words = left.split()
        if len(words) < 5 or not right:
            continue
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match.group(1), 8)), words[4])
        if (directory + "/").startswith(point.rstrip("/") + "/") and len(point) >= best:
            best, found = len(point), right.split()[0]
    return found


def mountinfo() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text()
    except OSError:
        return ""
