# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real binaries read a command line as `_static_pod.manifest` does: which spelling is a flag, and which value counts."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._node import judge
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS, ETCD, KUBE_APISERVER
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.flags import version_of
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.manifest import Manifest, flags_of

from tests.integration.assets import binary
from tests.integration.etcd_cluster import free_port


def say(program: str, words: list[str], seconds: float, **variables: str) -> tuple[int | None, str]:
    """(exit status, None where it still runs; what it said) of a program that is given some seconds."""
    with subprocess.Popen(
        [str(binary(program)), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **variables}
    ) as process:
        try:
            return process.wait(seconds), process.communicate()[0]
        except subprocess.TimeoutExpired:
            process.kill()
            return None, process.communicate()[0]


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """What an etcd of its own needs."""
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    return [
        f"--data-dir={tmp_path}/data", f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
    ]


@pytest.mark.parametrize(
    "words", [["--max-wals=3", "--max-wals=7"], ["-max-wals", "7"], ["-max-wals=7"], ["--max-wals=7", "--max-snapshots", "5"]], ids=" ".join
)
def test_etcd_s_spellings(own: list[str], words: list[str]) -> None:
    _status, said = say(ETCD, [*own, *words], 3)
    found = re.findall(r'"max-wals":(\d+)', said)
    flag = COMPONENTS[ETCD].flag("max-wals")
    assert found and flag.counted(flags_of(words)["max-wals"]) == found[:1], said[-1000:]


@pytest.mark.parametrize("value", ["7", "3", ""])
def test_etcd_does_not_start_with_a_flag_and_its_variable(own: list[str], value: str) -> None:
    container = {"name": "etcd", "command": ["etcd"], "env": [{"name": "ETCD_MAX_WALS", "value": value}]}
    variable = Manifest({"kind": "Pod", "spec": {"containers": [container]}}, ETCD).variable("max-wals")
    status, said = say(ETCD, [*own, "--max-wals=3"], 10, **{variable.name: value})
    assert status == 1
    assert "conflicting environment variable" in said and variable.name in said
    # Its --version does not tell, which is why the plan has to.
    assert say(ETCD, ["--max-wals=3", "--version"], 10, **{variable.name: value})[0] == 0


#: A value of each type that etcd takes for every flag of it.
VALUES = {"duration": "1h", "int": "7", "bool": "true", "string": "x"}
TWINS = [
    *([f"--{flag.name}={VALUES[flag.type]}", f"--{flag.formerly}={VALUES[flag.type]}"] for flag in COMPONENTS[ETCD].flags if flag.formerly),
    *([f"--feature-gates={flag.gate}=true", f"--{flag.name}=true"] for flag in COMPONENTS[ETCD].flags if flag.gate),
]


@pytest.mark.parametrize("words", TWINS, ids=lambda words: words[1])
def test_etcd_3_6_does_not_start_with_both_names_of_a_setting(own: list[str], words: list[str]) -> None:
    """Its --version does not tell, which is why a plan writes only one of them."""
    if not version_of(judge.version(str(binary(ETCD)))) < (3, 7):
        pytest.skip("etcd 3.7 has only one name for each")
    status, said = say(ETCD, [*own, *words], 10)
    assert status == 1
    assert "at the same time" in said or "flags are set. Use only" in said, said[-1000:]
    assert say(ETCD, [*words, "--version"], 10)[0] == 0


def test_etcd_takes_everything_from_a_configuration_file(own: list[str], tmp_path: Path) -> None:
    file = tmp_path / "etcd.yaml"
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    file.write_text(
        f"name: fromfile\ndata-dir: {tmp_path}/other\nmax-wals: 11\nlisten-client-urls: {client}\nadvertise-client-urls: {client}\n"
        f"listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: fromfile={peer}\n"
    )
    _status, said = say(ETCD, [*own, "--max-wals=3", f"--config-file={file}"], 3)
    assert re.findall(r'"max-wals":(\d+)', said)[:1] == ["11"], said[-1000:]


@pytest.mark.parametrize(
    ("words", "flag", "shown"),
    [
        (["--max-requests-inflight=400", "--max-requests-inflight=5000"], "max-requests-inflight", "5000"),
        (["--max-requests-inflight=400", "--max_requests_inflight=77"], "max-requests-inflight", "77"),
        (["--max-requests-inflight", "900"], "max-requests-inflight", "900"),
        (["--min-request-timeout", "-1"], "min-request-timeout", "-1"),
        (["--watch-cache-sizes=pods#0", "--watch-cache-sizes=nodes#0"], "watch-cache-sizes", "[pods#0,nodes#0]"),
        (["--v=1", "-v4"], "v", "4"),
    ],
)
def test_kube_apiserver_s_spellings(words: list[str], flag: str, shown: str) -> None:
    """It logs its flags before it finds that it lacks all the others."""
    _status, said = say(KUBE_APISERVER, ["--v=1", *words], 30)
    assert f'FLAG: --{flag}="{shown}"' in said, said[-1000:]
    counted = COMPONENTS[KUBE_APISERVER].flag(flag).counted(flags_of(words)[flag])
    assert ",".join(counted if flag != "v" else counted[-1:]) == shown.strip("[]")


def test_kube_apiserver_knows_no_flag_with_one_dash() -> None:
    assert "unknown shorthand flag" in say(KUBE_APISERVER, ["-max-requests-inflight=400", "--version"], 30)[1]
