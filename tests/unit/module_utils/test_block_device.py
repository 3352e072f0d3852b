# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices: classes, schedulers, identities, and the rules written from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._block import device, udev
from ansible_collections.kubetune.control_plane.plugins.module_utils._block.device import Identity
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.module_utils.fake_host import FakeHost


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


@pytest.mark.parametrize(
    ("text", "names", "active"),
    [
        ("none [mq-deadline] kyber bfq\n", ("none", "mq-deadline", "kyber", "bfq"), "mq-deadline"),
        ("[none] mq-deadline\n", ("none", "mq-deadline"), "none"),
        ("none\n", ("none",), "none"),
        ("", (), None),
    ],
)
def test_schedulers(text: str, names: tuple[str, ...], active: str | None) -> None:
    assert device.parse_schedulers(text) == (names, active)


@settings(deadline=None)
@given(st.lists(st.from_regex(r"[a-z][a-z0-9-]*", fullmatch=True), min_size=2, unique=True), st.data())
def test_scheduler_at_work_is_found_wherever_it_stands(names: list[str], data: st.DataObject) -> None:
    active = data.draw(st.sampled_from(names))
    text = " ".join(f"[{name}]" if name == active else name for name in names) + " \n"
    assert device.parse_schedulers(text) == (tuple(names), active)


@pytest.mark.parametrize(("given_name", "real"), [("deadline", "mq-deadline"), ("noop", "none"), ("kyber", "kyber")])
def test_old_names(given_name: str, real: str) -> None:
    assert device.real_name(given_name) == real


@pytest.mark.parametrize(
    ("bus", "rotational", "vendor", "kind"),
    [
        ("nvme", 0, "", "nvme"),
        ("nvme-subsystem", 0, "", "nvme"),
        ("scsi", 0, "ATA     ", "ssd"),
        ("scsi", 1, "ATA     ", "rotational"),
        ("scsi", 1, "QEMU    ", "virtual"),
        ("virtio", 1, "0x1af4", "virtual"),
        ("xen", 0, "", "virtual"),
    ],
)
def test_class_comes_from_the_driver(host: FakeHost, bus: str, rotational: int, vendor: str, kind: str) -> None:
    directory = host.disk("disk", "8:0", bus=bus, rotational=rotational)
    host.file(f"{directory}/device/vendor", vendor)
    assert device.kind_of(host, directory) == kind


def test_class_of_devices_without_hardware(host: FakeHost) -> None:
    assert device.kind_of(host, host.loop("loop0", "7:0", "/i")) == "loop"
    assert device.kind_of(host, host.stacked("dm-0", "253:0", "dm", [])) == "dm"
    assert device.kind_of(host, host.stacked("zram0", "252:0", "mm_stat", [])) == "other"


def test_multipath_is_of_the_class_of_its_paths(host: FakeHost) -> None:
    multipath = host.stacked("dm-0", "253:0", "dm", [host.disk("sdb", "8:16", rotational=1)])
    host.file(f"{multipath}/dm/uuid", "mpath-36001\n")
    host.file(f"{multipath}/queue/scheduler", "[none] mq-deadline\n")
    found = device.read(host, multipath)
    assert (found.kind, found.multipath, str(found.identities[0])) == ("rotational", True, "ENV{DM_UUID}=mpath-36001")


def test_head_of_nvme_multipath(host: FakeHost) -> None:
    head = host.disk("nvme0n1", "259:0", bus="nvme-subsystem", schedulers="")
    found = device.read(host, head)
    assert (found.kind, found.multipath, found.scheduler, found.schedulers) == ("nvme", True, None, ())


def test_hardware_queues(host: FakeHost) -> None:
    disk = host.disk("vda", "254:0", bus="virtio")
    assert device.read(host, disk).hardware_queues == 0
    host.directory(f"{disk}/mq/0")
    host.directory(f"{disk}/mq/1")
    assert device.read(host, disk).hardware_queues == 2


def test_identity_of_a_stacked_device_is_its_own(host: FakeHost) -> None:
    """udev may tell a member the UUID of its array, and an array the serial number of nobody."""
    member = host.disk("sdb", "8:16", udev={"MD_UUID": "a:b", "ID_SERIAL": "s"})
    array = host.stacked("md0", "9:0", "md", [member])
    host.udev_data("9:0", {"MD_UUID": "a:b"})
    assert str(device.identities_of(host, member)[0]) == "ENV{ID_SERIAL}=s"
    identity = device.identities_of(host, array)[0]
    assert str(identity) == "ENV{MD_UUID}=a:b"
    assert 'TEST=="md", ENV{MD_UUID}=="a:b", ATTR{queue/read_ahead_kb}="1024"' in udev.render(
        [udev.Rule(identity, {"read_ahead_kb": "1024"})]
    )


def test_extended_wwn_comes_first(host: FakeHost) -> None:
    """ID_WWN alone is shared by the LUNs of one array."""
    udev_data = {"ID_SERIAL": "s", "ID_WWN": "0x6000", "ID_WWN_WITH_EXTENSION": "0x60000001", "ID_PATH": "pci-1"}
    found = device.identities_of(host, host.disk("sda", "8:0", udev=udev_data))
    assert [str(each) for each in found] == [
        "ENV{ID_WWN_WITH_EXTENSION}=0x60000001",
        "ENV{ID_WWN}=0x6000",
        "ENV{ID_SERIAL}=s",
        "ENV{ID_PATH}=pci-1",
        "KERNEL=sda",
    ]
    assert [each.stable for each in found] == [True, True, True, False, False]


def test_identity_without_udev_comes_from_sysfs(host: FakeHost) -> None:
    nvme = host.disk("nvme0n1", "259:0", bus="nvme")
    host.file(f"{nvme}/wwid", "eui.0025388b0\n")
    virtio = host.disk("vda", "254:0", bus="virtio")
    host.file(f"{virtio}/serial", "disk-1")
    assert device.identities_of(host, nvme)[0] == Identity("ATTR{wwid}", "eui.0025388b0")
    assert device.identities_of(host, virtio)[0] == Identity("ATTR{serial}", "disk-1")
    loop = device.identities_of(host, host.loop("loop4", "7:4", "/images/a b.img"))
    assert loop[0] == Identity("ATTR{loop/backing_file}", "/images/a b.img", stable=False)


def test_modules_that_could_be_loaded(host: FakeHost) -> None:
    host.file("/proc/sys/kernel/osrelease", "6.1.0\n")
    host.file("/lib/modules/6.1.0/modules.alias", "alias bfq-iosched bfq\n")
    host.file("/lib/modules/6.1.0/modules.dep", "kernel/block/kyber-iosched.ko:\n")
    assert [name for name in ("bfq", "kyber", "cfq") if device.can_load(host, name)] == ["bfq", "kyber"]


def test_rules_are_sorted_and_keep_the_order_of_attributes() -> None:
    rules = [
        udev.Rule(Identity("ENV{ID_WWN}", "0x5"), {"scheduler": "mq-deadline", "read_ahead_kb": "1024"}),
        udev.Rule(Identity("ENV{DM_UUID}", "LVM-abc"), {"read_ahead_kb": "1024"}),
    ]
    text = udev.render(rules)
    assert text == udev.render(reversed(rules))
    assert text.splitlines()[1:] == [
        'ACTION!="remove", SUBSYSTEM=="block", ENV{DEVTYPE}=="disk", ENV{DM_UDEV_DISABLE_OTHER_RULES_FLAG}!="1", '
        'ENV{DM_UUID}=="LVM-abc", ATTR{queue/read_ahead_kb}="1024"',
        'ACTION!="remove", SUBSYSTEM=="block", ENV{DEVTYPE}=="disk", ENV{ID_WWN}=="0x5", '
        'ATTR{queue/scheduler}="mq-deadline", ATTR{queue/read_ahead_kb}="1024"',
    ]


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\n\0"), min_size=1))
def test_a_value_cannot_break_out_of_its_rule(value: str) -> None:
    line = udev.render([udev.Rule(Identity("ATTR{serial}", value), {"scheduler": "none"})]).split("\n")[1]
    matched = line.split('ATTR{serial}=="', 1)[1].rsplit('", ATTR{queue/scheduler}="none"', 1)[0]
    assert len(matched) == len(value)
    assert not set(matched) & set('"\\[]*|')
