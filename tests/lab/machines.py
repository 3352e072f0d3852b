# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers as machines: the network, and nodes that have started but know nothing of a cluster yet."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from . import disks, images
from .console import output, run, say, until
from .engine import LABEL
from .errors import LabError
from .nodes import Node
from .settings import Settings

# Addresses of 172.30.N.0/24: the cluster's nodes from .11, bare nodes from .101, so that a restart changes none.
_FIRST_HOST, _FIRST_BARE_HOST = 11, 101


def network(settings: Settings) -> str:
    """Makes the lab's network when it is missing; gives its first three octets, such as 172.30.9."""
    if run(["docker", "network", "inspect", settings.name], check=False).returncode != 0:
        # Begin somewhere that depends on the name, and go on where another network is in the way.
        start = zlib.crc32(settings.name.encode())
        for offset in range(256):
            subnet = f"172.30.{(start + offset) % 256}.0/24"
            created = run(["docker", "network", "create", "--subnet", subnet, "--label", f"{LABEL}={settings.name}", settings.name], check=False)
            if created.returncode == 0:
                break
            if "overlap" not in created.stderr:
                raise LabError(f"docker network create {settings.name}: {created.stderr.strip()}")
        else:
            raise LabError("every network in 172.30.0.0/16 is taken; remove one (docker network ls)")
    found = json.loads(output(["docker", "network", "inspect", settings.name]))
    return str(found[0]["IPAM"]["Config"][0]["Subnet"]).rpartition(".")[0]


def address(prefix: str, index: int, *, bare: bool) -> str:
    """Address of the node with this index, from 0."""
    return f"{prefix}.{(_FIRST_BARE_HOST if bare else _FIRST_HOST) + index}"


def disk_files(settings: Settings, name: str) -> tuple[Path, Path]:
    """Image files of a node's disks: etcd's data, WAL."""
    return settings.state / "disks" / f"{name}-etcd.img", settings.state / "disks" / f"{name}-wal.img"


def state_of(container: str) -> str:
    """running, exited, created, ...; empty when there is no such container."""
    found = run(["docker", "inspect", "--type", "container", "--format", "{{.State.Status}}", container], check=False)
    return found.stdout.strip()


def boot(settings: Settings, name: str, node_address: str, hosts: dict[str, str], *, bare: bool = False) -> Node:
    """Gives a started node with its disks and the control plane's images, whatever was there before.

    hosts: names and addresses for its /etc/hosts.
    """
    container = settings.container(name)
    data_file, wal_file = disk_files(settings, name)
    state = state_of(container)
    if not state:
        # A disk without its node is from a lab that ended badly.
        disks.remove(data_file)
        disks.remove(wal_file)
    data = disks.attach(data_file, disks.DATA_BYTES, formatted=True)
    wal = disks.attach(wal_file, disks.WAL_BYTES, formatted=False)
    if state and _devices(container) != {data, wal}:
        # As after a reboot of this machine: a container's devices are fixed when it is made.
        raise LabError(f"{container}: its disks are now {data} and {wal}, and it was made with others: `python -m tests.lab reset` starts over")
    node = Node(name=name, container=container, address=node_address, data_device=data, wal_device=wal, bare=bare)
    if not state:
        say(f"{container}: starting at {node_address}, etcd's data on {data}, spare WAL disk {wal}")
        run(_run_command(settings, node, hosts))
    elif state != "running":
        say(f"{container}: was {state}, starting it")
        run(["docker", "start", container])
    until(f"{container}: containerd answers", lambda: _containerd_answers(node), seconds=60)
    if not node.run("findmnt", "--noheadings", "/var/lib/etcd", check=False).stdout:
        _mount_data(node)
    return node


def _containerd_answers(node: Node) -> bool:
    state = state_of(node.container)
    if state != "running":
        raise LabError(f"{node.container}: {state or 'gone'} right after its start; see: docker start --attach {node.container}")
    return node.run("ctr", "version", check=False).returncode == 0


def _run_command(settings: Settings, node: Node, hosts: dict[str, str]) -> list[str]:
    archive = images.provide_archive(settings)
    return [
        "docker", "run", "--detach", "--name", node.container, "--hostname", node.name, "--label", f"{LABEL}={settings.name}",
        "--network", settings.name, "--network-alias", node.name, "--ip", node.address,
        *(word for host, host_address in hosts.items() for word in ("--add-host", f"{host}:{host_address}")),
        # SYS_RESOURCE: the limits of a host that is not all ours. SYS_TIME: a clock set here is the host's clock.
        "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--cap-drop", "SYS_TIME",
        "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined", "--security-opt", "systempaths=unconfined",
        "--cgroupns", "private", "--tmpfs", "/run", "--tmpfs", "/tmp", "--volume", "/var/lib/containerd",
        "--volume", f"{archive.parent}:{images.ARCHIVE_MOUNT}:ro",
        "--device", node.data_device, "--device", node.wal_device,
        images.node_image(settings), "/usr/local/sbin/lab-init",
    ]  # fmt: skip


def _devices(container: str) -> set[str]:
    listed = output(["docker", "inspect", "--format", "{{range .HostConfig.Devices}}{{.PathOnHost}} {{end}}", container])
    return set(listed.split())


def _mount_data(node: Node) -> None:
    """Mounts etcd's disk by a unit, so that it is there again after a restart of the node."""
    unit = (
        f"[Unit]\nDescription=etcd's data\n\n[Mount]\nWhat=UUID={disks.uuid_of(node.data_device)}\nWhere=/var/lib/etcd\n"
        "Type=ext4\nOptions=noatime\n\n[Install]\nWantedBy=local-fs.target\n"
    )
    node.write("/etc/systemd/system/var-lib-etcd.mount", unit)
    node.shell("systemctl daemon-reload; systemctl enable --quiet --now var-lib-etcd.mount; chmod 0700 /var/lib/etcd; rm -rf /var/lib/etcd/lost+found")


def load_images(settings: Settings, node: Node) -> None:
    """Imports the control plane's images into the node's containerd, unless they are there."""
    listed = node.output("ctr", "--namespace", "k8s.io", "images", "list", "--quiet").split()
    if not set(images.control_plane_names(settings).values()) <= set(listed):
        node.run("ctr", "--namespace", "k8s.io", "images", "import", f"{images.ARCHIVE_MOUNT}/images.tar", timeout=300)


def remove(settings: Settings, name: str) -> None:
    """Removes a node, its volumes and its disks."""
    container = settings.container(name)
    if state_of(container):
        say(f"{container}: removing")
        run(["docker", "rm", "--force", "--volumes", container])
    for file in disk_files(settings, name):
        disks.remove(file)


def names(settings: Settings) -> list[str]:
    """Host names of all nodes of this lab for which there is a container or a disk."""
    filters = ["--filter", f"label={LABEL}={settings.name}"]
    containers = output(["docker", "ps", "--all", *filters, "--format", "{{.Names}}"]).split()
    found = {container.removeprefix(f"{settings.name}-") for container in containers}
    found |= {file.name.rpartition("-")[0] for file in (settings.state / "disks").glob("*.img")}
    return sorted(found)
