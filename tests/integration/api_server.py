# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real kube-apiserver on loopback, and the certificates that it needs."""

from __future__ import annotations

import http.client
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from ansible_collections.kubetune.control_plane.plugins.module_utils._node import access
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.manifest import flags_of

#: Seconds. On two busy cores it takes about ten.
READY = 90


class Pki:
    """The certificates of a control plane, under kubeadm's names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self._authority("ca")
        self._authority("front-proxy-ca")
        self._certificate("apiserver", "ca", "/CN=kube-apiserver")
        self._certificate("apiserver-kubelet-client", "ca", "/O=kubeadm:cluster-admins/CN=kube-apiserver-kubelet-client")
        self._certificate("front-proxy-client", "front-proxy-ca", "/CN=front-proxy-client")
        self._certificate("admin", "ca", "/O=system:masters/CN=admin")
        self._openssl("genrsa", "-out", directory / "sa.key", "2048")
        self._openssl("rsa", "-in", directory / "sa.key", "-pubout", "-out", directory / "sa.pub")

    def _authority(self, name: str) -> None:
        certificate = self.directory / f"{name}.crt"
        self._openssl("req", "-x509", *self._key(name), "-out", certificate, "-subj", f"/CN={name}", "-days", "2")

    def _certificate(self, name: str, authority: str, subject: str) -> None:
        request, extensions = self.directory / f"{name}.csr", self.directory / "extensions"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:10.96.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        self._openssl("req", "-new", *self._key(name), "-out", request, "-subj", subject)
        signer = ("-CA", self.directory / f"{authority}.crt", "-CAkey", self.directory / f"{authority}.key", "-CAcreateserial")
        self._openssl(
            "x509", "-req", "-in", request, *signer, "-out", self.directory / f"{name}.crt", "-days", "2", "-extfile", extensions,
        )

    def _key(self, name: str) -> tuple[object, ...]:
        return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", self.directory / f"{name}.key"

    def _openssl(self, *words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


@dataclass
class ApiServer:
    process: subprocess.Popen[bytes]
    argv: list[str]
    flags: dict[str, list[str]]
    log: Path
    seconds: float

    def ask(self, path: str) -> http.client.HTTPResponse:
        """GET as an administrator; the connection stays open for a watch."""
        pki = Path(self.flags["client-ca-file"][-1]).parent
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        connection = http.client.HTTPSConnection("127.0.0.1", int(self.flags["secure-port"][-1]), timeout=30, context=context)
        connection.request("GET", path)
        return connection.getresponse()


def running(home: Path, argv: list[str], program: Path) -> Iterator[ApiServer]:
    """A kube-apiserver that is ready, until the caller is done with it."""
    started = time.monotonic()
    log = home / "kube-apiserver.log"
    with open(log, "wb") as stream:
        process = subprocess.Popen(argv, executable=program, stdout=stream, stderr=stream, cwd=home)
    flags = flags_of(argv[1:])
    try:
        local = access.api_server(flags)
        while why := local.unready():
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() - started < READY, f"{why}\n{log.read_text()[-3000:]}"
            time.sleep(0.2)
        yield ApiServer(process, argv, flags, log, time.monotonic() - started)
    finally:
        process.kill()
        process.wait()
