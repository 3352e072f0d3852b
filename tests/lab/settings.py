# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one lab is: its name, versions, size and folders, from the environment."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DEFAULT_NAME = "kubetune"
# Host-wide state of all labs (engine, sysctls). Like what it describes, it does not outlive a reboot.
HOST_STATE = Path("/run/kubetune-lab")

_VERSION = re.compile(r"[1-9][0-9]*\.[0-9]+\.[0-9]+")
# A DNS label which leaves room for "-cp1" and for the bridge's name.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,23}")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Settings:
    """One lab, read once at the start and never changed.

    name: prefix of containers and network; labs with different names live side by side.
    kubernetes, etcd: versions, X.Y.Z without "v".
    count: number of control-plane nodes, 1 to 9 (etcd: odd numbers make sense).
    assets: cache shared by all labs of this user: binaries, base image, image archives, engine data.
    state: folder of this lab alone: disks, certificates, inventory, logs.
    """

    name: str
    kubernetes: str
    etcd: str
    count: int
    assets: Path
    state: Path

    @property
    def node_names(self) -> list[str]:
        """Host names of the cluster's nodes: cp1, cp2, ..."""
        return [f"cp{number}" for number in range(1, self.count + 1)]

    def container(self, node: str) -> str:
        """Container's name of a node."""
        return f"{self.name}-{node}"

    @property
    def architecture(self) -> str:
        """Go's name of this machine's architecture."""
        machine = platform.machine()
        if machine not in _ARCHITECTURES:
            raise LabError(f"machine {machine}: the lab runs on {' or '.join(_ARCHITECTURES)}")
        return _ARCHITECTURES[machine]


def state_folder(name: str) -> Path:
    """Folder of the lab with this name."""
    return REPOSITORY / ".work" / ("lab" if name == DEFAULT_NAME else f"lab-{name}")


def names_in_checkout() -> list[str]:
    """Names of the labs which have a folder in this checkout, whether they are up or not."""
    folders = [path.name for path in (REPOSITORY / ".work").glob("lab*") if path.is_dir()]
    return sorted(DEFAULT_NAME if folder == "lab" else folder.removeprefix("lab-") for folder in folders)


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from ``KUBETUNE_*`` variables; LabError names the variable, its value and what is allowed."""

    def value(variable: str, default: str, pattern: re.Pattern[str], allowed: str) -> str:
        given = environment.get(variable) or default
        if not pattern.fullmatch(given):
            raise LabError(f"{variable}={given!r}: allowed is {allowed}")
        return given

    name = value("KUBETUNE_LAB_NAME", DEFAULT_NAME, _NAME, "a lower-case name of at most 24 letters, digits and '-'")
    count = int(value("KUBETUNE_LAB_NODES", "3", re.compile("[1-9]"), "a number of nodes from 1 to 9"))
    assets = environment.get("KUBETUNE_ASSETS") or os.path.join(environment.get("HOME") or "/root", ".cache/kubetune")
    return Settings(
        name=name,
        kubernetes=value("KUBETUNE_LAB_KUBERNETES", "1.36.3", _VERSION, "a version X.Y.Z, such as 1.36.3"),
        etcd=value("KUBETUNE_LAB_ETCD", "3.6.16", _VERSION, "a version X.Y.Z, such as 3.6.16"),
        count=count,
        assets=Path(assets).expanduser().absolute(),
        state=state_folder(name),
    )
