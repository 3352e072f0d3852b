# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control plane's binaries: from the cache, else an official release, else built from Go modules."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import go_build
from .console import say, waiting
from .errors import LabError
from .settings import Settings

KUBERNETES = ("kubeadm", "kubelet", "kubectl", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
ETCD = ("etcd", "etcdctl", "etcdutl")
PAUSE = "pause"
ALL = (*KUBERNETES, *ETCD, PAUSE)
# The newest whose module is published; it speaks to every etcd 3.x.
BENCHMARK_VERSION = "3.6.8"
_PINS = Path(__file__).with_name("downloads.json")


def kubernetes_dir(settings: Settings) -> Path:
    """Folder of one Kubernetes version's binaries."""
    return settings.assets / f"kubernetes-{settings.kubernetes}"


def etcd_dir(settings: Settings) -> Path:
    """Folder of one etcd version's binaries."""
    return settings.assets / f"etcd-{settings.etcd}"


def benchmark_file(settings: Settings) -> Path:
    """etcd's load generator."""
    return settings.assets / f"benchmark-{BENCHMARK_VERSION}" / "benchmark"


def pause_file(settings: Settings) -> Path:
    """The pod sandbox's process."""
    return settings.assets / "pause" / "pause"


def missing(settings: Settings, names: Collection[str] = ALL) -> list[Path]:
    """Those of the named binaries that the cache lacks; a lab needs all."""
    needed = [kubernetes_dir(settings) / name for name in KUBERNETES]
    needed += [etcd_dir(settings) / name for name in ETCD]
    needed.append(pause_file(settings))
    return [path for path in needed if path.name in names and not path.exists()]


@contextmanager
def cache_lock(settings: Settings) -> Iterator[None]:
    """Lets one lab at a time fill the cache; a second one waits and then finds it filled."""
    settings.assets.mkdir(parents=True, exist_ok=True)
    with open(settings.assets / ".lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def provide(settings: Settings, names: Collection[str] = ALL) -> None:
    """Fills the cache with what is missing of the named binaries: downloads first, then a build of the rest."""
    with cache_lock(settings):
        absent = missing(settings, names)
        if not absent:
            return
        say(f"not in {settings.assets}: {' '.join(path.name for path in absent)}")
        _download(settings, absent)
        left = [path.name for path in missing(settings, names)]
        if any(name in KUBERNETES for name in left):
            _build_kubernetes(settings, [name for name in KUBERNETES if name in left])
        if any(name in ETCD for name in left):
            _build_etcd(settings, [name for name in ETCD if name in left])
        if PAUSE in left:
            go_build.build_file(settings.assets, Path(__file__).with_name("files") / "pause.go", pause_file(settings))


def provide_benchmark(settings: Settings) -> Path:
    """etcd's own load generator, built when the cache lacks it."""
    target = benchmark_file(settings)
    with cache_lock(settings):
        if not target.exists():
            packages = {target.name: "go.etcd.io/etcd/v3/tools/benchmark"}
            go_build.build_etcd(settings.assets, BENCHMARK_VERSION, packages, target.parent)
    return target


def _build_kubernetes(settings: Settings, names: list[str]) -> None:
    go_build.build_kubernetes(settings.assets, settings.kubernetes, names, kubernetes_dir(settings))


def _build_etcd(settings: Settings, names: list[str]) -> None:
    modules = {"etcd": "server", "etcdctl": "etcdctl", "etcdutl": "etcdutl"}
    packages = {name: f"go.etcd.io/etcd/{modules[name]}/v3" for name in names}
    go_build.build_etcd(settings.assets, settings.etcd, packages, etcd_dir(settings))


# Downloads: only what has a checksum in downloads.json.


def pins(file: Path = _PINS) -> dict[str, str]:
    """Address of a release file -> its SHA-256, as written down by a person who checked it."""
    table: dict[str, str] = json.loads(file.read_text())
    for address, digest in table.items():
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise LabError(f"{file.name}: {address}: {digest!r} is not a SHA-256 in lower-case hexadecimal")
    return table


def release_address(settings: Settings, name: str) -> str:
    """Where the projects publish a binary (etcd's come together in one archive)."""
    if name in ETCD:
        release = f"etcd-v{settings.etcd}-linux-{settings.architecture}"
        return f"https://github.com/etcd-io/etcd/releases/download/v{settings.etcd}/{release}.tar.gz"
    return f"https://dl.k8s.io/release/v{settings.kubernetes}/bin/linux/{settings.architecture}/{name}"


def _download(settings: Settings, absent: list[Path]) -> None:
    known = pins()
    for path in absent:
        address = release_address(settings, path.name)
        if path.exists() or path.name == PAUSE or address not in known:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=settings.assets, prefix=".download-") as folder:
            file = Path(folder) / "file"
            try:
                with waiting(f"downloading {address}"), urllib.request.urlopen(address, timeout=30) as answer:
                    with open(file, "wb") as stream:
                        shutil.copyfileobj(answer, stream, 1 << 20)
            except (urllib.error.URLError, OSError) as failure:
                say(f"{address}: {failure}; it will be built instead")
                continue
            check(file, known[address], address)
            place(file, path.parent, ETCD if path.name in ETCD else (path.name,))


def check(file: Path, digest: str, address: str) -> None:
    """LabError unless a downloaded file has the pinned SHA-256: that is never to be worked around."""
    with open(file, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != digest:
        raise LabError(f"{address}: SHA-256 is {found}, {_PINS.name} says {digest}; nothing was installed")


def place(file: Path, folder: Path, names: tuple[str, ...]) -> None:
    """Puts a release file into the cache: the binary itself, or the named ones out of an archive."""
    if not tarfile.is_tarfile(file):
        file.chmod(0o755)
        os.replace(file, folder / names[0])
        return
    with tarfile.open(file) as archive:
        for member in archive:
            name = os.path.basename(member.name)
            if name not in names or not member.isfile():
                continue
            partial = folder / f".{name}.part"
            with open(partial, "wb") as stream:
                shutil.copyfileobj(archive.extractfile(member), stream)  # type: ignore[arg-type]
            partial.chmod(0o755)
            os.replace(partial, folder / name)
