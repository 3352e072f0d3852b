# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A control plane that has never seen kubeadm's manifests."""

from __future__ import annotations

import json

testinfra_hosts = ["ansible://kube_control_plane"]

ETCDCTL = (
    "/proc/$(pgrep -xo etcd)/root/usr/local/bin/etcdctl --cacert /etc/kubernetes/pki/etcd/ca.crt "
    "--cert /etc/kubernetes/pki/etcd/healthcheck-client.crt --key /etc/kubernetes/pki/etcd/healthcheck-client.key "
)


def test_only_our_manifests_are_there(host) -> None:
    assert host.check_output("ls -A /etc/kubernetes/manifests").split() == ["etcd.yaml", "kube-apiserver.yaml"]


def test_etcd_is_healthy_and_has_the_guide_s_quota(host) -> None:
    (status,) = json.loads(host.check_output(ETCDCTL + "endpoint status --write-out=json"))
    assert status["Status"]["leader"] == status["Status"]["header"]["member_id"]
    assert status["Status"]["dbSizeQuota"] == 8589934592


def test_etcd_takes_nobody_without_a_certificate(host) -> None:
    refused = host.run("curl -sS --cacert /etc/kubernetes/pki/etcd/ca.crt https://127.0.0.1:2379/health")
    assert refused.rc != 0


def test_api_server_is_ready_and_has_the_guide_s_seats(host) -> None:
    kubectl = "kubectl --kubeconfig /etc/kubernetes/super-admin.conf get --raw "
    assert host.check_output(kubectl + "/readyz") == "ok"
    seats = [
        float(line.split()[-1])
        for line in host.check_output(kubectl + "/metrics").splitlines()
        if line.startswith("apiserver_flowcontrol_nominal_limit_seats{")
    ]
    # 3000 + 1000, shared out over the priority levels and rounded up for each.
    assert 4000 <= sum(seats) < 4000 + len(seats)
