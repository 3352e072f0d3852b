# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One inventory before, across and after upgrades: renamed flags, booleans that became gates, flags that are gone."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import yaml
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.hosts import Host as ClusterHost
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.hosts import record
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.plan import plan as plan_kubeadm
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.node import NodePlan, Request, plan_node
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _static_pods

from tests.unit.hosts import FIXTURES, Host

ETCD, API = "etcd", "kube-apiserver"
#: Of an etcd with that version: the kubeadm release whose manifest it has.
KUBEADM = {"3.5.24": "1.33.13", "3.6.8": "1.36.3", "3.7.0": "1.37.2"}
OLD, NEW = "experimental-corrupt-check-time", "corrupt-check-time"


def host_with(etcd: str, *flags: str) -> Host:
    """A host as kubeadm leaves it with that version of etcd, and these flags besides."""
    host = Host(FIXTURES / f"kubeadm-{KUBEADM[etcd]}")
    if flags:
        words = "".join(f"    - --{flag}\n" for flag in flags)
        host.write("etcd.yaml", host.facts["manifests"]["etcd.yaml"]["text"].replace("    - etcd\n", f"    - etcd\n{words}"))
    run(host, etcd)
    return host


def run(host: Host, etcd: str) -> None:
    host.run(ETCD, etcd, 60 * 2**20)
    host.run(API, KUBEADM[etcd], 400 * 2**20)


def planned(host: Host, **flags: Any) -> NodePlan:
    return plan_node({ETCD: Request(flags=flags)}, host.facts, host.pods)


def names(plan: NodePlan) -> dict[str, list[str]]:
    return plan.plans[ETCD].manifest.flags()


def lines(plan: NodePlan, item: str) -> list[dict[str, Any]]:
    return [line for line in plan.report if line["item"] == f"etcd --{item}"]


def apply(host: Host, etcd: str, **flags: Any) -> NodePlan:
    requests = {ETCD: Request(flags=flags)}
    plan = plan_node(requests, host.facts, host.pods)
    assert plan.problems == []
    order = _static_pods.make_order(plan, requests, host.facts, "run")
    if order and order.etcd and order.etcd.changes:
        host.write("etcd.yaml", order.etcd.new)
        host.facts["memory"][ETCD] = order.etcd.memory
        run(host, etcd)
    return plan


def upgrade(host: Host, etcd: str, *flags: str) -> None:
    """What kubeadm does: its manifest of another release, with the flags of kubeadm-config, which win over its own."""
    own = {flag.partition("=")[0] for flag in flags}
    new = host_with(etcd)
    text = "\n".join(
        line for line in new.facts["manifests"]["etcd.yaml"]["text"].splitlines()
        if line.strip().removeprefix("- --").partition("=")[0] not in own
    )
    words = "".join(f"    - --{flag}\n" for flag in flags)
    host.write("etcd.yaml", text.replace("    - etcd\n", f"    - etcd\n{words}") + "\n")
    run(host, etcd)


# --- renamed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("etcd", "written"), list(itertools.product(KUBEADM, (OLD, NEW))))
def test_either_name_gives_the_one_that_the_version_knows(etcd: str, written: str) -> None:
    flags = names(planned(host_with(etcd), **{written: "12h"}))
    knows, other = (OLD, NEW) if etcd.startswith("3.5") else (NEW, OLD)
    assert flags[knows] == ["12h"]
    assert other not in flags


@pytest.mark.parametrize(("live", "written"), list(itertools.product((OLD, NEW), (OLD, NEW))))
def test_the_other_name_is_the_same_setting(live: str, written: str) -> None:
    """etcd 3.6 takes both names, and does not start with both."""
    flags = names(planned(host_with("3.6.8", f"{live}=1h"), **{written: "12h"}))
    assert flags[NEW] == ["12h"]
    assert OLD not in flags


def test_the_same_value_by_the_old_name_is_renamed_before_the_name_is_gone() -> None:
    plan = planned(host_with("3.6.8", f"{OLD}=12h"), **{NEW: "12h"})
    assert names(plan)[NEW] == ["12h"] and OLD not in names(plan)
    (line,) = lines(plan, NEW)
    assert (line["verdict"], line["reason"]) == ("changed", f"it was given as --{OLD}")


def test_both_names_in_the_inventory_are_an_error() -> None:
    plan = planned(host_with("3.6.8"), **{OLD: "12h", NEW: "1h"})
    assert any("it is given by its present and by its former name" in problem for problem in plan.problems)


@pytest.mark.parametrize("written", [OLD, NEW])
def test_one_inventory_over_two_upgrades(written: str) -> None:
    wanted = {written: "12h", "max-wals": 7}
    host = host_with("3.5.24")
    apply(host, "3.5.24", **wanted)
    assert not planned(host, **wanted).changes(ETCD)
    upgrade(host, "3.6.8", f"{OLD}=12h", "max-wals=7")
    apply(host, "3.6.8", **wanted)
    plan = planned(host, **wanted)
    assert not plan.changes(ETCD)
    assert [line["verdict"] for line in lines(plan, NEW)] == ["already_right"]
    upgrade(host, "3.7.0", f"{NEW}=12h", "max-wals=7")
    plan = apply(host, "3.7.0", **wanted)
    assert [line["verdict"] for line in lines(plan, NEW)] == ["already_right"]
    # Wanted no more: what was there before, which is nothing.
    assert not set(names(apply(host, "3.7.0"))) & {OLD, NEW}


def test_a_hand_edit_by_the_other_name_is_drift() -> None:
    host = host_with("3.5.24")
    apply(host, "3.5.24", **{NEW: "12h"})
    upgrade(host, "3.6.8", f"{NEW}=1h")
    (line,) = lines(planned(host, **{NEW: "12h"}), NEW)
    assert (line["verdict"], line["previous"]) == ("changed", "1h")
    assert line["reason"].startswith("it had drifted from 12h")


def test_what_was_there_by_the_old_name_comes_back_by_the_versions_own() -> None:
    host = host_with("3.5.24", f"{OLD}=6h")
    apply(host, "3.5.24", **{NEW: "12h"})
    upgrade(host, "3.6.8", f"{NEW}=12h")
    assert names(planned(host))[NEW] == ["6h"]


def test_what_is_remembered_by_the_old_name_is_the_same_setting() -> None:
    host = host_with("3.5.24", f"{OLD}=12h")
    host.facts["memory"][ETCD] = {"settings": {f"--{OLD}": {"applied": ["12h"], "original": ["6h"]}}}
    plan = planned(host, **{NEW: "12h"})
    assert [line["verdict"] for line in plan.report if "corrupt-check-time" in line["item"]] == ["already_right"]
    assert names(plan)[OLD] == ["12h"]
    assert names(planned(host))[OLD] == ["6h"]


@pytest.mark.parametrize("name", [OLD, NEW])
def test_a_variable_of_either_name_counts(name: str) -> None:
    host = host_with("3.6.8")
    pod = host.pod(ETCD)
    pod["spec"]["containers"][0]["env"] = [{"name": f"ETCD_{name.upper().replace('-', '_')}", "value": "1h"}]
    host.write("etcd.yaml", yaml.safe_dump(pod))
    run(host, "3.6.8")
    assert any("is set in the container's environment (1h)" in problem for problem in planned(host, **{NEW: "12h"}).problems)


# --- booleans and gates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [{"experimental-stop-grpc-service-on-defrag": True}, {"feature-gates": "StopGRPCServiceOnDefrag=true"}])
@pytest.mark.parametrize("etcd", KUBEADM)
def test_a_gate_is_a_boolean_before_3_6(etcd: str, wanted: dict[str, Any]) -> None:
    plan = planned(host_with(etcd), **wanted)
    assert plan.problems == []
    flags = names(plan)
    if etcd.startswith("3.5"):
        assert flags["experimental-stop-grpc-service-on-defrag"] == ["true"]
        assert flags["experimental-initial-corrupt-check"] == ["true"]  # kubeadm's
        assert "feature-gates" not in flags
    else:
        assert flags["feature-gates"] == ["InitialCorruptCheck=true,StopGRPCServiceOnDefrag=true"]
        assert "experimental-stop-grpc-service-on-defrag" not in flags


def test_a_gate_over_an_upgrade_and_away() -> None:
    wanted = {"experimental-stop-grpc-service-on-defrag": "true"}
    host = host_with("3.5.24")
    apply(host, "3.5.24", **wanted)
    upgrade(host, "3.6.8", "experimental-stop-grpc-service-on-defrag=true")
    apply(host, "3.6.8", **wanted)
    flags = planned(host, **wanted).live[ETCD].manifest.flags()
    assert flags["feature-gates"] == ["InitialCorruptCheck=true,StopGRPCServiceOnDefrag=true"]
    assert "experimental-stop-grpc-service-on-defrag" not in flags
    assert not planned(host, **wanted).changes(ETCD)
    assert names(planned(host))["feature-gates"] == ["InitialCorruptCheck=true"]


def test_a_gate_that_is_wanted_no_more_goes_and_the_others_stay() -> None:
    host = host_with("3.6.8")
    apply(host, "3.6.8", **{"feature-gates": "StopGRPCServiceOnDefrag=true,InitialCorruptCheck=false,CompactHashCheck=true"})
    plan = planned(host, **{"feature-gates": "CompactHashCheck=true"})
    assert names(plan)["feature-gates"] == ["InitialCorruptCheck=true,CompactHashCheck=true"]


def test_a_gate_and_its_boolean_that_disagree_are_an_error() -> None:
    wanted = {"experimental-initial-corrupt-check": True, "feature-gates": "InitialCorruptCheck=false"}
    for etcd in KUBEADM:
        assert any("which is the same setting" in problem for problem in planned(host_with(etcd), **wanted).problems), etcd
        assert planned(host_with(etcd), **{**wanted, "experimental-initial-corrupt-check": False}).problems == []


def test_a_gate_that_an_old_etcd_lacks_is_an_error() -> None:
    problems = planned(host_with("3.5.24"), **{"feature-gates": "PriorityRequest=true"}).problems
    what_to_do = "take it out of etcd_static_pod_flags until the upgrade"
    assert problems == [f"etcd --feature-gates: etcd 3.5.24 has no PriorityRequest yet: {what_to_do}"]


def test_a_gate_beside_its_boolean_in_the_manifest_is_said_before_etcd_says_it() -> None:
    host = host_with("3.6.8", "experimental-stop-grpc-service-on-defrag=true")
    (problem,) = planned(host, **{"feature-gates": "StopGRPCServiceOnDefrag=true"}).problems
    assert "StopGRPCServiceOnDefrag and --experimental-stop-grpc-service-on-defrag are both there" in problem


@pytest.mark.parametrize("wrong", ["InitialCorruptCheck", "InitialCorruptCheck=maybe", "=true"])
def test_gates_that_say_nothing_are_refused(wrong: str) -> None:
    assert any("etcd --feature-gates" in problem for problem in planned(host_with("3.6.8"), **{"feature-gates": wrong}).problems)


def test_gates_of_the_api_server_are_merged_one_by_one() -> None:
    host = host_with("3.6.8")
    text = host.facts["manifests"][f"{API}.yaml"]["text"]
    live = "    - --feature-gates=kube:WatchList=false\n    - --feature-gates=AllBeta=false\n"
    host.write(f"{API}.yaml", text.replace("    - kube-apiserver\n", f"    - kube-apiserver\n{live}"))
    run(host, "3.6.8")
    plan = plan_node({API: Request(flags={"feature-gates": "WatchList=true"})}, host.facts, host.pods)
    assert plan.problems == []
    assert plan.plans[API].manifest.flags()["feature-gates"] == ["WatchList=true,AllBeta=false"]


# --- gone, and not there yet --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("etcd", "flag", "said"),
    [
        ("3.6.8", "enable-v2", "it is gone since etcd 3.6: no version since has the v2 API"),
        ("3.5.24", "warning-unary-request-duration", "etcd 3.5.24 does not have it yet, but 3.6 and later do"),
    ],
)
def test_a_flag_that_the_version_lacks_is_refused_with_what_to_do(etcd: str, flag: str, said: str) -> None:
    problems = planned(host_with(etcd), **{flag: "1s" if "duration" in flag else "true"}).problems
    assert problems == [f"etcd --{flag}: {said}; remove it from etcd_static_pod_flags"]
    assert planned(host_with(etcd), **{flag: None}).problems == []


def test_a_flag_of_the_profile_that_the_version_lacks_is_left_out_and_said() -> None:
    host = host_with("3.7.0")
    run(host, "3.7.0")
    host.facts["processes"][ETCD][0]["version"] = "3.8.0"
    plan = planned(host)
    assert plan.problems == []
    assert "max-snapshots" not in names(plan)
    (line,) = lines(plan, "max-snapshots")
    assert (line["verdict"], line["reason"]) == ("left_out", "it is gone since etcd 3.8: nothing takes its place")


@pytest.mark.parametrize(
    ("etcd", "live", "said"),
    [
        ("3.6.8", f"{OLD}=1h", f"--{NEW} is its name since 3.6. Before the upgrade give that in etcd_static_pod_flags"),
        ("3.6.8", "experimental-compact-hash-check-enabled=true", "give the feature gate CompactHashCheck instead"),
        ("3.5.24", "enable-v2=true", "no version since has the v2 API"),
        ("3.7.0", "max-snapshots=5", "nothing takes its place. Before the upgrade set it to null in etcd_static_pod_flags"),
    ],
)
def test_what_the_next_version_drops_is_a_warning(etcd: str, live: str, said: str) -> None:
    (line,) = [line for line in lines(planned(host_with(etcd, live)), live.partition("=")[0]) if line["verdict"] == "warning"]
    assert said in line["reason"]
    assert "does not start with it" in line["reason"]


def test_a_flag_that_goes_later_is_no_warning_yet() -> None:
    """kubeadm itself gives 3.5 two flags that 3.7 has not."""
    assert not [line for line in planned(host_with("3.5.24")).report if line["verdict"] == "warning" and "does not start" in line["reason"]]


@pytest.mark.parametrize(("version", "warned"), [("1.35.4", False), ("1.36.3", True), ("1.37.2", False)])
def test_a_gate_that_the_next_api_server_drops_is_a_warning(version: str, warned: bool) -> None:
    host = host_with("3.6.8")
    text = host.facts["manifests"][f"{API}.yaml"]["text"]
    host.write(f"{API}.yaml", text.replace("    - kube-apiserver\n", "    - kube-apiserver\n    - --feature-gates=BtreeWatchCache=true\n"))
    host.run(API, version, 400 * 2**20)
    plan = plan_node({API: Request()}, host.facts, host.pods)
    found = [line for line in plan.report if line["item"] == "kube-apiserver --feature-gates"]
    assert [line["verdict"] for line in found] == ["warning"] * warned
    assert all("kube-apiserver 1.37 does not know the gate BtreeWatchCache" in line["reason"] for line in found)


def test_a_changed_default_is_said() -> None:
    for etcd, reason in (("3.5.24", ""), ("3.6.8", "the default is 10000 since 3.6, and was 100000 before")):
        (line,) = lines(planned(host_with(etcd)), "snapshot-count")
        assert reason in line["reason"]


# --- kubeadm-config -------------------------------------------------------------------------------------------------------


def configuration() -> dict[str, Any]:
    return dict(yaml.safe_load((FIXTURES / "cluster-configuration" / "v1beta4.yaml").read_text()))


def hosts_of(host: Host) -> list[ClusterHost]:
    return [ClusterHost(**{**record(name, host.facts), "member": name}) for name in ("cp1", "cp2", "cp3")]


def test_kubeadm_keeps_a_renamed_flag_by_the_name_that_runs() -> None:
    host = host_with("3.5.24")
    apply(host, "3.5.24", **{NEW: "12h"})
    before = plan_kubeadm(configuration(), None, hosts_of(host))
    assert before.configuration.flag(ETCD, OLD) == ["12h"]
    upgrade(host, "3.6.8", f"{OLD}=12h")
    apply(host, "3.6.8", **{NEW: "12h"})
    after = plan_kubeadm(before.configuration.data, before.memory.to_annotation(), hosts_of(host))
    assert after.configuration.flag(ETCD, NEW) == ["12h"]
    assert after.configuration.flag(ETCD, OLD) is None
    assert OLD not in json.dumps(after.memory.to_annotation())
    again = plan_kubeadm(after.configuration.data, after.memory.to_annotation(), hosts_of(host))
    assert again.configuration.data == after.configuration.data
    gone = plan_kubeadm(after.configuration.data, after.memory.to_annotation(), hosts_of(host), state="absent")
    assert gone.configuration.flag(ETCD, NEW) is None


def test_another_persons_old_name_in_kubeadm_config_is_the_same_setting() -> None:
    host = host_with("3.6.8")
    apply(host, "3.6.8", **{NEW: "12h"})
    given = configuration()
    given["etcd"]["local"]["extraArgs"] = [{"name": OLD, "value": "6h"}]
    planned_here = plan_kubeadm(given, None, hosts_of(host))
    assert (planned_here.configuration.flag(ETCD, OLD), planned_here.configuration.flag(ETCD, NEW)) == (None, ["12h"])
    gone = plan_kubeadm(planned_here.configuration.data, planned_here.memory.to_annotation(), hosts_of(host), state="absent")
    assert gone.configuration.flag(ETCD, NEW) == ["6h"]


@pytest.mark.parametrize("flag", ["watch-progress-notify-interval", "experimental-initial-corrupt-check"])
def test_kubeadm_is_not_given_what_it_writes_by_another_name_after_the_upgrade(flag: str) -> None:
    """kubeadm 1.34 gives etcd 3.6 --watch-progress-notify-interval and InitialCorruptCheck itself; both names together stop etcd."""
    host = host_with("3.5.24")
    apply(host, "3.5.24", **{flag: "10s" if "interval" in flag else "false"})
    planned_here = plan_kubeadm(configuration(), None, hosts_of(host))
    old = f"experimental-{flag.removeprefix('experimental-')}"
    assert planned_here.configuration.flag(ETCD, old) is None
    reasons = {line["item"]: line["reason"] for line in planned_here.report if line["verdict"] == "left_out"}
    assert "etcd does not start with both names" in reasons[f"kubeadm-config etcd --{old}"]


@pytest.mark.parametrize("component", COMPONENTS.values(), ids=lambda each: each.name)
def test_every_version_of_the_collection_has_the_whole_guide(component: Any) -> None:
    """1.29 to 1.32 and their etcd: by the table alone."""
    (major, first), (_major, last) = component.versions
    for minor in range(first, last + 1):
        assert all(flag.known((major, minor)) for flag in component.flags if flag.guide is not None), minor
