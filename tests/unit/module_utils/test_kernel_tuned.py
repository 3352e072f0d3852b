# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tuned sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._kernel import services, tuned
from ansible_collections.kubetune.control_plane.plugins.module_utils._kernel.tuned import Active, Option, Unit
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.module_utils.fake_host import FakeHost

#: The parts of tuned 2.27's own profiles that matter here.
THROUGHPUT = """[main]
summary=Broadly applicable tuning
[variables]
thunderx_cpuinfo_regex=CPU part
[vm]
dirty_bytes = 40%
dirty_background_bytes = 10%
[vm.thunderx]
type=vm
uname_regex=aarch64
cpuinfo_regex=${thunderx_cpuinfo_regex}
transparent_hugepages=never
[disk]
readahead=>4096
[sysctl]
vm.swappiness=10 # low
net.core.somaxconn=>2048
"""
VIRTUAL_GUEST = "[main]\ninclude=throughput-performance\n[vm]\ndirty_bytes = 30%\n[sysctl]\nvm.swappiness = 30\n"
LIBRARY = "/usr/lib/tuned/profiles"


def with_tuned(host: FakeHost, profile: str = "virtual-guest") -> None:
    """tuned as RHEL has it in a virtual machine."""
    host.process(700, "tuned", 1024, 524288, "/system.slice/tuned.service")
    host.file(tuned.ACTIVE_FILE, f"{profile}\n")
    host.file(tuned.MODE_FILE, "auto\n")
    host.file(f"{LIBRARY}/throughput-performance/tuned.conf", THROUGHPUT)
    host.file(f"{LIBRARY}/virtual-guest/tuned.conf", VIRTUAL_GUEST)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def active(host: FakeHost) -> Active:
    found = tuned.active(host)
    assert found is not None
    return found


def options(found: Active) -> dict[str, str]:
    return {f"{unit.kind} {each.name}": each.value for unit in found.units for each in unit.options}


def test_a_tuned_that_does_nothing_is_none(host: FakeHost) -> None:
    with_tuned(host)
    assert tuned.active(host) is not None
    Path(host.locate("/proc/700/comm")).unlink()
    assert tuned.active(host) is None
    host.file("/etc/systemd/system/multi-user.target.wants/tuned.service")
    assert tuned.active(host) is not None


def test_included_profiles_are_merged(host: FakeHost) -> None:
    with_tuned(host)
    found = active(host)
    assert (found.profile, found.automatic, found.unread, found.power_profiles) == ("virtual-guest", True, (), False)
    assert options(found) == {
        "vm dirty_background_bytes": "10%",
        "vm dirty_bytes": "30%",
        "vm transparent_hugepages": "never",
        "disk readahead": ">4096",
        "sysctl net.core.somaxconn": ">2048",
        "sysctl vm.swappiness": "30",
    }
    files = {each.name: each.file for unit in found.units for each in unit.options}
    assert files["vm.swappiness"] == f"{LIBRARY}/virtual-guest/tuned.conf"
    assert files["readahead"] == f"{LIBRARY}/throughput-performance/tuned.conf"
    assert [unit.conditional for unit in found.units] == [False, True, False, False]


def test_a_profile_of_the_administrator_comes_first_and_may_include_its_namesake(host: FakeHost) -> None:
    with_tuned(host)
    host.file(
        "/etc/tuned/virtual-guest/tuned.conf",
        "[main]\ninclude=virtual-guest\n[vm]\ndrop=dirty_bytes\n[disk]\nreplace=1\nelevator=none\n[sysctl]\nenabled=false\n",
    )
    assert options(active(host)) == {
        "vm dirty_background_bytes": "10%",
        "vm transparent_hugepages": "never",
        "disk elevator": "none",
    }


def test_several_profiles_variables_and_priorities(host: FakeHost) -> None:
    with_tuned(host, "virtual-guest mine")
    host.file(
        "/etc/tuned/mine/tuned.conf",
        "[variables]\ninclude=/etc/tuned/mine/v.conf\n[disk]\npriority=-5\nreadahead=${ra}\n",
    )
    host.file("/etc/tuned/mine/v.conf", "ra=${base}\nbase=512\n")
    found = active(host)
    assert options(found)["disk readahead"] == "512" and found.units[0].kind == "disk"


def test_what_the_files_do_not_tell_is_said(host: FakeHost) -> None:
    with_tuned(host, "odd none broken")
    host.file("/etc/tuned/odd/tuned.conf", "[main]\ninclude=${f:virt_check:virtual-guest:balanced}, -maybe\n")
    host.file("/etc/tuned/broken/tuned.conf", "no section\n")
    first, second, third = active(host).unread
    assert "odd/tuned.conf decides when it is loaded what it includes" in first
    assert second == "there is no profile none" and "broken/tuned.conf cannot be parsed" in third


def test_main_file(host: FakeHost) -> None:
    with_tuned(host)
    host.file("/opt/profiles/virtual-guest/tuned.conf", "[sysctl]\nvm.swappiness=3\n")
    host.file(tuned.MAIN_FILE, "# x\nreapply_sysctl = 0\nprofile_dirs = /usr/lib/tuned,/opt/profiles\n")
    found = active(host)
    assert options(found) == {"sysctl vm.swappiness": "3"} and not found.reapplies("vm.swappiness", 0)
    host.file(tuned.MAIN_FILE, "reapply_sysctl = True\nreapply_sysctl_exclude = kernel.*,vm.swap*\n")
    found = active(host)
    last = len(found.units)
    assert not found.reapplies("vm.swappiness", 0)
    assert found.reapplies("vm.dirty_ratio", last - 1) and not found.reapplies("vm.dirty_ratio", last)


@pytest.mark.parametrize(
    ("value", "present", "result"),
    [
        ("10", "60", "10"),
        ('"4096 87380 16777216"', "x", "4096 87380 16777216"),
        (">4096", "1024", "4096"),
        (">4096", "8192", None),
        ("<10", "60", "10"),
        ("<10", "5", None),
        (">much", "5", "much"),
    ],
)
def test_assignments(value: str, present: str, result: str | None) -> None:
    assert tuned.assigned(value, present) == result


@pytest.mark.parametrize(
    ("kind", "name", "value", "result"),
    [
        ("sysctl", "vm/swappiness", "5", ("vm.swappiness", "5")),
        ("vm", "dirty_bytes", "15%", ("vm.dirty_ratio", "15")),
        ("vm", "dirty_background_bytes", "1048576", ("vm.dirty_background_bytes", "1048576")),
        ("vm", "dirty_ratio", "15", ("vm.dirty_ratio", "15")),
        ("vm", "transparent_hugepages", "never", None),
        ("disk", "readahead", "5", None),
    ],
)
def test_kernel_values(kind: str, name: str, value: str, result: tuple[str, str] | None) -> None:
    assert tuned.kernel_value(Unit(kind), Option(name, value, "f")) == result


@pytest.mark.parametrize(
    ("kind", "devices", "name", "value", "attribute", "result"),
    [
        ("disk", "*", "readahead", ">4096", "read_ahead_kb", ">4096"),
        ("disk", "*", "readahead", ">8192 s", "read_ahead_kb", ">4096"),
        ("disk", "sd*, !sda", "readahead", "1", "read_ahead_kb", None),
        ("disk", "!sdb", "elevator", "none", "scheduler", "none"),
        ("disk", "*", "elevator", "none", "read_ahead_kb", None),
        ("sysfs", "*", "/sys/block/sd*/queue/scheduler", "bfq", "scheduler", "bfq"),
        ("sysfs", "*", "/sys/block/sdb/queue/scheduler", "bfq", "scheduler", None),
    ],
)
def test_queue_values(kind: str, devices: str, name: str, value: str, attribute: str, result: str | None) -> None:
    unit = Unit(kind, devices=devices)
    assert tuned.queue_value(unit, Option(name, value, "f"), f"/sys/block/sda/queue/{attribute}") == result


@settings(deadline=None)
@given(st.text())
def test_whatever_a_profile_holds_it_is_read_or_named(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    host = FakeHost(tmp_path_factory.mktemp("host"))
    with_tuned(host, "mine")
    host.file("/etc/tuned/mine/tuned.conf", text)
    found = active(host)
    assert all(each.startswith("/etc/tuned/mine/tuned.conf ") or "no profile" in each for each in found.unread)


def test_names_of_processes_are_cut(host: FakeHost) -> None:
    host.process(5, "a-long-name-of-", 1, 1)
    assert services.at_work(host, "a-long-name-of-a-service") and not services.at_work(host, "a-long-name")
