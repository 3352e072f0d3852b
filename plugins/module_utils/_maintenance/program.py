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
from . import backup, compaction, defragmentation, drill, health, metrics, nospace
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
    view, found = health.look(ctx)
    if view and ctx.config.nospace.recover and nospace.is_all(view):
        view, found = _recovered(ctx, view, found)
    health.say(ctx, view, found)
    sizes = health.measure(ctx, view) if view else {}
    if not view or found:
        for step in wanted:
            ctx.journal.say(step, "left_out", "the cluster is not whole", reason="unhealthy")
        return view
    if compaction.STEP in wanted and _guarded(ctx, compaction.STEP, lambda: compaction.run(ctx, view)):
        sizes = health.measure(ctx, survey(ctx.client))
    if defragmentation.STEP in wanted:
        _guarded(ctx, defragmentation.STEP, lambda: defragmentation.run(ctx, sizes))
    return view


def _recovered(ctx: Context, view: ClusterView, found: list[str]) -> tuple[ClusterView | None, list[str]]:
    """What the members say after the way out of NOSPACE; as it was where this host does not go it, or in vain."""
    if _guarded(ctx, nospace.STEP, lambda: nospace.run(ctx, view)):
        return health.look(ctx)
    return view, found


def _recover_space(ctx: Context) -> None:
    view, found = health.look(ctx)
    if view and nospace.is_all(view):
        view, found = _recovered(ctx, view, found)
    elif view and any(nospace.ALARM in problem for problem in found):
        ctx.journal.say(nospace.STEP, "failed", "more than the alarm is wrong with the cluster: mend that first")
    elif view:
        ctx.journal.say(nospace.STEP, "nothing", "the alarm NOSPACE is not active", reason="no_alarm")
    health.say(ctx, view, found)


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
    "recover-space": _recover_space,
    "backup": _backup,
    "prune": lambda ctx: _guarded(ctx, backup.PRUNE, lambda: backup.prune(ctx, backup.own_member(ctx, None)[1])),
    "drill": lambda ctx: _guarded(ctx, drill.STEP, lambda: drill.run(ctx)),
}
