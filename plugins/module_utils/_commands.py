# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to kubetune.control_plane: it may change in any release.
"""Programs of the host, such as systemctl and wipefs."""

from __future__ import annotations

import subprocess
from typing import Sequence

from ._errors import KubetuneError


def output(command: Sequence[str], empty: int = 0, check: bool = True) -> str:
    """Standard output of a program.

    Args:
        empty: a status beside 0 that is no failure, such as the one by which blkid says that there is nothing.
        check: whether another status is one.

    Raises:
        KubetuneError: it is not on the host, or failed.
    """
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as exc:
        raise KubetuneError(f"{command[0]} cannot be run on this host ({exc})") from exc
    if check and done.returncode not in (0, empty):
        said = done.stderr.strip() or done.stdout.strip()
        raise KubetuneError(f"{' '.join(command)} failed with status {done.returncode}: {said}")
    return done.stdout
