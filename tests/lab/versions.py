# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every version that the collection is tested with: which ones, and their binaries in the lab's cache.

Kubernetes 1.32 and older do not build from their published modules alone, because some of those cannot be had.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import tempfile
from pathlib import Path

from . import binaries
from .console import output, run, say, waiting
from .errors import LabError
from .settings import Settings

KUBERNETES = ("1.33.13", "1.34.4", "1.35.4", "1.36.3", "1.37.2")
#: kubeadm writes the manifests in tests/unit/fixtures.
KUBERNETES_NAMES = ("kube-apiserver", "kubeadm")
ETCD = ("3.6.16", "3.7.3")
#: etcd 3.5 comes from Debian, in whichever patch release is the newest there.
DEBIAN_MINOR = "3.5"
_DEBIAN_PACKAGES = {"etcd-server": ("etcd", "etcdutl"), "etcd-client": ("etcdctl", "etcdutl")}
#: Newest first: testing leaves 3.5 behind one day, and then the stable release still has one.
_DEBIAN_SUITES = ("testing", "trixie")
_DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def provide(settings: Settings) -> list[Path]:
    """Fills the cache with what is missing, one version after another; gives all their folders.

    What is there already is not made again, so that an interrupted run goes on where it was.
    """
    folders = []
    for version in KUBERNETES:
        each = dataclasses.replace(settings, kubernetes=version)
        binaries.provide(each, KUBERNETES_NAMES)
        folders.append(binaries.kubernetes_dir(each))
    for version in ETCD:
        each = dataclasses.replace(settings, etcd=version)
        binaries.provide(each, binaries.ETCD)
        folders.append(binaries.etcd_dir(each))
    return [*folders, _provide_debian(settings)]


def etcd_folder(settings: Settings, minor: str) -> Path | None:
    """The newest patch release of a minor version (``3.6``) that the cache has whole; None where it has none."""
    found = [
        path for path in settings.assets.glob(f"etcd-{minor}.*") if all((path / name).exists() for name in binaries.ETCD)
    ]
    return max(found, key=lambda path: _numbers(path.name), default=None)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)]


def _provide_debian(settings: Settings) -> Path:
    with binaries.cache_lock(settings):
        there = etcd_folder(settings, DEBIAN_MINOR)
        if there:
            return there
        with tempfile.TemporaryDirectory(dir=settings.assets, prefix=".debian-") as folder:
            return _from_debian(settings, Path(folder))


def _from_debian(settings: Settings, folder: Path) -> Path:
    """etcd's binaries out of the packages of newer suites, with apt's own lists, away from the machine's.

    Raises:
        LabError: no suite has that minor version any more.
    """
    apt = _private_apt(folder)
    with waiting(f"reading what {' and '.join(_DEBIAN_SUITES)} have of etcd {DEBIAN_MINOR}"):
        run(["apt-get", "update", "--quiet"], env=apt)
    table = output(["apt-cache", "madison", *_DEBIAN_PACKAGES], env=apt)
    versions = {line.split("|")[1].strip() for line in table.splitlines() if "|" in line}
    fitting = [each for each in versions if each.startswith(f"{DEBIAN_MINOR}.")]
    if not fitting:
        have = ", ".join(sorted(versions)) or "none"
        raise LabError(f"{' and '.join(_DEBIAN_SUITES)} have no etcd {DEBIAN_MINOR} (but {have}): put its binaries into {settings.assets}")
    newest = max(fitting, key=_numbers)
    with waiting(f"fetching etcd {newest} from Debian"):
        run(["apt-get", "download", "--quiet", *(f"{package}={newest}" for package in _DEBIAN_PACKAGES)], env=apt, cwd=folder)
    for package in folder.glob("*.deb"):
        run(["dpkg", "--extract", package, folder / "root"])
    target = settings.assets / f"etcd-{newest.partition('-')[0]}"
    target.mkdir(exist_ok=True)
    for name in binaries.ETCD:
        partial = target / f".{name}.part"
        shutil.copyfile(folder / "root" / "usr" / "bin" / name, partial)
        partial.chmod(0o755)
        os.replace(partial, target / name)
    say(f"{target.name}: {', '.join(binaries.ETCD)}")
    return target


def _private_apt(folder: Path) -> dict[str, str]:
    """The environment for an apt that has these suites alone, from the machine's own mirror, and writes only into ``folder``."""
    mirrors = output(["apt-get", "indextargets", "Origin: Debian", "Label: Debian", "--format", "$(SITE)"]).split()
    if not mirrors:
        raise LabError("apt has no Debian mirror in its sources: etcd 3.5 is fetched from there")
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    sources = folder / "sources.list"
    sources.write_text("".join(f"deb [signed-by={_DEBIAN_KEYS}] {mirrors[0]} {suite} main\n" for suite in _DEBIAN_SUITES))
    settings = {
        "Dir::State::Lists": folder / "lists", "Dir::Cache": folder / "cache", "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "-", "Acquire::Languages": "none", "APT::Sandbox::User": "root",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
    }  # fmt: skip
    file = folder / "apt.conf"
    file.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    return {**os.environ, "APT_CONFIG": str(file), "LC_ALL": "C"}
