# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who uses a disk, from trees of files as Linux and udev write them; and how systemd spells paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._kernel.tree import Tree
from ansible_collections.kubetune.control_plane.plugins.module_utils._wal_disk import mount
from ansible_collections.kubetune.control_plane.plugins.module_utils._wal_disk.blank import Device, uses
from ansible_collections.kubetune.control_plane.plugins.module_utils._wal_disk.disk import WalDisk, Wanted

SDB = "/sys/devices/pci0000:00/0000:00:05.0/host1/target1:0:0/1:0:0:0/block/sdb"
SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
DEVICE = Device("/dev/disk/by-id/wwn-1", "/dev/sdb", 20 << 30, Path(SDB), "8:16")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host with a blank disk that nobody uses."""
    write(tmp_path, "/dev/sdb", "")
    write(tmp_path, "/proc/self/mountinfo", "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n")
    write(tmp_path, "/proc/swaps", SWAPS + "/dev/sda2                               partition\t2097148\t\t0\t\t-2\n")
    write(tmp_path, "/etc/fstab", "UUID=0a1b / ext4 defaults 0 1\n# /dev/sdb /old ext4 defaults 0 2\n")
    (tmp_path / SDB[1:] / "holders").mkdir(parents=True)
    for kind in ("uuid", "partuuid", "id", "label"):
        (tmp_path / f"dev/disk/by-{kind}").mkdir(parents=True)
        (tmp_path / f"dev/disk/by-{kind}/x1").symlink_to("../../sdb")
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    file = root / path[1:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_disk_that_nobody_uses(host: Path) -> None:
    assert uses(DEVICE, Tree(str(host))) == []


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("/proc/self/mountinfo", "40 22 8:16 / /srv/a\\040b rw - xfs /dev/sdb rw\n", "it is mounted at /srv/a b"),
        (f"{SDB}/sdb1/partition", "1\n", "it has partitions: sdb1"),
        (f"{SDB}/holders/dm-3", "", "it is part of dm-3"),
        ("/sys/block/loop4/loop/backing_file", "/dev/sdb\n", "loop4 lies on it"),
        ("/proc/swaps", f"{SWAPS}/dev/sdb partition\t8388604\t0\t-2\n", "it is in use as swap"),
        ("/etc/fstab", "/dev/sdb /data ext4 noauto 0 2", "/etc/fstab names it: /dev/sdb /data ext4 noauto 0 2"),
        ("/etc/fstab", "/dev/disk/by-id/x1 /data ext4 noauto 0 2", "/etc/fstab names it: /dev/disk/by-id/x1"),
        ("/etc/fstab", 'PARTUUID="x1" /data ext4 noauto 0 2', "/etc/fstab names it: PARTUUID="),
        ("/etc/fstab", "LABEL=x1 none swap sw 0 0", "/etc/fstab names it: LABEL=x1"),
        ("/etc/crypttab", "vault UUID=x1 none luks", "/etc/crypttab names it: vault UUID=x1"),
        ("/run/udev/data/b8:16", "E:ID_SERIAL=x\nE:DM_MULTIPATH_DEVICE_PATH=1\n", "it is one path to a multipath disk"),
    ],
)
def test_a_user_is_named(host: Path, path: str, text: str, found: str) -> None:
    write(host, path, text)
    (only,) = uses(DEVICE, Tree(str(host)))
    assert only.startswith(found)


def test_a_disk_in_use_is_not_opened(host: Path) -> None:
    (host / "dev/sdb").unlink()
    assert "it cannot be opened" in uses(DEVICE, Tree(str(host)))[0]
    write(host, f"{SDB}/holders/md0", "")
    assert uses(DEVICE, Tree(str(host))) == ["it is part of md0"]


@pytest.mark.parametrize(
    ("path", "unit"),  # systemd-escape --path, systemd 252
    [
        ("/var/lib/etcd/wal-disk", r"var-lib-etcd-wal\x2ddisk"),
        ("/", "-"),
        ("//srv//a b/.c:_d/", r"srv-a\x20b-.c:_d"),
        ("/.x", r"\x2ex"),
        ("/dev/disk/by-uuid/9ed4fadc-4514", r"dev-disk-by\x2duuid-9ed4fadc\x2d4514"),
        ("/größe", r"gr\xc3\xb6\xc3\x9fe"),
    ],
)
def test_paths_are_spelled_as_systemd_does(path: str, unit: str) -> None:
    assert mount.escape(path) == unit


def test_the_unit_takes_a_path_literally() -> None:
    text = mount.MountPoint("/srv/100%/wal-disk", "u-1").unit_text("xfs", "noatime")
    assert "Where=/srv/100%%/wal-disk\n" in text
    assert "WantedBy=dev-disk-by\\x2duuid-u\\x2d1.device\n" in text
    assert "Requires" not in text and "RequiredBy" not in text


@pytest.mark.parametrize("options", ["", "noatime, nodev", "noatime\nExecStart=/bin/true", "größe"])
def test_mount_options_that_would_break_the_unit(tmp_path: Path, options: str) -> None:
    with pytest.raises(Refusal, match="mount_options .*: give them separated by commas, without spaces"):
        WalDisk(str(tmp_path), state=tmp_path / "state").ensure(Wanted("/dev/sdb", mount_options=options))


@pytest.mark.parametrize("path", ["etcd", "/var/lib/../etcd", "/", "/var/\netcd", ""])
def test_data_directories_that_are_no_absolute_paths(path: str) -> None:
    with pytest.raises(Refusal, match="data_directory .*: give an absolute path"):
        WalDisk(path)
