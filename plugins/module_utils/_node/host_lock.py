# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One change of the host at a time, whichever part of this collection makes it."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from .._errors import KubetuneError
from .state import STATE, make_state_directory

LOCK = STATE / "lock"


@contextmanager
def host_lock(path: Path = LOCK, wait: bool = False) -> Iterator[None]:
    """A lock of the kernel: it ends with the process, whatever ends that.

    Args:
        path: of the lock's file.
        wait: for whoever holds it, instead of failing.

    Raises:
        KubetuneError: another one is at work.
    """
    make_state_directory(path.parent)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as exc:
            raise KubetuneError(f"another run of kubetune changes this host ({path} is held): wait for its end") from exc
        yield
