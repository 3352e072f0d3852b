# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a path to its disks on trees that a real kernel, udev and lsblk have described: see tests/unit/fixtures/block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._block import device, topology

from tests.unit.module_utils.fake_host import FakeHost

FIXTURES = Path(__file__).parents[1] / "fixtures" / "block"
RECORDED = {path.stem: json.loads(path.read_text()) for path in sorted(FIXTURES.glob("*.json"))}


WWN, EXTENDED_WWN, SERIAL = "ENV{ID_WWN}", "ENV{ID_WWN_WITH_EXTENSION}", "ENV{ID_SERIAL}"


@dataclass(frozen=True)
class Expected:
    """What is to be found in a recording.

    Attributes:
        leaves: serial number of a disk at the bottom -> (its class, what its best identity goes by).
        mounted: what the mounted device's best identity goes by; empty for btrfs, which is on no device.
        orders_requests: the mounted device itself is what schedules.
    """

    leaves: dict[str, tuple[str, str]]
    mounted: str
    orders_requests: bool = False


EXPECTED: dict[str, Expected] = {
    # udev knows a bcache device by no identity of its own.
    "bcache": Expected({"bcache-back": ("rotational", EXTENDED_WWN), "bcache-cache": ("nvme", WWN)}, "KERNEL"),
    "btrfs": Expected({"btrfs-a": ("nvme", WWN), "btrfs-b": ("ssd", EXTENDED_WWN)}, ""),
    "crypt": Expected({"crypt-a": ("rotational", EXTENDED_WWN)}, "ENV{DM_UUID}"),
    "lvm-linear": Expected({"lvm-a": ("ssd", EXTENDED_WWN), "lvm-b": ("rotational", EXTENDED_WWN)}, "ENV{DM_UUID}"),
    "lvm-on-md-on-partitions": Expected({"deep-a": ("virtual", SERIAL), "deep-b": ("virtual", SERIAL)}, "ENV{DM_UUID}"),
    "md-raid1": Expected({"md-raid1-a": ("ssd", EXTENDED_WWN), "md-raid1-b": ("ssd", EXTENDED_WWN)}, "ENV{MD_UUID}"),
    "multipath": Expected({"multipath-a": ("ssd", "ENV{DM_UUID}")}, "ENV{DM_UUID}", orders_requests=True),
    "nvme": Expected({"nvme-a": ("nvme", WWN)}, WWN),
    "partition": Expected({"partition-a": ("virtual", SERIAL)}, SERIAL),
}


def lay_out(recorded: dict[str, Any], root: Path) -> FakeHost:
    """The recorded files, links and directories below another root."""
    host = FakeHost(root)
    for folder in recorded["folders"]:
        if folder not in recorded["links"]:
            host.directory(folder)
    for path, content in recorded["files"].items():
        host.file(path, content)
    for path, target in recorded["links"].items():
        link = Path(host.locate(path))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(host.locate(target) if target.startswith("/") else target)
    host.place(recorded["path"], tuple(recorded["device"]))
    return host


def test_each_recording_is_expected() -> None:
    assert set(RECORDED) == set(EXPECTED)


@pytest.fixture(params=sorted(RECORDED))
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host(case: str, tmp_path: Path) -> FakeHost:
    return lay_out(RECORDED[case], tmp_path)


def _walk(entries: list[dict[str, Any]], disk: str = "") -> Iterator[tuple[dict[str, Any], str]]:
    """Each entry of lsblk, with the whole disk that its queue belongs to."""
    for entry in entries:
        whole = disk if entry["type"] == "part" else entry["kname"]
        yield entry, whole
        yield from _walk(entry.get("children", []), whole)


def test_topology_finds_what_lsblk_shows(case: str, host: FakeHost) -> None:
    """lsblk is the second opinion: its roots are the disks, and it knows what is mounted where."""
    recorded, expected = RECORDED[case], EXPECTED[case]
    stack = topology.find(host, recorded["path"])
    mounted = {disk for entry, disk in _walk(recorded["lsblk"]) if recorded["path"] in entry["mountpoints"]}
    disks = {entry["kname"] for entry in recorded["lsblk"]}
    assert stack.nowhere == ""
    assert {leaf.rpartition("/")[2] for leaf in stack.leaves} == (mounted if expected.orders_requests else disks)
    if expected.mounted:
        assert {stack.mounted.rpartition("/")[2]} == mounted
    else:
        # udev has looked at one of the disks before the file system was on it.
        assert {stack.btrfs} == {entry["uuid"] for entry in recorded["lsblk"] if entry["uuid"]}


def test_queues_are_read_as_lsblk_reads_them(case: str, host: FakeHost) -> None:
    for entry, disk in _walk(RECORDED[case]["lsblk"]):
        found = device.read(host, host.resolve(f"/sys/class/block/{disk}"))
        # Linux 6.1 has a lone "none" for devices without a scheduler, which lsblk does not show.
        assert (found.read_ahead_kb, found.scheduler) == (entry["ra"], entry["sched"] or "none"), entry["kname"]


def test_classes_and_identities(case: str, host: FakeHost) -> None:
    expected = EXPECTED[case]
    stack = topology.find(host, RECORDED[case]["path"])
    disks = {entry["kname"]: entry for entry in RECORDED[case]["lsblk"]}
    found = {}
    for leaf in (device.read(host, each) for each in stack.leaves):
        # A multipath device goes by the disk that all its paths lead to.
        entry = disks.get(leaf.name) or RECORDED[case]["lsblk"][0]
        identity = leaf.identities[0]
        found[entry["serial"]] = (leaf.kind, identity.match)
        assert identity.stable
        # scsi_id's type 3 (NAA) comes before the name in a multipath device's.
        assert identity.value in (entry["wwn"], entry["serial"], f"mpath-3{str(entry['wwn']).removeprefix('0x')}")
    assert found == expected.leaves
    if expected.mounted:
        assert device.read(host, stack.mounted).identities[0].match == expected.mounted


def test_a_device_is_found_again_by_its_identity(case: str, host: FakeHost) -> None:
    stack = topology.find(host, RECORDED[case]["path"])
    for leaf in stack.leaves:
        identity = str(device.read(host, leaf).identities[0])
        assert [each.directory for each in device.find_by_identity(host, [identity])[identity]] == [leaf]
