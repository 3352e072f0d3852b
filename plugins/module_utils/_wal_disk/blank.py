# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a block device holds anything at all. It is only read."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from .._block import topology
from .._block.device import kind_of, parse_udev_data
from .._commands import output
from .._errors import KubetuneError
from .._kernel.tree import Tree

#: Bytes below which etcd's WAL does not fit: five kept segments, two that it prepares, and as much again.
MIN_BYTES = 1 << 30
#: Bytes that leave room for large entries between two snapshots (10,000 entries of 10 KB, and the catch-up entries, twice).
COMFORTABLE_BYTES = 10 << 30
#: Bytes at either end that have to be zero, and of each look in between.
_ENDS, _LOOK, _LOOKS = 1 << 20, 1 << 16, 16


@dataclass(frozen=True)
class Device:
    """A block device.

    path: as it was given. node: without symbolic links. size: bytes. sysfs: its directory. numbers: such as 259:1.
    """

    path: str
    node: str
    size: int
    sysfs: Path
    numbers: str


def find(path: str) -> Device:
    """
    Raises:
        KubetuneError: there is no such block device.
    """
    node = os.path.realpath(path)
    try:
        facts = os.stat(node)
    except FileNotFoundError:
        raise KubetuneError(
            f"device {path}: there is no such device on this host; lsblk shows what there is, /dev/disk/by-id names it for good"
        ) from None
    if not stat.S_ISBLK(facts.st_mode):
        raise KubetuneError(f"device {path}: it is no block device; lsblk shows those of this host")
    numbers = f"{os.major(facts.st_rdev)}:{os.minor(facts.st_rdev)}"
    sysfs = Path(f"/sys/dev/block/{numbers}").resolve()
    if not sysfs.is_dir():
        raise KubetuneError(f"device {path}: {sysfs} does not describe it: nothing can be told about its users; mount sysfs")
    # In sectors of 512 bytes, whatever those of the disk are (Documentation/ABI/stable/sysfs-block, size).
    return Device(path, node, int(_read(sysfs / "size")) * 512, sysfs, numbers)


def contents(device: Device) -> list[str]:
    """Everything that speaks against making a file system on it; empty for a blank disk that nobody uses."""
    # A disk in use is not even opened.
    found = uses(device) or _signatures(device) or _data(device)
    if (device.sysfs / "ro").exists() and (device.sysfs / "ro").read_text().strip() == "1":
        found.append("it is read-only")
    if device.size < MIN_BYTES:
        found.append(f"it has {device.size >> 20} MiB, and a WAL needs at least {MIN_BYTES >> 20}")
    return found


def doubts(device: Device, data_directory: str) -> list[str]:
    """What does not forbid it, and should be known."""
    found = []
    if device.size < COMFORTABLE_BYTES:
        found.append(f"it has {device.size / 2**30:.1f} GiB; 10 leave room for large requests between two snapshots")
    if _read(device.sysfs / "removable") == "1":
        found.append("it is removable: etcd stops when it is taken out")
    tree = Tree()
    if kind_of(tree, topology.disk_of(tree, f"/sys/dev/block/{device.numbers}")) == "rotational":
        found.append("it rotates: each fsync of the WAL waits for the platter")
    under_data = set(topology.find(tree, data_directory).leaves)
    if under_data & set(topology.leaves_of(tree, f"/sys/dev/block/{device.numbers}")):
        found.append(f"{data_directory} is on the same disk: two file systems are not two disks")
    return found


def signatures(node: str) -> list[str]:
    """What util-linux (wipefs) knows on it: ``TYPE at OFFSET``."""
    lines = output(["wipefs", "--no-act", "--noheadings", "--output", "OFFSET,TYPE", node]).splitlines()
    return [f"{kind} at {offset}" for offset, kind in (line.split(None, 1) for line in lines if line.strip())]


def uuid_of(node: str) -> str:
    """UUID of the file system on a device; empty where there is none."""
    # blkid's cache would answer for what was there before.
    return output(["blkid", "--probe", "--match-tag", "UUID", "--output", "value", node], empty=2).strip()


def _signatures(device: Device) -> list[str]:
    return [f"it holds a signature: {each}" for each in signatures(device.node)]


def uses(device: Device, tree: Tree | None = None) -> list[str]:
    """Who uses it, or is going to after the next boot. It is opened only when nobody is known to."""
    tree = tree or Tree()
    sysfs = str(device.sysfs)
    mounts = topology.parse_mountinfo(tree.read("/proc/self/mountinfo") or "")
    found = [f"it is mounted at {each.point}" for each in mounts if "{}:{}".format(*each.device) == device.numbers]
    partitions = [name for name in tree.names(sysfs) if tree.exists(f"{sysfs}/{name}/partition")]
    if partitions:
        found.append(f"it has partitions: {', '.join(partitions)}")
    holders = tree.names(f"{sysfs}/holders")
    if holders:
        found.append(f"it is part of {', '.join(holders)}")
    for name in tree.names("/sys/block"):
        if (tree.read(f"/sys/block/{name}/loop/backing_file") or "").strip() == device.node:
            found.append(f"{name} lies on it")
    for line in (tree.read("/proc/swaps") or "").splitlines()[1:]:
        if tree.resolve(line.split()[0]) == device.node:
            found.append("it is in use as swap")
    for table in ("/etc/fstab", "/etc/crypttab"):
        for line in (tree.read(table) or "").splitlines():
            words = line.split("#", 1)[0].split()
            if any(tree.resolve(_node_of(word)) == device.node for word in words[:2]):
                found.append(f"{table} names it: {line.strip()}")
    properties = parse_udev_data(tree.read(f"/run/udev/data/b{device.numbers}") or "")
    if properties.get("DM_MULTIPATH_DEVICE_PATH") == "1":
        found.append("it is one path to a multipath disk: give that disk's own device")
    if not found:
        try:
            os.close(os.open(tree.locate(device.node), os.O_RDONLY | os.O_EXCL))
        except OSError as exc:
            found.append("some program or device has claimed it" if exc.errno == errno.EBUSY else f"it cannot be opened: {exc}")
    return found


def _node_of(word: str) -> str:
    """The device of a word in fstab(5): a path, or a tag such as PARTUUID=... (systemd.mount(5), blkid(8))."""
    tag, equals, value = word.partition("=")
    links = {"UUID": "uuid", "LABEL": "label", "PARTUUID": "partuuid", "PARTLABEL": "partlabel", "ID": "id"}
    return f"/dev/disk/by-{links[tag]}/" + value.strip("\"'") if equals and tag in links else word


def _data(device: Device) -> list[str]:
    """Bytes other than zero where no tool knows what they are: a raw database, a disk that was wiped only at its front."""
    with open(device.node, "rb") as stream:
        for offset, length in _places(device.size):
            stream.seek(offset)
            block = stream.read(length)
            if block.count(0) != len(block):
                at = offset + len(block) - len(block.lstrip(b"\0"))
                return [f"it holds data that nothing here knows, such as at byte {at}: if it may go, blank it (blkdiscard -z, or dd)"]
    return []


def erase(device: Device) -> None:
    """Make a disk whose file system was ours be blank again, as far as `contents` looks."""
    output(["wipefs", "--all", "--quiet", device.node])
    with open(os.open(device.node, os.O_WRONLY | os.O_EXCL), "wb") as stream:
        for offset, length in _places(device.size):
            stream.seek(offset)
            stream.write(bytes(length))
        stream.flush()
        os.fsync(stream.fileno())


def _places(size: int) -> list[tuple[int, int]]:
    """(offset, length) of what is looked at: both ends, and some places in between."""
    step = max(_LOOK, size // _LOOKS)
    between = [(offset, _LOOK) for offset in range(step, size - _ENDS, step)]
    return [(0, _ENDS), *between, (max(0, size - _ENDS), _ENDS)]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
