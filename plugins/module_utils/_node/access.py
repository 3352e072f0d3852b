# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Access to the host's etcd cluster and API server with the credentials that the host already has."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

from .._errors import KubetuneError
from .._etcd.client import Client, Tls
from . import certificates
from .processes import Process

KUBELET_CERTIFICATE = Path("/var/lib/kubelet/pki/kubelet-client-current.pem")


@dataclass(frozen=True)
class EtcdAccess:
    """How to reach the cluster from this host: the local member first, then the others."""

    endpoints: tuple[str, ...]
    ca_file: str
    cert_file: str
    key_file: str

    def client(self, timeout: float = 5.0) -> Client:
        tls = Tls(self.ca_file, self.cert_file, self.key_file) if self.ca_file else None
        return Client(self.endpoints, tls, timeout)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EtcdAccess:
        return cls(tuple(data["endpoints"]), data["ca_file"], data["cert_file"], data["key_file"])


def etcd_access(flags: Mapping[str, Sequence[str]], root: Path = Path("/")) -> EtcdAccess:
    """From etcd's own flags: its server certificate, which its gateway needs for client use anyway (kubeadm gives it both).

    Args:
        flags: of the running etcd or of its manifest.
        root: where the container's paths are found, such as /proc/PID/root.
    """
    endpoints = tuple(",".join(flags.get("advertise-client-urls", [])).split(","))
    if not endpoints[0]:
        raise KubetuneError("etcd has no --advertise-client-urls: its members cannot be found")
    if not endpoints[0].startswith("https"):
        return EtcdAccess(endpoints, "", "", "")
    files = [(flags.get(name) or [""])[-1] for name in ("trusted-ca-file", "cert-file", "key-file")]
    if not all(files):
        raise KubetuneError("etcd serves TLS without --trusted-ca-file, --cert-file or --key-file: no client can be made of that")
    return EtcdAccess(endpoints, *(str(_under(root, path)) for path in files))


def etcd_access_of_api_server(flags: Mapping[str, Sequence[str]], endpoints: Sequence[str], root: Path = Path("/")) -> EtcdAccess:
    """The same with the certificate that an API server of these flags has for etcd."""
    files = [(flags.get(name) or [""])[-1] for name in ("etcd-cafile", "etcd-certfile", "etcd-keyfile")]
    if not all(files):
        return EtcdAccess(tuple(endpoints), "", "", "")
    return EtcdAccess(tuple(endpoints), *(str(_under(root, path)) for path in files))


class ApiServer:
    """The local kube-apiserver at the address that it advertises, verified against the cluster's CA."""

    def __init__(self, host: str, port: int, ca_file: str) -> None:
        self.url = f"https://{host}:{port}"
        self._host, self._port = host, port
        try:
            self._context = ssl.create_default_context(cafile=ca_file)
            if KUBELET_CERTIFICATE.exists():
                # Where anonymous requests are off, the kubelet's own certificate may still ask for health.
                self._context.load_cert_chain(str(KUBELET_CERTIFICATE))
        except (OSError, ssl.SSLError) as exc:
            raise KubetuneError(f"cannot use the CA {ca_file} for the API server: {exc}") from exc

    def get(self, path: str, timeout: float = 5.0) -> tuple[int, str]:
        """(HTTP status, body); raises OSError or http.client.HTTPException when it does not answer."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._context)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()

    def unready(self) -> str:
        """Why it is not ready; empty when /readyz answers 200."""
        try:
            status, body = self.get("/readyz?verbose", timeout=3.0)
        except (OSError, http.client.HTTPException) as exc:
            return f"no answer: {exc}"
        if status == 200:
            return ""
        failed = [line for line in body.splitlines() if line.startswith("[-]")]
        return f"HTTP {status}: " + ("; ".join(failed) or body[:200])

    def allocatable(self, node: str) -> dict[str, str] | None:
        """The node's allocatable cpu and memory; None when the API does not say."""
        try:
            status, body = self.get(f"/api/v1/nodes/{node}")
            found = json.loads(body)["status"]["allocatable"] if status == 200 else None
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return None
        return {"cpu": found["cpu"], "memory": found["memory"]} if found else None


def address_flags(flags: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Those of an API server's flags that `api_server` takes."""
    return {name: flags[name] for name in ("advertise-address", "secure-port", "client-ca-file") if name in flags}


def api_server(flags: Mapping[str, Sequence[str]], root: Path = Path("/")) -> ApiServer:
    try:
        host, ca_file = flags["advertise-address"][-1], flags["client-ca-file"][-1]
    except KeyError as exc:
        raise KubetuneError(f"kube-apiserver has no --{exc.args[0]}: its health cannot be asked for") from exc
    return ApiServer(host, int(flags.get("secure-port", ["6443"])[-1]), str(_under(root, ca_file)))


def node_name() -> str | None:
    """The name in the kubelet's client certificate (CN system:node:NAME)."""
    try:
        return common_name_of_node(certificates.first(KUBELET_CERTIFICATE))
    except KubetuneError:
        return None


def common_name_of_node(der: bytes) -> str | None:
    """NAME of the subject CN system:node:NAME. In DER the byte before a string is its length (below 128 here)."""
    prefix = b"system:node:"
    start = der.find(prefix)
    if start < 1:
        return None
    return der[start + len(prefix) : start + der[start - 1]].decode()


def container_root(process: Process) -> Path:
    """Where a container's files are found from the host while its process runs."""
    return Path(f"/proc/{process.pid}/root")


def _under(root: Path, path: str) -> Path:
    return root / path.lstrip("/")
