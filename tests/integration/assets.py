# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the real binaries are: the lab's cache."""

from __future__ import annotations

from pathlib import Path

from tests.lab import binaries, settings


def binary(name: str) -> Path:
    """etcd's and Kubernetes' programs, in the versions that the lab runs.

    Raises:
        FileNotFoundError: the lab has not fetched or built it yet.
    """
    lab = settings.from_environment()
    folder = binaries.etcd_dir(lab) if name in binaries.ETCD else binaries.kubernetes_dir(lab)
    path = folder / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: 'make lab' gets the binaries")
    return path
