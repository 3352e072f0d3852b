# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever else sets what we set is named, with the file, the value and a way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._host_tuning.run import run
from ansible_collections.kubetune.control_plane.plugins.module_utils._kernel import tuned

from tests.unit.module_utils.fake_host import DEFAULTS, FakeHost, ordinary_host
from tests.unit.module_utils.test_kernel_tuned import LIBRARY, with_tuned


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return ordinary_host(tmp_path)


def warnings(host: FakeHost, **options: Any) -> dict[str, str]:
    """Item -> reason."""
    outcome = run(host, {**DEFAULTS, **options}, execute=host.execute)
    return {each["item"]: each["reason"] for each in outcome.report if each["verdict"] == "warning"}


def test_host_without_managers(host: FakeHost) -> None:
    assert warnings(host) == {}


def test_tuned_as_rhel_has_it_in_a_virtual_machine(host: FakeHost) -> None:
    """Its kernel values yield to /etc/sysctl.d; the read-ahead of its disks does not."""
    with_tuned(host)
    found = warnings(host)
    assert set(found) == {"tuned", "sda read_ahead_kb"}
    assert found["tuned"] == "tuned chose this profile itself, and sets other values than this role: each is named"
    for part in (
        f"tuned's profile virtual-guest has readahead = >4096 in {LIBRARY}/throughput-performance/tuned.conf",
        "or the disk appears",
        "include=virtual-guest and [disk] readahead=1024",
        "host_tuning_read_ahead_kb: 4096",
    ):
        assert part in found["sda read_ahead_kb"]
    assert warnings(host, read_ahead_kb=4096) == {}
    outcome = run(host, {**DEFAULTS, "read_ahead_kb": 4096}, execute=host.execute)
    (itself,) = [each for each in outcome.report if each["item"] == "tuned"]
    assert (itself["verdict"], itself["value"]) == ("already_right", "virtual-guest")
    assert warnings(host, profile="upstream") == {}


def test_tuned_that_does_not_yield(host: FakeHost) -> None:
    with_tuned(host)
    host.file(tuned.MAIN_FILE, "reapply_sysctl = 0\n")
    found = warnings(host)
    assert "set reapply_sysctl = 1 in /etc/tuned/tuned-main.conf" in found["vm.swappiness"]
    assert "host_tuning_sysctls: {vm.swappiness: 30}" in found["vm.swappiness"]
    assert "[vm] dirty_bytes=15%" in found["vm.dirty_ratio"] and "{vm.dirty_ratio: 30}" in found["vm.dirty_ratio"]
    assert "net.core.rmem_max" not in found


def test_tunables_after_the_kernel_values_win(host: FakeHost) -> None:
    with_tuned(host, "mine")
    host.file("/etc/tuned/mine/tuned.conf", "[sysctl]\nvm.swappiness=10\n[vm]\ndirty_bytes=1073741824\n")
    assert set(warnings(host)) == {"tuned", "vm.dirty_ratio"}


def test_elevator_of_tuned(host: FakeHost) -> None:
    with_tuned(host, "mine")
    host.file("/etc/tuned/mine/tuned.conf", "[disk]\nelevator=deadline\n")
    assert warnings(host) == {}
    host.file(
        "/etc/tuned/mine/tuned.conf",
        "[disk]\ndevices=sd*\nelevator=none\n[sysfs]\n/sys/block/*/queue/read_ahead_kb=64\n",
    )
    assert set(warnings(host)) == {"tuned", "sda scheduler", "sda read_ahead_kb"}


def test_a_value_that_stays_and_is_tuneds_needs_no_file(host: FakeHost) -> None:
    host.sysctls({"vm/swappiness": "0"})
    assert "no file of sysctl.d" in warnings(host)["vm.swappiness"]
    with_tuned(host, "mine")
    host.file("/etc/tuned/mine/tuned.conf", "[sysctl]\nvm.swappiness=0\n")
    assert "vm.swappiness" not in warnings(host)


def test_what_cannot_be_known_of_tuned_is_said(host: FakeHost) -> None:
    with_tuned(host, "mine")
    host.file("/etc/tuned/mine/tuned.conf", "[script]\nscript=x.sh\n")
    host.process(701, "tuned-ppd", 1, 1)
    assert "its section script runs programs of its own; tuned-ppd switches it" in warnings(host)["tuned"]
    host.file(tuned.ACTIVE_FILE, "")
    assert "names no profile" in warnings(host)["tuned"]


def test_others_like_tuned_are_named(host: FakeHost) -> None:
    host.file("/etc/systemd/system/multi-user.target.wants/sapconf.service")
    assert "/etc/sysconfig/sapconf" in warnings(host)["sapconf.service"]
    assert warnings(host, state="absent") == {}


def test_udev_rules_of_others(host: FakeHost) -> None:
    host.file("/usr/lib/udev/rules.d/99-zz-vendor.rules", '\nKERNEL=="sd*", ATTR{queue/scheduler}="bfq"\n')
    host.file("/usr/lib/udev/rules.d/99-zzz.rules", 'DRIVERS=="x", ATTR{bdi/read_ahead_kb}="64"\n')
    host.file("/usr/lib/udev/rules.d/60-x.rules", 'KERNEL=="sd*", RUN+="/sbin/blockdev --setra 16 /dev/%k"\n')
    outcome = run(host, DEFAULTS, execute=host.execute)
    first, second, third = [each for each in outcome.report if each["verdict"] == "warning"]
    assert first["value"] == "bfq"
    assert first["reason"].startswith("/usr/lib/udev/rules.d/99-zz-vendor.rules:2 sets scheduler to bfq after ")
    assert "whether it is for this device cannot be told" in second["reason"] and second["value"] == "64"
    assert "60-x.rules:1 runs a program that sets read_ahead_kb" in third["reason"]


def test_the_last_rule_of_others_counts(host: FakeHost) -> None:
    host.file("/usr/lib/udev/rules.d/99-y.rules", 'ATTR{queue/scheduler}="bfq"\n')
    host.file("/usr/lib/udev/rules.d/99-z.rules", 'ATTR{queue/scheduler}="deadline"\n')
    assert warnings(host) == {}
