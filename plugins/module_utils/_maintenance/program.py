# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run: the five steps in the guide's order, each host's run alone on its host."""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator

from .._errors import KubetuneError
from .._etcd.cluster import survey
from .._node.state import make_state_directory
from . import backup, compaction, defragmentation, health
from .context import Context

STEP = "run"

_LOCK_FILE = "maintenance.lock"
_POLL_SECONDS = 1.0


class HostLocked(KubetuneError):
    """Another run is under way on this host."""


def run(ctx: Context) -> int:
    """Return the exit status, see `journal.EXIT_STATUS`."""
    try:
        with host_lock(Path(ctx.config.state_directory), ctx.config.lock_wait_seconds) as token:
            ctx.token = token
            _steps(ctx)
    except HostLocked as exc:
        ctx.journal.say(STEP, "locked", str(exc))
    return ctx.journal.exit_status


@contextmanager
def host_lock(state: Path, wait: float) -> Iterator[str]:
    """A lock of the kernel: it ends with the process, whatever ends that.

    Yields what the file holds, a word that only this host's runs know: who has the file's lock is the heir of all earlier
    runs here, and need not wait for their locks in the cluster to time out.
    """
    make_state_directory(state)
    descriptor = os.open(state / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise HostLocked(f"another maintenance run on this host did not end within {wait:g} s") from None
                time.sleep(_POLL_SECONDS)
        token = os.read(descriptor, 64).decode("ascii", "replace")
        if not token:
            token = uuid.uuid4().hex
            os.write(descriptor, token.encode())
        yield token
    finally:
        os.close(descriptor)


def _steps(ctx: Context) -> None:
    view, fit = health.check(ctx)
    sizes = health.measure(ctx, view) if view else {}
    if view and fit:
        if _guarded(ctx, compaction.STEP, lambda: compaction.run(ctx, view)):
            sizes = health.measure(ctx, survey(ctx.client))
        _guarded(ctx, defragmentation.STEP, lambda: defragmentation.run(ctx, sizes))
    else:
        for step in (compaction.STEP, defragmentation.STEP):
            ctx.journal.say(step, "left_out", "the cluster is not whole", reason="unhealthy")
    _guarded(ctx, backup.STEP, lambda: backup.run(ctx, view))


def _guarded(ctx: Context, step: str, work: Callable[[], bool]) -> bool:
    """A step that fails does not keep the next one from being tried: each looks at the cluster for itself."""
    try:
        return work()
    except (KubetuneError, OSError) as exc:
        ctx.journal.say(step, "failed", str(exc))
        return False
