# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything about a host that a plan needs, read in one go: parsed later, changed never."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Mapping, Sequence

from .._errors import KubetuneError
from .._etcd import cluster
from .._etcd.lock import current_holder
from .._static_pod.catalogue import ETCD, KUBE_APISERVER
from .._static_pod.manifest import flags_of
from .._wal_disk.missing import missing
from . import access, certificates, judge, processes
from .state import read_memory, read_unfinished, refuse_while_restoring

#: How often a host is looked at whose processes end meanwhile; a second longer in between each time.
_LOOKS = 4

DEFAULT_MANIFESTS = Path("/etc/kubernetes/manifests")
KUBELET_CONFIG = Path("/var/lib/kubelet/config.yaml")

#: Path that only this distribution has -> its name.
OTHER_DISTRIBUTIONS = {
    "/var/lib/rancher/rke2": "RKE2",
    "/var/lib/rancher/k3s": "k3s",
    "/var/lib/k0s": "k0s",
    "/var/snap/microk8s": "MicroK8s",
    "/var/lib/rancher/rke": "RKE1",
}
_CERTIFICATES = {
    ETCD: ("cert-file", "trusted-ca-file", "peer-cert-file", "peer-trusted-ca-file"),
    KUBE_APISERVER: (
        "tls-cert-file", "client-ca-file", "etcd-certfile", "etcd-cafile", "kubelet-client-certificate",
        "proxy-client-cert-file", "requestheader-client-ca-file",
    ),
}
_KEYS = {
    ETCD: ("key-file", "peer-key-file"),
    KUBE_APISERVER: ("tls-private-key-file", "etcd-keyfile", "kubelet-client-key", "proxy-client-key-file"),
}


def discover(as_api_server: bool = False) -> dict[str, Any]:
    """Facts of this host as plain data.

    Args:
        as_api_server: also ask each member of etcd in the way that the API server would, with its certificate.

    ``manifests`` holds the text of every file that the kubelet takes for a static pod. ``processes`` holds, per
    component, each running process of that program in a static pod; which one belongs to the manifest is decided by
    who parsed it.

    Raises:
        KubetuneError: a restore is under way, something cannot be read, or a process ends each time while it is looked at.
    """
    refuse_while_restoring()
    for attempt in range(_LOOKS):
        time.sleep(attempt)
        running = _running()
        try:
            facts = _look(running, as_api_server)
        except KubetuneError:
            if all(map(processes.alive, _all(running))):
                raise
        else:
            # A process that was restarted meanwhile is not the one that was read about.
            if all(map(processes.alive, _all(running))):
                return facts
    raise KubetuneError(
        f"etcd or kube-apiserver ended each of {_LOOKS} times while it was looked at: a process that does not stay is mended first "
        "(crictl ps -a, /var/log/pods)"
    )


def _running() -> dict[str, list[processes.Process]]:
    return {
        name: [each for each in processes.find(name, {}) if processes.of_static_pod(each, name)] for name in (ETCD, KUBE_APISERVER)
    }


def _all(running: Mapping[str, Sequence[processes.Process]]) -> list[processes.Process]:
    return [each for found in running.values() for each in found]


def _look(running: Mapping[str, Sequence[processes.Process]], as_api_server: bool) -> dict[str, Any]:
    directory = manifests_directory()
    manifests = _manifests(directory)
    memory = {name: read_memory(name) for name in (ETCD, KUBE_APISERVER)}
    etcd = closest(running[ETCD], manifests.get("etcd.yaml", {}).get("text", ""))
    api_server = closest(running[KUBE_APISERVER], manifests.get("kube-apiserver.yaml", {}).get("text", ""))
    return {
        "host": socket.gethostname(),
        "distribution": distribution(),
        "manifests_directory": str(directory),
        "manifests": manifests,
        "processes": {name: [_process(name, each) for each in found] for name, found in running.items()},
        "memory": memory,
        "allocatable": _allocatable(running[KUBE_APISERVER]),
        "cluster": _cluster(etcd, memory[ETCD], api_server if as_api_server else None),
        "unfinished": read_unfinished(),
        "wal_disk": missing(),
    }


def distribution(root: Path = Path("/")) -> str:
    """``kubeadm``, or the name of what is there instead; empty when nothing is."""
    for path, name in OTHER_DISTRIBUTIONS.items():
        if (root / path.lstrip("/")).is_dir():
            return name
    return "kubeadm" if (root / "etc/kubernetes").is_dir() else ""


def manifests_directory(config: Path = KUBELET_CONFIG) -> Path:
    """The kubelet's staticPodPath."""
    try:
        found = re.search(r"^staticPodPath:[ \t]*[\"']?([^\"'\s]+)", config.read_text(), re.MULTILINE)
    except OSError:
        return DEFAULT_MANIFESTS
    return Path(found.group(1)) if found else DEFAULT_MANIFESTS


def closest(found: Sequence[processes.Process], manifest: str) -> processes.Process | None:
    """Of several processes of a program the one which the manifest's text describes best: most of its words are there."""
    return max(found, key=lambda each: sum(word in manifest for word in each.argv), default=None)


def certificate_facts(files: Mapping[str, str], root: Path, key: bool = False) -> list[dict[str, Any]]:
    """For each (flag, path): the days left, or what is wrong with the file."""
    found = []
    for flag, path in files.items():
        fact: dict[str, Any] = {"flag": flag, "path": path, "days_left": None, "problem": ""}
        inside = root / path.lstrip("/")
        try:
            if key:
                if not inside.is_file():
                    raise KubetuneError("No such file or directory")
            else:
                end = certificates.not_after(inside)
                fact["days_left"] = round((end - datetime.now(timezone.utc)).total_seconds() / 86400, 1)
        except KubetuneError as exc:
            fact["problem"] = str(exc)
        found.append(fact)
    return found


def _manifests(directory: Path) -> dict[str, dict[str, str]]:
    """What the kubelet reads: every file whose name does not start with a dot, whatever it ends in."""
    found = {}
    for path in sorted(directory.glob("[!.]*")) if directory.is_dir() else []:
        if path.is_file():
            data = path.read_bytes()
            found[path.name] = {"text": data.decode(errors="replace"), "sha256": hashlib.sha256(data).hexdigest()}
    return found


def _process(component: str, process: processes.Process) -> dict[str, Any]:
    flags = flags_of(process.argv[1:])
    root = access.container_root(process)

    def files(names: Sequence[str]) -> dict[str, str]:
        return {name: flags[name][-1] for name in names if name in flags}

    return {
        "pid": process.pid,
        "argv": list(process.argv),
        "version": judge.version(f"/proc/{process.pid}/exe"),
        "peak_rss_bytes": processes.peak_rss_bytes(process.pid),
        "certificates": certificate_facts(files(_CERTIFICATES[component]), root)
        + certificate_facts(files(_KEYS[component]), root, key=True),
    }


def _allocatable(api_servers: Sequence[processes.Process]) -> dict[str, str] | None:
    name = access.node_name()
    for process in api_servers:
        try:
            found = access.api_server(flags_of(process.argv[1:]), access.container_root(process)).allocatable(name or "")
        except KubetuneError:
            continue
        if found:
            return {**found, "source": f"node {name} in the API"}
    # No API yet: the machine itself, which is what the kubelet reports unless it reserves something.
    memory = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return {
        "cpu": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory.group(1)}Ki" if memory else "0",
        "source": "the machine's capacity",
    }


def _cluster(
    process: processes.Process | None, remembered: Mapping[str, Any] | None, api_server: processes.Process | None
) -> dict[str, Any] | None:
    """The etcd cluster as its members see it; ``problems`` is empty when it is whole.

    Where no etcd runs here, it is asked for with what was remembered of it. Then ``down`` is true, and ``problems`` are those
    of the other members. None when nothing runs and nothing is remembered. ``unreachable`` tells, for an API server that is
    given, the members which do not answer it, and why. ``changing`` says which host has a window open, in the words of the
    cluster lock's holder; None when none has.
    """
    if process is None:
        access_there = (remembered or {}).get("access")
        if not access_there:
            return None
        name = str(access_there["member"])
    else:
        flags = flags_of(process.argv[1:])
        name = (flags.get("name") or ["default"])[-1]
    try:
        if process is None:
            client = access.EtcdAccess.from_dict(access_there).client()
        else:
            client = access.etcd_access(flags, access.container_root(process)).client()
        # First: a window that ends in between has left nothing to wait for.
        changing = current_holder(client, "change")
        view = cluster.survey(client)
    except KubetuneError as exc:
        return {
            "name": name, "down": process is None, "problems": [f"{exc}: without a quorum of its members nothing is changed"],
            "members": [], "endpoints": [], "client_urls": {}, "unreachable": {}, "leader": "", "database_bytes": None,
            "changing": None,
        }  # fmt: skip
    own = view.by_name(name) if process is None else None
    return {
        "name": name,
        "down": process is None,
        "problems": cluster.problems_for_repair(view, own) if own else cluster.problems(view),
        "members": [each.member.name for each in view.members],
        "endpoints": [each.endpoint for each in view.members if each.endpoint],
        "client_urls": {each.member.name: list(each.member.client_urls) for each in view.members},
        "unreachable": _unreachable(view, api_server) if api_server else {},
        "leader": view.leader.member.name if view.leader else "",
        "database_bytes": max((each.status.db_size for each in view.members if each.status), default=None),
        "changing": changing,
    }


def _unreachable(view: cluster.ClusterView, api_server: processes.Process) -> dict[str, str]:
    """Member -> why it does not answer the API server's own certificate."""
    try:
        client = access.etcd_access_of_api_server(
            flags_of(api_server.argv[1:]), [each.endpoint for each in view.members if each.endpoint], access.container_root(api_server)
        ).client()
        found = cluster.survey(client)
    except KubetuneError as exc:
        return {each.member.name: str(exc) for each in view.members}
    return {each.member.name: each.failure for each in found.members if each.status is None}
