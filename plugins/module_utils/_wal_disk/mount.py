# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mount point, which nothing can be written below while the disk is missing, and the unit that mounts it."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
from pathlib import Path

from .._block import topology
from .._block.udev import CONTROL
from .._commands import output
from .._errors import KubetuneError
from .._node.state import sync_directory, write_atomically

_UNITS = Path("/etc/systemd/system")
#: include/uapi/linux/fs.h
_GETFLAGS, _SETFLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10
#: Seconds that the boot waits for the disk before the kubelet starts without it.
DEVICE_TIMEOUT = 10


def escape(path: str) -> str:
    """A path as systemd spells it in names of units (systemd.unit(5), systemd-escape --path)."""
    text = "/".join(part for part in path.split("/") if part)

    def spell(match: re.Match[str]) -> str:
        return "".join(f"\\x{byte:02x}" for byte in match.group().encode())

    text = re.sub(r"^\.|[^A-Za-z0-9:_./]", spell, text)
    return text.replace("/", "-") or "-"


class MountPoint:
    """
    Args:
        path: of the mount point.
        uuid: of the file system.
    """

    def __init__(self, path: str, uuid: str) -> None:
        self.path = Path(path)
        self.uuid = uuid
        self.unit = f"{escape(path)}.mount"
        self._device_unit = f"{escape(f'/dev/disk/by-uuid/{uuid}')}.device"
        self.unit_file = _UNITS / self.unit
        self._timeout_file = _UNITS / f"{self._device_unit}.d" / "kubetune.conf"

    # --- the directory --------------------------------------------------------------------------------------------

    def obstacle(self) -> str:
        """Why the directory cannot be the mount point; empty where it can."""
        path = self.path
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            return f"{path} is there, and is no directory: move it away"
        if path.is_dir() and not self.mounted() and any(path.iterdir()):
            return (
                f"{path} is there and not empty ({', '.join(sorted(each.name for each in path.iterdir())[:5])}): an etcd may live in "
                "it; move its content away with etcd stopped, or leave the WAL where it is"
            )
        return ""

    def make_directory(self) -> None:
        """An empty directory which even root cannot write in: an etcd without its disk fails instead of starting anew.

        Raises:
            KubetuneError: the file system has no immutable flag.
        """
        made = not self.path.exists()
        # etcd's data directory is its own (etcd refuses others' to be let in).
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        try:
            _set_immutable(self.path, True)
        except OSError as exc:
            if made:
                self.path.rmdir()
            if exc.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
                raise KubetuneError(
                    f"{self.path}: its file system has no immutable flag (chattr +i), and without one etcd would start with an empty "
                    "WAL when the disk is missing: put etcd's data on ext4, xfs or btrfs"
                ) from exc
            raise
        sync_directory(self.path.parent)

    def guarded(self) -> bool:
        return self.path.is_dir() and _is_immutable(self.path)

    def remove_directory(self) -> None:
        if self.path.is_dir():
            _set_immutable(self.path, False)
            self.path.rmdir()
            sync_directory(self.path.parent)

    # --- the mount ------------------------------------------------------------------------------------------------

    def mounted(self) -> str:
        """The device that is mounted there, by its number; empty where nothing is."""
        found = [each for each in topology.parse_mountinfo(Path("/proc/self/mountinfo").read_text()) if each.point == str(self.path)]
        return "{}:{}".format(*found[-1].device) if found else ""

    def mount(self) -> None:
        output(["systemctl", "start", self.unit])

    def unmount(self) -> None:
        if self.mounted():
            output(["systemctl", "stop", self.unit] if self.unit_file.exists() else ["umount", str(self.path)])
        if self.mounted():
            raise KubetuneError(f"{self.path} is still mounted: something uses it (fuser -vm {self.path})")

    # --- the unit -------------------------------------------------------------------------------------------------

    def unit_text(self, file_system: str, options: str) -> str:
        # A path in /dev makes systemd wait for it to appear, which udevd tells; without one mount(8) finds the UUID itself.
        what = f"/dev/disk/by-uuid/{self.uuid}" if os.path.exists(CONTROL) else f"UUID={self.uuid}"
        return f"""# Written by kubetune.control_plane.etcd_wal, which overwrites edits: use its variables.
[Unit]
Description=Disk of etcd's write-ahead log
# Nothing requires it, and the boot goes on without it: etcd then fails on the immutable mount point, until the disk is back.
DefaultDependencies=no
Conflicts=umount.target
After=local-fs-pre.target
Before=umount.target kubelet.service

[Mount]
What={what}
Where={_literally(str(self.path))}
Type={file_system}
Options={_literally(options)}

[Install]
WantedBy=multi-user.target
WantedBy={self._device_unit}
"""

    def installed_text(self) -> str:
        return self.unit_file.read_text() if self.unit_file.exists() else ""

    def unit_is(self, file_system: str, options: str) -> bool:
        """Whether the unit is as it should be, and enabled: a run may have been cut off in between."""
        files = (self._timeout_file, *(_UNITS / f"{target}.wants" / self.unit for target in ("multi-user.target", self._device_unit)))
        return self.installed_text() == self.unit_text(file_system, options) and all(each.exists() for each in files)

    def install(self, file_system: str, options: str) -> None:
        self._timeout_file.parent.mkdir(exist_ok=True)
        write_atomically(self._timeout_file, f"[Unit]\nJobRunningTimeoutSec={DEVICE_TIMEOUT}\n".encode(), 0o644)
        write_atomically(self.unit_file, self.unit_text(file_system, options).encode(), 0o644)
        output(["systemctl", "daemon-reload"])
        output(["systemctl", "enable", "--quiet", self.unit])

    def uninstall(self) -> None:
        if self.unit_file.exists():
            output(["systemctl", "disable", "--quiet", self.unit])
            self.unit_file.unlink(missing_ok=True)
        self._timeout_file.unlink(missing_ok=True)
        if self._timeout_file.parent.is_dir() and not any(self._timeout_file.parent.iterdir()):
            self._timeout_file.parent.rmdir()
        output(["systemctl", "daemon-reload"])


def _literally(text: str) -> str:
    """A percent sign begins a specifier in units (systemd.unit(5))."""
    return text.replace("%", "%%")


def _is_immutable(path: Path) -> bool:
    return bool(_flags(path) & _IMMUTABLE)


def _set_immutable(path: Path, wanted: bool) -> None:
    flags = _flags(path)
    new = flags | _IMMUTABLE if wanted else flags & ~_IMMUTABLE
    if new != flags:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SETFLAGS, array.array("l", [new]))
        finally:
            os.close(descriptor)


def _flags(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        value = array.array("l", [0])
        fcntl.ioctl(descriptor, _GETFLAGS, value)
        return value[0]
    finally:
        os.close(descriptor)
