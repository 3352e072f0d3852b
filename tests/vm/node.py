# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine as a node: containerd, the kubelet, and etcd as its static pod, as kubeadm makes it; one member, no API server.

An API server would take an emulated processor minutes to start and is not needed: the kubelet runs static pods without one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.lab import archive, binaries, images
from tests.lab.console import say, until, waiting
from tests.lab.settings import Settings, from_environment

from .machine import Machine

ADDRESS = "10.0.2.15"  # of tests/vm/files/guest/etc/systemd/system/vm-network.service
_LAB_TREE = Path(images.__file__).with_name("files") / "node"
_KUBELET_CONFIG = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: /etc/kubernetes/manifests
cgroupDriver: systemd
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
enableServer: false
failSwapOn: false
"""
# Standalone: no API server is told anything.
_KUBELET_DROP_IN = """\
[Service]
ExecStart=
ExecStart=/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml
"""
_KUBEADM_CONFIG = """\
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration: {{criSocket: "unix:///run/containerd/containerd.sock"}}
localAPIEndpoint: {{advertiseAddress: {address}}}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v{kubernetes}
# RSA keys take an emulated processor long.
encryptionAlgorithm: ECDSA-P256
"""
_PHASES = ("certs etcd-ca", "certs etcd-server", "certs etcd-peer", "certs etcd-healthcheck-client", "certs apiserver-etcd-client", "etcd local")
_TLS = "--cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/healthcheck-client.crt --key /etc/kubernetes/pki/etcd/healthcheck-client.key"


def provide_archive(settings: Settings) -> Path:
    """The images of etcd's pod alone: importing a large archive takes an emulated processor minutes."""
    binaries.provide(settings)
    target = settings.assets / f"images-{settings.kubernetes}-{settings.etcd}" / "etcd.tar"
    if not target.exists():
        names = images.control_plane_names(settings)
        with binaries.cache_lock(settings), tempfile.TemporaryDirectory(dir=settings.assets) as scratch:
            etcd = archive.Image(names["etcd"], {f"/usr/local/bin/{name}": binaries.etcd_dir(settings) / name for name in binaries.ETCD})
            pause = archive.Image(names["pause"], {"/pause": binaries.pause_file(settings)}, ("/pause",))
            archive.write(Path(scratch) / "etcd.tar", [etcd, pause], settings.architecture)
            target.parent.mkdir(exist_ok=True)
            (Path(scratch) / "etcd.tar").rename(target)
    return target


def install(machine: Machine, settings: Settings | None = None) -> None:
    """Makes a machine that runs a node, with a running etcd whose data is in /var/lib/etcd, whatever is mounted there."""
    settings = settings or from_environment()
    images_file = provide_archive(settings)
    with waiting(f"{machine.name}: programs and images"):
        for name in ("kubelet", "kubeadm"):
            machine.copy_in(binaries.kubernetes_dir(settings) / name, f"/usr/bin/{name}")
        machine.copy_in(binaries.etcd_dir(settings) / "etcdctl", "/usr/bin/etcdctl")
        machine.copy_in(images_file, "/root/images.tar")
        pause = images.control_plane_names(settings)["pause"]
        config = (_LAB_TREE / "etc/containerd/config.toml").read_text().replace("@PAUSE@", pause)
        machine.write("/etc/containerd/config.toml", config + _SYSTEMD_CGROUP)
        machine.write("/etc/systemd/system/kubelet.service", (_LAB_TREE / "etc/systemd/system/kubelet.service").read_text())
        machine.write("/etc/systemd/system/kubelet.service.d/standalone.conf", _KUBELET_DROP_IN)
        machine.write("/var/lib/kubelet/config.yaml", _KUBELET_CONFIG)
        machine.write("/root/kubeadm.yaml", _KUBEADM_CONFIG.format(address=ADDRESS, kubernetes=settings.kubernetes))
        machine.shell(
            "systemctl daemon-reload; systemctl enable --quiet --now containerd; ctr --namespace k8s.io images import /root/images.tar; rm /root/images.tar",
            timeout=900,
        )
    with waiting(f"{machine.name}: etcd's certificates and manifest"):
        machine.shell("; ".join(f"kubeadm init phase {phase} --config /root/kubeadm.yaml" for phase in _PHASES), timeout=900)
    with waiting(f"{machine.name}: the kubelet starts etcd"):
        machine.shell("systemctl enable --quiet --now kubelet")
        until(f"{machine.name}: etcd is ready", lambda: etcd_ready(machine), seconds=600, every=2)
    say(f"{machine.name}: etcd is ready")


# With cgroup v2 alone, as on a real host.
_SYSTEMD_CGROUP = """
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true
"""


def etcd_ready(machine: Machine) -> bool:
    """Whether etcd says that it is ready."""
    return machine.run("curl", "--silent", "--fail", "--max-time", "5", "http://127.0.0.1:2381/readyz", check=False).returncode == 0


def etcdctl_command(arguments: str) -> str:
    """etcdctl for the guest's shell."""
    return f"etcdctl --endpoints https://127.0.0.1:2379 {_TLS} --command-timeout 60s --dial-timeout 60s {arguments}"


def etcdctl(machine: Machine, arguments: str) -> str:
    """Standard output of etcdctl in the guest, which must succeed."""
    return machine.shell(etcdctl_command(arguments)).stdout.strip()


def etcd_pid(machine: Machine) -> int | None:
    """Process id of etcd in the guest, or None."""
    found = machine.run("pgrep", "--exact", "--oldest", "etcd", check=False).stdout.split()
    return int(found[0]) if found else None
