# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which file decides on a value: our reading of them, and the one of the real systemd-sysctl."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._kernel import sysctl, sysctl_files
from ansible_collections.kubetune.control_plane.plugins.module_utils._kernel.sysctl_files import Assignment
from ansible_collections.kubetune.control_plane.plugins.module_utils._kernel.tree import Tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.module_utils.fake_host import FakeHost

NAMES = st.from_regex(r"[a-z]{2,8}(\.[a-z_0-9]{1,8}){1,3}", fullmatch=True)


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.from_regex(r"[0-9]{1,9}( [0-9]{1,9}){0,2}", fullmatch=True)))
def test_what_is_rendered_is_what_is_read(values: dict[str, str]) -> None:
    text = sysctl.render(values)
    assert {each.name: each.value for each in sysctl_files.parse(text, "f")} == values
    assert text == sysctl.render(dict(reversed(list(values.items()))))


@settings(deadline=None)
@given(st.text())
def test_whatever_a_file_holds_it_is_read(text: str) -> None:
    for each in sysctl_files.parse(text, "f"):
        assert each.value is None or each.value == each.value.strip()


def test_lines() -> None:
    text = "# vm.a = 1\n; vm.b = 1\n\nnonsense\nvm/dirty_ratio=10\n-vm.swappiness =  5 \nnet.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.all\n"
    assert [(each.name, each.value) for each in sysctl_files.parse(text, "f")] == [
        ("vm.dirty_ratio", "10"),
        ("vm.swappiness", "5"),
        ("net.ipv4.conf.*.rp_filter", "2"),
        ("net.ipv4.conf.all", None),
    ]


def test_files_in_their_real_order(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    host.file("/etc/sysctl.d/99-sysctl.conf", "vm.swappiness = 10\n")
    host.file(sysctl.OWN_FILE, "vm.swappiness = 2\n")
    host.file("/usr/lib/sysctl.d/zz.conf", "vm.swappiness = 20\n")
    host.file("/run/sysctl.d/zz.conf", "vm.a = 30\n")
    host.file("/usr/lib/sysctl.d/99-zzz.conf", "vm.dirty_ratio = 40\n")
    host.file("/etc/sysctl.d/zzz.txt", "vm.swappiness = 50\n")
    host.file("/etc/sysctl.conf", "vm.swappiness = 60\n")
    assert sysctl_files.at_boot(host, {sysctl.OWN_FILE: "vm.swappiness = 1\n"}) == [
        Assignment(sysctl.OWN_FILE, "vm.swappiness", "1"),
        Assignment("/usr/lib/sysctl.d/99-zzz.conf", "vm.dirty_ratio", "40"),
        Assignment("/run/sysctl.d/zz.conf", "vm.a", "30"),
    ]


@pytest.mark.parametrize(
    ("assignments", "winner"),
    [
        ([("vm.dirty_ratio", "15")], 0),
        ([("vm.dirty_ratio", "15"), ("vm.dirty_bytes", "1073741824")], 1),
        ([("vm.dirty_ratio", "15"), ("vm.dirty_bytes", "0")], 0),
        ([("vm.dirty_ratio", "15"), ("vm.dirty_background_ratio", "40")], 0),
        ([("vm.dirty_ratio", "15"), ("vm.dirty_*", "40")], 1),
        ([("vm.*", "40")], 0),
        ([("*.dirty_ratio", "40")], 0),
        ([("vm*", "40")], None),
        ([("vm.dirty_ratio", None), ("vm.dirty_r*", "40")], None),
    ],
)
def test_the_last_write_is_in_force(assignments: list[tuple[str, str | None]], winner: int | None) -> None:
    order = [Assignment("f", name, value) for name, value in assignments]
    assert sysctl_files.in_force("vm.dirty_ratio", order) == (None if winner is None else order[winner])


# The real thing: in a mount namespace of its own, with directories and a /proc/sys of ordinary files.

PROGRAM = Path("/usr/lib/systemd/systemd-sysctl")
SCRIPT = """
set -e
mount -t tmpfs none /run
mkdir -p /run/sysctl.d
for each in etc/sysctl.d run/sysctl.d usr/lib/sysctl.d proc/sys; do mount --bind "$1/$each" "/$each"; done
SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console exec "$2"
"""
KEYS = (
    "vm.dirty_ratio",
    "vm.dirty_bytes",
    "vm.swappiness",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.lo.rp_filter",
)
LINES = st.one_of(
    st.tuples(
        st.sampled_from(
            [
                *KEYS,
                "vm/swappiness",
                "net/ipv4/conf/all/rp_filter",
                "-vm.dirty_ratio",
                "net.ipv4.conf.*.rp_filter",
                "vm.s*",
            ]
        ),
        st.sampled_from(["=", " = "]),
        st.sampled_from(["1", "2", " 1 "]),
    ).map("".join),
    st.sampled_from(["-vm.swappiness", "-net.ipv4.conf.lo.rp_filter", "# vm.swappiness = 1", "nonsense", ""]),
)
FILES = st.dictionaries(
    st.tuples(st.sampled_from(["etc", "run", "usr/lib"]), st.sampled_from(["10-a", "50-b", "99-zz", "99-zzz"])),
    st.lists(LINES, max_size=4),
    max_size=6,
)


def _namespaces() -> bool:
    return (
        PROGRAM.exists()
        and os.geteuid() == 0
        and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0
    )


@pytest.mark.skipif(not _namespaces(), reason="needs systemd-sysctl, root and a mount namespace")
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=FILES)
def test_systemd_itself_comes_to_the_same(
    files: dict[tuple[str, str], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("host")
    for directory in ("etc", "run", "usr/lib"):
        (root / directory / "sysctl.d").mkdir(parents=True)
    for name in KEYS:
        path = root / sysctl.path_of(name).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for (directory, file), lines in files.items():
        (root / directory / "sysctl.d" / f"{file}.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = ["unshare", "-m", "sh", "-c", SCRIPT, "sh", str(root), str(PROGRAM)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # 1 where a line made no sense; every file was read then, too.
    assert done.returncode in (0, 1) and done.stderr.count("Parsing ") == len({name for _, name in files})
    written = [
        (sysctl.dotted(path), value)
        for path, value in re.findall(r"^Setting '/proc/sys/([^']+)' to '([^']*)'$", done.stderr, re.MULTILINE)
    ]
    order = sysctl_files.at_boot(Tree(str(root)), {})
    for name in KEYS:
        ours, face = sysctl_files.in_force(name, order), sysctl.other_face(name)
        theirs = [(each, value) for each, value in written if each in (name, face)]
        assert (ours and (sysctl_files.face_of(ours, name), ours.value)) == (theirs[-1] if theirs else None)
