# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two loop devices for each node: one with etcd's data, one for a WAL.

Loop devices have real schedulers and read-ahead, so disk tuning can be tried without touching the machine's own disks.
"""

from __future__ import annotations

from pathlib import Path

from .console import output, run
from .errors import LabError

# Sparse: they take what is written. Both exceed what the guide's 8 GiB quota can ask for, with a snapshot beside it.
DATA_BYTES = 24 << 30
WAL_BYTES = 4 << 30


def device_of(image: Path) -> str | None:
    """The loop device that an image file is attached to, such as /dev/loop3, or None."""
    if not image.exists():
        return None
    listed = output(["losetup", "--noheadings", "--output", "NAME", "--associated", image])
    return listed.splitlines()[0].strip() if listed else None


def attach(image: Path, size: int, *, formatted: bool) -> str:
    """Makes the image when it is missing (ext4 when ``formatted``, else empty) and attaches it; gives the device."""
    if not image.exists():
        image.parent.mkdir(parents=True, exist_ok=True)
        partial = image.with_suffix(".part")
        with open(partial, "wb") as stream:
            stream.truncate(size)
        if formatted:
            # Few inodes and no lazy initialisation: nothing writes to the disk in the background later.
            run(["mkfs.ext4", "-q", "-F", "-N", "65536", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", partial])
        partial.rename(image)
    device = device_of(image)
    if device is None:
        device = output(["losetup", "--find", "--show", image])
        # Direct I/O keeps pages from being cached twice; a file system below that cannot do it is no error.
        run(["losetup", "--direct-io=on", device], check=False)
    return device


def uuid_of(device: str) -> str:
    """UUID of the file system on a device."""
    uuid = output(["blkid", "--probe", "--output", "value", "--match-tag", "UUID", device])
    if not uuid:
        raise LabError(f"{device}: no file system on it")
    return uuid


def remove(image: Path) -> None:
    """Detaches and deletes an image file; nothing happens when it is not there."""
    device = device_of(image)
    if device is not None:
        run(["losetup", "--detach", device])
    image.unlink(missing_ok=True)
