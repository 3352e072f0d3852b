# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The times of a static pod: how long it may take to leave and to start, against what it needs for that. All in seconds.

What happens after SIGTERM (k8s.io/apiserver pkg/server/genericapiserver.go, RunWithContext, 1.33 to 1.37): /readyz fails at once,
and the server goes on for ``--shutdown-delay-duration``; then it waits for requests, which ``--request-timeout`` bounds, and at the
same time for watches, which ``--shutdown-watch-termination-grace-period`` bounds; then it closes connections, for at most
``--request-timeout``, or 2 s with ``--shutdown-send-retry-after``, which matters for streams that are no watches (logs -f). The kubelet
kills it when terminationGracePeriodSeconds are over.
"""

from __future__ import annotations

import math
from typing import Any, Mapping

from . import checks
from .catalogue import KUBE_APISERVER, Component
from .manifest import GRACE, GRACE_KEY, STARTUP_KEY, Manifest
from .plan import Memory, Plan, Wish, item, plan_times

#: For requests to end by themselves, beside the 5 s of `MARGIN`: the two make the 30 s that Kubernetes gives any pod.
#: ``--request-timeout`` (300 s in the guide) is what one request may last, not what a restart shall wait.
DRAIN = 25
#: From the last request to the end of the process: connections closed (2 s), audit log flushed.
MARGIN = 5
#: For a balancer's check to be answered and acted upon, on top of its intervals.
BALANCER_MARGIN = 2
#: A watch drain shorter than this ends no watch.
SHORTEST_WATCH_DRAIN = 1
#: What the role's variables may say.
GRACE_RANGE, STARTUP_RANGE = (MARGIN, 3600), (30, 7200)

#: kubeadm's startup probe, 24 tries every 10 s; each further step is twice that, so that a growing database restarts pods rarely.
STARTUP_STEPS = (240, 480, 960, 1920)
#: Before the database counts: the image's start, an election, informers.
STARTUP_BASE = 60
#: Bytes each second, at the least: etcd 3.6 reads the whole database and hashes it (--feature-gates=InitialCorruptCheck=true, as
#: kubeadm sets it) before it answers; kube-apiserver lists and decodes it. docs/results.md has what was measured.
STARTUP_RATE = {"etcd": 16 * 2**20, "kube-apiserver": 8 * 2**20}

DELAY = "--shutdown-delay-duration"
WATCH_DRAIN = "--shutdown-watch-termination-grace-period"
RETRY_AFTER = "--shutdown-send-retry-after"
#: Whoever sets one of them wants the sums to be right.
FLAGS = (DELAY[2:], WATCH_DRAIN[2:], RETRY_AFTER[2:], "request-timeout")


def startup_seconds(component: str, database_bytes: int | None) -> int:
    """The startup probe's budget for a pod with a database of that size: one of `STARTUP_STEPS`, never less for more bytes."""
    needed = STARTUP_BASE + (database_bytes or 0) / STARTUP_RATE[component]
    return next((step for step in STARTUP_STEPS if step >= needed), STARTUP_STEPS[-1])


def unfit(component: Component, grace: Any, startup: Any, balancer: Any) -> list[str]:
    """What is wrong with the role's variables themselves."""
    wrong = []
    for name, value, (least, most) in (
        ("termination_grace_seconds", grace, GRACE_RANGE), ("startup_seconds", startup, STARTUP_RANGE)
    ):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most):
            wrong.append(f"{component.role}_{name}: {value!r} is not allowed, a whole number of seconds from {least} to {most} is needed")
    return wrong + _unfit_balancer(f"{component.role}_balancer", balancer)


def _unfit_balancer(variable: str, balancer: Any) -> list[str]:
    if not balancer:
        return []
    needed = {"interval", "failures"}
    if not isinstance(balancer, Mapping) or set(balancer) - needed - {"path"} or needed - set(balancer):
        return [f"{variable}: {balancer!r} is not allowed, a mapping of interval and failures is needed, with path where it is not /readyz"]
    wrong = []
    if isinstance(balancer["interval"], bool) or not isinstance(balancer["interval"], (int, float)) or not 0 < balancer["interval"] <= 300:
        wrong.append(f"{variable}: interval {balancer['interval']!r} is not allowed, seconds above 0 and up to 300 are needed")
    if isinstance(balancer["failures"], bool) or not isinstance(balancer["failures"], int) or not 1 <= balancer["failures"] <= 100:
        wrong.append(f"{variable}: failures {balancer['failures']!r} is not allowed, a whole number from 1 to 100 is needed")
    path = balancer.get("path") or "/readyz"
    if not str(path).startswith("/readyz"):
        wrong.append(
            f"{variable}: path {path!r} is not allowed, it stays healthy until the server has stopped listening, so that the balancer goes "
            "on sending clients there: let it check /readyz"
        )
    return wrong


def balancer_seconds(balancer: Mapping[str, Any]) -> int:
    """From /readyz failing until the balancer sends nobody here any more."""
    return math.ceil(balancer["interval"] * balancer["failures"]) + BALANCER_MARGIN


def flag_wishes(
    component: Component, wanted: Mapping[str, Wish], grace: int | None, balancer: Mapping[str, Any] | None
) -> tuple[dict[str, Wish], dict[str, str], list[str]]:
    """What the times ask of the flags: wishes instead of those, wishes to drop and why, and what cannot be.

    Args:
        wanted: of `plan.wishes`. An explicit flag stays.
        grace: the explicit termination grace period.
    """
    if component.name != KUBE_APISERVER:
        return {}, {}, []
    found: dict[str, Wish] = {}
    delay = wanted.get(DELAY)
    if balancer and not (delay and delay.explicit):
        seconds = balancer_seconds(balancer)
        delay = Wish(
            [f"{seconds}s"], explicit=False,
            note=f"{balancer['interval']:g} s x {balancer['failures']} checks of the balancer and {BALANCER_MARGIN} s; each restart "
            "takes that much longer",
        )
        found[DELAY] = delay
    drain = wanted.get(WATCH_DRAIN)
    if grace is None or drain is None or drain.explicit or not drain.values:
        return found, {}, []
    waits = _seconds(component, DELAY, delay.values[-1]) if delay and delay.values else 0.0
    room = math.floor(grace - MARGIN - waits)
    if room >= _seconds(component, WATCH_DRAIN, drain.values[-1]):
        return found, {}, []
    reason = f"{component.role}_termination_grace_seconds is {grace}, less {waits:g} s of {DELAY} and {MARGIN} s to end"
    if room >= SHORTEST_WATCH_DRAIN:
        found[WATCH_DRAIN] = Wish([f"{room}s"], explicit=False, note=f"less than the profile's {drain.values[-1]}: {reason}")
        return found, {}, []
    if delay and delay.explicit or not balancer:
        return found, {WATCH_DRAIN: reason}, []
    return found, {}, [
        f"{component.role}_termination_grace_seconds: {grace} is less than the {waits:g} s that {component.role}_balancer needs, "
        f"{SHORTEST_WATCH_DRAIN} s to end watches and {MARGIN} s to end: at least {waits + SHORTEST_WATCH_DRAIN + MARGIN:g} is needed"
    ]


def settle(
    planned: Plan,
    live: Manifest,
    version: tuple[int, ...],
    database_bytes: int | None,
    *,
    computed: bool,
    grace: int | None = None,
    startup: int | None = None,
    balancer: Mapping[str, Any] | None = None,
    members: int = 0,
) -> list[str]:
    """Merge the times into a plan whose flags are decided; return what cannot be.

    Args:
        live: the manifest as it is.
        database_bytes: the largest file of any member, None if unknown.
        computed: raise what is too short for the sums, where no value is given; else only say so.
        grace, startup, balancer: the role's variables, checked with `unfit`.
        members: of the etcd cluster, for one of which each kubeadm node has an API server; 0 if unknown.
    """
    api = planned.component.name == KUBE_APISERVER
    wanted = {}
    problems = []
    if api:
        needed = _exit(planned, version)
        note = f"{needed['delay']:g} s of {DELAY}, {needed['drain']:g} s to drain and {MARGIN} s to end"
        if grace is not None:
            wanted[GRACE_KEY] = Wish([str(grace)], explicit=True)
        elif computed and needed["sum"] > (_before(live, planned.memory, GRACE_KEY) or GRACE):
            wanted[GRACE_KEY] = Wish([str(needed["sum"])], explicit=False, note=note)
    budget = startup_seconds(planned.component.name, database_bytes)
    before = _before(live, planned.memory, STARTUP_KEY)
    role = planned.component.role
    if startup is not None and live.time(STARTUP_KEY) is None:
        problems.append(f"{role}_startup_seconds: {startup} is not allowed, the manifest has no startupProbe: put kubeadm's one in first")
    elif startup is not None:
        wanted[STARTUP_KEY] = Wish([_whole_periods(live, startup)], explicit=True)
    elif computed and before is not None:
        # What was raised stays: a database that has shrunk is no reason for a restart.
        budget = max(budget, _computed_before(planned.memory, STARTUP_KEY))
        if budget > before:
            size = f"{(database_bytes or 0) / 2**20:.0f} MiB"
            wanted[STARTUP_KEY] = Wish(
                [_whole_periods(live, budget)], explicit=False, note=f"for a database of {size}; it costs nothing where the start is quick"
            )
    plan_times(planned, wanted, version)
    for key, wish in wanted.items():
        if not wish.explicit and key in planned.settings:
            planned.settings[key]["computed"] = True
    _warn_of_startup(planned, database_bytes)
    if api:
        problems += _exit_problems(planned, version, grace)
        _warn_of_exit(planned, version, bool(grace is not None or computed))
        problems += _balanced(planned, version, balancer, members)
    return problems


def _exit(planned: Plan, version: tuple[int, ...]) -> dict[str, float]:
    """delay, watch (drain), request (timeout) as planned; drain: the longer of watches and requests; sum: whole seconds to leave."""
    delay, watch, request = (
        checks.number(planned, name, version) or 0.0 for name in (DELAY[2:], WATCH_DRAIN[2:], "request-timeout")
    )
    drain = max(watch, min(request, DRAIN))
    return {"delay": delay, "watch": watch, "request": request, "drain": drain, "sum": math.ceil(delay + drain) + MARGIN}


def _exit_problems(planned: Plan, version: tuple[int, ...], grace: int | None) -> list[str]:
    needed, there = _exit(planned, version), planned.manifest.grace
    least = math.ceil(needed["delay"] + needed["watch"]) + MARGIN
    if there >= least:
        return []
    what = (
        f"is less than {needed['delay']:g} s of {DELAY}, {needed['watch']:g} s of {WATCH_DRAIN} and {MARGIN} s to end"
    )
    if grace is not None:
        return [
            f"{planned.component.role}_termination_grace_seconds: {grace} {what}, and the kubelet would kill the server each time: at "
            f"least {least} is needed"
        ]
    planned.say(
        GRACE_KEY, "warning", [str(there)],
        reason=f"{there} s {what}, and the kubelet kills the server each time: {least} is needed",
    )
    return []


def _warn_of_exit(planned: Plan, version: tuple[int, ...], ours: bool) -> None:
    """What a restart costs and cuts off, where the times are ours."""
    needed, there = _exit(planned, version), planned.manifest.grace
    if not ours:
        return
    left = there - needed["delay"] - MARGIN
    longest = min(float(there), needed["delay"] + needed["request"])
    closes = (checks.effective(planned, RETRY_AFTER[2:], version) or "false").lower() in ("true", "t", "1")
    if not closes and not needed["watch"]:
        planned.say(
            WATCH_DRAIN, "warning", ["0s"],
            reason=f"watches never end, so each restart waits {longest:g} s for the old server: 5s lets it leave within seconds",
        )
    elif not closes:
        planned.say(
            RETRY_AFTER, "warning", ["false"],
            reason=f"a stream such as kubectl logs -f makes each restart wait {longest:g} s for the old server: true lets it leave "
            "within seconds",
        )
    if needed["request"] > left:
        whole = math.ceil(needed["delay"] + needed["request"]) + MARGIN
        planned.say(
            GRACE_KEY, "warning", [str(there)],
            reason=f"a request that still runs {left:g} s after the server has stopped taking new ones is cut off, and --request-timeout "
            f"allows {needed['request']:g} s; {planned.component.role}_termination_grace_seconds: {whole} would wait for it, for up to "
            f"{whole - there:g} s more of each node's window, and none where no such request runs",
        )


def _warn_of_startup(planned: Plan, database_bytes: int | None) -> None:
    there = planned.manifest.time(STARTUP_KEY)
    needed = startup_seconds(planned.component.name, database_bytes)
    if there is not None and int(there) < needed:
        planned.say(
            STARTUP_KEY, "warning", [there],
            reason=f"a database of {(database_bytes or 0) / 2**20:.0f} MiB may need {needed} s, and the kubelet starts the container over "
            f"and over when the time is up: {planned.component.role}_startup_seconds",
        )


def _balanced(planned: Plan, version: tuple[int, ...], balancer: Mapping[str, Any] | None, members: int) -> list[str]:
    """The flags which are about the balancer, against what is known of it."""
    delay, chance = (checks.number(planned, name, version) or 0.0 for name in (DELAY[2:], "goaway-chance"))
    if balancer and delay < balancer_seconds(balancer):
        planned.say(
            DELAY, "warning", [f"{delay:g}s"],
            reason=f"the balancer takes up to {balancer_seconds(balancer)} s ({balancer['interval']:g} s x {balancer['failures']} checks "
            f"and {BALANCER_MARGIN} s) to send nobody here any more; clients are refused in between",
        )
    if not chance:
        return []
    change = planned.change_of("--goaway-chance")
    if members == 1 and change and change.origin == "explicit":
        return [
            f"{item(planned.component, '--goaway-chance')}: {chance:g} is not allowed with a single API server, clients would only lose "
            f"their connections: remove it from {planned.component.role}_flags"
        ]
    if members == 1 or not balancer:
        known = "there is a single API server" if members == 1 else f"{planned.component.role}_balancer names no balancer"
        planned.say(
            "--goaway-chance", "warning", [f"{chance:g}"],
            reason=f"{known}: a client that is sent away and comes back to the same server has gained nothing",
        )
    return []


def _before(live: Manifest, memory: Memory, key: str) -> int | None:
    """What was there before us, None where it was not set."""
    remembered = memory.settings.get(key)
    text = live.time(key)
    if remembered and remembered["applied"] == [text]:
        text = (remembered["original"] or [None])[0]
    return None if text is None else int(text)


def _computed_before(memory: Memory, key: str) -> int:
    """What an earlier run has applied of itself; 0 where a variable said it, which goes back with that."""
    remembered = memory.settings.get(key)
    return int(remembered["applied"][0]) if remembered and remembered.get("computed") else 0


def _whole_periods(live: Manifest, seconds: int) -> str:
    period = live.startup_period
    return str(-(-seconds // period) * period)


def _seconds(component: Component, flag: str, text: str) -> float:
    return float(component.flag(flag[2:]).parse(text))
