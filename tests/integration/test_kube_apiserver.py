# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real kube-apiserver from our standalone manifest and the guide's flags, against a real TLS etcd on loopback."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Iterator

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._node import discover, judge, processes
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod import standalone
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS, KUBE_APISERVER
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.flags import version_of
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.manifest import Manifest
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.plan import Memory, plan, wishes

from tests.integration.api_server import READY, ApiServer, Pki, running
from tests.integration.assets import binary
from tests.integration.etcd_cluster import EtcdCluster, free_port

COMPONENT = COMPONENTS[KUBE_APISERVER]
@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    home = tmp_path_factory.mktemp("api")
    etcd = EtcdCluster.create(home / "etcd", ["cp1"])
    try:
        pki = Pki(home / "pki")
        argv = planned_argv(etcd, pki.directory)
        yield from running(home, argv, binary(KUBE_APISERVER))
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
