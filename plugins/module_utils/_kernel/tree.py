# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All of this collection's reading and writing of the host's files, below one root."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .._node.state import sync_directory, write_atomically

#: First line of the files that are ours alone.
OWN_HEADER = "# Written by kubetune.control_plane.host_tuning, which overwrites edits: use its variables."


class Tree:
    """The host's files as seen from ``root``; every path given is absolute and begins at that root.

    Args:
        root: ``/`` on a host; another directory holds a copy of the parts that matter, as the tests do.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = os.path.realpath(root).rstrip("/")

    def locate(self, path: str) -> str:
        """The path as the operating system knows it."""
        return f"{self._root}/{path.lstrip('/')}"

    def read(self, path: str) -> str | None:
        """The content, None where there is none to be had: absent, vanished, or an attribute that cannot be read.

        Bytes that are not UTF-8 survive a later `replace`.
        """
        try:
            with open(self.locate(path), encoding="utf-8", errors="surrogateescape") as stream:
                return stream.read()
        except OSError:
            return None

    def is_link(self, path: str) -> bool:
        return os.path.islink(self.locate(path))

    def exists(self, path: str) -> bool:
        return os.path.exists(self.locate(path))

    def mode(self, path: str) -> int:
        """The permission bits of a file that exists."""
        return stat.S_IMODE(os.stat(self.locate(path)).st_mode)

    def names(self, path: str) -> list[str]:
        """What is in a directory, sorted; empty where there is no such directory."""
        try:
            return sorted(os.listdir(self.locate(path)))
        except OSError:
            return []

    def resolve(self, path: str) -> str:
        """The path without symbolic links."""
        return os.path.realpath(self.locate(path))[len(self._root) :] or "/"

    def device(self, path: str) -> tuple[int, int]:
        """Major and minor number of the device that holds the path's file system; major 0 where there is none."""
        number = os.stat(self.locate(path)).st_dev
        return os.major(number), os.minor(number)

    def writable(self, path: str) -> bool:
        """Whether a write would be let through; the kernel may still refuse the value.

        This also tells a read-only mount, and a value of another network namespace (mode 0444, which binds root too).
        """
        return os.access(self.locate(path), os.W_OK)

    def set(self, path: str, text: str) -> None:
        """Write an attribute of the kernel, in one write(2), and never create it.

        Raises:
            OSError: the kernel does not take it.
        """
        descriptor = os.open(self.locate(path), os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def replace(self, path: str, content: str, mode: int) -> None:
        """Write a file so that it is seen either as it was or as it shall be, also after a power cut."""
        self.make_directories(os.path.dirname(path))
        write_atomically(Path(self.locate(path)), content.encode("utf-8", "surrogateescape"), mode)

    def missing_directories(self, path: str) -> list[str]:
        """The directories that do not exist on the way to a directory and that one itself, outermost first."""
        missing: list[str] = []
        while not self.exists(path):
            missing.insert(0, path)
            path = os.path.dirname(path)
        return missing

    def make_directories(self, path: str, mode: int = 0o755) -> None:
        for each in self.missing_directories(path):
            os.mkdir(self.locate(each), mode)

    def remove(self, path: str) -> None:
        """Remove a file; nothing to do where there is none."""
        try:
            os.unlink(self.locate(path))
        except FileNotFoundError:
            return
        sync_directory(Path(self.locate(os.path.dirname(path))))

    def remove_directory(self, path: str) -> None:
        """Remove a directory, if nothing is in it."""
        try:
            os.rmdir(self.locate(path))
        except OSError:
            pass
