# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs of util-linux, e2fsprogs, xfsprogs and systemd that a disk needs."""

from __future__ import annotations

import subprocess
from typing import Sequence

from .._errors import KubetuneError


def output(command: Sequence[str], empty: int = 0) -> str:
    """Standard output of a program.

    Args:
        empty: the status by which it says that there is nothing.

    Raises:
        KubetuneError: it is not installed, or failed.
    """
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise KubetuneError(f"{command[0]} is not installed on this host") from None
    if done.returncode not in (0, empty):
        raise KubetuneError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip() or f'status {done.returncode}'}")
    return done.stdout
