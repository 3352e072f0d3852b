# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether containerd could start a pod, by what it and ctr print."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._node import images

PAUSE = "registry.k8s.io/pause:3.10.2"
#: Lines of ``containerd config dump``: 1.6, and 2.x.
DUMPS = [f'    sandbox_image = "{PAUSE}"', f"      [plugins.'io.containerd.cri.v1.images'.pinned_images]\n        sandbox = '{PAUSE}'"]


def programs(path: Path, monkeypatch: pytest.MonkeyPatch, dump: str, known: list[str]) -> None:
    for name, text in (("containerd", dump), ("ctr", "\n".join(known))):
        (path / f"{name}.out").write_text(text)
        (path / name).write_text(f"#!/bin/sh\nwhile read -r line; do echo \"$line\"; done < {path}/{name}.out\n")
        (path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(path))


@pytest.mark.parametrize("dump", DUMPS)
@pytest.mark.parametrize(("known", "problem"), [(["registry.k8s.io/etcd:3.6.8-0"], f"image {PAUSE} is not on this host"), (["x", PAUSE], "")])
def test_the_sandbox_s_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dump: str, known: list[str], problem: str) -> None:
    programs(tmp_path, monkeypatch, dump + "\n", [*known, ""])
    found = images.runtime_problem()
    assert problem in found and bool(found) == bool(problem)


def test_a_containerd_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, monkeypatch, DUMPS[0] + "\n", [])
    (tmp_path / "ctr").write_text("#!/bin/sh\necho 'ctr: failed to dial' >&2\nexit 1\n")
    assert "containerd does not answer" in images.runtime_problem() and "ctr: failed to dial" in images.runtime_problem()


def test_a_host_without_containerd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert images.runtime_problem() == ""
