# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step 3: forget old revisions, but never those of the last hour or whatever the window is.

Watches and list continuations that stand on a forgotten revision break, so the target is a revision that was current at
least one window ago. etcd keeps no times of revisions: the program notes pairs of both at each run.
"""

from __future__ import annotations

import time
from typing import Mapping, Sequence

from .._etcd.cluster import ClusterView, survey
from .._etcd.lock import ClusterLock
from .._node.processes import find, settings
from .._static_pod.flags import duration_seconds
from . import records
from .context import Context
from .records import Done, Sample

STEP = "compaction"

#: kube-apiserver's own key: each of its compactions writes it (storage/etcd3/compact.go). It is not below /registry.
APISERVER_KEY = "compact_rev_key"
#: Seconds: three of kube-apiserver's default intervals. A key that did not move for that long is not in use.
APISERVER_SILENCE = 900.0
_KEPT_SAMPLES = 100
#: Two seconds each.
_SETTLE_ATTEMPTS = 60


def run(ctx: Context, view: ClusterView) -> bool:
    """True when this run compacted, so that sizes have changed."""
    revision = plan(ctx, view)
    return revision is not None and ctx.change(STEP, lambda lock: _apply(ctx, lock, revision))


def plan(ctx: Context, view: ClusterView) -> int | None:
    """The revision to compact to; None where nothing is to be done, and the journal says why."""
    config = ctx.config.compaction
    if config.mode == "off":
        ctx.journal.say(STEP, "left_out", "switched off by the configuration", reason="off")
        return None
    if records.done_before(ctx, STEP):
        return None
    now = ctx.clock()
    key = ctx.client.get(APISERVER_KEY)
    sample = Sample(now, view.revision, key.mod_revision if key else 0)
    known = usable(records.samples(ctx.client), now, view.revision)
    if config.mode == "auto":
        reason = other_compactor(_flags(ctx, "etcd"), _flags(ctx, "kube-apiserver"), sample, known)
        if reason:
            ctx.journal.say(STEP, "left_out", f"not needed here: {reason}", reason="other_compactor")
            _note(ctx, known, sample)
            return None
    revision = target(known, now, config.retention_seconds)
    _note(ctx, known, sample)
    if revision is None:
        ctx.journal.say(
            STEP,
            "nothing",
            f"no revision is known from {config.retention_seconds} s ago or earlier; noted {sample.revision} for later",
            reason="no_sample",
            revision=sample.revision,
        )
        return None
    compacted = compacted_to(ctx)
    if revision - compacted < config.min_revisions:
        ctx.journal.say(
            STEP,
            "nothing",
            f"{max(0, revision - compacted)} revisions could be forgotten, {config.min_revisions} make it worth it",
            reason="too_few",
            revision=revision,
            compacted=compacted,
        )
        return None
    if ctx.dry_run:
        ctx.journal.say(
            STEP, "planned", f"would compact to revision {revision}", revision=revision, compacted=compacted
        )
        return None
    return revision


def _apply(ctx: Context, lock: ClusterLock, revision: int) -> bool:
    """Compact, unless another node did so while we waited for the lock."""
    if records.done_before(ctx, STEP):
        return False
    lock.check()
    started = time.monotonic()
    fresh = ctx.client.compact(revision, timeout=600.0)
    settle(ctx)
    records.record_done(ctx.client, STEP, Done(ctx.clock(), ctx.host, ctx.run_id))
    sentence = f"compacted to revision {revision}" if fresh else f"revision {revision} was compacted before"
    ctx.journal.say(
        STEP, "done" if fresh else "nothing", sentence, revision=revision, seconds=time.monotonic() - started
    )
    return fresh


def settle(ctx: Context) -> None:
    """etcd says when the member that was asked has deleted; the others are watched until what they use stops shrinking."""
    in_use: dict[int, int] = {}
    for _attempt in range(_SETTLE_ATTEMPTS):
        now = {each.member.member_id: each.status.db_size_in_use for each in survey(ctx.client).members if each.status}
        if in_use and all(now.get(member, 0) >= size * 0.99 for member, size in in_use.items()):
            return
        in_use = now
        ctx.sleep(2.0)


def usable(samples: Sequence[Sample], now: float, revision: int) -> list[Sample]:
    """Without those from the future, and those beyond the current revision: a restored cluster has gone back."""
    return [each for each in samples if each.at <= now and each.revision <= revision]


def compacted_to(ctx: Context) -> int:
    """The revision before which history is gone already."""
    return max(0, int(ctx.client.metric("etcd_debugging_mvcc_compact_revision", ctx.config.endpoint) or 0))


def target(samples: Sequence[Sample], now: float, retention: float) -> int | None:
    """The newest revision that was current at least ``retention`` seconds ago."""
    return max((each.revision for each in samples if now - each.at >= retention), default=None)


def kept(samples: Sequence[Sample], now: float, retention: float) -> list[Sample]:
    """What a later run may need: all within the window, and the newest one before it."""
    window = max(retention, APISERVER_SILENCE)
    before = [each for each in samples if now - each.at >= window]
    within = [each for each in samples if now - each.at < window]
    return [*before[-1:], *within][-_KEPT_SAMPLES:]


def other_compactor(
    etcd: Mapping[str, Sequence[str]] | None,
    apiserver: Mapping[str, Sequence[str]] | None,
    now: Sample,
    samples: Sequence[Sample],
) -> str:
    """Who else compacts, as a reason to leave it to them; empty when nobody does.

    Args:
        etcd, apiserver: flags of the processes on this host; None where none runs.
        now, samples: this run's sample, and usable earlier ones.
    """
    retention = (etcd or {}).get("auto-compaction-retention", ["0"])[-1]
    if not _is_zero(retention):
        return f"etcd compacts by itself (--auto-compaction-retention={retention})"
    if now.compact_key == 0:
        return ""
    interval = None if apiserver is None else apiserver.get("etcd-compaction-interval", ["5m"])[-1]
    if interval is not None and not _is_zero(interval):
        return f"the API server on this host compacts every {interval}"
    old = [each for each in samples if now.at - each.at >= APISERVER_SILENCE]
    if not old:
        return f"{APISERVER_KEY} exists, and whether an API server still writes it is known at the next run"
    if old[-1].compact_key != now.compact_key:
        return f"an API server on another host compacts ({APISERVER_KEY} has moved since the last run)"
    return ""


def _flags(ctx: Context, program: str) -> Mapping[str, Sequence[str]] | None:
    """Flags of this host's process; for etcd the one on our data directory."""
    own = {"data-dir": ctx.config.data_directory} if program == "etcd" else {}
    found = find(program, own, ctx.proc)
    return settings(found[0], ctx.proc) if found else None


def _is_zero(duration: str) -> bool:
    try:
        return (float(duration) if duration.isdigit() else duration_seconds(duration)) == 0
    except ValueError:
        return False


def _note(ctx: Context, known: Sequence[Sample], sample: Sample) -> None:
    if not ctx.dry_run:
        records.record_samples(ctx.client, [*kept(known, sample.at, ctx.config.compaction.retention_seconds), sample])
