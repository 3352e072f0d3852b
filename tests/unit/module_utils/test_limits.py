# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits on open files: processes, log-ins, services."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._kernel.tree import Tree
from ansible_collections.kubetune.control_plane.plugins.module_utils._limits import logins, nofile, units
from ansible_collections.kubetune.control_plane.plugins.module_utils._limits.logins import LoginLimits
from ansible_collections.kubetune.control_plane.plugins.module_utils._limits.nofile import Nofile
from ansible_collections.kubetune.control_plane.plugins.module_utils._limits.units import UnitLimit
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.module_utils.fake_host import FakeHost

NR_OPEN = 1048576


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path)
    host.sysctls({"fs/nr_open": str(NR_OPEN)})
    return host


def test_limits_of_this_very_process() -> None:
    found = nofile.parse_process_limits(Tree().read(f"/proc/{os.getpid()}/limits") or "")
    assert found == Nofile(*resource.getrlimit(resource.RLIMIT_NOFILE))


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/containerd.service\n", "containerd.service"),
        ("12:memory:/system.slice/docker.service\n1:name=systemd:/system.slice/docker.service\n", "docker.service"),
        ("0::/kubepods/burstable/pod1/abc\n", ""),
        ("0::/user.slice/user@0.service/app.slice\n", ""),
    ],
)
def test_unit_of_a_process(cgroups: str, unit: str) -> None:
    assert nofile.unit_of(cgroups) == unit


def test_processes_by_name(host: FakeHost) -> None:
    host.process(12, "etcd", 1000, 2000)
    host.process(7, "etcd", 3000, 4000)
    host.process(8, "etcdctl", 3000, 4000)
    assert [(each.pid, each.nofile) for each in nofile.processes(host, "etcd")] == [
        (7, Nofile(3000, 4000)),
        (12, Nofile(1000, 2000)),
    ]


@pytest.mark.parametrize(
    ("capabilities", "uid_map", "expected"),
    [
        ("000001ffffffffff", "0 0 4294967295", NR_OPEN),
        ("000001fffeffffff", "0 0 4294967295", 20000),
        ("000001ffffffffff", "0 100000 65536", 20000),
    ],
)
def test_ceiling(host: FakeHost, capabilities: str, uid_map: str, expected: int) -> None:
    host.process(1, "systemd", 1024, 20000, capabilities=capabilities)
    host.file("/proc/1/uid_map", uid_map)
    assert nofile.ceiling(host) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("etcd soft nofile 1000\netcd hard nofile 2000\n", LoginLimits(1000, "f", 2000, "f")),
        ("etcd - nofile unlimited # all\n", LoginLimits(NR_OPEN, "f", NR_OPEN, "f")),
        ("etcd hard nofile 2000\netcd hard nofile 3000\n", LoginLimits(hard=3000, hard_file="f")),
        ("*  hard nofile 2000\netcd hard nproc 5\n#etcd hard nofile 9\netcd hard nofile many\n", LoginLimits()),
    ],
)
def test_login_limits(text: str, expected: LoginLimits) -> None:
    assert logins.parse(text, "etcd", NR_OPEN, "f") == expected


def test_login_files_in_their_order(host: FakeHost) -> None:
    host.file(logins.MAIN_FILE, "etcd hard nofile 1000\n")
    host.file(f"{logins.DIRECTORY}/50-a.conf", "etcd hard nofile 2000\n")
    host.file(logins.OWN_FILE, logins.render("etcd", Nofile(65536, 65536)))
    host.file(f"{logins.DIRECTORY}/zzz.conf", "etcd soft nofile 512\n")
    without, later = logins.read(host, "etcd", NR_OPEN)
    assert without == LoginLimits(512, f"{logins.DIRECTORY}/zzz.conf", 2000, f"{logins.DIRECTORY}/50-a.conf")
    assert later == LoginLimits(soft=512, soft_file=f"{logins.DIRECTORY}/zzz.conf")


def test_what_we_write_for_logins_is_what_pam_reads() -> None:
    text = logins.render("etcd", Nofile(65536, 131072))
    assert logins.parse(text, "etcd", NR_OPEN, "f") == LoginLimits(65536, "f", 131072, "f")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Service]\nLimitNOFILE=65536\n", Nofile(65536, 65536)),
        ("[Service]\nLimitNOFILE = 1024:524288\n", Nofile(1024, 524288)),
        ("[Service]\nLimitNOFILE=infinity\n", Nofile(NR_OPEN, NR_OPEN)),
        ("[Service]\nLimitNOFILE=1\nLimitNOFILE=2\nLimitNOFILE=lots\n", Nofile(2, 2)),
        ("[Unit]\nLimitNOFILE=65536\n[Service]\n#LimitNOFILE=3\nLimitNPROC=4\n", None),
        (units.render(65536), Nofile(65536, 65536)),
    ],
)
def test_unit_files(text: str, expected: Nofile | None) -> None:
    assert units.parse(text, NR_OPEN) == expected


def test_drop_ins_in_their_order(host: FakeHost) -> None:
    unit = "containerd.service"
    host.file(f"/lib/systemd/system/{unit}", "[Service]\nLimitNOFILE=1\n")
    host.file(f"/usr/lib/systemd/system/{unit}", "[Service]\nLimitNOFILE=2\n")
    host.file(f"/usr/lib/systemd/system/{unit}.d/50-x.conf", "[Service]\nLimitNOFILE=3\n")
    host.file(f"/etc/systemd/system/{unit}.d/50-x.conf", "[Service]\nLimitNOFILE=4\n")
    host.file("/etc/systemd/system/service.d/10-all.conf", "[Service]\nLimitNOFILE=5\n")
    host.file(units.drop_in(unit), units.render(65536))
    assert units.files_of(host, unit) == [
        f"/usr/lib/systemd/system/{unit}",
        "/etc/systemd/system/service.d/10-all.conf",
        f"/etc/systemd/system/{unit}.d/50-x.conf",
        units.drop_in(unit),
    ]
    assert units.limit_of(host, unit, NR_OPEN) == UnitLimit(Nofile(65536, 65536), units.drop_in(unit))
    without = units.limit_of(host, unit, NR_OPEN, without=units.drop_in(unit))
    assert without == UnitLimit(Nofile(4, 4), f"/etc/systemd/system/{unit}.d/50-x.conf")
    assert units.installed(host, *units.RUNTIMES) == [unit]


def test_a_unit_that_says_nothing_has_systemds_default(host: FakeHost) -> None:
    host.file("/lib/systemd/system/crio.service", "[Service]\n")
    assert units.limit_of(host, "crio.service", NR_OPEN) == UnitLimit(Nofile(1024, 524288))


def test_an_instance_has_the_files_of_its_template(host: FakeHost) -> None:
    host.file("/etc/systemd/system/etcd@.service", "[Service]\nLimitNOFILE=40000\n")
    host.file("/etc/systemd/system/etcd@.service.d/50-x.conf", "[Service]\nLimitNOFILE=infinity\n")
    host.file("/etc/systemd/system/etcd@events.service.d/10-y.conf", "[Service]\nLimitNOFILE=5\n")
    assert units.files_of(host, "etcd@events.service") == [
        "/etc/systemd/system/etcd@.service",
        "/etc/systemd/system/etcd@events.service.d/10-y.conf",
        "/etc/systemd/system/etcd@.service.d/50-x.conf",
    ]
    assert units.limit_of(host, "etcd@events.service", NR_OPEN).nofile == Nofile(NR_OPEN, NR_OPEN)


_LIMITS = st.one_of(st.just("infinity"), st.integers(0, NR_OPEN).map(str))
_JUNK = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])).filter(
    lambda each: "LimitNOFILE" not in each
)


@settings(deadline=None)
@given(_LIMITS, st.one_of(st.none(), _LIMITS), st.lists(_JUNK), st.sampled_from(["", " ", "\t"]))
def test_the_last_limit_of_a_unit_is_found_whatever_else_it_holds(
    soft: str, hard: str | None, junk: list[str], space: str
) -> None:
    value = soft if hard is None else f"{soft}:{hard}"
    text = "\n".join(
        [*junk, "[Service]", "LimitNOFILE=7", f"{space}LimitNOFILE{space}={space}{value}{space}", "[Install]", *junk]
    )
    number = {"infinity": NR_OPEN}
    expected = Nofile(*(number.get(each) or int(each) for each in (soft, hard or soft)))
    assert units.parse(text, NR_OPEN) == expected


@settings(deadline=None)
@given(st.text(), st.integers(1, NR_OPEN))
def test_the_last_line_of_a_login_counts_whatever_is_before(text: str, number: int) -> None:
    found = logins.parse(f"{text}\netcd - nofile {number}\n", "etcd", NR_OPEN, "f")
    assert (found.soft, found.hard) == (number, number)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_limits_of_processes(soft: int, hard: int) -> None:
    text = f"Limit Soft Hard Units\nMax open files            {soft:<20} {hard:<20} files     \nMax locked memory 1 1 bytes\n"
    assert nofile.parse_process_limits(text) == Nofile(soft, hard)
