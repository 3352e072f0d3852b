# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real etcd members on loopback: TLS everywhere, client certificates asked for, as kubeadm sets them up."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.client import Client, Tls
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.cluster import ClusterView, problems, survey

from tests.integration.assets import binary


def make_certificates(directory: Path) -> Tls:
    """A CA and one certificate for servers, peers and clients: etcd's gateway needs both usages, as kubeadm gives it."""
    directory.mkdir(parents=True)
    ca_key, ca, key, request, certificate = (
        directory / name for name in ("ca.key", "ca.crt", "etcd.key", "etcd.csr", "etcd.crt")
    )
    extensions = directory / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-subj", "/CN=etcd-ca", "-days", "2"],
        ["req", "-new", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=kubetune-test"],
        [
            "x509",
            "-req",
            "-in",
            request,
            "-CA",
            ca,
            "-CAkey",
            ca_key,
            "-CAcreateserial",
            "-out",
            certificate,
            "-days",
            "2",
            "-extfile",
            extensions,
        ],
    ):
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    return Tls(str(ca), str(certificate), str(key))


@dataclass
class Member:
    name: str
    directory: Path
    client_url: str
    peer_url: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def data_directory(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "etcd.log"

    def log_entries(self, message: str) -> list[dict[str, object]]:
        """Entries of etcd's own log whose message holds the text; ``ts`` is ISO 8601."""
        entries = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [entry for entry in entries if message in str(entry.get("msg", ""))]


@dataclass
class EtcdCluster:
    directory: Path
    members: list[Member]
    tls: Tls
    flags: list[str] = field(default_factory=list)
    program: Path | None = None

    @classmethod
    def create(cls, directory: Path, names: list[str], *flags: str, program: Path | None = None) -> EtcdCluster:
        """
        Args:
            flags: further ones for each member.
            program: another etcd than the lab's.
        """
        members = []
        for name in names:
            client, peer = free_port(), free_port()
            home = directory / name
            home.mkdir(parents=True)
            members.append(Member(name, home, f"https://127.0.0.1:{client}", f"https://127.0.0.1:{peer}"))
        cluster = cls(directory, members, make_certificates(directory / "pki"), list(flags), program)
        try:
            for member in members:
                cluster.start(member)
            cluster.wait_until_whole()
        except BaseException:
            cluster.stop_all()
            raise
        return cluster

    def start(self, member: Member) -> None:
        peers = ",".join(f"{each.name}={each.peer_url}" for each in self.members)
        with open(member.log, "ab") as log:
            member.process = subprocess.Popen(
                [
                    str(self.program or binary("etcd")),
                    f"--name={member.name}",
                    f"--data-dir={member.data_directory}",
                    f"--listen-client-urls={member.client_url}",
                    f"--advertise-client-urls={member.client_url}",
                    f"--listen-peer-urls={member.peer_url}",
                    f"--initial-advertise-peer-urls={member.peer_url}",
                    f"--initial-cluster={peers}",
                    "--initial-cluster-state=new",
                    # Two slow cores with three members on them: the defaults would elect again and again.
                    "--heartbeat-interval=200",
                    "--election-timeout=2000",
                    "--client-cert-auth=true",
                    "--peer-client-cert-auth=true",
                    *(
                        f"--{kind}={path}"
                        for kind, path in (
                            ("cert-file", self.tls.cert_file),
                            ("key-file", self.tls.key_file),
                            ("trusted-ca-file", self.tls.ca_file),
                            ("peer-cert-file", self.tls.cert_file),
                            ("peer-key-file", self.tls.key_file),
                            ("peer-trusted-ca-file", self.tls.ca_file),
                        )
                    ),
                    *self.flags,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self, member: Member, how: signal.Signals = signal.SIGTERM) -> None:
        if member.process:
            member.process.send_signal(how)
            member.process.wait(timeout=30)
            member.process = None

    def stop_all(self) -> None:
        running = [member for member in self.members if member.process]
        for member in running:
            assert member.process
            member.process.kill()
            member.process.wait(timeout=30)
        shutil.rmtree(self.directory, ignore_errors=True)

    def client(self, member: Member | None = None, timeout: float = 5.0) -> Client:
        """Of one member, or of all."""
        chosen = [member] if member else self.members
        return Client([each.client_url for each in chosen], self.tls, timeout)

    def wait_until_whole(self, seconds: float = 60.0) -> ClusterView:
        client = self.client()
        deadline = time.monotonic() + seconds
        while True:
            try:
                view = survey(client)
                found = problems(view)
            except KubetuneError as exc:
                found = [str(exc)]
            if not found:
                return view
            if time.monotonic() > deadline:
                logs = [f"{each.name}: {each.log.read_text()[-600:]}" for each in self.members]
                raise TimeoutError("\n".join([*found, *logs]))
            time.sleep(0.2)

    def leader(self) -> Member:
        leader = self.wait_until_whole().leader
        assert leader
        return self.named(leader.member.name)

    def named(self, name: str) -> Member:
        return next(each for each in self.members if each.name == name)

    def fill(self, megabytes: int, prefix: str = "/registry/fill/") -> None:
        """Keys of half a megabyte each."""
        client = self.client(self.members[0], timeout=20.0)
        value = base64.b64encode(os.urandom(360_000)).decode()
        for number in range(megabytes * 2):
            client.put(f"{prefix}{number:06}", value)


# Each at most once in a run: a port is handed out before anything listens on it.
_ports = iter(random.sample(range(20_000, 32_000), 12_000))


def free_port() -> int:
    """Below the range from which the kernel takes ports for outgoing connections: no member's client can be on it.

    Raises:
        StopIteration: the run has used all 12 000.
    """
    while True:
        port = next(_ports)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
