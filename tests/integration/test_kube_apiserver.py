# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real kube-apiserver from our standalone manifest and the guide's flags, against a real TLS etcd on loopback."""

from __future__ import annotations

import http.client
import json
import re
import signal
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._node import access, discover, judge, processes
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod import standalone
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS, KUBE_APISERVER
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.flags import version_of
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.manifest import Manifest, flags_of
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.plan import Memory, plan, wishes

from tests.integration.assets import binary
from tests.integration.etcd_cluster import EtcdCluster, free_port

COMPONENT = COMPONENTS[KUBE_APISERVER]
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    home = tmp_path_factory.mktemp("api")
    etcd = EtcdCluster.create(home / "etcd", ["cp1"])
    try:
        pki = Pki(home / "pki")
        argv = planned_argv(etcd, pki.directory)
        yield from running(home, argv)
    finally:
        etcd.stop_all()


def planned_argv(etcd: EtcdCluster, pki: Path) -> list[str]:
    """The manifest of a bare host, tuned by the guide's profile. Only the listener is narrowed, and etcd's certificate is
    that of the test's member."""
    program = str(binary(KUBE_APISERVER))
    version = judge.version(program)
    pod = standalone.render(
        KUBE_APISERVER,
        {
            "image": f"registry.k8s.io/kube-apiserver:v{version}", "advertise_address": "127.0.0.1", "secure_port": free_port(),
            "service_cluster_ip_range": "10.96.0.0/16", "etcd_servers": etcd.members[0].client_url, "pki_dir": str(pki),
        },
    )
    wanted, wrong = wishes(COMPONENT, "guide", {}, {}, {})
    assert wrong == []
    manifest = plan(COMPONENT, Manifest(pod, KUBE_APISERVER), wanted, Memory(), version_of(version)).manifest
    tls = etcd.tls
    for flag, path in (("etcd-cafile", tls.ca_file), ("etcd-certfile", tls.cert_file), ("etcd-keyfile", tls.key_file)):
        manifest.set_flag(flag, [path])
    manifest.set_flag("bind-address", ["127.0.0.1"])
    assert judge.judge(program, manifest.argv[1:]).accepted
    return manifest.argv


def running(home: Path, argv: list[str]) -> Iterator[ApiServer]:
    started = time.monotonic()
    log = home / "kube-apiserver.log"
    with open(log, "wb") as stream:
        process = subprocess.Popen(argv, executable=binary(KUBE_APISERVER), stdout=stream, stderr=stream, cwd=home)
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


def test_the_guide_s_flags_start(server: ApiServer) -> None:
    assert server.seconds < READY
    for flag in COMPONENT.flags:
        if flag.guide is not None:
            assert server.flags[flag.name] == [flag.guide]


def test_the_process_is_found_and_read_as_on_a_host(server: ApiServer) -> None:
    own = {name: server.flags[name][-1] for name in COMPONENT.own_flags}
    process, = processes.find(KUBE_APISERVER, own)
    assert (process.pid, list(process.argv)) == (server.process.pid, server.argv)
    facts = discover._process(KUBE_APISERVER, process)
    assert facts["version"] == judge.version(str(binary(KUBE_APISERVER)))
    assert facts["peak_rss_bytes"] > 50 * 2**20
    assert len(facts["certificates"]) == 11
    assert [fact for fact in facts["certificates"] if fact["problem"]] == []
    assert all(1 < fact["days_left"] <= 2 for fact in facts["certificates"] if fact["days_left"] is not None)


def test_the_seats_are_the_guide_s(server: ApiServer) -> None:
    """3000 + 1000, shared out among the priority levels and rounded up for each."""
    seats = {
        line.partition("{")[2].partition("}")[0]: float(line.split()[-1])
        for line in server.ask("/metrics").read().decode().splitlines()
        if line.startswith("apiserver_flowcontrol_nominal_limit_seats{")
    }
    assert len(seats) >= 7
    assert 4000 <= sum(seats.values()) <= 4000 + len(seats)


def test_the_server_s_own_account_of_its_flags(server: ApiServer) -> None:
    """/flagz, for people: its delimiter is another one in each process, and durations come in Go's long form."""
    response = server.ask("/flagz")
    body = response.read().decode()
    if response.status == 404:
        pytest.skip("this version has no /flagz (ComponentFlagz is off)")
    for flag in COMPONENT.flags:
        if flag.guide is None:
            continue
        shown = re.search(rf"^{flag.name}[^\w\n-]+(.*)$", body, re.MULTILINE)
        assert shown, flag.name
        if flag.name == "watch-cache-sizes":  # beside the server's own entries
            assert set(flag.guide.split(",")) <= set(shown[1].strip("[]").split(","))
        else:
            assert flag.same(flag.guide, shown[1]), (flag.name, shown[1])


def test_it_leaves_within_seconds_under_an_open_watch(server: ApiServer) -> None:
    """The drain flag (G31): without it the kubelet has to kill the process after 30 s."""
    watch = server.ask("/api/v1/namespaces?watch=1")
    assert json.loads(watch.readline())["type"] == "ADDED"
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=30) == 0
    assert time.monotonic() - began < 15
