# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What no single value tells: settings against each other, against the database, and against the node.

The binaries check none of this before they run (``--version`` parses flags only), so it is checked here, before
anything is written. A profile's value that does not fit is taken back and reported; an explicit one is an error.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

from .catalogue import KUBE_APISERVER, RECOMMENDED_ETCD, UNSAFE_ETCD
from .flags import BadValue, duration_seconds
from .plan import Plan, item
from .resources import excess, human, quantity

#: A memory limit below this multiple of the measured peak invites the OOM killer.
PEAK_HEADROOM = 1.5
#: etcd server/embed/config.go, Config.Validate: election-timeout at least 5 x heartbeat-interval.
ELECTION_PER_HEARTBEAT = 5


def effective(plan: Plan, name: str, version: tuple[int, ...]) -> str | None:
    """A flag's text as the process will see it: as planned, else of its variable, else the version's default."""
    values = plan.manifest.flags().get(name)
    if values:
        return values[-1]
    variable = plan.manifest.variable(name)
    return variable.value if variable else plan.component.flag(name).default(version)


def etcd_version(version: tuple[int, ...], allowed: bool) -> list[str]:
    text = ".".join(str(part) for part in version)
    if version[:3] in UNSAFE_ETCD and not allowed:
        return [
            f"etcd {text} can corrupt data when a member crashes (3.5.0 to 3.5.2): upgrade to "
            f"{RECOMMENDED_ETCD[(3, 5)]} first, or set etcd_static_pod_allow_unsafe_version to true"
        ]
    return []


def etcd(plan: Plan, version: tuple[int, ...], database_bytes: int | None) -> list[str]:
    """Relations between etcd's settings. ``database_bytes``: the largest file of any member, None if unknown."""
    wrong = []
    heartbeat, election = number(plan, "heartbeat-interval", version), number(plan, "election-timeout", version)
    if heartbeat and election and election < ELECTION_PER_HEARTBEAT * heartbeat:
        wrong.append(
            f"etcd --election-timeout: {election:g} ms is less than {ELECTION_PER_HEARTBEAT} x --heartbeat-interval "
            f"({heartbeat:g} ms), and etcd refuses to start: at least {ELECTION_PER_HEARTBEAT * heartbeat:g} is needed"
        )
    mode, retention = (effective(plan, f"auto-compaction-{name}", version) for name in ("mode", "retention"))
    if mode == "revision" and not (retention or "").isdigit():
        wrong.append(
            f"etcd --auto-compaction-retention: {retention!r} is no number of revisions, which --auto-compaction-mode=revision "
            "needs (etcd counts the nanoseconds of a duration, and never compacts): give a whole number such as 100000"
        )
    quota = number(plan, "quota-backend-bytes", version) or 2 * 2**30
    if database_bytes is not None and 0 < quota <= database_bytes:
        change = plan.change_of("--quota-backend-bytes")
        way_out = "choose more, or compact and defragment first"
        if change and change.origin == "restore":
            way_out = (
                "this is what was there before; compact and defragment first, or keep the quota: state present, profile "
                "upstream, and quota-backend-bytes in etcd_static_pod_flags"
            )
        wrong.append(
            f"etcd --quota-backend-bytes: {quota:.0f} is not above the database's {database_bytes} bytes, and every write "
            f"would be refused (NOSPACE): {way_out}"
        )
    if quota > 8 * 2**30:
        plan.say("--quota-backend-bytes", "warning", [f"{quota:.0f}"], reason="etcd suggests 8 GiB at most")
    limit = plan.manifest.resource("limits.memory")
    if limit and quota > quantity(limit):
        plan.say(
            "limits.memory", "warning", [limit],
            reason=f"the quota allows a database of {quota / 2**30:.1f} GiB, which then does not fit the memory limit: "
            "reclaim and stalls as it grows",
        )
    return wrong


def kube_apiserver(plan: Plan, version: tuple[int, ...]) -> list[str]:
    wrong = []
    seats = sum(number(plan, name, version) or 0 for name in ("max-requests-inflight", "max-mutating-requests-inflight"))
    if seats <= 0:
        wrong.append(
            "kube-apiserver --max-requests-inflight: the sum with --max-mutating-requests-inflight is 0, and the server "
            "refuses to start with priority and fairness: give one of them a value above 0"
        )
    flags = plan.manifest.flags()
    if "authorization-config" in flags:
        for name in [name for name in flags if name.startswith("authorization-webhook-")]:
            change = plan.change_of(f"--{name}")
            if change and not change.explicit:
                plan.undo(f"--{name}", "left_out", "--authorization-config is set, and the server refuses both together")
            else:
                wrong.append(f"kube-apiserver --{name}: it excludes --authorization-config: remove one of them")
    period = number(plan, "etcd-count-metric-poll-period", version)
    if period == 0 or (period and period > 120):
        plan.say(
            "--etcd-count-metric-poll-period", "warning", flags.get("etcd-count-metric-poll-period"),
            reason="priority and fairness bills LISTs by these counts, and takes them for stale after 3 minutes",
        )
    return wrong


def limits(plan: Plan, peak_bytes: int | None) -> list[str]:
    """Requests against limits, and the memory limit against what the process has needed so far."""
    wrong = []
    for resource in ("cpu", "memory"):
        request, limit = (plan.manifest.resource(f"{kind}.{resource}") for kind in ("requests", "limits"))
        if not limit:
            continue
        if request and quantity(request) > quantity(limit):
            reason = f"the request of {request} is above the limit of {limit}, and the kubelet refuses such a pod"
            if not _take_back(plan, [f"limits.{resource}", f"requests.{resource}"], reason):
                wrong.append(f"{item(plan.component, f'limits.{resource}')}: {reason}")
    limit = plan.manifest.resource("limits.memory")
    if limit and peak_bytes and quantity(limit) < PEAK_HEADROOM * peak_bytes:
        reason = f"the process has needed {peak_bytes / 2**20:.0f}Mi already: at least {PEAK_HEADROOM:g} x that is safe"
        change = plan.change_of("limits.memory")
        if change and change.origin == "explicit":
            wrong.append(f"{item(plan.component, 'limits.memory')}: {limit} is too little, {reason}")
        elif change and change.origin == "restore":
            plan.say("limits.memory", "warning", [limit], reason=f"{reason}, but this is what was there before")
        elif change:
            plan.undo("limits.memory", "left_out", reason)
    if plan.manifest.resource("limits.cpu"):
        change = plan.change_of("limits.cpu")
        if change:
            plan.say(
                "limits.cpu", "warning", change.after,
                reason="CFS throttles at the limit, which shows as latency; 'limits: none' leaves it out",
            )
    return wrong


def fit(plans: Sequence[Plan], others: Iterable[Mapping[str, Any]], allocatable: Mapping[str, str] | None) -> list[str]:
    """Requests of all static pods against the node's allocatable; takes back what the profile asked too much.

    The API server's request is taken back before etcd's: etcd suffers more from a lack of CPU.
    """
    changed = [
        plan for plan in plans if any(change.key.partition(".")[0] in ("requests", "limits") for change in plan.changes)
    ]
    if not changed:
        return []
    if allocatable is None:
        return ["the node's allocatable CPU and memory cannot be found out: set the resources of the static pods to none"]
    others = list(others)
    wrong = []
    for resource in ("cpu", "memory"):
        over = excess([*(plan.manifest.pod for plan in plans), *others], allocatable, resource)
        for plan in sorted(plans, key=lambda each: each.component.name != KUBE_APISERVER):
            if over <= 0:
                break
            # Without a request the limit counts as one.
            for key in (f"requests.{resource}", f"limits.{resource}"):
                change = plan.change_of(key)
                if over > 0 and change and not change.explicit:
                    plan.undo(
                        key, "left_out",
                        f"the static pods would request {human(over, resource)} more than the node's allocatable "
                        f"{allocatable[resource]}, and the kubelet would turn the pod away",
                    )
                    over = excess([*(each.manifest.pod for each in plans), *others], allocatable, resource)
        if over > 0:
            culprits = [
                f"{item(plan.component, change.key)}={change.after[0]}"
                for plan in plans
                for change in plan.changes
                if change.explicit and change.after and change.key.endswith(f".{resource}")
            ]
            wrong.append(
                f"{', '.join(culprits) or resource}: the static pods together would request {human(over, resource)} more "
                f"than the node's allocatable {allocatable[resource]}, and the kubelet would turn the pod away: ask for less"
            )
    return wrong


def _take_back(plan: Plan, keys: Sequence[str], reason: str) -> bool:
    for key in keys:
        change = plan.change_of(key)
        if change and not change.explicit:
            plan.undo(key, "left_out", reason)
            return True
    return False


def number(plan: Plan, name: str, version: tuple[int, ...]) -> float | None:
    """A flag's value as the process will see it, a duration in seconds; None where it is no number or has no default."""
    text = effective(plan, name, version)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return duration_seconds(text)
    except BadValue:
        return None

