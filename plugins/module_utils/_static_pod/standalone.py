# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Complete manifests for hosts that have certificates but no manifests yet, in the shape that kubeadm gives them.

Every path is kubeadm's, below ``pki_dir``; tuning is added by the same plan that merges into a live manifest.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping

from .._errors import KubetuneError

#: Kubernetes' own number for priorityClassName system-node-critical.
NODE_CRITICAL = 2000001000
#: etcd reads these at its first start only: an inventory that lists members which joined later changes nothing.
FIRST_START = frozenset({"initial-cluster", "initial-cluster-state", "initial-cluster-token"})


def render(component: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest from the role's ``standalone`` variable.

    Raises:
        KubetuneError: something that only the inventory can know is missing, or the member could not start alone.
    """
    needed, make = _RENDERERS[component]
    missing = [name for name in needed if not given.get(name)]
    if missing:
        role = component.replace("-", "_") + "_static_pod_standalone"
        raise KubetuneError(f"{component}: {role} lacks {', '.join(missing)}: a complete manifest cannot be rendered without")
    return make(given)


def _etcd(given: Mapping[str, Any]) -> dict[str, Any]:
    address, data_dir = given["advertise_address"], given.get("data_dir") or "/var/lib/etcd"
    pki = (given.get("pki_dir") or "/etc/kubernetes/pki") + "/etcd"
    url = f"https://{_host(address)}"
    state = given.get("initial_cluster_state") or "new"
    names = {each.partition("=")[0] for each in str(given["initial_cluster"]).split(",")}
    if state == "new" and len(names) > 1:
        raise KubetuneError(
            f"etcd: initial_cluster names {', '.join(sorted(names))} with initial_cluster_state new: each would wait for the "
            f"others, and hosts are changed one at a time. Let the first member start alone (initial_cluster: NAME={url}:2380 "
            "with its own name), then add each other one with 'etcdctl member add' and initial_cluster_state existing"
        )
    flags = {
        "name": given["name"],
        "data-dir": data_dir,
        "listen-client-urls": f"https://127.0.0.1:2379,{url}:2379",
        "advertise-client-urls": f"{url}:2379",
        "listen-peer-urls": f"{url}:2380",
        "initial-advertise-peer-urls": f"{url}:2380",
        "initial-cluster": given["initial_cluster"],
        "initial-cluster-state": state,
        "listen-metrics-urls": "http://127.0.0.1:2381",
        "cert-file": f"{pki}/server.crt",
        "key-file": f"{pki}/server.key",
        "trusted-ca-file": f"{pki}/ca.crt",
        "client-cert-auth": "true",
        "peer-cert-file": f"{pki}/peer.crt",
        "peer-key-file": f"{pki}/peer.key",
        "peer-trusted-ca-file": f"{pki}/ca.crt",
        "peer-client-cert-auth": "true",
    }
    if given.get("wal_dir"):
        flags["wal-dir"] = given["wal_dir"]
    probes = {
        "livenessProbe": _probe("127.0.0.1", 2381, "/livez", "HTTP", period=10, failures=8),
        "readinessProbe": _probe("127.0.0.1", 2381, "/readyz", "HTTP", period=1, failures=3, delay=0),
        "startupProbe": _probe("127.0.0.1", 2381, "/readyz", "HTTP", period=10, failures=24),
    }
    volumes = {"etcd-data": (data_dir, "DirectoryOrCreate", False), "etcd-certs": (pki, "DirectoryOrCreate", False)}
    return _pod("etcd", given["image"], flags, {"cpu": "100m", "memory": "100Mi"}, probes, volumes)


def _kube_apiserver(given: Mapping[str, Any]) -> dict[str, Any]:
    address, pki = given["advertise_address"], given.get("pki_dir") or "/etc/kubernetes/pki"
    port = int(given.get("secure_port") or 6443)
    flags = {
        "advertise-address": address,
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "client-ca-file": f"{pki}/ca.crt",
        "enable-admission-plugins": "NodeRestriction",
        "enable-bootstrap-token-auth": "true",
        "etcd-cafile": f"{pki}/etcd/ca.crt",
        "etcd-certfile": f"{pki}/apiserver-etcd-client.crt",
        "etcd-keyfile": f"{pki}/apiserver-etcd-client.key",
        "etcd-servers": given.get("etcd_servers") or "https://127.0.0.1:2379",
        "kubelet-client-certificate": f"{pki}/apiserver-kubelet-client.crt",
        "kubelet-client-key": f"{pki}/apiserver-kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
        "proxy-client-cert-file": f"{pki}/front-proxy-client.crt",
        "proxy-client-key-file": f"{pki}/front-proxy-client.key",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-client-ca-file": f"{pki}/front-proxy-ca.crt",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "secure-port": str(port),
        "service-account-issuer": given.get("service_account_issuer") or "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": f"{pki}/sa.pub",
        "service-account-signing-key-file": f"{pki}/sa.key",
        "service-cluster-ip-range": given["service_cluster_ip_range"],
        "tls-cert-file": f"{pki}/apiserver.crt",
        "tls-private-key-file": f"{pki}/apiserver.key",
    }
    probes = {
        "livenessProbe": _probe(address, port, "/livez", "HTTPS", period=10, failures=8),
        "readinessProbe": _probe(address, port, "/readyz", "HTTPS", period=1, failures=3, delay=0),
        "startupProbe": _probe(address, port, "/livez", "HTTPS", period=10, failures=24),
    }
    volumes = {"k8s-certs": (pki, "DirectoryOrCreate", True), "ca-certs": ("/etc/ssl/certs", "DirectoryOrCreate", True)}
    return _pod("kube-apiserver", given["image"], flags, {"cpu": "250m"}, probes, volumes)


def _pod(
    name: str,
    image: str,
    flags: Mapping[str, str],
    requests: Mapping[str, str],
    probes: Mapping[str, Any],
    volumes: Mapping[str, tuple[str, str, bool]],
) -> dict[str, Any]:
    """``volumes``: name -> (path on the host and in the container, hostPath type, read-only)."""
    mounts = [
        {"mountPath": path, "name": volume, **({"readOnly": True} if read_only else {})}
        for volume, (path, _type, read_only) in volumes.items()
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "labels": {"component": name, "tier": "control-plane"},
            "name": name,
            "namespace": "kube-system",
        },
        "spec": {
            "containers": [
                {
                    "command": [name, *(f"--{flag}={value}" for flag, value in flags.items())],
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "name": name,
                    "resources": {"requests": dict(requests)},
                    "volumeMounts": mounts,
                    **probes,
                }
            ],
            "hostNetwork": True,
            "priority": NODE_CRITICAL,
            "priorityClassName": "system-node-critical",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [
                {"hostPath": {"path": path, "type": kind}, "name": volume} for volume, (path, kind, _ro) in volumes.items()
            ],
        },
    }


def _probe(host: str, port: int, path: str, scheme: str, period: int, failures: int, delay: int = 10) -> dict[str, Any]:
    return {
        "failureThreshold": failures,
        "httpGet": {"host": host, "path": path, "port": port, "scheme": scheme},
        "initialDelaySeconds": delay,
        "periodSeconds": period,
        "timeoutSeconds": 15,
    }


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


_RENDERERS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "etcd": (("name", "image", "advertise_address", "initial_cluster"), _etcd),
    "kube-apiserver": (("image", "advertise_address", "service_cluster_ip_range"), _kube_apiserver),
}
