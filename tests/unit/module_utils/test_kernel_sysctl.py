# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel values: checks, files and who overrides whom."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._kernel import sysctl


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("vm.swappiness", "/proc/sys/vm/swappiness"),
        ("net.ipv4.conf.eth0/100.forwarding", "/proc/sys/net/ipv4/conf/eth0.100/forwarding"),
    ],
)
def test_path(name: str, path: str) -> None:
    assert sysctl.path_of(name) == path


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("vm.swappiness", 1, "1"),
        ("vm.swappiness", "010", "10"),
        ("net.ipv4.tcp_rmem", "4096\t 65536  134217728", "4096 65536 134217728"),
        ("kernel.core_pattern", "|/usr/bin/catcher %p", "|/usr/bin/catcher %p"),
        ("vm.unknown", -1, "-1"),
    ],
)
def test_good_values(name: str, value: Any, text: str) -> None:
    assert sysctl.check_value(name, value) == (text, "")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("swappiness", 1, "no name of a kernel value"),
        ("vm.../../etc/passwd", 1, "no name of a kernel value"),
        ("vm.swappiness", 201, "'201' is out of range; allowed is 0 to 200"),
        ("vm.swappiness", True, "neither a number nor text"),
        ("vm.swappiness", 1.5, "neither a number nor text"),
        ("vm.swappiness", "much", "'much' is out of range"),
        ("vm.swappiness", "1 2", "has to be one number"),
        ("vm.dirty_ratio", 0, "allowed is 1 to 100 (percent of available memory)"),
        ("vm.dirty_bytes", 4096, "allowed is 8192 to"),
        ("net.ipv4.tcp_rmem", "4096 65536", "has to be 3 numbers"),
        ("net.ipv4.tcp_rmem", "4096 134217728 65536", "in rising order"),
        ("net.core.rmem_max", 2**31, "out of range"),
        ("kernel.core_pattern", "a\nb", "one line"),
        ("kernel.core_pattern", " ", "one line"),
    ],
)
def test_bad_values_are_named(name: str, value: Any, says: str) -> None:
    text, problem = sysctl.check_value(name, value)
    assert text == "" and name in problem and says in problem


@pytest.mark.parametrize(
    ("wanted", "live", "good"),
    [
        ("5", "4194304", True),
        ("a", "4194304", False),
        ("1 2", "3", False),
        ("1 2 3", "1\t2\t3", True),
        ("x", "core", True),
    ],
)
def test_unknown_values_are_judged_by_their_present_shape(wanted: str, live: str, good: bool) -> None:
    assert (sysctl.check_shape("kernel.x", wanted, live) == "") is good


@pytest.mark.parametrize(
    ("name", "live", "wanted", "keeps"),
    [
        ("net.core.rmem_max", "268435456", "134217728", True),
        ("net.core.rmem_max", "134217728", "134217728", False),
        ("net.core.rmem_max", "212992", "134217728", False),
        ("net.ipv4.tcp_rmem", "4096 131072 268435456", "4096 65536 134217728", True),
        ("net.ipv4.tcp_rmem", "4096 131072 6291456", "4096 65536 134217728", False),
        ("vm.swappiness", "0", "1", True),
        ("vm.dirty_ratio", "10", "15", True),
        ("vm.dirty_ratio", "20", "15", False),
        ("kernel.pid_max", "9", "1", False),
    ],
)
def test_what_a_profile_would_weaken_is_kept(name: str, live: str, wanted: str, keeps: bool) -> None:
    assert sysctl.keeps(name, live, wanted) is keeps


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("vm/swappiness", "vm.swappiness"),
        ("/vm//swappiness", "vm.swappiness"),
        ("net/ipv4/conf/eth0.1/x", "net.ipv4.conf.eth0/1.x"),
        ("net.ipv4.conf.eth0/1.x", "net.ipv4.conf.eth0/1.x"),
    ],
)
def test_names_with_slashes(written: str, name: str) -> None:
    assert sysctl.dotted(written) == name
