# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's image (Debian with systemd, containerd and the kubelet) and the archive of the control plane's images."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

from . import archive, binaries
from .console import output, run, say, waiting
from .engine import LABEL
from .errors import LabError
from .settings import Settings

SUITE = "bookworm"
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "udev", "kmod", "procps", "util-linux", "mount", "e2fsprogs", "xfsprogs", "python3",
    "python3-apt", "containerd", "containernetworking-plugins", "iproute2", "iptables", "ethtool", "conntrack", "socat",
    "ca-certificates", "openssl", "curl", "less",
)  # fmt: skip
_FILES = Path(__file__).with_name("files")
_TREE = _FILES / "node"
# Links to /dev/null in the node. udevd would act on the devices of the whole machine, which /sys shows here; the timers
# want a network; Debian's own sysctl files set values of the host's kernel.
MASKED = (
    *(f"etc/systemd/system/systemd-udev{unit}" for unit in (
        "d.service", "d-control.socket", "d-kernel.socket", "-trigger.service", "-settle.service",
    )),
    *(f"etc/systemd/system/{unit}" for unit in ("apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "e2scrub_all.timer")),
    *(f"etc/sysctl.d/{file}" for file in ("50-pid-max.conf", "99-protect-links.conf")),
)  # fmt: skip
REPOSITORY = "kubetune-lab"
# In the node, for containerd's import: a folder of the cache mounted read-only.
ARCHIVE_MOUNT = "/opt/lab"


def base_file(settings: Settings) -> Path:
    """Debian's root file system as an archive, named after what is in it."""
    return settings.assets / f"base-{SUITE}-{_digest(*PACKAGES)}.tar"


def provide_base(settings: Settings) -> Path:
    """Makes the base with Debian's own packages; no image registry is needed."""
    target = base_file(settings)
    with binaries.cache_lock(settings):
        if not target.exists():
            partial = target.with_suffix(".part")
            partial.unlink(missing_ok=True)
            with waiting(f"making the node's base system (Debian {SUITE})"):
                run(["mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", f"--include={','.join(PACKAGES)}", SUITE, partial])
            partial.rename(target)
    return target


def control_plane_names(settings: Settings) -> dict[str, str]:
    """Component -> image name with tag, as this kubeadm wants them."""
    kubeadm = binaries.kubernetes_dir(settings) / "kubeadm"
    listed = output([kubeadm, "config", "images", "list", "--kubernetes-version", f"v{settings.kubernetes}"])
    names = {line.rpartition("/")[2].partition(":")[0]: line for line in listed.split()}
    wanted = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "pause")
    return {component: names[component] for component in wanted}


def provide_archive(settings: Settings) -> Path:
    """The control plane's images in one archive, under their official names, with our binaries inside."""
    kubernetes, etcd = binaries.kubernetes_dir(settings), binaries.etcd_dir(settings)
    target = settings.assets / f"images-{settings.kubernetes}-{settings.etcd}" / "images.tar"
    with binaries.cache_lock(settings):
        if not target.exists():
            names = control_plane_names(settings)
            images = [
                archive.Image(names[name], {f"/usr/local/bin/{name}": kubernetes / name})
                for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
            ]
            images.append(archive.Image(names["etcd"], {f"/usr/local/bin/{name}": etcd / name for name in binaries.ETCD}))
            images.append(archive.Image(names["pause"], {"/pause": binaries.pause_file(settings)}, ("/pause",)))
            target.parent.mkdir(parents=True, exist_ok=True)
            with waiting("packing the control plane's images"):
                archive.write(target.with_suffix(".part"), images, settings.architecture)
            target.with_suffix(".part").rename(target)
    return target


def node_image(settings: Settings) -> str:
    """Name of the node's image; its tag changes with everything that goes into it."""
    tree = [path.relative_to(_TREE).as_posix() + path.read_text() for path in sorted(_TREE.rglob("*")) if path.is_file()]
    pause = control_plane_names(settings)["pause"]
    return f"{REPOSITORY}/node:{settings.kubernetes}-{settings.etcd}-{_digest(base_file(settings).name, pause, *MASKED, *tree)}"


def provide_node_image(settings: Settings) -> str:
    """Base system, binaries and the lab's own files, committed as one image; gives its name."""
    base, name = provide_base(settings), node_image(settings)
    if _exists(name):
        return name
    base_name = f"{REPOSITORY}/base:{base.stem}"
    if not _exists(base_name):
        with waiting("importing the base system"):
            run(["docker", "import", base, base_name])
    with waiting(f"making the image {name}"):
        container = output(["docker", "create", "--label", f"{LABEL}={settings.name}", base_name, "/bin/true"])
        try:
            _copy_into(container, settings)
            run(["docker", "commit", container, name])
        finally:
            run(["docker", "rm", "--force", "--volumes", container])
    return name


def _copy_into(container: str, settings: Settings) -> None:
    """Streams binaries and files into a container as an archive: modes and links arrive as they are."""
    kubernetes, etcd = binaries.kubernetes_dir(settings), binaries.etcd_dir(settings)
    programs = [kubernetes / name for name in ("kubeadm", "kubelet", "kubectl")] + [etcd / name for name in ("etcdctl", "etcdutl")]
    pause = control_plane_names(settings)["pause"]
    with subprocess.Popen(["docker", "cp", "-", f"{container}:/"], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as copy:
        with tarfile.open(fileobj=copy.stdin, mode="w|") as tar:
            for program in programs:
                tar.add(program, f"usr/bin/{program.name}", filter=_executable)
            for path in sorted(_TREE.rglob("*")):
                if path.is_file():
                    _add_text(tar, path.relative_to(_TREE).as_posix(), path.read_text().replace("@PAUSE@", pause))
            for name in MASKED:
                _add_link(tar, name, "/dev/null")
        copy.stdin.close()  # type: ignore[union-attr]
        complaint = copy.stderr.read().decode(errors="replace")  # type: ignore[union-attr]
    if copy.returncode != 0:
        raise LabError(f"docker cp into {container}: {complaint}")


def _executable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o755
    return entry


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = 0o755 if text.startswith("#!") else 0o644
    tar.addfile(entry, io.BytesIO(content))


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


def _exists(name: str) -> bool:
    return run(["docker", "image", "inspect", name], check=False).returncode == 0


def purge() -> None:
    """Removes the lab's images from the engine."""
    for name in output(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={REPOSITORY}/*"]).split():
        say(f"removing image {name}")
        run(["docker", "rmi", name])


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
