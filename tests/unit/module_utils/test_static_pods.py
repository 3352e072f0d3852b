# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan for a node: what wins, what stays, what is refused, and what goes back."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.node import NodePlan, Request, plan_node
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _static_pods
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.hosts import Host

ETCD, API = "etcd", "kube-apiserver"
BOTH = {ETCD: Request(), API: Request()}


def planned(host, requests: dict[str, Request] | None = None) -> NodePlan:
    return plan_node(requests or BOTH, host.facts, host.pods)


def verdict(plan: NodePlan, item: str) -> dict[str, Any]:
    found = [line for line in plan.report if line["item"] == item]
    assert len(found) == 1, f"{item}: {found}"
    return found[0]


def apply(host, requests: dict[str, Request]) -> Any:
    """What the window does: the new manifests are there, the processes run, the memory is written."""
    plan = planned(host, requests)
    assert plan.problems == []
    order = _static_pods.make_order(plan, requests, host.facts, "run")
    for name, part in ((ETCD, order and order.etcd), (API, order and order.kube_apiserver)):
        if part and part.changes:
            host.write(f"{name}.yaml", part.new)
            process = host.facts["processes"][name][0]
            host.run(name, process["version"], process["peak_rss_bytes"])
            host.facts["memory"][name] = part.memory
    return order


def test_every_flag_of_the_guide_is_set(host) -> None:
    plan = planned(host)
    assert plan.problems == []
    for name, component in COMPONENTS.items():
        flags = plan.plans[name].manifest.flags()
        for flag in component.flags:
            if flag.guide is not None:
                assert flag.same(flags[flag.name][-1], flag.guide), flag.name


def test_what_is_not_asked_for_stays(host) -> None:
    plan = planned(host)
    for name in BOTH:
        before, after = host.pod(name), plan.plans[name].manifest.pod
        for pod in (before, after):
            pod["spec"]["containers"][0].pop("resources")
            command = pod["spec"]["containers"][0].pop("command")
            guide = {f"--{flag.name}" for flag in COMPONENTS[name].flags}
            pod["other"] = [word for word in command if word.partition("=")[0] not in guide]
        assert before == after


def test_a_second_run_changes_nothing(host) -> None:
    assert apply(host, BOTH) is not None
    assert apply(host, BOTH) is None
    assert {line["verdict"] for line in planned(host).report} <= {
        "already_right", "version_default", "ignored", "warning", "left_out",
    }


def test_defaults_of_the_version_are_told_from_changes(host) -> None:
    plan = planned(host)
    assert verdict(plan, "etcd --heartbeat-interval")["verdict"] == "version_default"
    assert "3.6.16" in verdict(plan, "etcd --heartbeat-interval")["reason"]
    assert verdict(plan, "etcd --snapshot-count") == {
        "role": "etcd_static_pod", "item": "etcd --snapshot-count", "verdict": "changed", "value": "100000",
        "previous": "10000", "reason": "the default is 10000 since 3.6, and was 100000 before",
    }
    assert verdict(plan, "kube-apiserver --etcd-compaction-interval")["verdict"] == "version_default"
    assert verdict(plan, "kube-apiserver --default-watch-cache-size")["verdict"] == "ignored"


def test_a_larger_live_value_stays(host) -> None:
    text = host.facts["manifests"]["kube-apiserver.yaml"]["text"]
    host.write("kube-apiserver.yaml", text.replace("    - --secure-port=6443", "    - --max-requests-inflight=5000\n    - --secure-port=6443"))
    host.run(API, "1.36.3", 2**20)
    line = verdict(planned(host), "kube-apiserver --max-requests-inflight")
    assert (line["verdict"], line["value"]) == ("kept", "5000")
    explicit = {API: Request(flags={"max-requests-inflight": 800})}
    line = verdict(planned(host, explicit), "kube-apiserver --max-requests-inflight")
    assert (line["verdict"], line["value"], line["previous"]) == ("changed", "800", "5000")


@pytest.mark.parametrize(
    ("component", "live", "kept"),
    [
        (ETCD, ["auto-compaction-retention=8h"], {"auto-compaction-retention": "larger than the profile's 1h"}),
        (ETCD, ["auto-compaction-retention=10m"], {}),
        (
            ETCD,
            ["auto-compaction-mode=revision", "auto-compaction-retention=1"],
            {"auto-compaction-mode": "compacts by revisions", "auto-compaction-retention": "compacts by revisions"},
        ),
        (
            ETCD,
            ["auto-compaction-mode=revision"],
            {"auto-compaction-mode": "compacts by revisions", "auto-compaction-retention": "compacts by revisions"},
        ),
        (API, ["min-request-timeout=3600"], {"min-request-timeout": "larger than the profile's 1800"}),
        (API, ["authentication-token-webhook-cache-ttl=10s"], {"authentication-token-webhook-cache-ttl": "stricter"}),
        (API, ["authentication-token-webhook-cache-ttl=10m"], {}),
        (API, ["authorization-webhook-cache-authorized-ttl=0s"], {"authorization-webhook-cache-authorized-ttl": "stricter"}),
        (API, ["watch-cache-sizes=pods#10,events#0"], {"watch-cache-sizes": "turns a watch cache off"}),
        (API, ["watch-cache-sizes=pods#100"], {}),
    ],
)
def test_a_live_value_on_purpose_stays(host, component: str, live: list[str], kept: dict[str, str]) -> None:
    words = "".join(f"    - --{flag}\n" for flag in live)
    edit(host, component, f"    - {component}\n", f"    - {component}\n{words}")
    plan = planned(host, {component: Request()})
    assert plan.problems == []
    reasons = {line["item"]: line["reason"] for line in plan.report if line["verdict"] == "kept"}
    assert set(reasons) == {f"{component} --{flag}" for flag in kept}
    assert all(text in reasons[f"{component} --{flag}"] for flag, text in kept.items())
    for flag in kept:
        assert planned(host).live[component].manifest.flags().get(flag) == plan.plans[component].manifest.flags().get(flag)


def test_an_explicit_compaction_mode_wins_over_a_live_one(host) -> None:
    edit(host, ETCD, "    - etcd\n", "    - etcd\n    - --auto-compaction-mode=revision\n    - --auto-compaction-retention=1000\n")
    plan = planned(host, {ETCD: Request(flags={"auto-compaction-mode": "periodic", "auto-compaction-retention": "30m"})})
    flags = plan.plans[ETCD].manifest.flags()
    assert (flags["auto-compaction-mode"], flags["auto-compaction-retention"]) == (["periodic"], ["30m"])
    plan = planned(host, {ETCD: Request(flags={"auto-compaction-mode": "revision"})})
    assert plan.problems == []
    assert plan.plans[ETCD].manifest.flags()["auto-compaction-retention"] == ["1000"]


def edit(host, component: str, before: str, after: str) -> None:
    """What a person or an upgrade does to a live manifest, and the process that comes of it."""
    text = host.facts["manifests"][f"{component}.yaml"]["text"]
    assert before in text
    process = host.facts["processes"][component][0]
    host.write(f"{component}.yaml", text.replace(before, after))
    host.run(component, process["version"], process["peak_rss_bytes"])


def test_a_larger_edit_stays_in_every_later_run(host) -> None:
    apply(host, {API: Request()})
    edit(host, API, "--max-requests-inflight=3000", "--max-requests-inflight=5000")
    for other in (4, 5):
        want = {API: Request(flags={"v": other})}
        assert verdict(planned(host, want), "kube-apiserver --max-requests-inflight")["verdict"] == "kept"
        apply(host, want)
    assert planned(host).live[API].manifest.flags()["max-requests-inflight"] == ["5000"]


def test_upstream_profile_asks_for_nothing(host) -> None:
    plan = planned(host, {ETCD: Request(profile="upstream"), API: Request(profile="upstream")})
    assert not plan.changes(ETCD) and not plan.changes(API)


def test_a_removed_variable_goes_back_to_what_was_there(host) -> None:
    up = {"profile": "upstream"}
    apply(host, {ETCD: Request(flags={"snapshot-count": 5000, "max-wals": 9}, **up)})
    apply(host, {ETCD: Request(flags={"max-wals": 9}, **up)})
    flags = planned(host).live[ETCD].manifest.flags()
    assert flags["snapshot-count"] == ["10000"]
    assert flags["max-wals"] == ["9"]


def test_absent_brings_back_the_very_bytes(host) -> None:
    before = {name: file["text"] for name, file in host.facts["manifests"].items()}
    apply(host, BOTH)
    apply(host, {ETCD: Request(flags={"max-wals": 7}), API: Request()})
    apply(host, {ETCD: Request(state="absent"), API: Request(state="absent")})
    assert {name: file["text"] for name, file in host.facts["manifests"].items()} == before
    assert host.facts["memory"] == {ETCD: None, API: None}


def test_absent_keeps_what_others_changed_since(host) -> None:
    apply(host, BOTH)
    text = host.facts["manifests"]["etcd.yaml"]["text"]
    host.write("etcd.yaml", text.replace("--name=cp1", "--name=cp1\n    - --log-level=debug").replace("--max-wals=5", "--max-wals=8"))
    host.run(ETCD, "3.6.16", 2**20)
    plan = planned(host, {ETCD: Request(state="absent")})
    flags = plan.plans[ETCD].manifest.flags()
    assert flags["log-level"] == ["debug"]
    assert flags["max-wals"] == ["8"]
    assert flags["snapshot-count"] == ["10000"]
    assert verdict(plan, "etcd --max-wals")["verdict"] == "kept"


def test_a_hand_edit_shows_as_drift(host) -> None:
    apply(host, BOTH)
    text = host.facts["manifests"]["etcd.yaml"]["text"]
    host.write("etcd.yaml", text.replace("--backend-batch-limit=10000", "--backend-batch-limit=77"))
    host.run(ETCD, "3.6.16", 2**20)
    line = verdict(planned(host), "etcd --backend-batch-limit")
    assert (line["verdict"], line["previous"]) == ("changed", "77")
    assert "drifted from 10000" in line["reason"]
    # Larger on purpose it stays, and is told all the same.
    host.write("etcd.yaml", text.replace("--max-wals=5", "--max-wals=9"))
    host.run(ETCD, "3.6.16", 2**20)
    line = verdict(planned(host), "etcd --max-wals")
    assert (line["verdict"], line["value"], line["reason"]) == ("kept", "9", "larger than the profile's 5; it had drifted from 5")


def test_absent_goes_back_to_what_an_upgrade_wrote(host) -> None:
    before = host.facts["manifests"]["kube-apiserver.yaml"]["text"]
    upgraded = before.replace("    - --secure-port=6443", "    - --max-requests-inflight=800\n    - --secure-port=6443")
    apply(host, {API: Request()})
    edit(host, API, host.facts["manifests"]["kube-apiserver.yaml"]["text"], upgraded)
    apply(host, {API: Request()})
    apply(host, {API: Request(flags={"max-requests-inflight": 4000})})
    apply(host, {API: Request(state="absent")})
    assert planned(host).live[API].manifest.pod == yaml.safe_load(upgraded)


def test_null_takes_a_flag_out_of_the_profile(host) -> None:
    plan = planned(host, {ETCD: Request(flags={"quota-backend-bytes": None})})
    assert "quota-backend-bytes" not in plan.plans[ETCD].manifest.flags()
    assert verdict(plan, "etcd --quota-backend-bytes")["verdict"] == "left_out"


def test_a_flag_that_the_binary_turned_down_is_reported(host) -> None:
    plan = planned(host, {ETCD: Request(refused={"max-snapshots": "unknown flag: --max-snapshots"})})
    assert "max-snapshots" not in plan.plans[ETCD].manifest.flags()
    line = verdict(plan, "etcd --max-snapshots")
    assert (line["verdict"], line["reason"]) == ("refused", "unknown flag: --max-snapshots")


# --- resources ------------------------------------------------------------------------------------------------


def test_requests_which_do_not_fit_are_left_out(host) -> None:
    host.facts["allocatable"] = {"cpu": "2", "memory": "24Gi"}
    plan = planned(host)
    assert plan.problems == []
    assert plan.plans[API].manifest.resource("requests.cpu") == "250m"
    line = verdict(plan, "kube-apiserver requests.cpu")
    assert line["verdict"] == "left_out"
    assert "1300m more than the node's allocatable 2" in line["reason"]
    assert plan.plans[ETCD].manifest.resource("requests.cpu") == "1000m"


def test_explicit_requests_which_do_not_fit_are_an_error(host) -> None:
    host.facts["allocatable"] = {"cpu": "2", "memory": "24Gi"}
    plan = planned(host, {API: Request(resources={"requests": {"cpu": "2000m"}})})
    assert len(plan.problems) == 1
    assert "kube-apiserver requests.cpu=2000m" in plan.problems[0]
    assert "allocatable 2" in plan.problems[0]


def test_a_memory_limit_near_the_peak_is_left_out(host) -> None:
    host.facts["processes"][ETCD][0]["peak_rss_bytes"] = 3 * 2**30
    plan = planned(host)
    assert plan.plans[ETCD].manifest.resource("limits.memory") is None
    assert "3072Mi" in [line for line in plan.report if line["item"] == "etcd limits.memory"][0]["reason"]
    explicit = planned(host, {ETCD: Request(resources={"limits": {"memory": "4Gi"}})})
    assert "etcd limits.memory: 4Gi is too little" in explicit.problems[0]


def test_a_restart_does_not_make_a_tight_memory_limit_safe(host) -> None:
    host.facts["processes"][ETCD][0]["peak_rss_bytes"] = 3 * 2**30
    apply(host, {ETCD: Request()})
    host.facts["processes"][ETCD][0]["peak_rss_bytes"] = 50 * 2**20
    for other in (1, 2):
        want = {ETCD: Request(flags={"max-wals": other})}
        plan = planned(host, want)
        assert plan.plans[ETCD].manifest.resource("limits.memory") is None
        assert "3072Mi" in [line for line in plan.report if line["item"] == "etcd limits.memory"][0]["reason"]
        apply(host, want)
    del host.facts["memory"][ETCD]["peak_rss_bytes"]
    assert planned(host).plans[ETCD].manifest.resource("limits.memory") == "4Gi"


def test_a_tight_limit_that_was_there_before_comes_back_with_a_warning(host) -> None:
    edit(host, ETCD, "    resources:\n", "    resources:\n      limits:\n        memory: 1Gi\n")
    apply(host, {ETCD: Request(resources={"limits": {"memory": "8Gi"}})})
    host.facts["processes"][ETCD][0]["peak_rss_bytes"] = 2 * 2**30
    plan = planned(host, {ETCD: Request(state="absent")})
    assert plan.problems == []
    assert plan.plans[ETCD].manifest.resource("limits.memory") == "1Gi"
    lines = [line for line in plan.report if line["item"] == "etcd limits.memory"]
    assert [line["verdict"] for line in lines][:2] == ["restored", "warning"]
    assert "2048Mi" in lines[1]["reason"]


def test_a_quota_that_the_database_has_outgrown_does_not_come_back(host) -> None:
    apply(host, {ETCD: Request()})
    host.facts["cluster"]["database_bytes"] = 3 * 2**30
    problems = planned(host, {ETCD: Request(state="absent")}).problems
    assert len(problems) == 1
    assert "2147483648 is not above the database's 3221225472" in problems[0]
    assert "profile upstream, and quota-backend-bytes" in problems[0]
    assert planned(host, {ETCD: Request(profile="upstream", flags={"quota-backend-bytes": 8 * 2**30})}).problems == []


def test_no_limits(host) -> None:
    plan = planned(host, {ETCD: Request(resources={"limits": "none"})})
    assert plan.plans[ETCD].manifest.resource("limits.cpu") is None
    assert plan.plans[ETCD].manifest.resource("requests.cpu") == "1000m"


def test_a_request_above_the_limit(host) -> None:
    plan = planned(host, {ETCD: Request(resources={"requests": {"cpu": "3"}})})
    assert plan.plans[ETCD].manifest.resource("limits.cpu") is None
    both = planned(host, {ETCD: Request(resources={"requests": {"cpu": "3"}, "limits": {"cpu": "2"}})})
    assert "the request of 3 is above the limit of 2" in both.problems[0]


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("component", "request_", "text"),
    [
        (ETCD, Request(flags={"heartbeat-interval": "fast"}), "etcd --heartbeat-interval: 'fast' is not allowed, a whole number"),
        (ETCD, Request(flags={"election-timeout": 60000}), "at most 50000"),
        (ETCD, Request(flags={"heartbeat-interval": 300}), "at least 1500 is needed"),
        (ETCD, Request(flags={"auto-compaction-mode": "revision"}), "'1h' is no number of revisions"),
        (ETCD, Request(flags={"quota-backend-bytes": 1000}), "not above the database's 41943040 bytes"),
        (ETCD, Request(flags={"backend-batch-interval": 100}), "duration with its unit"),
        (ETCD, Request(flags={"wal-dir": "/wal"}), "never touched"),
        (ETCD, Request(flags={"--max-wals": 5}), "without dashes"),
        (ETCD, Request(resources={"requests": {"cpu": "lots"}}), "'lots' is not allowed, a Kubernetes quantity"),
        (ETCD, Request(resources={"requests": {"gpu": "1"}}), "only requests.cpu"),
        (ETCD, Request(resources=["limits"]), "etcd_static_pod_resources: ['limits'] is not allowed, a mapping of requests"),
        (ETCD, Request(resources={"limit": {"cpu": "1"}}), "etcd_static_pod_resources: 'limit' is not allowed"),
        (ETCD, Request(resources={"limits": None}), "etcd limits: None is not allowed, a mapping of cpu and memory or none"),
        (ETCD, Request(resources={"limits": "None"}), "etcd limits: 'None' is not allowed"),
        (ETCD, Request(resources={"limits": ["cpu"]}), "etcd limits: ['cpu'] is not allowed"),
        (ETCD, Request(resources={"limits": {"cpu": {"a": 1}}}), "etcd limits.cpu: {'a': 1} is not allowed"),
        (ETCD, Request(resources={"limits": {"cpu": "1e999999999"}}), "a Kubernetes quantity is needed"),
        (ETCD, Request(flags=["max-wals"]), "etcd_static_pod_flags: ['max-wals'] is not allowed, a mapping"),
        (ETCD, Request(flags={"max-wals": []}), "etcd --max-wals: [] is not allowed, a value or a list of them"),
        (ETCD, Request(flags={"max-wals": [5, None]}), "etcd --max-wals: [5, None] is not allowed, text, a number"),
        (ETCD, Request(flags={"max-wals": {"a": 1}}), "etcd --max-wals: {'a': 1} is not allowed, text, a number"),
        (ETCD, Request(flags={"log-level": "in\0fo"}), "etcd --log-level: 'in\\x00fo' is not allowed, text without control"),
        (ETCD, Request(flags={True: 1}), "etcd flag True: the name is needed"),
        (API, Request(flags={"etcd_servers": "x"}), "kube-apiserver flag 'etcd_servers': the name is needed"),
        (API, Request(flags={"goaway-chance": ".nan"}), "a value of type number"),
        (API, Request(flags={"goaway-chance": float("nan")}), "a number is needed"),
        (API, Request(flags={"goaway-chance": 0.5}), "at most 0.02"),
        (API, Request(flags={"watch-cache-sizes": "pods"}), "resource#size is needed"),
        (API, Request(flags={"watch-cache-sizes": "pods#10,"}), "resource#size is needed"),
        (API, Request(flags={"max-requests-inflight": 0, "max-mutating-requests-inflight": 0}), "is 0"),
        (API, Request(flags={"advertise-address": "1.2.3.4"}), "never touched"),
    ],
)
def test_bad_values(host, component: str, request_: Request, text: str) -> None:
    problems = planned(host, {component: request_}).problems
    assert len(problems) == 1, problems
    assert text in problems[0]
    assert component in problems[0]


def test_all_problems_are_named_at_once(host) -> None:
    problems = planned(host, {ETCD: Request(flags={"max-wals": "x", "name": "y"}), API: Request(flags={"goaway-chance": 1})}).problems
    assert len(problems) == 3


@pytest.mark.parametrize("version", ["3.5.0", "3.5.1", "3.5.2"])
def test_etcd_releases_which_corrupt_data(host, version: str) -> None:
    host.facts["processes"][ETCD][0]["version"] = version
    assert "can corrupt data" in planned(host).problems[0]
    assert planned(host, {ETCD: Request(allow_unsafe_version=True)}).problems == []


@pytest.mark.parametrize("name", ["RKE2", "k3s"])
def test_other_distributions_are_named(host, name: str) -> None:
    host.facts["distribution"] = name
    assert f"this is a {name} host" in planned(host).problems[0]


def test_a_worker(host) -> None:
    host.facts["manifests"] = {}
    assert "runs no control plane" in planned(host).problems[0]


def test_external_etcd(host) -> None:
    del host.facts["manifests"]["etcd.yaml"]
    assert "external etcd (https://127.0.0.1:2379)" in planned(host).problems[0]


def test_a_second_file_with_the_same_pod(host) -> None:
    host.write("etcd.yaml.bak", host.facts["manifests"]["etcd.yaml"]["text"])
    assert "etcd.yaml.bak holds this pod too" in planned(host).problems[0]


def test_a_manifest_that_is_no_yaml(host) -> None:
    host.write("etcd.yaml", "a: [")
    with pytest.raises(Refusal, match=r"manifests/etcd.yaml line 1 is not YAML"):
        _static_pods.parse_manifests(host.facts)


def test_a_process_which_is_not_what_its_manifest_says(host) -> None:
    host.facts["processes"][ETCD][0]["argv"] = [*host.facts["processes"][ETCD][0]["argv"], "--log-level=debug"]
    assert "does not have the arguments of its manifest" in planned(host).problems[0]


@pytest.mark.parametrize("name", [ETCD, API])
def test_a_process_that_does_not_run_is_repaired_by_a_change_of_its_manifest(host, name: str) -> None:
    host.facts["processes"][name] = []
    plan = planned(host)
    assert plan.problems == []
    assert "tried as the repair" in verdict(plan, f"{name} process")["reason"]


@pytest.mark.parametrize(
    ("trouble", "text"),
    [
        (lambda host: None, "no such process runs: mend it first"),
        (lambda host: host.facts.update(wal_disk="its disk is missing"), "no such process runs: its disk is missing"),
        (lambda host: host.facts.update(cluster=None), "no such process runs: mend it first"),
    ],
    ids=["nothing to change", "its disk is missing", "nothing is known of the cluster"],
)
def test_a_process_that_does_not_run_is_for_a_person_otherwise(host, trouble, text: str) -> None:
    host.facts["processes"][ETCD] = []
    trouble(host)
    nothing = text.endswith("mend it first") and host.facts["cluster"] is not None
    requests = {ETCD: Request(profile="upstream")} if nothing else BOTH
    assert text in planned(host, requests).problems[0]


def test_what_finds_the_cluster_without_this_member_is_remembered(host) -> None:
    access = apply(host, BOTH).etcd.memory["access"]
    assert access["member"] == "cp1"
    assert access["endpoints"][1] == "https://10.0.0.2:2379"
    assert all(access[name].startswith("/etc/kubernetes/pki/etcd/") for name in ("ca_file", "cert_file", "key_file"))


def test_certificates(host) -> None:
    host.facts["processes"][ETCD][0]["certificates"] = [
        {"flag": "cert-file", "path": "/pki/server.crt", "days_left": 3.0, "problem": ""},
        {"flag": "key-file", "path": "/pki/server.key", "days_left": None, "problem": "No such file or directory"},
    ]
    problems = planned(host, {ETCD: Request()}).problems
    assert "/pki/server.crt ends in 3.0 days" in problems[0]
    assert "/pki/server.key: No such file" in problems[1]


def test_a_cluster_which_is_not_whole(host) -> None:
    host.facts["cluster"]["problems"] = ["member cp3 (1f) does not answer: refused"]
    assert planned(host).problems == ["etcd: member cp3 (1f) does not answer: refused"]
    nothing = {ETCD: Request(profile="upstream")}
    assert planned(host, nothing).problems == []


def test_downtime_needs_consent(host) -> None:
    host.facts["cluster"]["members"] = ["cp1"]
    assert "etcd_static_pod_allow_downtime" in planned(host).problems[0]
    assert planned(host, {ETCD: Request(allow_downtime=True), API: Request()}).problems == []
    assert planned(host, {API: Request()}).problems == []


def test_a_webhook_ttl_of_the_profile_gives_way_to_an_authorization_config(host) -> None:
    text = host.facts["manifests"]["kube-apiserver.yaml"]["text"]
    host.write("kube-apiserver.yaml", text.replace("--authorization-mode=Node,RBAC", "--authorization-config=/etc/a.yaml"))
    host.run(API, "1.36.3", 2**20)
    plan = planned(host, {API: Request()})
    assert plan.problems == []
    assert "authorization-webhook-cache-authorized-ttl" not in plan.plans[API].manifest.flags()


# --- flags that are given in other ways ---------------------------------------------------------------------------


def test_of_several_values_the_last_counts(host) -> None:
    twice = "    - --max-requests-inflight=400\n    - --max_requests_inflight=5000\n"
    edit(host, API, "    - kube-apiserver\n", f"    - kube-apiserver\n{twice}")
    plan = planned(host, {API: Request()})
    line = verdict(plan, "kube-apiserver --max-requests-inflight")
    assert (line["verdict"], line["value"]) == ("kept", "5000")
    assert plan.plans[API].manifest.flags()["max-requests-inflight"] == ["400", "5000"]
    same_value = planned(host, {API: Request(flags={"max-requests-inflight": 5000})})
    assert verdict(same_value, "kube-apiserver --max-requests-inflight")["verdict"] == "already_right"
    want = {API: Request(flags={"max-requests-inflight": 800})}
    line = verdict(planned(host, want), "kube-apiserver --max-requests-inflight")
    assert (line["verdict"], line["value"], line["previous"]) == ("changed", "800", "5000")
    assert "it was given 2 times, and the last one counted" in line["reason"]
    assert apply(host, want) is not None
    assert planned(host, want).live[API].manifest.flags()["max-requests-inflight"] == ["800"]
    assert apply(host, want) is None
    apply(host, {API: Request(profile="upstream")})
    assert planned(host, want).live[API].manifest.flags()["max-requests-inflight"] == ["400", "5000"]


def test_several_values_of_a_flag_that_takes_one(host) -> None:
    problems = planned(host, {API: Request(flags={"max-requests-inflight": [400, 800]})}).problems
    assert problems == [
        "kube-apiserver --max-requests-inflight: [400, 800] is not allowed, of several values only the last counts: give one"
    ]
    assert planned(host, {API: Request(flags={"watch-cache-sizes": ["pods#0", "nodes#0"]})}).problems == []


def environment(host, *variables: str, component: str = ETCD) -> None:
    lines = "".join(f"    - name: {name}\n      value: '{value}'\n" for name, _, value in (each.partition("=") for each in variables))
    edit(host, component, f"    name: {component}\n    ports:", f"    env:\n{lines}    name: {component}\n    ports:")


def test_the_profile_leaves_alone_what_a_variable_gives(host) -> None:
    environment(host, "ETCD_QUOTA_BACKEND_BYTES=4294967296", "ETCD_MAX_WALS=5", "ETCD_LOG_LEVEL=debug")
    plan = planned(host, {ETCD: Request()})
    assert plan.problems == []
    flags = plan.plans[ETCD].manifest.flags()
    assert "quota-backend-bytes" not in flags and "max-wals" not in flags and flags["max-snapshots"] == ["5"]
    line = verdict(plan, "etcd --quota-backend-bytes")
    assert (line["verdict"], line["value"]) == ("kept", "4294967296")
    assert "ETCD_QUOTA_BACKEND_BYTES" in line["reason"] and "does not start with both" in line["reason"]
    assert verdict(plan, "etcd --max-wals")["verdict"] == "already_right"


def test_a_variable_and_a_flag_are_refused(host) -> None:
    environment(host, "ETCD_MAX_WALS=7")
    problems = planned(host, {ETCD: Request(flags={"max-wals": 9})}).problems
    assert problems == [
        "etcd --max-wals: ETCD_MAX_WALS is set in the container's environment (7), and etcd does not start with both: remove the "
        "variable from etcd.yaml, or the flag from etcd_static_pod_flags"
    ]
    assert planned(host, {ETCD: Request(flags={"max-wals": 7})}).problems == []
    assert verdict(planned(host, {ETCD: Request(flags={"max-wals": None})}), "etcd --max-wals")["verdict"] == "left_out"


def test_a_variable_counts_in_relations(host) -> None:
    environment(host, "ETCD_HEARTBEAT_INTERVAL=500")
    assert "less than 5 x --heartbeat-interval (500 ms)" in planned(host, {ETCD: Request()}).problems[0]


def test_a_member_that_variables_name(host) -> None:
    environment(host, "ETCD_WAL_DIR=/wal", "ETCD_UNSAFE_NO_FSYNC=true")
    problems = planned(host, {ETCD: Request()}).problems
    assert problems == [
        "etcd: the container's environment says who this member is (ETCD_UNSAFE_NO_FSYNC, ETCD_WAL_DIR), and only flags are "
        "read: give it with flags instead"
    ]
    assert planned(host, {ETCD: Request(profile="upstream")}).problems == []


@pytest.mark.parametrize("way", ["flag", "variable"])
def test_a_configuration_file(host, way: str) -> None:
    if way == "flag":
        edit(host, ETCD, "    - etcd\n", "    - etcd\n    - --config-file=/etc/etcd.yaml\n")
    else:
        environment(host, "ETCD_CONFIG_FILE=/etc/etcd.yaml")
    problems = planned(host, {ETCD: Request()}).problems
    assert len(problems) == 1
    assert "etcd --config-file: etcd takes everything from that file" in problems[0]


def test_words_that_the_kubelet_fills_in(host) -> None:
    edit(host, ETCD, "--name=cp1", "--name=$(NODE_NAME)")
    host.facts["processes"][ETCD][0]["argv"] = [
        word.replace("$(NODE_NAME)", "cp1") for word in host.facts["processes"][ETCD][0]["argv"]
    ]
    assert planned(host).problems == [
        "etcd: the kubelet fills in --name=$(NODE_NAME) of its manifest, so that what runs cannot be compared with it: write the "
        "values themselves there"
    ]


# --- standalone -------------------------------------------------------------------------------------------------

STANDALONE = {
    ETCD: Request(
        standalone={
            "name": "n1", "image": "registry.k8s.io/etcd:3.6.8-0", "advertise_address": "10.0.0.9",
            "initial_cluster": "n1=https://10.0.0.9:2380",
        },
        allow_downtime=True,
    ),
    API: Request(
        standalone={
            "image": "registry.k8s.io/kube-apiserver:v1.36.3", "advertise_address": "10.0.0.9",
            "service_cluster_ip_range": "10.96.0.0/12",
        }
    ),
}


def bare(host) -> None:
    host.facts.update(manifests={}, processes={ETCD: [], API: []}, cluster=None)


def test_complete_manifests_where_there_are_none(host) -> None:
    bare(host)
    plan = planned(host, STANDALONE)
    assert plan.problems == []
    order = _static_pods.make_order(plan, STANDALONE, host.facts, "run")
    assert order.bootstraps and order.etcd.old is None
    flags = plan.plans[ETCD].manifest.flags()
    assert flags["peer-client-cert-auth"] == ["true"]
    assert flags["initial-cluster"] == ["n1=https://10.0.0.9:2380"]
    assert flags["quota-backend-bytes"] == ["8589934592"]


def test_a_rendered_manifest_is_stable_and_goes_away_whole(host) -> None:
    bare(host)
    apply(host, {**STANDALONE}) if host.facts["processes"][ETCD] else _first(host)
    host.facts["cluster"] = {"name": "n1", "problems": [], "members": ["n1"], "leader": "n1", "database_bytes": 1, "endpoints": []}
    assert apply(host, STANDALONE) is None
    absent = {name: Request(state="absent", allow_downtime=True) for name in STANDALONE}
    order = _static_pods.make_order(planned(host, absent), absent, host.facts, "run")
    assert order.etcd.new is None and order.kube_apiserver.new is None


def _first(host) -> None:
    plan = planned(host, STANDALONE)
    order = _static_pods.make_order(plan, STANDALONE, host.facts, "run")
    for name, part, version in ((ETCD, order.etcd, "3.6.8"), (API, order.kube_apiserver, "1.36.3")):
        host.write(f"{name}.yaml", part.new)
        host.run(name, version, 2**20)
        host.facts["memory"][name] = part.memory


def standalone(mode: str = "auto", **changes: str) -> dict[str, Request]:
    return {ETCD: Request(mode=mode, standalone={**STANDALONE[ETCD].standalone, **changes}, allow_downtime=True)}


@pytest.fixture
def member(host) -> Any:
    """A host whose manifests are ours as a whole."""
    bare(host)
    _first(host)
    host.facts["cluster"] = {"name": "n1", "problems": [], "members": ["n1"], "leader": "n1", "database_bytes": 1, "endpoints": []}
    return host


@pytest.mark.parametrize("mode", ["auto", "standalone"])
def test_a_second_standalone_run_merges_into_what_is_there(member, mode: str) -> None:
    lines = planned(member, standalone(mode)).report
    assert lines and {line["verdict"] for line in lines} <= {"already_right", "version_default", "warning"}
    edit(member, ETCD, "    - --name=n1", "    - --name=n1\n    - --log-level=debug")
    order = apply(member, {ETCD: Request(**{**vars(standalone(mode)[ETCD]), "flags": {"max-wals": 9}})})
    assert "--log-level=debug" in order.etcd.argv and order.etcd.memory["rendered"]


@pytest.mark.parametrize("mode", ["auto", "standalone"])
def test_a_running_member_is_not_moved_or_upgraded(member, mode: str) -> None:
    problems = planned(member, standalone(mode, data_dir="/srv/etcd", wal_dir="/srv/wal", image="x/etcd:3.5.1-0")).problems
    assert len(problems) == 3
    assert "etcd --data-dir: /var/lib/etcd is there, and etcd_static_pod_standalone makes /srv/etcd of it" in problems[0]
    assert "etcd --wal-dir: nothing is there" in problems[1]
    assert "etcd image: registry.k8s.io/etcd:3.6.8-0 is there, and etcd_static_pod_standalone says x/etcd:3.5.1-0" in problems[2]


def test_a_manifest_which_replaced_ours_is_not_ours(member) -> None:
    edit(member, ETCD, "--listen-metrics-urls=http://127.0.0.1:2381", "--listen-metrics-urls=http://10.0.0.9:2381")
    assert "etcd --listen-metrics-urls" in planned(member, standalone("standalone")).problems[0]
    for want in (standalone(), {ETCD: Request(allow_downtime=True)}):
        want = {ETCD: Request(**{**vars(want[ETCD]), "flags": {"max-wals": 9}})}
        plan = planned(member, want)
        assert plan.problems == []
        assert plan.plans[ETCD].manifest.flags()["listen-metrics-urls"] == ["http://10.0.0.9:2381"]
        assert plan.rendered == {ETCD: False}
    apply(member, want)
    absent = {ETCD: Request(state="absent", allow_downtime=True)}
    assert _static_pods.make_order(planned(member, absent), absent, member.facts, "run").etcd.new is not None


def test_the_first_start_looks_at_the_version_of_the_image(host) -> None:
    bare(host)
    assert "etcd 3.5.1 can corrupt data" in planned(host, standalone(image="x/etcd:3.5.1-0")).problems[0]
    assert "the version cannot be told" in planned(host, standalone(image="x/etcd:latest")).problems[0]


@pytest.mark.parametrize("state", [{}, {"initial_cluster_state": "new"}])
def test_a_new_cluster_starts_with_one_member(host, state: dict[str, str]) -> None:
    bare(host)
    three = "n1=https://10.0.0.9:2380,n2=https://10.0.0.8:2380,n3=https://10.0.0.7:2380"
    problems = planned(host, standalone(initial_cluster=three, **state)).problems
    assert len(problems) == 1
    assert "initial_cluster names n1, n2, n3 with initial_cluster_state new" in problems[0]
    assert "etcdctl member add" in problems[0]
    assert planned(host, standalone(initial_cluster=three, initial_cluster_state="existing")).problems == []


def test_standalone_says_what_it_lacks(host) -> None:
    bare(host)
    problems = planned(host, {ETCD: Request(standalone={"name": "n1"})}).problems
    assert "lacks image, advertise_address, initial_cluster" in problems[0]


def test_standalone_does_not_replace_a_manifest_of_others(host) -> None:
    problems = planned(host, {ETCD: Request(mode="standalone", standalone=STANDALONE[ETCD].standalone)}).problems
    assert "was not rendered by this collection" in problems[0]


# --- properties -------------------------------------------------------------------------------------------------

FLAGS = st.fixed_dictionaries(
    {},
    optional={
        "max-wals": st.one_of(st.none(), st.integers(0, 99)),
        "snapshot-count": st.integers(1, 10**6),
        "backend-batch-limit": st.integers(0, 10**5),
        "log-level": st.sampled_from(["info", "debug"]),
    },
)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.from_regex(r"\A[0-9.]{1,400}[a-zA-Z]{0,2}\Z"))
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(SCALARS, inner, max_size=3)), max_leaves=6
)


def mostly(known: list[str]) -> Any:
    """Known keys with whatever below them, or whatever else."""
    return st.one_of(st.dictionaries(st.sampled_from(known), ANYTHING, max_size=4), ANYTHING)


@given(data=st.data(), component=st.sampled_from([ETCD, API]))
def test_whatever_the_variables_hold_there_is_a_plan_or_a_named_problem(data: Any, component: str) -> None:
    flags = data.draw(mostly([flag.name for flag in COMPONENTS[component].flags]))
    quantities = st.dictionaries(st.sampled_from(["cpu", "memory"]), SCALARS)
    resources = data.draw(st.one_of(st.dictionaries(st.sampled_from(["requests", "limits"]), quantities), ANYTHING))
    requests = {component: Request(flags=flags, resources=resources)}
    host = Host()
    plan = planned(host, requests)
    assert all(component in problem or COMPONENTS[component].role in problem for problem in plan.problems)
    if not plan.problems:
        order = _static_pods.make_order(plan, requests, host.facts, "run")
        part = order and (order.etcd if component == ETCD else order.kube_apiserver)
        assert part is None or yaml.safe_load(part.new) == plan.plans[component].manifest.pod


@given(first=FLAGS, second=FLAGS, profile=st.sampled_from(["guide", "upstream"]))
def test_whatever_was_set_before_the_result_is_what_is_wanted_now(first: Any, second: Any, profile: str) -> None:
    """The way there does not matter, a second run changes nothing, and absent always leads home."""


    straight, roundabout = Host(), Host()
    text = roundabout.facts["manifests"]["etcd.yaml"]["text"]
    want = {ETCD: Request(flags=second, profile=profile)}
    apply(roundabout, {ETCD: Request(flags=first)})
    apply(roundabout, want)
    apply(straight, want)
    flags = [planned(each, want).live[ETCD].manifest.flags() for each in (straight, roundabout)]
    assert flags[0] == flags[1]
    assert apply(roundabout, want) is None
    apply(roundabout, {ETCD: Request(state="absent")})
    assert roundabout.facts["manifests"]["etcd.yaml"]["text"] == text
