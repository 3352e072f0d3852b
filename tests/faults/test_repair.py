# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A manifest that somebody has edited so that its process dies is mended by a plain run, on real nodes."""

from __future__ import annotations

import pytest

from tests.benchmarks.writer import Writer
from tests.faults.conftest import Playbook, wait_for
from tests.lab.nodes import Lab


@pytest.mark.long
@pytest.mark.parametrize(
    ("component", "right", "wrong"),
    [("etcd", "--max-wals=5", "--max-wals=many"), ("kube-apiserver", "--max-requests-inflight=3000", "--max-requests-inflight=many")],
)
def test_an_edit_that_kills_a_process_is_mended(
    lab: Lab, playbook: Playbook, no_write_lost: Writer, component: str, right: str, wrong: str
) -> None:
    assert playbook("site", {"node_window_watch_seconds": 0}).status == 0
    node = lab.nodes[1]
    manifest = f"/etc/kubernetes/manifests/{component}.yaml"
    text = node.read(manifest)
    assert right in text
    pid = node.pid(component)
    node.write(manifest, text.replace(right, wrong), mode="0600")
    wait_for(lambda: node.pid(component) != pid, 120, f"{component} has ended")
    run = playbook("site", {"node_window_watch_seconds": 0})
    assert run.status == 0, run.output
    assert f"{component}_repair begin" in run.output
    assert right in node.arguments(component)
    assert node.read(manifest) == text


@pytest.mark.long
def test_a_hand_edit_is_shown_as_drift_and_what_is_larger_stays(lab: Lab, playbook: Playbook, no_write_lost: Writer) -> None:
    assert playbook("site").status == 0
    node, manifest = lab.nodes[2], "/etc/kubernetes/manifests/etcd.yaml"
    text = node.read(manifest)

    def edit(wals: int) -> str:
        """The manifest, once etcd runs with the edit."""
        pid, edited = node.pid("etcd"), text.replace("--max-wals=5", f"--max-wals={wals}")
        node.write(manifest, edited, mode="0600")
        wait_for(lambda: node.pid("etcd") not in (pid, None) and node.etcd_ready(), 120, "etcd runs with the edit")
        return edited

    try:
        larger = edit(6)
        run = playbook("site", {}, "--check")
        assert run.status == 0 and node.read(manifest) == larger, run.output
        assert "etcd --max-wals = 6: larger than the profile's 5; it had drifted from 5" in run.output, run.output
        smaller = edit(4)
        told = playbook("site", {}, "--check", "--diff")
        assert told.status == 0 and node.read(manifest) == smaller, told.output
        assert "-    - --max-wals=4" in told.output and "+    - --max-wals=5" in told.output, told.output
        assert "it had drifted from 5" in told.output, told.output
        run = playbook("site")
        assert run.status == 0 and "it had drifted from 5" in run.output, run.output
        assert node.read(manifest) == text and "--max-wals=5" in node.arguments("etcd")
    finally:
        if node.read(manifest) != text:
            node.write(manifest, text, mode="0600")
