# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore drills: the newest backup, in a scratch etcd on loopback."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.verification import read_sidecar

from tests.integration.assets import binary
from tests.integration.backup_files import flip_and_adopt, sidecar_of, truncate
from tests.integration.maintenance_node import Node, finish, wait_for


def scratch_etcds(node: Node) -> list[str]:
    told = subprocess.run(["ps", "-eww", "-o", "args"], check=True, capture_output=True, text=True).stdout
    return [line for line in told.splitlines() if f"--data-dir={node.root}/drill" in line]


def test_drill_restores_counts_compares_and_throws_away(nodes: list[Node]) -> None:
    node = nodes[1]
    node.cluster.fill(20)
    node.cluster.client().delete("/registry/fill/000003")
    assert node.run("backup").status == 0
    # What comes later is not in the backup, and does not disturb.
    node.cluster.client().put("/registry/later", "x")
    before = node.cluster.client().status(node.member.client_url)
    run = node.run("drill")
    assert run.status == 0, run.text
    (line,) = run.of("drill", "done")
    sidecar = read_sidecar(sidecar_of(node.snapshots()[0]))
    assert (int(line["keys"]), int(line["revision"])) == (sidecar.keys, sidecar.revision)
    # 40 were filled in and one deleted; the turn of the backup is a key, too.
    assert sidecar.keys in (39, 40)
    metrics = node.metrics()
    assert metrics['step_success{step="drill"}'] == 1 and metrics["drill_keys"] == sidecar.keys
    assert 0 < metrics["drill_restore_seconds"] < 60 and 0 < metrics["drill_start_seconds"] < 60
    assert list((node.root / "drill").iterdir()) == [] and scratch_etcds(node) == []
    assert node.cluster.client().status(node.member.client_url).revision == before.revision


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "it was cut"),
        (flip_and_adopt, "not what etcd's checksum"),
        (lambda path: sidecar_of(path).write_text(sidecar_of(path).read_text().replace('"keys": ', '"keys": 1')), "etcdutl finds totalKey"),
    ],
    ids=["truncated", "bit-flipped", "other-number-of-keys"],
)
def test_drill_on_a_broken_backup_fails_and_the_metric_says_so(
    shared_node: Callable[[], Node], damage: Callable[[Path], Any], reason: str
) -> None:
    node = shared_node()
    assert node.run("backup").status == 0
    assert node.run("drill").status == 0
    good = node.metrics()
    damage(node.snapshots()[0])
    run = node.run("drill")
    assert run.status == 14 and reason in run.text, run.text
    assert run.of("drill", "failed")
    metrics = node.metrics()
    assert metrics.pop('step_success{step="drill"}') == 0
    del good['step_success{step="drill"}']
    assert metrics == good


def test_drill_without_a_backup_or_without_tools_says_what_is_missing(shared_node: Callable[[], Node], tmp_path: Path) -> None:
    node = shared_node()
    run = node.run("drill")
    assert run.status == 14 and f"there is no backup of cp1 in {node.backups}" in run.text
    assert node.run("backup").status == 0
    (tmp_path / "etcdutl").symlink_to(binary("etcdutl"))
    node.config["tools"] = str(tmp_path)
    assert "there is no etcd on this host" in node.run("drill").text


def test_killed_drill_leaves_an_etcd_that_the_next_one_ends(nodes: list[Node]) -> None:
    node = nodes[0]
    node.cluster.fill(30)
    assert node.run("backup").status == 0
    process = node.start("drill")
    wait_for(lambda: scratch_etcds(node))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert node.run("drill").status == 0
    assert scratch_etcds(node) == [] and list((node.root / "drill").iterdir()) == []


def test_drill_does_not_serve_who_has_no_certificate(nodes: list[Node]) -> None:
    node = nodes[0]
    node.cluster.fill(30)
    assert node.run("backup").status == 0
    process = node.start("drill")
    wait_for(lambda: [line for line in scratch_etcds(node) if "--listen-client-urls" in line])
    flags = scratch_etcds(node)[-1].split()
    assert "--client-cert-auth=true" in flags and "--peer-client-cert-auth=true" in flags
    assert all("https://127.0.0.1:" in flag for flag in flags if flag.startswith("--listen-"))
    assert finish(process).status == 0
