# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real binaries have the last word: they take the guide's flags, refuse what we say they refuse, and have the defaults
that the catalogue claims."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.judge import judge, version
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS, ETCD, KUBE_APISERVER
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.flags import TYPES, Flag, version_of

from tests.integration.assets import binary
from tests.integration.etcd_cluster import EtcdCluster, free_port
from tests.lab import settings

LAB = settings.from_environment()
RUNNING = {ETCD: version_of(LAB.etcd), KUBE_APISERVER: version_of(LAB.kubernetes)}
#: What the catalogue knows of these versions; of the others tests/unit/module_utils/test_catalogue.py has the recorded help.
ALL = [
    (name, flag)
    for name, component in COMPONENTS.items()
    for flag in component.flags
    # Not those that are known only because they leave.
    if flag.known(RUNNING[name]) and (flag.guide is not None or not flag.removed)
]
GUIDE = [(name, flag) for name, flag in ALL if flag.guide is not None]
#: A value that each type takes.
SAMPLES = {"int": "1", "bytes": "1", "milliseconds": "1", "seconds": "1", "duration": "1s", "number": "0.01", "bool": "true"}
#: The same for those that take any text.
TEXTS = {"string": "text", "gates": "AllAlpha=false"}


def name_of(value: object) -> str:
    return value.name if isinstance(value, Flag) else str(value)


def program(component: str) -> str:
    return str(binary(component))


def running_version(component: str) -> tuple[int, ...]:
    return version_of(version(program(component)))


# --- verdicts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", [ETCD, KUBE_APISERVER])
def test_the_guide_s_flags_are_accepted_together(component: str) -> None:
    flags = [f"--{flag.name}={flag.guide}" for name, flag in GUIDE if name == component]
    verdict = judge(program(component), flags)
    assert verdict.accepted, verdict.text
    deprecated = {"--default-watch-cache-size"} if component == KUBE_APISERVER else set()
    assert {notice.split()[1] for notice in verdict.notices} == deprecated


@pytest.mark.parametrize(("component", "flag"), ALL, ids=name_of)
def test_each_flag_of_the_catalogue_exists(component: str, flag: Flag) -> None:
    value = flag.guide or flag.default(running_version(component)) or {**SAMPLES, **TEXTS}[flag.type]
    assert judge(program(component), [f"--{flag.name}={value}"]).accepted


@pytest.mark.parametrize(("component", "flag"), [(name, flag) for name, flag in ALL if flag.type in SAMPLES], ids=name_of)
def test_each_flag_has_the_type_of_the_catalogue(component: str, flag: Flag) -> None:
    verdict = judge(program(component), [f"--{flag.name}=no-such-value"])
    assert (verdict.accepted, verdict.flag) == (False, flag.name)
    assert "no-such-value" in verdict.text


@pytest.mark.parametrize("component", [ETCD, KUBE_APISERVER])
@pytest.mark.parametrize(
    ("wrong", "culprit"),
    [
        ("--no-such-flag=1", "no-such-flag"),
        ("--feature-gates=NoSuchGate=true", "feature-gates"),
        ("--feature-gates=AllAlpha=perhaps", "feature-gates"),
    ],
)
def test_the_culprit_is_named_among_the_good(component: str, wrong: str, culprit: str) -> None:
    good = [f"--{flag.name}={flag.guide}" for name, flag in GUIDE if name == component]
    verdict = judge(program(component), [*good[:3], wrong, *good[3:]])
    assert (verdict.accepted, verdict.flag) == (False, culprit)
    assert any(word in verdict.text for word in ("no-such-flag", "NoSuchGate", "perhaps"))
    assert "\n" not in verdict.text and "Usage" not in verdict.text


# --- defaults -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untuned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What an etcd without any tuning says of itself when it starts."""
    home = tmp_path_factory.mktemp("untuned")
    process, log = start_etcd(home)
    try:
        wait_for_text(process, log, "ready to serve client requests")
    finally:
        process.kill()
        process.wait()
    return started_with(log)


def test_etcd_s_defaults_are_what_it_runs_with(untuned: dict[str, object]) -> None:
    checked = set()
    for name, flag in ALL:
        if name == ETCD and flag.name in untuned:
            claimed = flag.default(running_version(ETCD))
            assert claimed is not None and same_setting(flag, claimed, untuned[flag.name]), flag.name
            checked.add(flag.name)
    assert checked == {
        "snapshot-count", "heartbeat-interval", "election-timeout", "max-snapshots", "max-wals", "quota-backend-bytes",
        "auto-compaction-retention", "auto-compaction-mode", "max-request-bytes", "feature-gates", "snapshot-catchup-entries",
    }


def test_etcd_runs_with_the_guide_s_values(tmp_path: Path) -> None:
    flags = [f"--{flag.name}={flag.guide}" for name, flag in GUIDE if name == ETCD]
    cluster = EtcdCluster.create(tmp_path / "etcd", ["cp1"], *flags)
    try:
        settings = started_with(cluster.members[0].log)
    finally:
        cluster.stop_all()
    for name, flag in GUIDE:
        if name == ETCD and flag.name in settings:
            assert same_setting(flag, str(flag.guide), settings[flag.name]), flag.name


def same_setting(flag: Flag, text: str, logged: object) -> bool:
    """etcd logs durations with a unit where the flag is a bare number of milliseconds."""
    if flag.type == "milliseconds":
        return TYPES["duration"](str(logged)) * 1000 == float(text)
    return flag.same(text, str(logged))


# --- what only the start tells --------------------------------------------------------------------------------

#: Accepted by --version, and fatal at start: these are the rules which the plan checks by itself.
FATAL_ETCD = {
    "--heartbeat-interval=300": "should be at least as 5 times as --heartbeat-interval",
    "--election-timeout=50001": "is too long, and should be set less than 50000ms",
    "--election-timeout=0": "--election-timeout must be >0",
    "--auto-compaction-mode=weekly": 'unknown auto-compaction-mode \\"weekly\\"',
    "--auto-compaction-retention=soon": "error parsing CompactionRetention",
}
FATAL_API_SERVER = {
    "--goaway-chance=0.5": "--goaway-chance can not be less than 0 or greater than 0.02",
    "--max-requests-inflight=0 --max-mutating-requests-inflight=0": "they must add up to something positive",
    "--watch-cache-sizes=pods": "invalid value of watch cache size: pods",
    "--shutdown-delay-duration=-1s": "--shutdown-delay-duration can not be negative value",
    "--authorization-config=/a.yaml --authorization-webhook-cache-authorized-ttl=300s": "--authorization-config can not be",
}


@pytest.mark.parametrize(("flags", "text"), FATAL_ETCD.items())
def test_what_etcd_accepts_and_dies_from(tmp_path: Path, flags: str, text: str) -> None:
    assert judge(program(ETCD), flags.split()).accepted
    process, log = start_etcd(tmp_path, *flags.split())
    try:
        assert process.wait(timeout=20) != 0
    finally:
        process.kill()
    assert text in log.read_text()


@pytest.mark.parametrize(("flags", "text"), FATAL_API_SERVER.items())
def test_what_the_api_server_accepts_and_dies_from(tmp_path: Path, flags: str, text: str) -> None:
    assert judge(program(KUBE_APISERVER), flags.split()).accepted
    key = tmp_path / "sa.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    # It validates its options before it looks for etcd.
    done = subprocess.run(
        [program(KUBE_APISERVER), "--etcd-servers=http://127.0.0.1:1", f"--cert-dir={tmp_path}", "--bind-address=127.0.0.1",
         f"--secure-port={free_port()}", "--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://test",
         f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}", *flags.split()],
        capture_output=True, text=True, timeout=30, check=False,
    )
    assert done.returncode == 1
    assert text in done.stderr


def test_a_duration_as_a_number_of_revisions_is_taken_and_means_never(tmp_path: Path) -> None:
    """1h are 3600000000000 revisions: etcd starts, and does not compact (checks.etcd refuses it)."""
    process, log = start_etcd(tmp_path, "--auto-compaction-mode=revision", "--auto-compaction-retention=1h")
    try:
        wait_for_text(process, log, "ready to serve client requests")
    finally:
        process.kill()
        process.wait()
    assert started_with(log)["auto-compaction-retention"] == "1h0m0s"


def start_etcd(home: Path, *flags: str) -> tuple[subprocess.Popen[bytes], Path]:
    client, peer = (f"http://127.0.0.1:{free_port()}" for _each in range(2))
    log = home / "etcd.log"
    with open(log, "wb") as stream:
        process = subprocess.Popen(
            [program(ETCD), f"--data-dir={home}/data", f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
             f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}", *flags],
            stdout=stream, stderr=stream,
        )
    return process, log


def wait_for_text(process: subprocess.Popen[bytes], log: Path, text: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while text not in log.read_text():
        assert process.poll() is None and time.monotonic() < end, log.read_text()[-2000:]
        time.sleep(0.05)


def started_with(log: Path) -> dict[str, object]:
    """etcd's own account of its settings."""
    entries = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return next(entry for entry in entries if entry["msg"] == "starting an etcd server")
