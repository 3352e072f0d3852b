# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that are full, read-only or slow, on real file systems of a node."""

from __future__ import annotations

import contextlib
from typing import Iterator

from tests.lab.nodes import Node

_ELSEWHERE = "/run/kubetune-fault"
_FILL = ".kubetune-fill"


@contextlib.contextmanager
def own_file_system(node: Node, directory: str, megabytes: int) -> Iterator[None]:
    """While it lasts a directory, with all that it holds, is a small file system of its own.

    The kubelet is restarted around it, as it watches its manifests' directory by inode.
    """
    node.shell(
        f"mkdir -p {_ELSEWHERE}; mount -t tmpfs -o size={megabytes}m,mode=$(stat -c %a {directory}) tmpfs {_ELSEWHERE}; "
        f"cp -a {directory}/. {_ELSEWHERE}/; systemctl stop kubelet; mount --move {_ELSEWHERE} {directory}; systemctl start kubelet"
    )
    try:
        yield
    finally:
        node.shell(
            f"systemctl stop kubelet; mount --move {directory} {_ELSEWHERE}; rm -f {_ELSEWHERE}/{_FILL}*; "
            f"find {directory} -mindepth 1 -delete; cp -a {_ELSEWHERE}/. {directory}/; umount {_ELSEWHERE}; systemctl start kubelet"
        )


def fill(directory: str, left: str = "") -> str:
    """A script that takes the last block of a directory's file system, or all but ``left``, such as 64M."""
    keep = f"fallocate -l {left} {directory}/{_FILL}-left; " if left else ""
    return keep + (
        f"i=0; for unit in 1G 64M 1M 64K 4K; do while fallocate -l $unit {directory}/{_FILL}-$i 2>/dev/null; do i=$((i+1)); done; "
        f"rm -f {directory}/{_FILL}-$i; done; head -c 65536 /dev/zero >{directory}/{_FILL}-last 2>/dev/null || true; "
        f"rm -f {directory}/{_FILL}-left"
    )


def empty(node: Node, directory: str) -> None:
    """The room is there again."""
    node.shell(f"rm -f {directory}/{_FILL}*")


def read_only(directory: str) -> str:
    return f"chattr +i {directory}"


def writable(node: Node, directory: str) -> None:
    node.shell(f"chattr -i {directory}")


def stall(directory: str, seconds: int) -> str:
    """A script during which each write waits up to 0.4 s: the file system is frozen for 0.4 s of each half second."""
    return (
        f"trap 'fsfreeze --unfreeze {directory} 2>/dev/null || true' EXIT; end=$((SECONDS + {seconds})); "
        f"while [ $SECONDS -lt $end ]; do fsfreeze --freeze {directory}; sleep 0.4; fsfreeze --unfreeze {directory}; sleep 0.1; done"
    )
