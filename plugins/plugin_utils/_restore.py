# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of a restore: a host's etcd by the text of its manifest. No connection here."""

from __future__ import annotations

from typing import Any, Mapping

import yaml

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.access import etcd_access
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod import wal
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import ETCD, KUBE_APISERVER
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.manifest import Manifest
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _static_pods, _yaml, _yaml_edit

_KEYS = ("service-account-key-file", "service-account-signing-key-file", "encryption-provider-config")


def member(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the module etcd_restore takes as ``member``, from what it read.

    Raises:
        KubetuneError: there is no manifest of etcd, or it does not say what is needed.
    """
    texts = {name: found["text"] for name, found in facts["components"].items()}
    if not texts[ETCD]:
        raise KubetuneError(
            f"there is no {facts['manifests_directory']}/etcd.yaml, nor one that was taken away by a restore: this host cannot be "
            "restored; rebuild it, and let it join with 'kubeadm join --control-plane'"
        )
    etcd = _manifest(texts[ETCD], ETCD)
    flags = _static_pods.on_host(etcd)
    data, place = etcd.host_path(wal.data_directory(etcd.flags())), etcd.host_path(wal.directory(etcd.flags()))
    if not data or not place:
        raise KubetuneError("no hostPath volume of the manifest of etcd carries its data directory and its WAL: where they are is not known")
    if not flags.get("initial-advertise-peer-urls"):
        raise KubetuneError("the manifest of etcd has no --initial-advertise-peer-urls: its peers could not find it")
    found: dict[str, Any] = {
        "name": flags.get("name", ["default"])[-1],
        "image": etcd.image,
        "data": data,
        "wal": place,
        "peer_urls": flags["initial-advertise-peer-urls"][-1].split(","),
        "access": etcd_access(flags).to_dict(),
        "manifests": facts["manifests_directory"],
        "known": [each.partition("=")[0] for each in flags.get("initial-cluster", [""])[-1].split(",") if each],
        "api_server": {},
        "etcd_prefix": "/registry",
        "keys": {},
    }
    if texts[KUBE_APISERVER]:
        server = _manifest(texts[KUBE_APISERVER], KUBE_APISERVER)
        found["api_server"] = _static_pods.where(server)
        unknown = [f"--{name}" for name in ("advertise-address", "client-ca-file") if name not in found["api_server"]]
        if unknown:
            raise KubetuneError(f"the manifest of kube-apiserver has no {' and no '.join(unknown)}: its health could not be asked for")
        found["etcd_prefix"] = server.flags().get("etcd-prefix", ["/registry"])[-1].rstrip("/")
        found["keys"] = {name: values for name, values in _static_pods.on_host(server).items() if name in _KEYS}
    return found


def rejoining(text: str, initial_cluster: str) -> str:
    """The manifest of a member that starts with no data and joins a cluster that is there; the flags mean nothing later.

    Raises:
        KubetuneError: it is no manifest of etcd.
    """
    manifest = _manifest(text, ETCD)
    manifest.set_flag("initial-cluster", [initial_cluster])
    manifest.set_flag("initial-cluster-state", ["existing"])
    try:
        return _yaml_edit.edit(text, manifest.pod)
    except _yaml_edit.NotKept:
        return _yaml.dump(manifest.pod)


def _manifest(text: str, component: str) -> Manifest:
    try:
        return Manifest(_yaml.load(text), component)
    except yaml.YAMLError as exc:
        raise KubetuneError(f"the manifest of {component} is not YAML ({getattr(exc, 'problem', exc)}): mend it first") from exc
