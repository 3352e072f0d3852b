# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a static pod may take to leave and to start, the balancer before it, and whom an API server asks."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod import etcd_servers, recorded, timing
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.manifest import Manifest
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.node import NodePlan, Request
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _static_pods
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.module_utils.test_static_pods import API, ETCD, apply, edit, planned

GRACE, STARTUP = "pod.termination_grace_period_seconds", "pod.startup_probe_seconds"
LOCAL = "https://127.0.0.1:2379"
ALL = f"{LOCAL},https://10.0.0.2:2379,https://10.0.0.3:2379"


def api(**wanted: Any) -> dict[str, Request]:
    return {API: Request(**wanted)}


def lines(plan: NodePlan, key: str) -> dict[str, dict[str, Any]]:
    """Verdict -> the line about a setting of the API server."""
    return {line["verdict"]: line for line in plan.report if line["item"] == f"{API} {key}"}


def flag(plan: NodePlan, name: str) -> str | None:
    return (plan.plans[API].manifest.flags().get(name) or [None])[-1]


# --- leaving ------------------------------------------------------------------------------------------------------------


def test_kubeadm_s_thirty_seconds_hold_the_guide(host) -> None:
    """0 s delay, 5 s for watches, 25 s for requests, 5 s to end."""
    plan = planned(host, api())
    assert plan.problems == []
    assert "terminationGracePeriodSeconds" not in plan.plans[API].manifest.pod["spec"]
    warning = lines(plan, GRACE)["warning"]
    assert "still runs 25 s" in warning["reason"] and "allows 300 s" in warning["reason"]
    assert "kube_apiserver_static_pod_termination_grace_seconds: 305 would wait for it, for up to 275 s more" in warning["reason"]


def test_a_delay_raises_the_grace_period_and_goes_back_with_it(host) -> None:
    apply(host, api(flags={"shutdown-delay-duration": "20s"}))
    plan = planned(host, api(flags={"shutdown-delay-duration": "20s"}))
    assert plan.live[API].manifest.grace == 50 and not plan.changes(API)
    assert lines(plan, GRACE)["already_right"]["value"] == "50"
    apply(host, api())
    assert "terminationGracePeriodSeconds" not in host.pod(API)["spec"]
    assert "shutdown-delay-duration" not in planned(host).live[API].manifest.flags()


def test_what_a_raised_grace_period_is_made_of(host) -> None:
    change = lines(planned(host, api(flags={"shutdown-delay-duration": "20s"})), GRACE)["changed"]
    assert (change["value"], change["previous"]) == ("50", None)
    assert change["reason"] == "20 s of --shutdown-delay-duration, 25 s to drain and 5 s to end"


def test_a_longer_live_grace_period_stays(host) -> None:
    edit(host, API, "spec:\n", "spec:\n  terminationGracePeriodSeconds: 120\n")
    plan = planned(host, api(flags={"shutdown-delay-duration": "20s"}))
    assert plan.plans[API].manifest.grace == 120
    assert "still runs 95 s" in lines(plan, GRACE)["warning"]["reason"]


def test_a_request_timeout_that_fits_is_not_warned_of(host) -> None:
    assert lines(planned(host, api(flags={"request-timeout": "20s"})), GRACE) == {}
    assert "warning" not in lines(planned(host, api(termination_grace_seconds=305)), GRACE)


@pytest.mark.parametrize(
    ("grace", "drain"), [(8, "3s"), (9, "4s"), (10, "5s"), (6, "1s"), (5, None)],
)
def test_the_profile_s_watch_drain_gives_way_to_an_explicit_grace_period(host, grace: int, drain: str | None) -> None:
    want = api(termination_grace_seconds=grace)
    plan = planned(host, want)
    assert plan.problems == []
    assert flag(plan, "shutdown-watch-termination-grace-period") == drain
    assert plan.plans[API].manifest.grace == grace
    apply(host, want)
    assert apply(host, want) is None


def test_it_gives_way_when_it_was_applied_before(host) -> None:
    apply(host, api())
    apply(host, api(termination_grace_seconds=8))
    plan = planned(host, api(termination_grace_seconds=8))
    assert flag(plan, "shutdown-watch-termination-grace-period") == "3s" and not plan.changes(API)
    reason = lines(planned(host, api(termination_grace_seconds=7)), timing.WATCH_DRAIN)["changed"]["reason"]
    assert "less than the profile's 5s: kube_apiserver_static_pod_termination_grace_seconds is 7" in reason


def test_explicit_values_that_do_not_fit_are_an_error(host) -> None:
    want = api(termination_grace_seconds=30, flags={"shutdown-delay-duration": "20s", "shutdown-watch-termination-grace-period": "10s"})
    assert planned(host, want).problems == [
        "kube_apiserver_static_pod_termination_grace_seconds: 30 is less than 20 s of --shutdown-delay-duration, 10 s of "
        "--shutdown-watch-termination-grace-period and 5 s to end, and the kubelet would kill the server each time: at least 35 is needed"
    ]


def test_a_live_delay_beyond_the_grace_period_is_only_warned_of_without_the_profile(host) -> None:
    edit(host, API, "    - --secure-port=6443", "    - --shutdown-delay-duration=40s\n    - --secure-port=6443")
    upstream = planned(host, api(profile="upstream"))
    assert not upstream.changes(API)
    assert "45 is needed" in lines(upstream, GRACE)["warning"]["reason"]
    assert planned(host, api()).plans[API].manifest.grace == 70


def test_watches_that_never_end_are_said_with_their_seconds(host) -> None:
    want = api(profile="upstream", flags={"request-timeout": "300s"}, termination_grace_seconds=305)
    assert "each restart waits 300 s" in lines(planned(host, want), timing.WATCH_DRAIN)["warning"]["reason"]
    streams = api(flags={"shutdown-send-retry-after": None})
    assert "kubectl logs -f makes each restart wait 30 s" in lines(planned(host, streams), timing.RETRY_AFTER)["warning"]["reason"]
    closing = api(profile="upstream", flags={"shutdown-send-retry-after": True}, termination_grace_seconds=30)
    assert lines(planned(host, closing), timing.WATCH_DRAIN) == {}


def test_upstream_has_nothing_to_say(host) -> None:
    plan = planned(host, {ETCD: Request(profile="upstream"), API: Request(profile="upstream")})
    assert plan.report == [] and not plan.changes(API)


def test_an_edit_of_the_grace_period_is_drift(host) -> None:
    apply(host, api(termination_grace_seconds=60))
    edit(host, API, "terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 40")
    plan = planned(host, api(termination_grace_seconds=60))
    assert "it had drifted from 60" in lines(plan, GRACE)["changed"]["reason"]
    absent = planned(host, api(state="absent"))
    assert absent.plans[API].manifest.grace == 40 and "kept" in lines(absent, GRACE)


def test_the_window_waits_for_the_longer_of_both_grace_periods(host) -> None:
    requests = api(termination_grace_seconds=90)
    assert _static_pods.make_order(planned(host, requests), requests, host.facts, "run").kube_apiserver.grace == 90
    apply(host, requests)
    back = api(termination_grace_seconds=40)
    assert _static_pods.make_order(planned(host, back), back, host.facts, "run").kube_apiserver.grace == 90


def test_a_recorded_state_has_its_times(host) -> None:
    before = host.facts["manifests"]["kube-apiserver.yaml"]["text"]
    apply(host, api(termination_grace_seconds=90, startup_seconds=600, profile="upstream"))
    then = Manifest(yaml.safe_load(before), API)
    changes = recorded.differences(COMPONENTS[API], Manifest(host.pod(API), API), then)
    found = {change.key: (change.before, change.after) for change in changes}
    assert found == {GRACE: (["90"], None), STARTUP: (["600"], ["240"])}


# --- the balancer -------------------------------------------------------------------------------------------------------


def test_a_balancer_asks_for_a_delay_and_the_delay_for_a_longer_grace_period(host) -> None:
    want = api(balancer={"interval": 2, "failures": 3})
    plan = planned(host, want)
    assert plan.problems == []
    assert flag(plan, "shutdown-delay-duration") == "8s" and plan.plans[API].manifest.grace == 38
    assert "2 s x 3 checks of the balancer and 2 s; each restart takes that much longer" in lines(plan, timing.DELAY)["changed"]["reason"]
    apply(host, want)
    assert apply(host, want) is None


def test_an_explicit_delay_that_is_too_short_is_warned_of(host) -> None:
    plan = planned(host, api(balancer={"interval": 15, "failures": 2}, flags={"shutdown-delay-duration": "5s"}))
    assert flag(plan, "shutdown-delay-duration") == "5s"
    assert "takes up to 32 s (15 s x 2 checks and 2 s)" in lines(plan, timing.DELAY)["warning"]["reason"]
    without = planned(host, api(balancer={"interval": 2, "failures": 3}, flags={"shutdown-delay-duration": None}))
    assert lines(without, timing.DELAY)["warning"]["value"] == "0s"


def test_a_longer_live_delay_stays(host) -> None:
    edit(host, API, "    - --secure-port=6443", "    - --shutdown-delay-duration=15s\n    - --secure-port=6443")
    plan = planned(host, api(balancer={"interval": 2, "failures": 3}))
    assert flag(plan, "shutdown-delay-duration") == "15s" and plan.plans[API].manifest.grace == 45


def test_a_balancer_and_a_grace_period_that_exclude_each_other(host) -> None:
    problems = planned(host, api(balancer={"interval": 5, "failures": 4}, termination_grace_seconds=20)).problems
    assert problems == [
        "kube_apiserver_static_pod_termination_grace_seconds: 20 is less than the 22 s that kube_apiserver_static_pod_balancer needs, 1 s "
        "to end watches and 5 s to end: at least 28 is needed"
    ]


@pytest.mark.parametrize(
    ("balancer", "words"),
    [
        ({"interval": 2}, "a mapping of interval and failures is needed"),
        ({"interval": 2, "failures": 3, "port": 1}, "a mapping of interval and failures is needed"),
        (["x"], "a mapping of interval and failures is needed"),
        ({"interval": 0, "failures": 3}, "interval 0 is not allowed"),
        ({"interval": True, "failures": 3}, "interval True is not allowed"),
        ({"interval": 2, "failures": 0}, "failures 0 is not allowed"),
        ({"interval": 2, "failures": 2.5}, "failures 2.5 is not allowed"),
        ({"interval": 2, "failures": 3, "path": "/healthz"}, "path '/healthz' is not allowed, it stays healthy"),
        ({"interval": 2, "failures": 3, "path": "/livez"}, "let it check /readyz"),
    ],
)
def test_what_cannot_be_a_balancer(host, balancer: Any, words: str) -> None:
    problems = planned(host, api(balancer=balancer)).problems
    assert len(problems) == 1 and problems[0].startswith("kube_apiserver_static_pod_balancer") and words in problems[0]


def test_clients_are_only_sent_away_where_there_is_another_server(host) -> None:
    chance = {"goaway-chance": 0.001}
    balancer = {"interval": 2, "failures": 3}
    assert lines(planned(host, api(flags=chance, balancer=balancer)), "--goaway-chance").keys() == {"changed"}
    assert "names no balancer" in lines(planned(host, api(flags=chance)), "--goaway-chance")["warning"]["reason"]
    assert "at most 0.02 is allowed" in planned(host, api(flags={"goaway-chance": 0.05}, balancer=balancer)).problems[0]
    host.facts["cluster"].update(members=["cp1"], client_urls={"cp1": ["https://10.0.0.1:2379"]})
    assert "not allowed with a single API server" in planned(host, api(flags=chance, balancer=balancer)).problems[0]
    edit(host, API, "    - --secure-port=6443", "    - --goaway-chance=0.001\n    - --secure-port=6443")
    assert "a single API server" in lines(planned(host, api()), "--goaway-chance")["warning"]["reason"]


# --- starting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("component", "mebibytes", "seconds"),
    [(ETCD, None, 240), (ETCD, 0, 240), (ETCD, 2048, 240), (ETCD, 4096, 480), (ETCD, 8192, 960), (API, 1024, 240), (API, 8192, 1920)],
)
def test_the_budget_of_the_start(component: str, mebibytes: int | None, seconds: int) -> None:
    assert timing.startup_seconds(component, mebibytes and mebibytes * 2**20) == seconds


@given(one=st.integers(0, 2**44), other=st.integers(0, 2**44), component=st.sampled_from([ETCD, API]))
def test_a_larger_database_never_has_less(one: int, other: int, component: str) -> None:
    small, large = (timing.startup_seconds(component, size) for size in sorted((one, other)))
    assert timing.STARTUP_STEPS[0] <= small <= large <= timing.STARTUP_STEPS[-1]


@pytest.mark.parametrize("component", [ETCD, API])
def test_a_large_database_raises_the_startup_probe_for_good(host, component: str) -> None:
    want = {component: Request()}
    host.facts["cluster"]["database_bytes"] = 6 * 2**30
    apply(host, want)
    failures = {ETCD: 48, API: 96}[component]
    assert host.pod(component)["spec"]["containers"][0]["startupProbe"]["failureThreshold"] == failures
    host.facts["cluster"]["database_bytes"] = 2**20
    assert apply(host, want) is None
    apply(host, {component: Request(state="absent")})
    assert host.pod(component)["spec"]["containers"][0]["startupProbe"]["failureThreshold"] == 24


def test_upstream_only_warns_of_a_short_start(host) -> None:
    host.facts["cluster"]["database_bytes"] = 7 * 2**30
    plan = planned(host, api(profile="upstream"))
    assert not plan.changes(API)
    assert "7168 MiB may need 960 s" in lines(plan, STARTUP)["warning"]["reason"]


def test_an_explicit_start_is_rounded_up_to_whole_periods(host) -> None:
    want = api(startup_seconds=305)
    apply(host, want)
    assert host.pod(API)["spec"]["containers"][0]["startupProbe"]["failureThreshold"] == 31
    assert apply(host, want) is None
    assert lines(planned(host, want), STARTUP)["already_right"]["value"] == "310"
    apply(host, api())
    assert host.pod(API)["spec"]["containers"][0]["startupProbe"]["failureThreshold"] == 24


def test_without_a_startup_probe_there_is_nothing_to_raise(host) -> None:
    pod = host.pod(API)
    del pod["spec"]["containers"][0]["startupProbe"]
    host.write("kube-apiserver.yaml", yaml.safe_dump(pod, sort_keys=False))
    host.facts["cluster"]["database_bytes"] = 7 * 2**30
    assert planned(host, api()).problems == []
    assert "startupProbe" not in planned(host, api()).plans[API].manifest.pod["spec"]["containers"][0]
    assert "the manifest has no startupProbe" in planned(host, api(startup_seconds=600)).problems[0]


@pytest.mark.parametrize("value", [0, 4, 3601, "60", 7.5, True])
def test_times_out_of_range(host, value: Any) -> None:
    problems = planned(host, api(termination_grace_seconds=value)).problems
    assert problems == [
        f"kube_apiserver_static_pod_termination_grace_seconds: {value!r} is not allowed, a whole number of seconds from 5 to 3600 is needed"
    ]


# --- whom the API server asks ---------------------------------------------------------------------------------------------


def test_all_members_the_local_one_first_and_back(host) -> None:
    before = host.facts["manifests"]["kube-apiserver.yaml"]["text"]
    apply(host, api(etcd_servers="all"))
    plan = planned(host, api(etcd_servers="all"))
    assert flag(plan, "etcd-servers") == ALL and not plan.changes(API)
    assert "one member that hangs now stalls requests of every API server" in lines(plan, "--etcd-servers")["warning"]["reason"]
    assert flag(planned(host, api()), "etcd-servers") == ALL
    apply(host, api(etcd_servers="local"))
    assert flag(planned(host, api()), "etcd-servers") == LOCAL
    assert lines(planned(host, api()), "--etcd-servers") == {}
    apply(host, api(state="absent"))
    assert yaml.safe_load(before) == host.pod(API)


def test_a_new_member_is_added(host) -> None:
    apply(host, api(etcd_servers="all"))
    host.facts["cluster"]["members"] = ["cp1", "cp2", "cp4"]
    host.facts["cluster"]["client_urls"] = {f"cp{index}": [f"https://10.0.0.{index}:2379"] for index in (1, 2, 4)}
    assert flag(planned(host, api(etcd_servers="all")), "etcd-servers") == f"{LOCAL},https://10.0.0.2:2379,https://10.0.0.4:2379"


def test_another_order_of_the_same_members_stays(host) -> None:
    other = f"https://10.0.0.3:2379,{LOCAL},https://10.0.0.2:2379"
    edit(host, API, f"--etcd-servers={LOCAL}", f"--etcd-servers={other}")
    assert flag(planned(host, api(etcd_servers="all")), "etcd-servers") == other
    assert flag(planned(host, api(etcd_servers="local")), "etcd-servers") == other


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unreachable": {"cp3": "certificate verify failed"}}, "member cp3 cannot be reached at https://10.0.0.3:2379"),
        ({"client_urls": {"cp1": ["https://10.0.0.1:2379"], "cp2": [], "cp3": ["https://10.0.0.3:2379"]}}, "member cp2 has no client URL"),
        ({"members": []}, "cannot be told"),
    ],
)
def test_members_that_cannot_be_asked_are_refused(host, change: dict[str, Any], words: str) -> None:
    host.facts["cluster"].update(change)
    problems = planned(host, api(etcd_servers="all")).problems
    assert len(problems) == 1 and words in problems[0]


def test_a_list_without_the_local_member_is_refused(host) -> None:
    edit(host, API, f"--etcd-servers={LOCAL}", "--etcd-servers=https://10.0.0.9:2379")
    assert "has no URL of this node's member" in planned(host, api(etcd_servers="all")).problems[0]


def test_choices_are_those_of_the_interface() -> None:
    assert etcd_servers.CHOICES == ("as_it_is", "local", "all")
