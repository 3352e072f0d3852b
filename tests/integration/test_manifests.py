# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Go's YAML library, which the kubelet reads manifests with, understands an edited manifest as it was meant."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _yaml

from tests.integration.assets import binary
from tests.unit.plugin_utils.test_awkward_manifests import GOLDEN, WANTED, awkward, change


def read_by_go(text: str, file: Path) -> Any:
    """The pod as kubectl reads it, which has the library in common with the kubelet."""
    file.write_bytes(text.encode())
    done = subprocess.run(
        [str(binary("kubectl")), "patch", "--local", "-f", str(file), "--type=merge", "-p", "{}", "-o", "json"],
        capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_kubelet_s_library_reads_what_was_meant(name: str, tmp_path: Path) -> None:
    host, component, text = awkward(name)
    part, _report = change(host, component, WANTED[component])
    meant = _yaml.load(part.new)
    found = read_by_go(part.new, tmp_path / "edited.yaml")
    assert found == read_by_go(json.dumps(meant), tmp_path / "meant.json")
    assert found != read_by_go(text, tmp_path / "before.yaml")
    container = next(each for each in found["spec"]["containers"] if each["name"] == component)
    assert [*container["command"], *container.get("args", [])] == list(part.argv)
