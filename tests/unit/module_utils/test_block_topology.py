# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a path to its disks."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._block import topology
from ansible_collections.kubetune.control_plane.plugins.module_utils._block.topology import Mount
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.module_utils.fake_host import FakeHost, ordinary_host

SDA = "/sys/devices/pci0000:00/scsi0/block/sda"


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return ordinary_host(tmp_path)


def test_partition_leads_to_its_disk(host: FakeHost) -> None:
    stack = topology.find(host, "/var/lib/etcd")
    assert stack == topology.Stack("/var/lib/etcd", "/var/lib/etcd", SDA, (SDA,))


def test_missing_path_takes_its_parent_and_says_so(host: FakeHost) -> None:
    stack = topology.find(host, "/var/lib/etcd/wal-disk/wal")
    assert (stack.existing, stack.leaves) == ("/var/lib/etcd", (SDA,))


def test_symbolic_link_is_followed(host: FakeHost) -> None:
    nvme = host.disk("nvme0n1", "259:0", bus="nvme")
    host.place("/data/etcd", (259, 0))
    host.link("/srv/etcd", "/data/etcd")
    stack = topology.find(host, "/srv/etcd")
    assert stack.leaves == (nvme,)
    assert stack.existing == stack.path == "/srv/etcd"


def test_stack_of_lvm_on_crypt_on_mirror(host: FakeHost) -> None:
    """Read-ahead belongs to the logical volume, schedulers to the two disks, each once."""
    first = host.disk("sdb", "8:16", partitions={"sdb1": "8:17"})
    second = host.disk("sdc", "8:32", partitions={"sdc1": "8:33"})
    mirror = host.stacked("md0", "9:0", "md", [f"{first}/sdb1", f"{second}/sdc1"])
    crypt = host.stacked("dm-0", "253:0", "dm", [mirror])
    volume = host.stacked("dm-1", "253:1", "dm", [crypt, mirror])
    host.place("/var/lib/etcd", (253, 1))
    stack = topology.find(host, "/var/lib/etcd")
    assert (stack.mounted, stack.leaves) == (volume, (first, second))


@pytest.mark.parametrize(
    ("uuid", "schedulers", "at_the_top"),
    [
        pytest.param("mpath-36001", "[none] mq-deadline\n", True, id="request-based"),
        pytest.param("mpath-36001", "none\n", False, id="bio-based, up to Linux 6.1"),
        pytest.param("mpath-36001", "", False, id="bio-based"),
        pytest.param("LVM-abc", "none\n", False, id="no multipath"),
    ],
)
def test_multipath_orders_requests_itself_or_leaves_it_to_its_paths(
    host: FakeHost, uuid: str, schedulers: str, at_the_top: bool
) -> None:
    paths = [host.disk("sdb", "8:16"), host.disk("sdc", "8:32")]
    multipath = host.stacked("dm-0", "253:0", "dm", paths)
    host.file(f"{multipath}/dm/uuid", uuid)
    host.file(f"{multipath}/queue/scheduler", schedulers)
    volume = host.stacked("dm-1", "253:1", "dm", [multipath])
    host.place("/var/lib/etcd", (253, 1))
    stack = topology.find(host, "/var/lib/etcd")
    assert (stack.mounted, stack.leaves) == (volume, (multipath,) if at_the_top else tuple(paths))


def test_bcache_has_a_cache_beside_its_backing_disk(host: FakeHost) -> None:
    backing, cache = (
        host.disk("sdb", "8:16"),
        host.disk("nvme0n1", "259:0", bus="nvme", partitions={"nvme0n1p1": "259:1"}),
    )
    bcache = host.stacked("bcache0", "252:0", "bcache", [backing])
    host.directory(f"{cache}/nvme0n1p1/bcache")
    host.link("/sys/fs/bcache/0a1b/cache0", f"{cache}/nvme0n1p1/bcache")
    host.file("/sys/fs/bcache/0a1b/cache_available_percent", "90\n")
    host.link(f"{bcache}/bcache/cache", "/sys/fs/bcache/0a1b")
    host.place("/var/lib/etcd", (252, 0))
    stack = topology.find(host, "/var/lib/etcd")
    assert (stack.mounted, stack.leaves) == (bcache, (backing, cache))


def test_loop_device_is_a_leaf(host: FakeHost) -> None:
    loop = host.loop("loop3", "7:3", "/images/etcd.img")
    host.place("/var/lib/etcd", (7, 3))
    assert topology.find(host, "/var/lib/etcd").leaves == (loop,)


@pytest.mark.parametrize(
    ("kind", "source", "why"),
    [
        ("tmpfs", "tmpfs", "in memory"),
        ("nfs4", "server:/export", "on the network"),
        ("zfs", "tank/etcd", "ZFS pool"),
        ("fuse.sshfs", "there:/", "no block device"),
    ],
)
def test_file_systems_without_a_disk(host: FakeHost, kind: str, source: str, why: str) -> None:
    host.place("/var/lib/etcd", (0, 44))
    host.file(
        "/proc/self/mountinfo",
        f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:44 / /var/lib/etcd rw - {kind} {source} rw\n",
    )
    stack = topology.find(host, "/var/lib/etcd")
    assert stack.leaves == () and stack.mounted == ""
    assert f"{kind}, mounted at /var/lib/etcd" in stack.nowhere and why in stack.nowhere


def test_overlay_follows_its_upper_layer(host: FakeHost) -> None:
    host.place("/merged", (0, 50))
    host.directory("/var/lib/upper")
    line = "40 22 0:50 / /merged rw - overlay overlay rw,lowerdir=/a,upperdir=/var/lib/upper,workdir=/w\n"
    host.file("/proc/self/mountinfo", f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n{line}")
    assert topology.find(host, "/merged").leaves == (SDA,)


def test_overlay_of_a_container_has_its_upper_layer_elsewhere(host: FakeHost) -> None:
    host.devices = {"/": (0, 50)}
    host.file("/proc/self/mountinfo", "40 22 0:50 / / rw - overlay overlay rw,lowerdir=/a,upperdir=/engine/upper\n")
    assert "upper layer is not in sight" in topology.find(host, "/var/lib/etcd").nowhere


def test_btrfs_lists_its_devices(host: FakeHost) -> None:
    first = host.disk("sdb", "8:16", partitions={"sdb1": "8:17"})
    second = host.disk("sdc", "8:32")
    host.place("/var/lib/etcd", (0, 60))
    host.file("/dev/sdb1")
    host.link("/sys/fs/btrfs/0a1b/devices/sdb1", f"{first}/sdb1")
    host.link("/sys/fs/btrfs/0a1b/devices/sdc", second)
    host.link("/sys/fs/btrfs/ffff/devices/sda", SDA)
    host.file("/proc/self/mountinfo", "50 22 0:61 /@etcd /var/lib/etcd rw - btrfs /dev/sdb1 rw,subvol=/@etcd\n")
    stack = topology.find(host, "/var/lib/etcd")
    assert (stack.mounted, stack.leaves, stack.btrfs) == ("", (first, second), "0a1b")


def test_device_that_sysfs_does_not_show(host: FakeHost) -> None:
    host.place("/var/lib/etcd", (252, 7))
    assert topology.find(host, "/var/lib/etcd").nowhere == "sysfs does not show its device, 252:7"


def _mount(point: str, device: tuple[int, int], source: str = "x") -> Mount:
    return Mount(device, point, "tmpfs", source, ())


def test_longest_mount_point_decides_and_the_last_of_two() -> None:
    mounts = [
        _mount("/", (0, 1)),
        _mount("/var", (0, 2)),
        _mount("/var/lib", (0, 3), "below"),
        _mount("/var/lib", (0, 3), "above"),
    ]
    found = topology.mount_of(mounts, "/var/lib/etcd", (0, 3))
    assert found is not None and found.source == "above"
    assert topology.mount_of(mounts, "/variable", (0, 1)) == mounts[0]


def test_mount_hidden_by_a_later_one_above_it_is_not_taken() -> None:
    mounts = [_mount("/", (0, 1)), _mount("/var/lib/etcd", (0, 2)), _mount("/var", (0, 3))]
    assert topology.mount_of(mounts, "/var/lib/etcd", (0, 3)) == mounts[2]


@settings(deadline=None)
@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Z", "Cc"]), min_size=1))
def test_mount_points_survive_the_kernels_escapes(name: str) -> None:
    special = {" ", "\t", "\n", "\\", "#"}
    point = "/" + "".join(f"\\{ord(each):03o}" if each in special or each < " " else each for each in name)
    (mount,) = topology.parse_mountinfo(f"22 1 0:21 / {point} rw,noatime shared:1 master:2 - tmpfs none rw,size=1k\n")
    assert (mount.point, mount.kind, mount.options) == (f"/{name}", "tmpfs", ("rw", "size=1k"))
