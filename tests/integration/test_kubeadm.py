# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real kubeadm reads what the collection writes, and turns v1beta3 into v1beta4 without losing it or the way back."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.hosts import Host
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.plan import ANNOTATION
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _kubeadm

from tests.integration.assets import binary
from tests.lab import settings
from tests.unit.hosts import FIXTURES

TUNED = {
    "etcd": {"quota-backend-bytes": ["8589934592"], "auto-compaction-retention": ["1h"], "wal-dir": ["/var/lib/etcd/wal-disk/wal"]},
    "kube-apiserver": {
        "max-requests-inflight": ["3000"], "watch-cache-sizes": ["default#1000,pods#5000"], "goaway-chance": ["1e-3"],
        "enable-priority-and-fairness": ["true"], "oidc-username-claim": ['e-mail ä "quoted" it\'s # no comment'],
    },
}
HOST = Host("cp1", "cp1", ["cp1"], "", ["etcd", "kube-apiserver"], TUNED, TUNED)


def text_of(name: str) -> str:
    data = yaml.safe_load((FIXTURES / "cluster-configuration" / f"{name}.yaml").read_text())
    # kubeadm judges clusters of its own minor version and the one before.
    return str(yaml.safe_dump({**data, "kubernetesVersion": f"v{settings.from_environment().kubernetes}"}))


def kubeadm(*arguments: str | Path) -> str:
    done = subprocess.run([binary("kubeadm"), *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def written(text: str, state: str = "present", annotation: str | None = None) -> tuple[str, str | None]:
    annotations = {ANNOTATION: annotation} if annotation else {}
    config_map = {"metadata": {"annotations": annotations}, "data": {"ClusterConfiguration": text}}
    new = _kubeadm.change(config_map, [HOST], state).new
    assert new
    return new["data"]["ClusterConfiguration"], new["metadata"]["annotations"].get(ANNOTATION)


def migrated(text: str, folder: Path) -> dict[str, Any]:
    """The ClusterConfiguration that kubeadm makes of it, as it does at an upgrade."""
    file = folder / "kubeadm.yaml"
    file.write_text(text)
    documents = yaml.safe_load_all(kubeadm("config", "migrate", "--old-config", file))
    return next(each for each in documents if each["kind"] == "ClusterConfiguration")


def args(data: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for section in (data["apiServer"], data["etcd"]["local"]) for each in section.get("extraArgs", [])}


@pytest.mark.parametrize("name", ["v1beta3", "v1beta4", "v1beta4-extras"])
def test_kubeadm_takes_it_and_reads_the_same(name: str, tmp_path: Path) -> None:
    before = text_of(name)
    text, annotation = written(before)
    file = tmp_path / "new.yaml"
    file.write_text(text)
    assert "ok" in kubeadm("config", "validate", "--config", file)
    after = migrated(text, tmp_path)
    expected = {flag: values[0] for flags in TUNED.values() for flag, values in flags.items()}
    assert after["apiVersion"] == "kubeadm.k8s.io/v1beta4"
    assert args(after) == {**args(migrated(before, tmp_path)), **expected}
    # Back, from what kubeadm has made of it: the annotation says the same in both versions.
    back, gone = written(yaml.safe_dump(after), "absent", annotation)
    assert gone is None and args(yaml.safe_load(back)) == args(migrated(before, tmp_path))
