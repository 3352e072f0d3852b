# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kubeadm's part: a cluster of stacked control-plane nodes, and bare nodes with certificates but no manifests."""

from __future__ import annotations

import json
import os
import string
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import machines
from .console import say, until, waiting
from .errors import LabError
from .nodes import Lab, Node
from .settings import Settings

_TEMPLATE = Path(__file__).with_name("files") / "kubeadm.yaml"
_CONFIG = "/etc/lab/kubeadm.yaml"
# Written when kubeadm has finished on a node: a node without it is reset and done again.
_DONE = "/etc/lab/kubeadm-done"
_SOCKET = "unix:///run/containerd/containerd.sock"
_PREFLIGHT = "--ignore-preflight-errors=all"


def kubeadm_config(settings: Settings, node: Node, endpoint: str) -> str:
    """kubeadm's configuration for a first node; endpoint: the host name under which clients find the API."""
    values = {"address": node.address, "cluster": settings.name, "kubernetes": settings.kubernetes, "endpoint": endpoint}
    return string.Template(_TEMPLATE.read_text()).substitute(values)


def inventory(nodes: list[Node]) -> str:
    """Ansible inventory of nodes, reached through the engine; ``lab_wal_device`` is each node's empty disk."""
    lines = ["---", "kube_control_plane:", "  hosts:"]
    for node in nodes:
        lines += [f"    {node.name}:", f"      ansible_host: {node.container}", f"      lab_wal_device: {node.wal_device}"]
    lines += ["  vars:", "    ansible_connection: community.docker.docker", "    ansible_python_interpreter: /usr/bin/python3"]
    return "\n".join(lines) + "\n"


def create(settings: Settings, lab: Lab) -> Lab:
    """Brings the cluster up, from whatever is there already; gives the lab with its nodes."""
    prefix = lab.network
    hosts = {name: machines.address(prefix, index, bare=False) for index, name in enumerate(settings.node_names)}
    nodes = [machines.boot(settings, name, address, hosts) for name, address in hosts.items()]
    first, others = nodes[0], nodes[1:]
    orphans = [node.name for node in others if node.exists(_DONE)]
    if orphans and not first.exists(_DONE):
        raise LabError(f"{first.container} is new and {', '.join(orphans)} belong to an older cluster: `python -m tests.lab reset` starts over")
    with ThreadPoolExecutor(max_workers=2) as pool:
        with waiting(f"{first.container}: loading images"):
            machines.load_images(settings, first)
        loading = [pool.submit(machines.load_images, settings, node) for node in others]
        if not first.exists(_DONE):
            _init(settings, first)
        for future in loading:
            future.result()
    pending = [node for node in others if not node.exists(_DONE)]
    if pending:
        join = _join_command(first)
        for node in pending:
            _join(first, node, join)
    for node in nodes:
        until(f"{node.container}: etcd is ready", node.etcd_ready, seconds=120)
        until(f"{node.container}: the API server is ready", node.api_ready, seconds=120)
    lab = Lab(**{**vars(lab), "nodes": nodes})
    _copy_certificates(lab, first)
    _check_members(lab)
    (lab.inventory).write_text(inventory(nodes))
    lab.save()
    return lab


def _reset(node: Node) -> None:
    if node.exists("/etc/kubernetes/manifests") and node.output("ls", "/etc/kubernetes/manifests"):
        with waiting(f"{node.container}: kubeadm had not finished, resetting"):
            node.run("kubeadm", "reset", "--force", "--cri-socket", _SOCKET, timeout=300)


def _init(settings: Settings, node: Node) -> None:
    _reset(node)
    node.run("mkdir", "-p", "/etc/lab")
    node.write(_CONFIG, kubeadm_config(settings, node, endpoint=node.name))
    with waiting(f"{node.container}: kubeadm init"):
        node.shell("systemctl enable --quiet kubelet")
        # kube-proxy and CoreDNS are of no use here, and their images are not ours to build.
        node.run("kubeadm", "init", "--config", _CONFIG, _PREFLIGHT, "--skip-phases=addon", "--upload-certs", timeout=300)
    node.write(_DONE, "")


def _join_command(first: Node) -> list[str]:
    """A fresh join command: the certificates' key and the token of the first one may be long gone."""
    key = first.output("kubeadm", "init", "phase", "upload-certs", "--upload-certs", "--config", _CONFIG).splitlines()[-1]
    command = first.output("kubeadm", "token", "create", "--ttl", "1h", "--print-join-command", "--certificate-key", key)
    return command.split()


def _forget(first: Node, node: Node) -> None:
    """Takes what an earlier machine of this name has left behind out of the cluster; kubeadm would refuse to join."""
    members = json.loads(_etcdctl(first, "member", "list", "--write-out=json"))["members"]
    for member in members:
        if f"https://{node.address}:2380" in member["peerURLs"]:
            say(f"{node.container}: removing its earlier member {member['ID']:x} from etcd")
            _etcdctl(first, "member", "remove", f"{member['ID']:x}")
    first.run("kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "delete", "node", node.name, "--ignore-not-found")


def _etcdctl(node: Node, *arguments: str) -> str:
    pki = "/etc/kubernetes/pki/etcd"
    tls = ("--cacert", f"{pki}/ca.crt", "--cert", f"{pki}/healthcheck-client.crt", "--key", f"{pki}/healthcheck-client.key")
    return node.output("etcdctl", "--endpoints", "https://127.0.0.1:2379", *tls, *arguments)


def _join(first: Node, node: Node, command: list[str]) -> None:
    _reset(node)
    _forget(first, node)
    with waiting(f"{node.container}: kubeadm join"):
        node.shell("systemctl enable --quiet kubelet; mkdir -p /etc/lab")
        node.run(*command, _PREFLIGHT, "--cri-socket", _SOCKET, "--apiserver-advertise-address", node.address, timeout=300)
    node.write(_DONE, "")


def _check_members(lab: Lab) -> None:
    members = json.loads(lab.etcdctl("member", "list", "--write-out=json", endpoints=[lab.nodes[0].etcd_endpoint]).stdout)["members"]
    voting = sorted(member.get("name", "") for member in members if not member.get("isLearner"))
    if voting != sorted(node.name for node in lab.nodes):
        raise LabError(f"etcd's voting members are {voting}, expected {[node.name for node in lab.nodes]}; `python -m tests.lab reset` starts over")
    health = lab.etcdctl("endpoint", "health")
    say(f"etcd: {len(voting)} healthy members ({health.stdout.count('is healthy') + health.stderr.count('is healthy')} answered)")


def _copy_certificates(lab: Lab, node: Node) -> None:
    """What clients on this machine need, readable by its owner alone."""
    pki = "/etc/kubernetes/pki"
    copies = {
        f"{pki}/ca.crt": "ca.crt",
        f"{pki}/etcd/ca.crt": "etcd/ca.crt",
        f"{pki}/apiserver-etcd-client.crt": "apiserver-etcd-client.crt",
        f"{pki}/apiserver-etcd-client.key": "apiserver-etcd-client.key",
        "/etc/kubernetes/admin.conf": "admin.conf",
    }
    for source, name in copies.items():
        text = node.read(source)
        if name == "admin.conf":
            text = text.replace(f"https://{node.name}:6443", node.api_endpoint)
        private_file(lab.certificates / name, text)


def private_file(path: Path, text: str) -> None:
    """Writes a file which only its owner can read, in a folder which only its owner can enter."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)


def create_bare(settings: Settings, lab: Lab, name: str) -> Lab:
    """A single node with kubelet, images, certificates and kubeconfigs of a cluster of its own, and no manifests."""
    if name in settings.node_names:
        raise LabError(f"--bare {name}: that is a node of the cluster; choose another name")
    present = [node.name for node in lab.bare]
    index = present.index(name) if name in present else _free_index(lab)
    address = machines.address(lab.network, index, bare=True)
    node = machines.boot(settings, name, address, {name: address}, bare=True)
    with waiting(f"{node.container}: loading images"):
        machines.load_images(settings, node)
    if not node.exists(_DONE):
        node.run("mkdir", "-p", "/etc/lab", "/etc/kubernetes/manifests")
        node.write(_CONFIG, kubeadm_config(settings, node, endpoint=name))
        with waiting(f"{node.container}: certificates, kubeconfigs, kubelet"):
            node.shell("systemctl enable --quiet kubelet")
            for phase in (("certs", "all"), ("kubeconfig", "all"), ("kubelet-start",)):
                node.run("kubeadm", "init", "phase", *phase, "--config", _CONFIG, timeout=300)
        node.write(_DONE, "")
    until(f"{node.container}: the kubelet is healthy", lambda: _kubelet_healthy(node), seconds=60)
    lab = Lab(**{**vars(lab), "bare": [*(other for other in lab.bare if other.name != name), node]})
    (lab.state / f"inventory-{name}.yml").write_text(inventory([node]))
    lab.save()
    return lab


def _kubelet_healthy(node: Node) -> bool:
    return node.run("curl", "--silent", "--fail", "--max-time", "2", "http://127.0.0.1:10248/healthz", check=False).returncode == 0


def _free_index(lab: Lab) -> int:
    taken = {node.address for node in lab.bare}
    return next(index for index in range(100) if machines.address(lab.network, index, bare=True) not in taken)
