# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML as kubeadm writes it and the kubelet reads it. `fixtures/record-kubeadm.sh` recorded what kubeadm writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _yaml
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.hosts import FIXTURES

RELEASES = sorted(path for path in FIXTURES.glob("kubeadm-*") if path.is_dir())
FILES = [path for release in RELEASES for path in sorted(release.glob("*.yaml"))]


def test_all_releases_are_here() -> None:
    versions = {path.name.removeprefix("kubeadm-").removesuffix("-extras") for path in RELEASES}
    assert versions == {"1.33.13", "1.34.4", "1.35.4", "1.36.3", "1.37.2"}
    assert len(FILES) == 4 * 2 * 5


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_kubeadm_s_own_layout(path: Path) -> None:
    """Byte for byte: a diff shows what we changed, and nothing else."""
    text = path.read_text()
    assert _yaml.dump(_yaml.load(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "1", "-7", "1e3", "1E+3", ".5", "1_000", "0777", "0o17", "0x1F", "0b11", "1:30", "190:20:30", "2026-11-24",
     "2026-11-24T10:00:00Z", "true", "Yes", "NO", "on", "y", "N", "null", "~", ".inf", ".NaN", "<<", "="],
)
def test_text_that_a_yaml_reader_takes_for_something_else_is_quoted(text: str) -> None:
    """The kubelet refuses a pod whose text comes as a number, and there is no other pod then."""
    assert _yaml.dump({"value": text}) == f'value: "{text}"\n'


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.1:6443", "100m", "1h30m", "v1.36.3", "--v=4", "yesterday", "1e", "12:60"])
def test_other_text_stays_plain(text: str) -> None:
    assert _yaml.dump({"value": text}) == f"value: {text}\n"


def test_what_was_written_by_hand_keeps_its_meaning() -> None:
    """Go reads no base 60 and no dates: 12:30 is text there, and PyYAML would make 750 of it."""
    assert _yaml.load("a: 12:30\nb: 2026-11-24\nc: 0x10\nd: 1.5\ne: true\nf: 017\n") == {
        "a": "12:30", "b": "2026-11-24", "c": 16, "d": 1.5, "e": True, "f": 15,
    }


def test_anchors_are_written_out() -> None:
    pod = _yaml.load("a: &x {k: [1]}\nb: *x\n")
    assert _yaml.dump(pod) == "a:\n  k:\n  - 1\nb:\n  k:\n  - 1\n"


VALUES = st.one_of(st.text(), st.booleans(), st.none(), st.lists(st.text(max_size=200)))
ODD = ["--x=" + "word " * 40, "two\nlines", " \n x", "tab\tbed", "\x07", "\u2028", "\x85", "a\nb\x85c\rd", "# no comment", "- no item"]


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
@example({"args": ODD})
def test_whatever_is_written_is_read_again(pod: dict[str, Any]) -> None:
    text = _yaml.dump(pod)
    assert _yaml.load(text) == pod
    assert yaml.safe_load(text) == pod
