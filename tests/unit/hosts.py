# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A control-plane host as discovery describes it, from manifests which real kubeadm releases wrote."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import yaml

FIXTURES = Path(__file__).parent / "fixtures"
KUBEADM = FIXTURES / "kubeadm-1.36.3"


class Host:
    """Facts of a host that tests change one thing of."""

    def __init__(self, manifests: Path = KUBEADM) -> None:
        texts = {path.name: path.read_text() for path in sorted(manifests.glob("*.yaml"))}
        self.facts: dict[str, Any] = {
            "host": "cp1",
            "distribution": "kubeadm",
            "manifests_directory": "/etc/kubernetes/manifests",
            "manifests": {},
            "processes": {"etcd": [], "kube-apiserver": []},
            "memory": {"etcd": None, "kube-apiserver": None},
            "allocatable": {"cpu": "8", "memory": "32Gi"},
            "cluster": {
                "name": "cp1", "problems": [], "members": ["cp1", "cp2", "cp3"], "leader": "cp2",
                "endpoints": ["https://10.0.0.1:2379", "https://10.0.0.2:2379"], "database_bytes": 40 * 2**20, "down": False,
                "unreachable": {}, "changing": None, "client_urls": {f"cp{index}": [f"https://10.0.0.{index}:2379"] for index in (1, 2, 3)},
            },
            "unfinished": None,
            "wal_disk": "",
        }
        for name, text in texts.items():
            self.write(name, text)
        self.run("etcd", "3.6.16", 60 * 2**20)
        self.run("kube-apiserver", "1.36.3", 400 * 2**20)

    def write(self, name: str, text: str) -> None:
        self.facts["manifests"][name] = {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}

    def run(self, component: str, version: str, peak: int) -> None:
        """Let the component's process be what its manifest says."""
        containers = yaml.safe_load(self.facts["manifests"][f"{component}.yaml"]["text"])["spec"]["containers"]
        container = next(each for each in containers if each["name"] == component)
        self.facts["processes"][component] = [
            {
                "pid": 100, "argv": [*container.get("command", []), *container.get("args", [])], "version": version,
                "peak_rss_bytes": peak, "certificates": [{"flag": "cert-file", "path": "/x", "days_left": 300, "problem": ""}],
            }
        ]

    @property
    def pods(self) -> dict[str, Any]:
        return {name: yaml.safe_load(file["text"]) for name, file in self.facts["manifests"].items()}

    def pod(self, component: str) -> dict[str, Any]:
        return copy.deepcopy(self.pods[f"{component}.yaml"])


