# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Udev rules of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._block import foreign_rules, udev
from ansible_collections.kubetune.control_plane.plugins.module_utils._block.device import Identity
from ansible_collections.kubetune.control_plane.plugins.module_utils._block.foreign_rules import Setter, Token
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.module_utils.fake_host import FakeHost, ordinary_host

SDA = "/sys/devices/pci0000:00/scsi0/block/sda"
LATE = "/etc/udev/rules.d/99-zz.rules"
#: openSUSE's way: everything that is no disk jumps out.
SUSE = """ACTION!="add", GOTO="end"
SUBSYSTEM!="block", GOTO="end"
ENV{DEVTYPE}=="partition", GOTO="end"
KERNEL=="loop*", GOTO="loops"
ATTR{queue/rotational}!="0", ATTR{queue/scheduler}="bfq", GOTO="end"
ATTR{queue/scheduler}="none"
LABEL="loops", ATTR{queue/scheduler}="kyber"
LABEL="end"
"""


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return ordinary_host(tmp_path)


def test_rules_are_split_into_their_expressions() -> None:
    text = (
        '# comment\n\nACTION=="add|change", KERNEL!="sd*", \\\n  ATTR{queue/scheduler}="bfq", RUN+="/bin/x \\"y\\""\n'
    )
    (rule,) = foreign_rules.parse(text, "f")
    assert rule.line == 3
    assert rule.tokens == (
        Token("ACTION", "", "==", "add|change"),
        Token("KERNEL", "", "!=", "sd*"),
        Token("ATTR", "queue/scheduler", "=", "bfq"),
        Token("RUN", "", "+=", '/bin/x \\"y\\"'),
    )


@settings(deadline=None)
@given(st.text())
def test_whatever_a_file_holds_it_is_read(text: str) -> None:
    assert all(
        rule.tokens and rule.line <= text.count("\n") + len(text.splitlines())
        for rule in foreign_rules.parse(text, "f")
    )


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Zl", "Zp", "Cc", "Cs"]), min_size=1))
def test_our_own_rules_are_read_as_they_were_meant(value: str) -> None:
    text = udev.render([udev.Rule(Identity("ENV{ID_WWN}", value), {"scheduler": "none", "read_ahead_kb": "1024"})])
    (rule,) = foreign_rules.parse(text, "f")
    assert [each.value for each in rule.tokens if each.operator == "="] == ["none", "1024"]


@pytest.mark.parametrize(
    ("rule", "certain"),
    [
        ('ATTR{queue/scheduler}="bfq"', True),
        ('KERNEL=="sd[a-z]", ATTR{queue/rotational}=="0", ATTR{queue/scheduler}="bfq"', True),
        ('ENV{ID_WWN}=="0x5*", ENV{ID_BUS}!="usb", ATTR{queue/scheduler}:="bfq"', True),
        ('SUBSYSTEMS=="scsi", ATTR{queue/scheduler}="bfq"', False),
        ('IMPORT{program}="/bin/x", ATTR{queue/scheduler}="bfq"', False),
        ('TEST=="queue/rotational", ATTR{queue/scheduler}="bfq"', False),
        ('ACTION=="remove", ATTR{queue/scheduler}="bfq"', None),
        ('KERNEL=="nvme*|vd*", ATTR{queue/scheduler}="bfq"', None),
        ('ENV{DEVTYPE}!="disk", ATTR{queue/scheduler}="bfq"', None),
        ('ENV{ID_WWN}=="0x6*", ATTR{queue/scheduler}="bfq"', None),
        ('ATTR{queue/scheduler}=="bfq"', None),
        ('ATTR{queue/nr_requests}="bfq"', None),
    ],
)
def test_rules_that_set_it(host: FakeHost, rule: str, certain: bool | None) -> None:
    host.file(LATE, rule + "\n")
    expected = [] if certain is None else [Setter(LATE, 1, "bfq", certain)]
    assert foreign_rules.setters(host, SDA, "scheduler") == expected


def test_without_udev_nothing_is_known_of_its_properties(host: FakeHost) -> None:
    Path(host.locate("/run/udev/data/b8:0")).unlink()
    host.file(LATE, 'ENV{ID_WWN}=="0x6*", ATTR{queue/scheduler}="bfq"\n')
    assert foreign_rules.setters(host, SDA, "scheduler") == [Setter(LATE, 1, "bfq", False)]


def test_only_later_files_count_and_masked_ones_do_not(host: FakeHost) -> None:
    for name in ("60-io-scheduler", "99-kubetune-block", "99-systemd"):
        host.file(f"/usr/lib/udev/rules.d/{name}.rules", 'ATTR{queue/scheduler}="bfq"\n')
    found = foreign_rules.setters(host, SDA, "scheduler")
    assert [each.file for each in found] == ["/usr/lib/udev/rules.d/99-systemd.rules"]
    host.file("/etc/udev/rules.d/99-systemd.rules")
    assert foreign_rules.setters(host, SDA, "scheduler") == []


def test_jumps_are_followed(host: FakeHost) -> None:
    host.file(LATE, SUSE)
    assert foreign_rules.setters(host, SDA, "scheduler") == [
        Setter(LATE, 6, "none", True),
        Setter(LATE, 7, "kyber", True),
    ]
    host.file(f"{SDA}/queue/rotational", "1\n")
    assert foreign_rules.setters(host, SDA, "scheduler") == [Setter(LATE, 5, "bfq", True)]


def test_a_jump_that_may_be_taken_makes_the_rest_uncertain(host: FakeHost) -> None:
    host.file(
        LATE, 'DRIVERS=="x", GOTO="end"\nATTR{queue/scheduler}="bfq"\nLABEL="end", ATTR{queue/scheduler}="none"\n'
    )
    assert foreign_rules.setters(host, SDA, "scheduler") == [
        Setter(LATE, 2, "bfq", False),
        Setter(LATE, 3, "none", True),
    ]


@pytest.mark.parametrize(
    ("program", "attribute"),
    [
        ("/bin/sh -c 'echo none > /sys/block/%k/queue/scheduler'", "scheduler"),
        ("/sbin/blockdev --setra 16384 /dev/%k", "read_ahead_kb"),
        ("/bin/sh -c 'echo 4096 > /sys%p/bdi/read_ahead_kb'", "read_ahead_kb"),
        ("/sbin/hdparm -B 254 -a 512 /dev/%k", "read_ahead_kb"),
    ],
)
def test_programs_run_after_all_rules(host: FakeHost, program: str, attribute: str) -> None:
    """Even those of files that come before ours."""
    early = "/usr/lib/udev/rules.d/60-x.rules"
    host.file(early, f'KERNEL=="sd*", RUN+="{program}"\n')
    assert foreign_rules.setters(host, SDA, attribute) == [Setter(early, 1, None, True)]
    other = "scheduler" if attribute == "read_ahead_kb" else "read_ahead_kb"
    assert foreign_rules.setters(host, SDA, other) == []


def test_read_ahead_has_two_names(host: FakeHost) -> None:
    host.file(LATE, 'ATTR{bdi/read_ahead_kb}="4096"\nATTR{queue/read_ahead_kb}="128"\n')
    assert [each.value for each in foreign_rules.setters(host, SDA, "read_ahead_kb")] == ["4096", "128"]
