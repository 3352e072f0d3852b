# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tuned flags in kubeadm's ClusterConfiguration: there, merged with what others set, and away again.

fixtures/cluster-configuration: v1beta4 is what kubeadm 1.36.3 had written on the lab, v1beta4-extras what its `config migrate` made of
v1beta3, which is written by hand in the layout of kubeadm 1.30 (`kubeadm config validate` of 1.36.3 takes it as that of v1.36.3).
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.kubetune.control_plane.plugins.filter.kubeadm_hosts import kubeadm_hosts
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm import patches
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.cluster_configuration import ClusterConfiguration
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.hosts import Host, leaves_its_disk, record
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.plan import ANNOTATION, Memory, Plan, plan
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _kubeadm
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import hosts as recorded
from tests.unit.hosts import FIXTURES

ETCD, API = "etcd", "kube-apiserver"
WAL = "/var/lib/etcd/wal-disk/wal"
TEXTS = {path.stem: path.read_text() for path in sorted((FIXTURES / "cluster-configuration").glob("*.yaml"))}
MEMBERS = ("cp1", "cp2", "cp3")


def data(name: str = "v1beta4") -> dict[str, Any]:
    return dict(yaml.safe_load(TEXTS[name]))


def host(name: str, tuned: dict[str, dict[str, list[str]]], members: tuple[str, ...] = MEMBERS, **changes: Any) -> Host:
    return Host(name, name, members, "", (ETCD, API), tuned, changes.get("running", tuned))


def three(tuned: dict[str, dict[str, list[str]]]) -> list[Host]:
    return [host(name, tuned) for name in MEMBERS]


def verdicts(planned: Plan) -> dict[str, str]:
    return {line["item"].removeprefix("kubeadm-config "): line["verdict"] for line in planned.report}


def again(planned: Plan, hosts: list[Host], **options: Any) -> Plan:
    """The next run, on what the one before has written."""
    return plan(planned.configuration.data, planned.memory.to_annotation(), hosts, **options)


def semantics(configuration: dict[str, Any]) -> dict[str, Any]:
    """What kubeadm reads of it: an empty section is none, and the order among different flags tells nothing."""
    found = copy.deepcopy(configuration)
    for section in (found.get("apiServer"), (found.get("etcd") or {}).get("local")):
        args = (section or {}).get("extraArgs")
        if isinstance(args, list):
            section["extraArgs"] = sorted(args, key=lambda each: each["name"])  # stable: the values of one keep their order
    return found


TUNED = {ETCD: {"max-wals": ["7"], "quota-backend-bytes": ["8589934592"]}, API: {"max-requests-inflight": ["3000"]}}


# --- the object -------------------------------------------------------------------------------------------------------


def test_fixtures_are_here() -> None:
    assert set(TEXTS) == {"v1beta3", "v1beta4", "v1beta4-extras"}


@pytest.mark.parametrize("name", TEXTS)
def test_a_flag_is_read_and_written_in_both_versions(name: str) -> None:
    configuration = ClusterConfiguration(data(name))
    configuration.set_flag(ETCD, "max-wals", ["7"])
    args = configuration.data["etcd"]["local"]["extraArgs"]
    assert (args["max-wals"] if name == "v1beta3" else args[-1]) == ("7" if name == "v1beta3" else {"name": "max-wals", "value": "7"})
    assert configuration.flag(ETCD, "max-wals") == ["7"]
    configuration.set_flag(ETCD, "max-wals", None)
    assert configuration.data == data(name)


def test_a_repeated_flag_keeps_its_place_and_order() -> None:
    given = data("v1beta4-extras")
    given["apiServer"]["extraArgs"] = [{"name": name, "value": value} for name, value in [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1")]]
    configuration = ClusterConfiguration(given)
    assert configuration.flag(API, "a") == ["1", "2"]
    configuration.set_flag(API, "a", ["3", "4"])
    assert [(each["name"], each["value"]) for each in configuration.data["apiServer"]["extraArgs"]] == [
        ("a", "3"), ("a", "4"), ("b", "1"), ("c", "1"),
    ]


@pytest.mark.parametrize("empty", [{}, {"apiServer": None, "etcd": None}, {"etcd": {"local": None}}, {"apiServer": {"extraArgs": None}}])
def test_sections_that_are_not_there_are_made(empty: dict[str, Any]) -> None:
    configuration = ClusterConfiguration({"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration", **empty})
    for component in (ETCD, API):
        assert configuration.flag(component, "x") is None
        configuration.set_flag(component, "x", ["1"])
        assert configuration.flag(component, "x") == ["1"]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (None, "'NoneType'"),
        ({"kind": "InitConfiguration", "apiVersion": "kubeadm.k8s.io/v1beta4"}, "'InitConfiguration'"),
        ({"kind": "ClusterConfiguration", "apiVersion": "kubeadm.k8s.io/v1beta2"}, "'kubeadm.k8s.io/v1beta2'.*kubeadm config migrate"),
    ],
)
def test_something_else_is_refused_by_name(wrong: Any, text: str) -> None:
    with pytest.raises(KubetuneError, match=text):
        ClusterConfiguration(wrong)


# --- what hosts have in common ------------------------------------------------------------------------------------------


def test_a_value_that_differs_is_left_out_and_said() -> None:
    hosts = three(TUNED)
    hosts[1] = host("cp2", {**TUNED, ETCD: {"max-wals": ["9"]}})
    planned = plan(data(), None, hosts)
    assert planned.configuration.flag(ETCD, "max-wals") is None
    assert planned.configuration.flag(API, "max-requests-inflight") == ["3000"]
    reasons = {line["item"]: line["reason"] for line in planned.report}
    what_to_do = "; give all the same, or tune each again after its upgrade"
    assert reasons["kubeadm-config etcd --max-wals"] == f"it differs between hosts: cp1 7, cp2 9, cp3 7{what_to_do}"
    assert f"cp1 8589934592, cp2 nothing, cp3 8589934592{what_to_do}" in reasons["kubeadm-config etcd --quota-backend-bytes"]


def test_the_same_said_otherwise_is_the_same() -> None:
    hosts = [host(name, {API: {"request-timeout": [text]}}) for name, text in zip(MEMBERS, ("300s", "5m", "5m0s"))]
    assert plan(data(), None, hosts).configuration.flag(API, "request-timeout") == ["300s"]


def test_what_does_not_run_is_not_kept() -> None:
    hosts = three(TUNED)
    hosts[2] = host("cp3", TUNED, running={**TUNED, ETCD: {**TUNED[ETCD], "max-wals": ["5"]}})
    planned = plan(data(), None, hosts)
    assert planned.configuration.flag(ETCD, "max-wals") is None
    assert any("cp3 runs with 5 instead of 7" in line["reason"] for line in planned.report)


@pytest.mark.parametrize("name", ["name", "initial-cluster", "listen-client-urls", "cert-file", "data-dir"])
def test_what_says_who_a_node_is_never_goes_in(name: str) -> None:
    planned = plan(data(), None, three({ETCD: {name: ["x"]}}))
    assert planned.configuration.data == data()
    assert verdicts(planned) == {f"etcd --{name}": "left_out"}


def test_a_member_outside_of_the_play_stops_everything() -> None:
    planned = plan(data(), None, three(TUNED)[:2])
    assert planned.configuration.data == data()
    assert [(line["item"], line["verdict"]) for line in planned.report] == [("kubeadm-config", "left_out")]
    assert "cp3" in planned.report[0]["reason"] and "--limit" in planned.report[0]["reason"]


def test_an_unnamed_member_counts() -> None:
    hosts = [host(name, TUNED, members=(*MEMBERS, "")) for name in MEMBERS]
    assert plan(data(), None, hosts).configuration.data == data()


def test_external_etcd_and_several_values_in_v1beta3_are_left_out_with_the_reason() -> None:
    given = data("v1beta3")
    given["etcd"] = {"external": {"endpoints": ["https://10.0.0.9:2379"]}}
    planned = plan(given, None, three({ETCD: {"max-wals": ["7"]}, API: {"service-x": ["1", "2"]}}))
    assert planned.configuration.data == given
    reasons = {line["item"].split("--")[1]: line["reason"] for line in planned.report}
    assert "external" in reasons["max-wals"] and "v1beta4" in reasons["service-x"]


# --- three ways ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTS)
def test_there_unchanged_and_back(name: str) -> None:
    first = plan(data(name), None, three(TUNED))
    assert first.configuration.flag(API, "max-requests-inflight") == ["3000"]
    second = again(first, three(TUNED))
    assert second.configuration.data == first.configuration.data
    assert second.memory.to_annotation() == first.memory.to_annotation()
    assert set(verdicts(second).values()) == {"already_right"}
    back = again(second, three(TUNED), state="absent")
    assert back.configuration.data == data(name)
    assert back.memory.to_annotation() is None
    assert set(verdicts(back).values()) == {"restored"}


def test_a_flag_that_is_no_longer_wanted_goes_back_to_what_others_had_set() -> None:
    first = plan(data("v1beta4-extras"), None, three(TUNED))
    second = again(first, three({ETCD: TUNED[ETCD]}))
    assert second.configuration.flag(API, "max-requests-inflight") == ["800"]
    assert second.configuration.flag(API, "audit-log-maxage") == ["30"]
    assert second.configuration.flag(ETCD, "max-wals") == ["7"]


def test_the_same_value_of_somebody_else_stays_at_absent() -> None:
    tuned = {API: {"max-requests-inflight": ["800"]}}
    first = plan(data("v1beta4-extras"), None, three(tuned))
    assert first.memory.to_annotation() is None
    assert again(first, three(tuned), state="absent").configuration.data == data("v1beta4-extras")


def test_drift_is_said_set_right_and_then_what_to_go_back_to() -> None:
    first = plan(data(), None, three(TUNED))
    first.configuration.set_flag(ETCD, "max-wals", ["9"])
    second = again(first, three(TUNED))
    assert second.configuration.flag(ETCD, "max-wals") == ["7"]
    (line,) = [line for line in second.report if line["item"].endswith("--max-wals")]
    assert (line["verdict"], line["previous"], line["reason"]) == ("changed", "9", "it had drifted from 7")
    assert again(second, three(TUNED), state="absent").configuration.flag(ETCD, "max-wals") == ["9"]


def test_an_edit_of_what_is_no_longer_wanted_stays() -> None:
    first = plan(data(), None, three(TUNED))
    first.configuration.set_flag(ETCD, "max-wals", ["9"])
    second = again(first, three(TUNED), state="absent")
    assert second.configuration.flag(ETCD, "max-wals") == ["9"]
    assert verdicts(second)["etcd --max-wals"] == "kept"
    assert second.memory.to_annotation() is None


def test_kubeadm_turns_v1beta3_into_v1beta4_and_the_way_back_stays() -> None:
    """As `kubeadm config migrate` does: the fixtures are the same configuration in both."""
    first = plan(data("v1beta3"), None, three(TUNED))
    migrated = data("v1beta4-extras")
    for section, args in (
        (migrated["apiServer"], first.configuration.data["apiServer"]["extraArgs"]),
        (migrated["etcd"]["local"], first.configuration.data["etcd"]["local"]["extraArgs"]),
    ):
        section["extraArgs"] = [{"name": name, "value": value} for name, value in sorted(args.items())]
    back = plan(migrated, first.memory.to_annotation(), three(TUNED), state="absent")
    assert semantics(back.configuration.data) == semantics(data("v1beta4-extras"))


names = st.text("abcdefghij-", min_size=1, max_size=6)
values = st.text(min_size=0, max_size=8)


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    result = data(draw(st.sampled_from(sorted(TEXTS))))
    for section in (result["apiServer"], result["etcd"]["local"]):
        args = draw(st.dictionaries(names, values, max_size=4))
        if result["apiVersion"].endswith("v1beta3"):
            section["extraArgs"] = args
        else:
            section["extraArgs"] = [{"name": name, "value": value} for name, value in args.items()]
        if not args:
            del section["extraArgs"]
    return result


wishes = st.fixed_dictionaries({name: st.dictionaries(names, st.lists(values, min_size=1, max_size=1), max_size=4) for name in (ETCD, API)})


@given(configurations(), wishes, wishes)
def test_any_way_there_leads_back(given_: dict[str, Any], one: dict[str, Any], other: dict[str, Any]) -> None:
    first = plan(given_, None, three(one))
    second = again(first, three(other))
    for component, flags in other.items():
        for name, value in flags.items():
            assert second.configuration.flag(component, name) == value
    assert again(second, three(other)).configuration.data == second.configuration.data
    back = again(second, three(other), state="absent")
    assert semantics(back.configuration.data) == semantics(given_)
    assert back.memory.to_annotation() is None


@given(configurations(), wishes)
def test_the_text_says_what_was_planned(given_: dict[str, Any], wish: dict[str, Any]) -> None:
    """Through YAML and the annotation, as the ConfigMap carries both; a second run changes nothing."""
    # Escaped: PyYAML writes a next-line character as it is between quotes, and reads a space there.
    text = yaml.safe_dump(given_)
    config_map = {"metadata": {"resourceVersion": "1"}, "data": {"ClusterConfiguration": text, "Other": "stays"}}
    done = _kubeadm.change(config_map, three(wish), "present")
    written = done.new or config_map
    assert written["data"]["Other"] == "stays" and written["metadata"]["resourceVersion"] == "1"
    assert yaml.safe_load(written["data"]["ClusterConfiguration"]) == plan(given_, None, three(wish)).configuration.data
    assert _kubeadm.change(written, three(wish), "present").new is None
    back = _kubeadm.change(written, three(wish), "absent").new or written
    assert semantics(yaml.safe_load(back["data"]["ClusterConfiguration"])) == semantics(given_)
    assert ANNOTATION not in back["metadata"].get("annotations", {})


# --- the text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v1beta4", "v1beta4-extras"])
def test_a_difference_shows_nothing_else(name: str) -> None:
    config_map = {"metadata": {"annotations": {"other": "x"}}, "data": {"ClusterConfiguration": TEXTS[name]}}
    done = _kubeadm.change(config_map, three({ETCD: {"max-wals": ["7"]}}), "present")
    (diff,) = done.diff
    added = [line for line in diff["after"].splitlines() if line not in diff["before"].splitlines()]
    assert diff["before"] == TEXTS[name]
    assert [line.strip() for line in added if "extraArgs" not in line] == ["- name: max-wals", 'value: "7"']
    assert not [line for line in diff["before"].splitlines() if line not in diff["after"].splitlines()]
    assert done.new and done.new["metadata"]["annotations"]["other"] == "x"


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 9, "flags": {}}', '{"schema": 1}', '{"schema": 1, "flags": {"etcd": []}}'])
def test_a_damaged_annotation_is_an_error_with_the_way_out(text: str) -> None:
    with pytest.raises(KubetuneError, match=f"annotate configmap kubeadm-config {re.escape(ANNOTATION)}-"):
        Memory.from_annotation(text)


@pytest.mark.parametrize(
    ("content", "text"), [({}, "has no ClusterConfiguration"), ({"ClusterConfiguration": "a: ["}, "is not YAML"), (None, "has no Cluster")]
)
def test_a_config_map_without_a_configuration_is_an_error(content: Any, text: str) -> None:
    with pytest.raises(KubetuneError, match=text):
        _kubeadm.change({"metadata": {}, "data": content}, three(TUNED), "present")


# --- the WAL -------------------------------------------------------------------------------------------------------------

ON_DISK = {ETCD: {"wal-dir": [WAL]}}


def on_disk() -> Plan:
    return plan(data(), None, three(ON_DISK))


def test_the_wal_is_kept_where_every_member_has_it_there() -> None:
    assert on_disk().configuration.flag(ETCD, "wal-dir") == [WAL]


def test_the_wal_is_left_out_where_one_member_has_it_elsewhere() -> None:
    planned = plan(data(), None, [*three(ON_DISK)[:2], host("cp3", {ETCD: {}})])
    assert planned.configuration.flag(ETCD, "wal-dir") is None
    assert planned.report[0]["reason"].startswith(f"it differs between hosts: cp1 {WAL}, cp2 {WAL}, cp3 nothing; ")


def test_the_wal_is_left_out_where_no_volume_carries_it() -> None:
    given_ = data()
    given_["etcd"]["local"]["dataDir"] = "/srv/etcd"
    planned = plan(given_, None, three(ON_DISK))
    assert planned.configuration.data == given_
    assert "is not below /srv/etcd" in planned.report[0]["reason"]


@pytest.mark.parametrize("seen", [1, 2, 3])
@pytest.mark.parametrize("state", ["present", "absent"])
def test_the_wal_comes_out_as_soon_as_one_member_of_the_play_leaves_it(seen: int, state: str) -> None:
    """Also where the play sees only some: an upgrade must not start etcd without its log."""
    hosts = [host("cp1", {ETCD: {}}), *three(ON_DISK)[1:]][:seen]
    planned = again(on_disk(), hosts, state=state)
    assert planned.configuration.flag(ETCD, "wal-dir") is None
    assert verdicts(planned)["etcd --wal-dir"] == "restored"


def test_the_wal_stays_where_the_play_sees_only_some_of_the_members_that_have_it() -> None:
    planned = again(on_disk(), three(ON_DISK)[:1])
    assert planned.configuration.flag(ETCD, "wal-dir") == [WAL]
    assert planned.memory.to_annotation() == on_disk().memory.to_annotation()


def test_the_wal_comes_out_even_where_the_annotation_was_lost() -> None:
    planned = plan(on_disk().configuration.data, None, three({ETCD: {}}))
    assert planned.configuration.flag(ETCD, "wal-dir") is None


def test_withdrawing_takes_nothing_else_out() -> None:
    first = plan(data(), None, three({ETCD: {**TUNED[ETCD], **ON_DISK[ETCD]}}))
    planned = again(first, three({}), withdraw=True)
    assert planned.configuration.flag(ETCD, "wal-dir") is None
    assert planned.configuration.flag(ETCD, "max-wals") == ["7"]
    assert again(first, three(ON_DISK), withdraw=True).configuration.data == first.configuration.data


# --- facts of hosts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def facts(host: recorded.Host) -> dict[str, Any]:
    """Of a host on which a run has set etcd's --max-wals, and a request which is no flag."""
    pod = host.pod(ETCD)
    pod["spec"]["containers"][0]["command"] += ["--max-wals=7"]
    host.write("etcd.yaml", yaml.safe_dump(pod))
    host.run(ETCD, "3.6.16", 2**28)
    host.facts["memory"][ETCD] = {
        "settings": {"--max-wals": {"applied": ["7"], "original": None}, "requests.cpu": {"applied": ["1"], "original": ["100m"]}}
    }
    return host.facts


def test_a_record_holds_flags_that_were_applied_and_what_runs(facts: dict[str, Any]) -> None:
    found = Host(**record("first", json.loads(json.dumps(facts))))
    assert (found.name, found.member, list(found.members), found.problem) == ("first", "cp1", list(MEMBERS), "")
    assert list(found.components) == [ETCD, API]
    assert found.tuned == {ETCD: {"max-wals": ["7"]}, API: {}}
    assert found.running[ETCD]["max-wals"] == ["7"] and "advertise-address" in found.running[API]
    assert not leaves_its_disk(found)


def test_a_plan_is_looked_at_as_if_it_were_done(facts: dict[str, Any]) -> None:
    report = [
        {"role": "etcd_static_pod", "item": "etcd --max-wals", "verdict": "restored", "value": None},
        {"role": "etcd_static_pod", "item": "etcd --snapshot-count", "verdict": "changed", "value": "100000"},
        {"role": "etcd_static_pod", "item": "etcd --max-snapshots", "verdict": "refused", "value": "5"},
        {"role": "etcd_static_pod", "item": "etcd requests.cpu", "verdict": "changed", "value": "1"},
    ]
    found = Host(**record("cp1", facts, report))
    assert found.tuned == {ETCD: {"snapshot-count": ["100000"]}, API: {}}
    assert found.running[ETCD]["snapshot-count"] == ["100000"]


def test_a_member_that_leaves_its_disk_is_known_by_its_plan(facts: dict[str, Any]) -> None:
    facts["processes"][ETCD][0]["argv"].append(f"--wal-dir={WAL}")
    facts["memory"][ETCD]["settings"]["--wal-dir"] = {"applied": [WAL], "original": None}
    assert not leaves_its_disk(Host(**record("cp1", facts)))
    report = [{"role": "etcd_static_pod", "item": "etcd --wal-dir", "verdict": "restored", "value": None}]
    assert leaves_its_disk(Host(**record("cp1", facts, report)))


def test_a_cluster_that_cannot_be_read_is_a_problem(facts: dict[str, Any]) -> None:
    facts["cluster"] = {"name": "cp1", "members": [], "problems": ["no member answers"]}
    assert Host(**record("cp1", facts)).problem == "no member answers"
    facts["cluster"] = None
    assert Host(**record("cp1", facts)).problem == ""


def test_the_filter_takes_the_hosts_that_told_something(facts: dict[str, Any]) -> None:
    report = [{"role": "etcd_static_pod", "item": "etcd --max-wals", "verdict": "restored", "value": None}]
    hostvars = {"a": {"__kubeadm_persistence_facts": {"facts": facts}, "__node_window_plan": {"report": report}}, "b": {}}
    assert [each["name"] for each in kubeadm_hosts(["b", "a"], hostvars)] == ["a"]
    assert kubeadm_hosts(["a"], hostvars)[0]["tuned"][ETCD] == {"max-wals": ["7"]}
    assert kubeadm_hosts(["a"], hostvars, True)[0]["tuned"][ETCD] == {}


# --- patches ---------------------------------------------------------------------------------------------------------------

AMOUNTS = {"requests.cpu": "1000m", "requests.memory": "2Gi", "limits.memory": "4Gi"}


def test_a_patch_says_what_was_applied() -> None:
    memory = {"settings": {**{key: {"applied": [value], "original": None} for key, value in AMOUNTS.items()}, "--x": {"applied": ["1"]}}}
    component = COMPONENTS[ETCD]
    assert patches.settings(component, memory) == AMOUNTS
    assert patches.settings(component, {**memory, "rendered": True}) == {}
    assert patches.settings(component, None) == {}
    text = patches.render(component, AMOUNTS)
    assert text and yaml.safe_load(text) == {
        "spec": {
            "containers": [
                {"name": "etcd", "resources": {"requests": {"cpu": "1000m", "memory": "2Gi"}, "limits": {"memory": "4Gi"}}}
            ]
        }
    }
    assert patches.render(component, {}) is None


def test_a_patch_of_a_plan() -> None:
    report = [
        {"role": "etcd_static_pod", "item": "etcd requests.cpu", "verdict": "changed", "value": "2"},
        {"role": "etcd_static_pod", "item": "etcd requests.cpu", "verdict": "warning", "value": "2"},
        {"role": "etcd_static_pod", "item": "etcd limits.cpu", "verdict": "left_out", "value": "4"},
    ]
    memory = {"settings": {"limits.cpu": {"applied": ["4"], "original": None}}}
    assert patches.settings(COMPONENTS[ETCD], memory, report) == {"requests.cpu": "2"}
    assert patches.settings(COMPONENTS[API], memory, report) == {"limits.cpu": "4"}
    # Said as kubeadm writes it, meant as it was applied.
    settings = {"settings": {"requests.cpu": {"applied": ["2000m"], "original": None}}}
    assert patches.settings(COMPONENTS[ETCD], settings, report) == {"requests.cpu": "2000m"}


def test_a_patch_of_the_times() -> None:
    times = {"pod.termination_grace_period_seconds": "50", "pod.startup_probe_seconds": "480"}
    memory = {"settings": {key: {"applied": [value], "original": None} for key, value in times.items()}}
    assert patches.settings(COMPONENTS[API], memory) == times
    text = patches.render(COMPONENTS[API], times)
    assert text and yaml.safe_load(text) == {
        "spec": {
            "terminationGracePeriodSeconds": 50,
            "containers": [{"name": "kube-apiserver", "startupProbe": {"failureThreshold": 48}}],
        }
    }
    only = patches.render(COMPONENTS[API], {"pod.termination_grace_period_seconds": "50"})
    assert only and yaml.safe_load(only) == {"spec": {"terminationGracePeriodSeconds": 50}}


def test_patches_come_stay_and_go(tmp_path: Path) -> None:
    directory = tmp_path / "patches"
    planned = patches.apply(directory, {ETCD: AMOUNTS}, check=True)
    assert planned.changed and not directory.exists()
    first = patches.apply(directory, {ETCD: AMOUNTS})
    assert first.changed and first.diff == planned.diff and [path.name for path in directory.iterdir()] == ["etcd+strategic.yaml"]
    assert (directory / "etcd+strategic.yaml").read_text() == first.diff[0]["after"]
    again_ = patches.apply(directory, {ETCD: AMOUNTS})
    assert not again_.changed and not again_.diff and again_.report[0]["verdict"] == "already_right"
    gone = patches.apply(directory, {})
    assert gone.changed and gone.report[0]["verdict"] == "restored" and not directory.exists()
    assert not patches.apply(directory, {}).changed


def test_somebody_else_s_patches_stay(tmp_path: Path) -> None:
    theirs = tmp_path / "kube-apiserver+strategic.yaml"
    theirs.write_text("spec: {}\n")
    with pytest.raises(KubetuneError, match="not this collection's: rename it"):
        patches.apply(tmp_path, {ETCD: AMOUNTS})
    assert [path.name for path in tmp_path.iterdir()] == [theirs.name]
    theirs.rename(tmp_path / "kube-apiserver-other+strategic.yaml")
    patches.apply(tmp_path, {ETCD: AMOUNTS})
    patches.apply(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["kube-apiserver-other+strategic.yaml"]
