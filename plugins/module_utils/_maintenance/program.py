# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command does: the five steps in the guide's order, or one of them; each host's run alone on its host."""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, Mapping, Sequence

from .._errors import KubetuneError
from .._etcd.cluster import ClusterView, survey
from .._node.state import make_state_directory
from . import backup, compaction, defragmentation, drill, health, metrics
from .context import Context

STEP = "run"

_LOCK_FILE = "maintenance.lock"
_POLL_SECONDS = 1.0


class HostLocked(KubetuneError):
    """Another run is under way on this host."""


def run(ctx: Context, command: str) -> int:
    """Return the exit status, see `journal.EXIT_STATUS`.

    Args:
        command: a key of `COMMANDS`.
    """
    state = Path(ctx.config.state_directory)
    try:
        with host_lock(state, ctx.config.lock_wait_seconds) as token:
            ctx.token = token
            COMMANDS[command](ctx)
            if not ctx.dry_run:
                _write_metrics(ctx, state)
    except HostLocked as exc:
        ctx.journal.say(STEP, "locked", str(exc))
    return ctx.journal.exit_status


def _write_metrics(ctx: Context, state: Path) -> None:
    try:
        metrics.write(state, ctx.config.metrics_directory, ctx.journal.said, ctx.clock())
    except OSError as exc:
        ctx.journal.say(STEP, "warning", f"the metrics cannot be written: {exc}", reason="no_metrics")


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


def _everything(ctx: Context) -> None:
    view = _changes(ctx, (compaction.STEP, defragmentation.STEP))
    _guarded(ctx, backup.STEP, lambda: backup.run(ctx, view))


def _changes(ctx: Context, wanted: Sequence[str]) -> ClusterView | None:
    """Health, size, and of compaction and defragmentation what is wanted; returns what the members said."""
    view, fit = health.check(ctx)
    sizes = health.measure(ctx, view) if view else {}
    if not view or not fit:
        for step in wanted:
            ctx.journal.say(step, "left_out", "the cluster is not whole", reason="unhealthy")
        return view
    if compaction.STEP in wanted and _guarded(ctx, compaction.STEP, lambda: compaction.run(ctx, view)):
        sizes = health.measure(ctx, survey(ctx.client))
    if defragmentation.STEP in wanted:
        _guarded(ctx, defragmentation.STEP, lambda: defragmentation.run(ctx, sizes))
    return view


def _backup(ctx: Context) -> None:
    """The backup alone: whether the cluster is whole is the business of others, how far our member is behind is ours."""
    try:
        view: ClusterView | None = survey(ctx.client)
    except KubetuneError:
        view = None
    _guarded(ctx, backup.STEP, lambda: backup.run(ctx, view))


def _guarded(ctx: Context, step: str, work: Callable[[], object]) -> bool:
    """A step that fails does not keep the next one from being tried: each looks at the cluster for itself."""
    try:
        return bool(work())
    except (KubetuneError, OSError) as exc:
        ctx.journal.say(step, "failed", str(exc))
        return False


#: Command -> what it does, alone on its host.
COMMANDS: Mapping[str, Callable[[Context], object]] = {
    "run": _everything,
    "compact": lambda ctx: _changes(ctx, (compaction.STEP,)),
    "defrag": lambda ctx: _changes(ctx, (defragmentation.STEP,)),
    "backup": _backup,
    "prune": lambda ctx: _guarded(ctx, backup.PRUNE, lambda: backup.prune(ctx, backup.own_member(ctx, None)[1])),
    "drill": lambda ctx: _guarded(ctx, drill.STEP, lambda: drill.run(ctx)),
}
