# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flags and manifests: parsing, merging, and what hypothesis finds between them."""

from __future__ import annotations

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod import resources
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.flags import (
    BadValue,
    Flag,
    duration_seconds,
    version_of,
)
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.manifest import Manifest, flags_of, memory_limit_in
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,6}){0,2}", fullmatch=True)
VALUES = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20)


def pod(command: list[str], **container: object) -> dict:
    return {"kind": "Pod", "spec": {"containers": [{"name": "etcd", "command": command, **container}]}}


@pytest.mark.parametrize(
    ("text", "seconds"), [("100ms", 0.1), ("300s", 300), ("5m0s", 300), ("1h30m", 5400), ("0", 0), ("1.5h", 5400), ("2us", 2e-6)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "5x", "1h 30m"])
def test_no_durations(text: str) -> None:
    with pytest.raises(BadValue, match="unit is needed"):
        duration_seconds(text)


@pytest.mark.parametrize(
    ("flag", "one", "other", "same"),
    [
        (Flag("x", "duration"), "300s", "5m", True),
        (Flag("x", "duration"), "300s", "5m1s", False),
        (Flag("x", "bool"), "true", "True", True),
        (Flag("x", "retention"), "1", "1h", True),
        (Flag("x", "int"), "010", "10", True),
        (Flag("x", "string"), "a", "A", False),
        (Flag("x", "int"), "abc", "10", False),
    ],
)
def test_values_that_mean_the_same(flag: Flag, one: str, other: str, same: bool) -> None:
    assert flag.same(one, other) is same


def test_ranges_say_what_is_allowed() -> None:
    with pytest.raises(BadValue, match="at most 50000"):
        Flag("election-timeout", "milliseconds", maximum=50000).parse("60000")
    with pytest.raises(BadValue, match="one of periodic, revision"):
        Flag("auto-compaction-mode", "string", choices=("periodic", "revision")).parse("hourly")


@pytest.mark.parametrize(("text", "version"), [("v1.36.3", (1, 36, 3)), ("3.6.8-0", (3, 6, 8)), ("1.37", (1, 37))])
def test_versions(text: str, version: tuple[int, ...]) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (["--a=1", "--b"], {"a": ["1"], "b": ["true"]}),
        (["--a", "1", "-b=2"], {"a": ["1"], "b": ["2"]}),
        (["--a=1", "--a=2"], {"a": ["1", "2"]}),
        (["--a=b=c"], {"a": ["b=c"]}),
        (["--a="], {"a": [""]}),
        (["--a", "-1", "--b", "-1.5s"], {"a": ["-1"], "b": ["-1.5s"]}),
        (["--max_wals=1", "-max-wals", "2"], {"max-wals": ["1", "2"]}),
        (["-v4", "-v", "5", "--v=6"], {"v": ["4", "5", "6"]}),
        (["word", "--", "--a=1"], {"a": ["1"]}),
    ],
)
def test_command_lines(words: list[str], flags: dict[str, list[str]]) -> None:
    assert flags_of(words) == flags


@given(st.dictionaries(NAMES, st.lists(VALUES, min_size=1, max_size=3), max_size=6), NAMES, st.lists(VALUES, min_size=1, max_size=3))
def test_setting_a_flag_touches_no_other(flags: dict[str, list[str]], name: str, values: list[str]) -> None:
    manifest = Manifest(pod(["etcd", *(f"--{key}={value}" for key, all_ in flags.items() for value in all_)]), "etcd")
    before = manifest.flags()
    manifest.set_flag(name, values)
    assert manifest.flags() == {**before, name: values}
    manifest.set_flag(name, before.get(name))
    assert manifest.flags() == before


@given(st.sampled_from(["requests.cpu", "requests.memory", "limits.cpu", "limits.memory"]), st.sampled_from(["1", "250m", "4Gi"]))
def test_a_resource_that_is_taken_away_leaves_no_trace(key: str, value: str) -> None:
    manifest = Manifest(pod(["etcd"], resources={}), "etcd")
    manifest.set_resource(key, value)
    assert manifest.resource(key) == value
    manifest.set_resource(key, None)
    assert manifest.container == {"name": "etcd", "command": ["etcd"], "resources": {}}


def test_a_flag_keeps_its_place() -> None:
    manifest = Manifest(pod(["etcd", "--a=1", "--b=2", "--b=3", "--c=4"]), "etcd")
    manifest.set_flag("b", ["9"])
    manifest.set_flag("d", ["5"])
    assert manifest.argv == ["etcd", "--a=1", "--b=9", "--c=4", "--d=5"]


@pytest.mark.parametrize(
    ("words", "values", "after"),
    [
        (["-a=1"], ["2"], ["-a=2"]),
        (["--a", "1"], ["2"], ["--a", "2"]),
        (["--a", "1"], ["-2"], ["--a", "-2"]),
        (["--a", "1"], ["-x"], ["--a=-x"]),
        (["--a"], ["true"], ["--a"]),
        (["--a"], ["false"], ["--a=false"]),
        (["--a", "1", "--b=1", "-a=2"], ["3", "4"], ["--a", "3", "--b=1", "-a=4"]),
        (["--a", "1", "--b=1", "-a=2"], ["3"], ["--b=1", "-a=3"]),
        (["--a", "1", "--b=1", "-a=2"], None, ["--b=1"]),
        (["--a=1"], ["2", "3"], ["--a=2", "--a=3"]),
    ],
)
def test_a_flag_keeps_its_spelling(words: list[str], values: list[str] | None, after: list[str]) -> None:
    manifest = Manifest(pod(["etcd", *words]), "etcd")
    manifest.set_flag("a", values)
    assert manifest.argv == ["etcd", *after]


def test_kube_apiserver_s_own_spellings_are_kept() -> None:
    manifest = Manifest(pod(["etcd", "--max_wals=1", "-v4"]), "etcd")
    manifest.set_flag("max-wals", ["2"])
    manifest.set_flag("v", ["5"])
    assert manifest.argv == ["etcd", "--max_wals=2", "-v=5"]


def test_flags_in_args() -> None:
    manifest = Manifest(pod(["etcd"], args=["--a=1"]), "etcd")
    manifest.set_flag("b", ["2"])
    assert manifest.pod["spec"]["containers"][0] == {"name": "etcd", "command": ["etcd"], "args": ["--a=1", "--b=2"]}


def test_flags_in_the_command_and_in_args() -> None:
    manifest = Manifest(pod(["/usr/local/bin/etcd", "--a=1", "--b=1"], args=["--c=1", "--a=2"]), "etcd")
    manifest.set_flag("b", ["3"])
    manifest.set_flag("a", ["4"])
    manifest.set_flag("d", ["5"])
    assert manifest.container["command"] == ["/usr/local/bin/etcd", "--b=3"]
    assert manifest.container["args"] == ["--c=1", "--a=4", "--d=5"]


def test_what_two_containers_share_is_changed_in_one() -> None:
    amounts = {"requests": {"cpu": "1"}}
    shared = pod(["etcd"], resources=amounts)
    shared["spec"]["containers"].append({"name": "other", "resources": amounts})
    manifest = Manifest(shared, "etcd")
    manifest.set_resource("requests.cpu", "2")
    assert [each["resources"]["requests"]["cpu"] for each in manifest.pod["spec"]["containers"]] == ["2", "1"]
    assert amounts == {"requests": {"cpu": "1"}}


def test_variables_of_etcd() -> None:
    env = [
        {"name": "ETCD_MAX_WALS", "value": "7"}, {"name": "ETCD_LOG_LEVEL"}, {"name": "ETCD_NAME", "valueFrom": {"fieldRef": {}}},
        {"name": "ETCD_DATA_DIR", "value": "/var/lib/$(HOST)"},
    ]
    etcd = Manifest(pod(["etcd"], env=env), "etcd")
    found = {name: etcd.variable(name) for name in ("max-wals", "log-level", "name", "data-dir", "wal-dir")}
    assert {name: each and each.value for name, each in found.items()} == {
        "max-wals": "7", "log-level": "", "name": None, "data-dir": None, "wal-dir": None,
    }
    assert found["wal-dir"] is None and found["name"].name == "ETCD_NAME"


def test_no_variable_gives_kube_apiserver_a_flag() -> None:
    broken = pod(["kube-apiserver"], env=[{"name": "ETCD_MAX_WALS", "value": "7"}], **{"name": "kube-apiserver"})
    assert Manifest(broken, "kube-apiserver").variable("max-wals") is None


def test_words_that_the_kubelet_fills_in() -> None:
    assert Manifest(pod(["etcd", "--name=$(NODE)", "--a=$1", "--b=x$$y", "--c=$("]), "etcd").references == ["--name=$(NODE)", "--b=x$$y"]


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (None, "not a Pod"),
        ([], "not a Pod"),
        ({"kind": "List"}, "'List'"),
        ({"kind": "Pod", "spec": {"containers": []}}, "no container named 'etcd'"),
        (pod(["/bin/sh", "-c", "exec etcd"]), "behind a wrapper"),
        (pod(["etcd", 5]), "behind a wrapper"),  # type: ignore[list-item]
        (pod([], args=["--a=1"]), "has no command: the image decides"),
    ],
)
def test_what_is_no_manifest_of_etcd(broken: object, text: str) -> None:
    with pytest.raises(KubetuneError, match=text):
        Manifest(broken, "etcd")


def test_paths_of_the_container_on_the_host(host) -> None:
    etcd = Manifest(host.pod("etcd"), "etcd")
    assert etcd.host_path("/etc/kubernetes/pki/etcd/ca.crt") == "/etc/kubernetes/pki/etcd/ca.crt"
    assert etcd.host_path("/etc/passwd") is None
    etcd.pod["spec"]["volumes"][1]["hostPath"]["path"] = "/data/etcd/"
    assert etcd.host_path("/var/lib/etcd/member") == "/data/etcd/member"
    assert etcd.host_path("/var/lib/etcd2") is None


@pytest.mark.parametrize(
    ("text", "amount"), [("250m", 0.25), ("2", 2), (2, 2), ("4Gi", 4 * 2**30), ("1e3", 1000), ("1.5", 1.5), ("100k", 10**5)]
)
def test_quantities(text: object, amount: float) -> None:
    assert resources.quantity(text) == amount


@pytest.mark.parametrize("text", ["", "4GB", "-1", "lots", "1 Gi"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(BadValue, match="quantity is needed"):
        resources.quantity(text)


def test_a_limit_without_a_request_counts_as_one() -> None:
    assert resources.pod_request(pod(["etcd"], resources={"limits": {"cpu": "3"}}), "cpu") == 3


def test_the_largest_init_container_counts_when_it_is_more() -> None:
    manifest = pod(["etcd"], resources={"requests": {"cpu": "1"}})
    manifest["spec"]["initContainers"] = [{"name": "x", "resources": {"requests": {"cpu": "1500m"}}}]
    assert resources.pod_request(manifest, "cpu") == 1.5


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("    resources:\n      limits:\n        cpu: 2\n        memory: 4Gi\n      requests:\n        memory: 8Gi\n", 4 * 2**30),
        ("    resources:\n      requests:\n        memory: 8Gi\n      limits:\n        memory: \"512M\"\n    volumeMounts: []\n", 512_000_000),
        ("    resources:\n      limits: {cpu: '2', 'memory': 1024}\n", 1024),
        ('{"resources": {"limits": {"memory": "1Gi"}}}', 2**30),
        ("    resources:\n      limits:\n        cpu: 2\n      requests:\n        memory: 8Gi\n", None),
        ("    resources:\n      limits:\n        memory: 1Gi\n  - resources:\n      limits:\n        memory: 2Gi\n", 2 * 2**30),
        ("    resources:\n      limits:\n        memory: 12xy\n", None),
        ("", None),
    ],
    ids=["block", "after requests", "flow", "JSON", "cpu only", "two containers", "no quantity", "nothing"],
)
def test_a_memory_limit_is_seen_in_the_text(text: str, limit: int | None) -> None:
    assert memory_limit_in(text) == limit
