# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the nodes tell each other through etcd: who did a step last, and which revision was current when.

Kept as plain keys with a time in them, not as leases: a new leader starts every lease anew, so a lease of a day would
outlive its day at each change of leader.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Sequence

from .._etcd.client import Client, KeyValue
from .._etcd.lock import PREFIX
from .context import Context

RECORDS = PREFIX + "maintenance/"
_SAMPLES = RECORDS + "samples"

#: Seconds by which the clocks of two hosts may differ. A record from further ahead is taken for a wrong clock.
CLOCK_TOLERANCE = 300.0


@dataclass(frozen=True)
class Done:
    """Who did a step for the cluster, and when (seconds since 1970)."""

    at: float
    host: str
    run_id: str


@dataclass(frozen=True)
class Sample:
    """A moment: the cluster's revision, and the last write of kube-apiserver's own compaction key (0: no such key)."""

    at: float
    revision: int
    compact_key: int


def last_done(client: Client, step: str) -> Done | None:
    found = _decode(client.get(RECORDS + step))
    try:
        return Done(float(found["at"]), str(found["host"]), str(found["run_id"]))
    except (TypeError, KeyError, ValueError):
        return None


def record_done(client: Client, step: str, done: Done) -> None:
    client.put(RECORDS + step, json.dumps(asdict(done)))


def is_due(done: Done | None, now: float, interval: float) -> bool:
    """A step is due when nobody did it within the interval, or the record is from the future."""
    return done is None or now - done.at >= interval or done.at - now > CLOCK_TOLERANCE


def done_before(ctx: Context, step: str, record: str = "") -> bool:
    """Whether the step was done within the interval, by this node or another one; the journal says by whom.

    Args:
        record: by another name than the step's.
    """
    done, now, interval = last_done(ctx.client, record or step), ctx.clock(), ctx.config.interval_seconds
    if done is None or is_due(done, now, interval):
        return False
    ctx.journal.say(
        step,
        "nothing",
        f"{done.host} did it {max(0.0, now - done.at):.0f} s ago, and it is due every {interval} s",
        reason="done_before",
        host=done.host,
    )
    return True


def samples(client: Client) -> list[Sample]:
    """In rising order of time; empty when there are none that can be read."""
    found = _decode(client.get(_SAMPLES))
    try:
        return sorted(
            (Sample(float(at), int(revision), int(key)) for at, revision, key in found), key=lambda each: each.at
        )
    except (TypeError, ValueError):
        return []


def record_samples(client: Client, kept: Sequence[Sample]) -> None:
    client.put(_SAMPLES, json.dumps([[round(each.at, 1), each.revision, each.compact_key] for each in kept]))


def _decode(found: KeyValue | None) -> Any:
    try:
        return json.loads(found.value) if found else None
    except ValueError:
        return None
