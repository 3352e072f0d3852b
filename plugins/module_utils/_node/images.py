# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images on the node: the program of one that does not run yet, so that it can judge its flags, and the sandbox's."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

from .._commands import output
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


def runtime_problem() -> str:
    """Why containerd could start no pod now; empty where it could, or something else than containerd runs them.

    It has to answer, and to have the pod sandbox's image: a node without a registry in reach does not get that back. containerd
    before 1.7 does not pin it, so the kubelet's garbage collection takes it when the disk is full (imageGCHighThresholdPercent, 85).
    """
    if not shutil.which("containerd") or not shutil.which("ctr"):
        return ""
    # containerd 2 calls it sandbox, in pinned_images; before it was sandbox_image.
    found = re.search(r"^\s*sandbox(?:_image)? *= *[\"']([^\"']+)[\"']", output(["containerd", "config", "dump"], check=False), re.MULTILINE)
    if not found:
        return ""
    image = found.group(1)
    try:
        known = output(["ctr", "--connect-timeout", "5s", "-n", "k8s.io", "images", "list", "--quiet"]).split()
    except KubetuneError as exc:
        return f"containerd does not answer, and without it no pod starts: {exc}; mend it first (systemctl status containerd)"
    if image in known:
        return ""
    return (
        f"the pod sandbox's image {image} is not on this host, and without it no pod starts: pull it first (crictl pull {image}, or "
        f"ctr -n k8s.io images pull {image}). The kubelet removes unused images when the disk is full: make room"
    )


def program(root: Path, name: str) -> str:
    for place in ("usr/local/bin", "usr/bin", "bin"):
        if (root / place / name).is_file():
            return str(root / place / name)
    raise KubetuneError(f"the image has no program {name}")


def _ctr(ctr: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ctr, "-n", "k8s.io", *arguments], capture_output=True, text=True, check=False)
