# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of an image that is on the node but does not run yet, so that it can judge its flags."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

from .._errors import KubetuneError


@contextlib.contextmanager
def mounted(image: str) -> Iterator[Path]:
    """The root of an image, read-only, while the block runs. containerd only: CRI-O has no such command.

    Raises:
        KubetuneError: no containerd, or the image is not on the node.
    """
    ctr = shutil.which("ctr")
    if ctr is None:
        raise KubetuneError(f"image {image} cannot be looked into: ctr (containerd) is not on this host")
    directory = tempfile.mkdtemp(prefix="kubetune-image-")
    try:
        done = _ctr(ctr, "images", "mount", image, directory)
        if done.returncode != 0:
            raise KubetuneError(
                f"image {image} cannot be looked into ({done.stderr.strip()}): pull it first, for example with crictl pull"
            )
        try:
            yield Path(directory)
        finally:
            _ctr(ctr, "images", "unmount", "--rm", directory)
    finally:
        os.rmdir(directory)


def program(root: Path, name: str) -> str:
    for place in ("usr/local/bin", "usr/bin", "bin"):
        if (root / place / name).is_file():
            return str(root / place / name)
    raise KubetuneError(f"the image has no program {name}")


def _ctr(ctr: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ctr, "-n", "k8s.io", *arguments], capture_output=True, text=True, check=False)
