# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For tests: the nodes of a lab that is up, and clients that run on this machine.

    lab = nodes.load()
    lab.nodes[0].run("systemctl", "is-active", "kubelet")
    lab.etcdctl("member", "list")
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from . import settings as lab_settings
from .console import run
from .errors import LabError

_FILE = "lab.json"


@dataclass(frozen=True)
class Node:
    """One node. container: its name for docker. address: IPv4 on the lab's bridge, reachable from this machine.

    data_device: mounted at /var/lib/etcd in the node. wal_device: empty, for a WAL. bare: no manifests were made.
    """

    name: str
    container: str
    address: str
    data_device: str
    wal_device: str
    bare: bool = False

    def run(
        self, *command: str, check: bool = True, stdin: str | None = None, timeout: float | None = 120
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the node as root; LabError on a status other than 0, unless ``check`` is off."""
        interactive = ["--interactive"] if stdin is not None else []
        return run(["docker", "exec", *interactive, self.container, *command], check=check, stdin=stdin, timeout=timeout)

    def output(self, *command: str, timeout: float | None = 120) -> str:
        """Standard output of a command that must succeed, without the white space around it."""
        return self.run(*command, timeout=timeout).stdout.strip()

    def shell(self, script: str, check: bool = True, timeout: float | None = 120) -> subprocess.CompletedProcess[str]:
        """Runs a bash script in the node; it ends at the first failing command."""
        return self.run("bash", "-euo", "pipefail", "-c", script, check=check, timeout=timeout)

    def exists(self, path: str) -> bool:
        """Whether a path exists in the node."""
        return self.run("test", "-e", path, check=False).returncode == 0

    def read(self, path: str) -> str:
        """A text file of the node."""
        return self.run("cat", path).stdout

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        """Writes a text file in the node at once (a temporary file, then a rename)."""
        self.run("bash", "-euc", 'umask 077; cat >"$0.new"; chmod "$1" "$0.new"; mv "$0.new" "$0"', path, mode, stdin=text)

    def reboot(self) -> None:
        """Restarts the node, hard, and returns when its init runs again."""
        run(["docker", "restart", "--time", "1", self.container], timeout=60)

    def pid(self, process: str) -> int | None:
        """Process id, in the node, of the one process with this name (``etcd``, ``kube-apiserver``), or None."""
        found = self.run("pgrep", "--exact", "--oldest", process[:15], check=False).stdout.split()
        return int(found[0]) if found else None

    def arguments(self, process: str) -> list[str]:
        """Command line of a running process of the node, word by word."""
        pid = self.pid(process)
        if pid is None:
            raise LabError(f"{self.container}: no process {process} runs")
        return self.read(f"/proc/{pid}/cmdline").rstrip("\0").split("\0")

    @property
    def etcd_endpoint(self) -> str:
        """Client address of this node's etcd."""
        return f"https://{self.address}:2379"

    @property
    def api_endpoint(self) -> str:
        """Address of this node's API server."""
        return f"https://{self.address}:6443"

    def etcd_ready(self) -> bool:
        """Whether this node's etcd says that it is ready."""
        return self._answers("http://127.0.0.1:2381/readyz")

    def api_ready(self) -> bool:
        """Whether this node's API server says that it is ready."""
        return self._answers(f"{self.api_endpoint}/readyz")

    def _answers(self, address: str) -> bool:
        command = ("curl", "--silent", "--fail", "--max-time", "2", "--cacert", "/etc/kubernetes/pki/ca.crt", address)
        return self.run(*command, check=False).returncode == 0


@dataclass(frozen=True)
class Lab:
    """A lab that is up. state: its folder. etcd, kubernetes: versions. nodes: of the cluster. bare: single ones, no cluster."""

    name: str
    state: Path
    assets: Path
    kubernetes: str
    etcd: str
    network: str
    nodes: list[Node]
    bare: list[Node]

    def node(self, name: str) -> Node:
        """A node of either kind by its host name, such as cp1."""
        for node in [*self.nodes, *self.bare]:
            if name in (node.name, node.container):
                return node
        known = ", ".join(node.name for node in [*self.nodes, *self.bare]) or "none"
        raise LabError(f"lab {self.name} has no node {name!r}; it has: {known}")

    @property
    def inventory(self) -> Path:
        """Ansible inventory of the cluster (of a bare node: ``inventory-NAME.yml`` beside it)."""
        return self.state / "inventory.yml"

    def binary(self, name: str) -> Path:
        """One of the lab's binaries on this machine, such as etcd, etcdctl, kubectl, kube-apiserver."""
        for folder in (f"kubernetes-{self.kubernetes}", f"etcd-{self.etcd}"):
            if (self.assets / folder / name).exists():
                return self.assets / folder / name
        raise LabError(f"no binary {name!r} in {self.assets}")

    @property
    def etcd_endpoints(self) -> list[str]:
        """Client addresses of all members."""
        return [node.etcd_endpoint for node in self.nodes]

    @property
    def etcd_ca(self) -> Path:
        """Certificate authority of etcd's server certificates."""
        return self.certificates / "etcd" / "ca.crt"

    @property
    def etcd_certificate(self) -> Path:
        """Client certificate which etcd accepts as root."""
        return self.certificates / "apiserver-etcd-client.crt"

    @property
    def etcd_key(self) -> Path:
        """Private key of ``etcd_certificate``, mode 0600."""
        return self.certificates / "apiserver-etcd-client.key"

    @property
    def kubeconfig(self) -> Path:
        """An administrator's kubeconfig, whose server is the first node by address, mode 0600."""
        return self.certificates / "admin.conf"

    @property
    def certificates(self) -> Path:
        """Folder of what was copied out of the first node, 0700."""
        return self.state / "certificates"

    def etcdctl(self, *arguments: str, endpoints: list[str] | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """etcdctl on this machine, against all members unless ``endpoints`` says which."""
        tls = ["--cacert", self.etcd_ca, "--cert", self.etcd_certificate, "--key", self.etcd_key]
        targets = ",".join(endpoints or self.etcd_endpoints)
        return run([self.binary("etcdctl"), "--endpoints", targets, *tls, *arguments], check=check, timeout=120)

    def kubectl(self, *arguments: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl on this machine, as the administrator."""
        return run([self.binary("kubectl"), "--kubeconfig", self.kubeconfig, *arguments], check=check, stdin=stdin, timeout=120)

    def save(self) -> None:
        """Writes the lab down for ``load``."""
        self.state.mkdir(parents=True, exist_ok=True)
        content = {**asdict(self), "state": str(self.state), "assets": str(self.assets)}
        partial = self.state / f".{_FILE}"
        partial.write_text(json.dumps(content, indent=2) + "\n")
        os.replace(partial, self.state / _FILE)


def load(settings: lab_settings.Settings | None = None) -> Lab:
    """The lab that ``KUBETUNE_LAB_NAME`` names; LabError when it is not up."""
    settings = settings or lab_settings.from_environment()
    file = settings.state / _FILE
    if not file.exists():
        raise LabError(f"lab {settings.name} is not up: `make lab` starts it")
    content = json.loads(file.read_text())
    for kind in ("nodes", "bare"):
        content[kind] = [Node(**node) for node in content[kind]]
    return Lab(**{**content, "state": Path(content["state"]), "assets": Path(content["assets"])})
