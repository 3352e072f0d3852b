# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from a host: processes, logs, certificates, state, the binaries' verdicts."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._node import access, certificates, discover, judge, processes, state
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.access import api_server, etcd_access
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.processes import Process
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.unit.hosts import FIXTURES

ETCD_ARGV = ["/usr/local/bin/etcd", "--name=cp1", "--data-dir=/var/lib/etcd"]


class Proc:
    """A directory that looks like /proc."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        (path / "meminfo").write_text("MemTotal: 1 kB\n")

    def run(self, pid: int, argv: list[str], name: str = "etcd", state: str = "S", start: int = 777) -> None:
        directory = self.path / str(pid)
        directory.mkdir(exist_ok=True)
        (directory / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in argv))
        # Fields 3 to 52 of proc(5): the state is the third, the start time the 22nd.
        fields = [state, *("0" for _number in range(4, 22)), str(start), *("0" for _number in range(23, 53))]
        (directory / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path / "proc")


# --- processes ------------------------------------------------------------------------------------------------


def test_a_process_is_found_by_the_name_of_its_program(proc: Proc) -> None:
    proc.run(10, ETCD_ARGV)
    proc.run(11, ["kube-apiserver", "--secure-port=6443"], "kube-apiserver")
    proc.run(12, ["vim", "/etc/etcd"], "vim")
    proc.run(13, ["/usr/bin/etcd-exporter", "--name=cp1"])
    assert processes.find("etcd", {}, proc.path) == [Process(10, 777, tuple(ETCD_ARGV))]


@pytest.mark.parametrize("name", ["a b", "etcd)", "(etcd", ") S 1 2 (x", "((", ""])
def test_a_name_with_spaces_and_brackets_shifts_no_field(proc: Proc, name: str) -> None:
    proc.run(10, ETCD_ARGV, name, start=424242)
    assert processes.read(10, proc.path).start_ticks == 424242


def test_what_does_not_run_is_not_found(proc: Proc) -> None:
    proc.run(10, [], state="Z")
    proc.run(11, ETCD_ARGV, state="Z")
    proc.run(12, [], "kworker/0:1", state="I")
    (proc.path / "13").mkdir()
    assert list(processes.processes(proc.path)) == []
    assert processes.read(99, proc.path) is None


def test_another_etcd_on_the_host_is_not_taken(proc: Proc) -> None:
    proc.run(10, ["etcd", "--name=cp1", "--data-dir=/var/lib/other"])
    proc.run(11, ["etcd", "--name=cp10", "--data-dir=/var/lib/etcd"])
    proc.run(12, ETCD_ARGV)
    found = processes.find("etcd", {"name": "cp1", "data-dir": "/var/lib/etcd"}, proc.path)
    assert [each.pid for each in found] == [12]


@pytest.mark.parametrize("argv", [["etcd", "--name", "cp1"], ["etcd", "-name=cp1"], ["etcd", "--name=old", "--name=cp1"]])
def test_flags_may_be_spelled_as_go_allows(proc: Proc, argv: list[str]) -> None:
    proc.run(10, argv)
    assert len(processes.find("etcd", {"name": "cp1"}, proc.path)) == 1
    assert processes.find("etcd", {"name": "cp2"}, proc.path) == []


def test_etcd_takes_its_settings_from_variables_too(proc: Proc) -> None:
    for pid, program in ((10, "etcd"), (11, "kube-apiserver")):
        proc.run(pid, [program, "--name=cp1"], program)
        (proc.path / str(pid) / "environ").write_bytes(b"PATH=/bin\0ETCD_DATA_DIR=/var/lib/etcd\0ETCD_AUTO_COMPACTION_RETENTION=1h\0")
    (etcd,) = processes.find("etcd", {"data-dir": "/var/lib/etcd"}, proc.path)
    assert processes.settings(etcd, proc.path) == {
        "name": ["cp1"], "data-dir": ["/var/lib/etcd"], "auto-compaction-retention": ["1h"],
    }  # fmt: skip
    assert processes.find("kube-apiserver", {"data-dir": "/var/lib/etcd"}, proc.path) == []


def test_a_reused_pid_is_another_process(proc: Proc) -> None:
    proc.run(10, ETCD_ARGV, start=1)
    old = processes.read(10, proc.path)
    assert processes.alive(old, proc.path)
    proc.run(10, ETCD_ARGV, start=2)
    assert not processes.alive(old, proc.path)
    assert processes.read(10, proc.path).key != old.key


def test_arguments_keep_their_bytes(proc: Proc) -> None:
    proc.run(10, ["etcd", "--name=zoë", "--empty="])
    (proc.path / "10/cmdline").write_bytes(b"etcd\0--name=\xff\0\0--x=1\0")
    argv = processes.read(10, proc.path).argv
    assert [os.fsencode(word) for word in argv] == [b"etcd", b"--name=\xff", b"", b"--x=1"]


def test_this_very_process_is_read_from_the_real_proc() -> None:
    ours = processes.read(os.getpid())
    assert processes.alive(ours)
    assert ours in list(processes.processes())
    assert processes.peak_rss_bytes(os.getpid()) > 2**20


def test_peak_memory(proc: Proc) -> None:
    proc.run(10, ETCD_ARGV)
    (proc.path / "10/status").write_text("Name:\tetcd\nVmHWM:\t  123456 kB\nVmRSS:\t  1 kB\n")
    assert processes.peak_rss_bytes(10, proc.path) == 123456 * 1024
    (proc.path / "10/status").write_text("Name:\tkworker\n")
    assert processes.peak_rss_bytes(10, proc.path) is None
    assert processes.peak_rss_bytes(11, proc.path) is None


def test_the_process_that_the_manifest_describes_is_the_member() -> None:
    manifest = (FIXTURES / "kubeadm-1.36.3/etcd.yaml").read_text()
    ours = Process(50, 1, ("etcd", "--name=cp1", "--data-dir=/var/lib/etcd", "--listen-peer-urls=https://10.0.0.1:2380", "--new=1"))
    others = [Process(pid, 1, ("etcd", f"--name=x{pid}", "--data-dir=/var/lib/etcd", "--a=b", "--c=d")) for pid in (2, 90)]
    assert discover.closest([others[0], ours, others[1]], manifest) == ours
    assert discover.closest([others[1]], "") == others[1]
    assert discover.closest([], manifest) is None


# --- logs -----------------------------------------------------------------------------------------------------


def write_log(root: Path, pod: str, number: int, text: str, age: float = 0.0) -> Path:
    path = root / f"kube-system_{pod}_0123abc" / pod.partition("-cp")[0] / f"{number}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_the_last_lines_without_the_runtime_s_prefix(tmp_path: Path) -> None:
    lines = [f"2026-11-24T10:00:00.1Z stderr F line {number}" for number in range(20)]
    write_log(tmp_path, "etcd-cp1", 0, "\n".join(lines) + "\n")
    assert processes.newest_log("etcd", 0, lines=2, root=tmp_path) == ["line 18", "line 19"]


def test_an_empty_log_of_a_new_attempt_does_not_hide_the_reason(tmp_path: Path) -> None:
    write_log(tmp_path, "etcd-cp1", 0, "x stdout F old\n", age=100)
    write_log(tmp_path, "etcd-cp1", 1, "x stdout F why it died\n", age=5)
    write_log(tmp_path, "etcd-cp1", 2, "")
    write_log(tmp_path, "kube-apiserver-cp1", 9, "x stdout F of another pod\n")
    assert processes.newest_log("etcd", 0, root=tmp_path) == ["why it died"]


def test_what_was_written_before_is_of_no_interest(tmp_path: Path) -> None:
    write_log(tmp_path, "etcd-cp1", 0, "x stdout F old\n", age=100)
    assert processes.newest_log("etcd", time.time() - 50, root=tmp_path) == []
    assert processes.newest_log("etcd", 0, root=tmp_path / "nowhere") == []


def test_a_log_that_vanishes_is_no_error(tmp_path: Path) -> None:
    there = write_log(tmp_path, "etcd-cp1", 0, "x stdout F still here\n", age=9)
    (there.parent / "1.log").symlink_to(tmp_path / "rotated away")
    assert processes.newest_log("etcd", 0, root=tmp_path) == ["still here"]


def test_long_lines_and_huge_logs_are_cut(tmp_path: Path) -> None:
    write_log(tmp_path, "etcd-cp1", 0, "x stdout F first\n" + "y" * 200_000 + "\nx stderr P " + "z" * 1000 + "\n")
    *_middle, last = processes.newest_log("etcd", 0, root=tmp_path)
    assert last == "z" * 300
    assert sum(map(len, processes.newest_log("etcd", 0, root=tmp_path))) <= 600


# --- certificates ---------------------------------------------------------------------------------------------

KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(end: datetime.datetime, name: str = "kube-etcd", **options: object) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(KEY.public_key()).serial_number(options.get("serial", 1))
        .not_valid_before(datetime.datetime(2020, 1, 1)).not_valid_after(end)
    )
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "end",
    [
        datetime.datetime(2026, 11, 24, 10, 11, 12),  # UTCTime
        datetime.datetime(2049, 12, 31, 23, 59, 59),  # the last UTCTime
        datetime.datetime(2050, 1, 1),  # GeneralizedTime from here on
        datetime.datetime(2124, 2, 29),
        datetime.datetime(9999, 12, 31, 23, 59, 59),  # RFC 5280: no well-defined end
    ],
)
def test_the_end_of_a_certificate(tmp_path: Path, end: datetime.datetime) -> None:
    path = tmp_path / "server.crt"
    path.write_bytes(certificate(end))
    assert certificates.not_after(path) == end.replace(tzinfo=datetime.timezone.utc)


def test_openssl_reads_the_same_end(tmp_path: Path) -> None:
    path = tmp_path / "server.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key", "-out", path, "-subj", "/CN=x",
         "-days", "400", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )
    told = subprocess.run(["openssl", "x509", "-enddate", "-noout", "-in", path], check=True, capture_output=True, text=True)
    assert f"notAfter={certificates.not_after(path):%b %e %H:%M:%S %Y} GMT" == told.stdout.strip()


def test_odd_certificates(tmp_path: Path) -> None:
    end = datetime.datetime(2030, 1, 1)
    path = tmp_path / "odd.crt"
    for pem in (certificate(end, name=""), certificate(end, serial=2**150), certificate(end, name="n" * 60)):
        path.write_bytes(pem)
        assert certificates.not_after(path).year == 2030


def test_the_first_of_a_chain_counts_wherever_the_key_is(tmp_path: Path) -> None:
    key = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    leaf, authority = certificate(datetime.datetime(2027, 1, 1)), certificate(datetime.datetime(2035, 1, 1))
    path = tmp_path / "kubelet-client-current.pem"
    path.write_bytes(b"subject=CN = x\n" + key + leaf + authority)
    assert certificates.not_after(path).year == 2027
    path.write_bytes(leaf.replace(b"\n", b"\r\n") + authority + key)
    assert certificates.not_after(path).year == 2027


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "holds no PEM certificate"),
        (b"\x00\xff\x30", "holds no PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB\n", "holds no PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", "cannot be read"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "cannot be read"),
    ],
)
def test_no_certificate(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "server.crt"
    path.write_bytes(content)
    with pytest.raises(KubetuneError, match=text):
        certificates.not_after(path)


@pytest.mark.parametrize("kept", [10, 60, 100, 130])
def test_a_certificate_cut_short(tmp_path: Path, kept: int) -> None:
    lines = certificate(datetime.datetime(2030, 1, 1)).decode().splitlines()
    body = "".join(lines[1:-1])[: kept // 4 * 4]
    path = tmp_path / "server.crt"
    path.write_text("\n".join([lines[0], body, lines[-1]]))
    with pytest.raises(KubetuneError, match="cannot be read"):
        certificates.not_after(path)


def test_facts_tell_days_or_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    (tmp_path / "pki/server.crt").write_bytes(certificate(now + datetime.timedelta(days=30)))
    (tmp_path / "pki/old.crt").write_bytes(certificate(now - datetime.timedelta(days=2)))
    facts = discover.certificate_facts(
        {"cert-file": "/pki/server.crt", "peer-cert-file": "/pki/old.crt", "trusted-ca-file": "/pki/ca.crt", "x": "/pki"}, tmp_path
    )
    assert [fact["days_left"] for fact in facts] == [30.0, -2.0, None, None]
    assert [fact["problem"] for fact in facts] == ["", "", "No such file or directory", "Is a directory"]
    keys = discover.certificate_facts({"key-file": "/pki/server.crt", "peer-key-file": "/pki/none.key"}, tmp_path, key=True)
    assert [fact["problem"] for fact in keys] == ["", "No such file or directory"]


# --- state ----------------------------------------------------------------------------------------------------


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "etcd.yaml"
    path.write_text("old, and longer than the new one")
    path.chmod(0o644)
    state.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    state.write_atomically(tmp_path / "kubetune-window.service", b"x", 0o644)
    assert (tmp_path / "kubetune-window.service").stat().st_mode & 0o777 == 0o644
    assert sorted(each.name for each in tmp_path.iterdir()) == ["etcd.yaml", "kubetune-window.service"]


class PowerCut(BaseException):
    """Nothing runs after it, no handler of ours either."""


def cut(*_arguments: object, **_options: object) -> None:
    raise PowerCut


@pytest.mark.parametrize("step", ["fchmod", "fsync", "replace"])
def test_a_crash_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "etcd.yaml"
    path.write_text("old")
    with monkeypatch.context() as patched:
        patched.setattr(os, step, cut)
        with pytest.raises(PowerCut):
            state.write_atomically(path, b"new")
    assert path.read_text() == "old"
    # What is left over has a name that the kubelet does not read, and is in nobody's way.
    left = [each.name for each in tmp_path.iterdir() if each != path]
    assert all(name.startswith(".") for name in left)
    state.write_atomically(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["etcd.yaml"]


def test_a_disk_without_room_leaves_the_old_content_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "etcd.yaml"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        state.write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["etcd.yaml"]


def test_the_state_directory_is_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "var/kubetune"
    path.mkdir(parents=True, mode=0o755)
    state.make_state_directory(path)
    assert path.stat().st_mode & 0o777 == 0o700


def test_memory_round_trip(tmp_path: Path) -> None:
    assert state.read_memory("etcd", tmp_path) is None
    assert state.read_unfinished(tmp_path) is None
    path = state.memory_path("etcd", tmp_path)
    path.parent.mkdir()
    memory = {"schema": state.SCHEMA, "settings": {"--max-wals": {"applied": ["5"], "original": None}}}
    state.write_atomically(path, json.dumps(memory).encode())
    assert state.read_memory("etcd", tmp_path) == memory
    assert state.read_memory("kube-apiserver", tmp_path) is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'{"schema": 2}', "has schema 2, and this release reads 1"),
        (b"{}", "has schema None"),
        (b"[]", "has schema None"),
        (b"null", "has schema None"),
        (b"", "is damaged"),
        (b'{"schema": 1, "sett', "is damaged"),
        (b"\xff\xfe\x00", "is damaged"),
    ],
)
def test_memory_that_cannot_be_trusted(tmp_path: Path, content: bytes, text: str) -> None:
    path = state.memory_path("etcd", tmp_path)
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(KubetuneError, match=text) as caught:
        state.read_memory("etcd", tmp_path)
    assert str(path) in str(caught.value)


# --- the binaries' verdicts, as recorded by fixtures/record-judge.sh -------------------------------------------


def recorded(case: str) -> judge.Verdict:
    flags, status, output = (FIXTURES / "judge" / f"{case}.txt").read_text().split("\n", 2)
    return judge.understand(int(status.split()[1]), output, flags.split()[1:])


ETCD, API = "etcd-3.6.16", "kube-apiserver-1.36.3"


@pytest.mark.parametrize(
    ("case", "flag", "text"),
    [
        (f"{ETCD}/unknown-flag", "no-such-flag", "flag provided but not defined: -no-such-flag"),
        (f"{ETCD}/bad-value", "heartbeat-interval", 'invalid value "fast" for flag -heartbeat-interval: parse error'),
        (f"{ETCD}/bad-duration", "backend-batch-interval", 'invalid value "100" for flag -backend-batch-interval: parse error'),
        (
            f"{ETCD}/unknown-gate", "feature-gates",
            'invalid value "NoSuchGate=true" for flag -feature-gates: unrecognized feature gate: NoSuchGate',
        ),
        (
            f"{ETCD}/bad-gate-value", "feature-gates",
            'invalid value "StopGRPCServiceOnDefrag=maybe" for flag -feature-gates: invalid value of '
            'StopGRPCServiceOnDefrag=maybe, err: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (f"{API}/unknown-flag", "no-such-flag", "unknown flag: --no-such-flag"),
        (
            f"{API}/bad-value", "max-requests-inflight",
            'invalid argument "many" for "--max-requests-inflight" flag: strconv.ParseInt: parsing "many": invalid syntax',
        ),
        (
            f"{API}/bad-duration", "request-timeout",
            'invalid argument "300" for "--request-timeout" flag: time: missing unit in duration "300"',
        ),
        (f"{API}/unknown-gate", "feature-gates", "unrecognized feature gate: NoSuchGate"),
        (
            f"{API}/bad-gate-value", "feature-gates",
            'invalid value of AllBeta=maybe, err: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (f"{API}/gate-without-value", "feature-gates", "missing bool value for AllBeta"),
    ],
)
def test_refusals_name_the_culprit(case: str, flag: str, text: str) -> None:
    assert recorded(case) == judge.Verdict(False, flag, text, ())


@pytest.mark.parametrize("case", [f"{ETCD}/accepted", f"{API}/accepted"])
def test_acceptance(case: str) -> None:
    assert recorded(case) == judge.Verdict(True, "", "", ())


def test_a_deprecated_flag_is_accepted_with_notice() -> None:
    notice, = recorded(f"{API}/deprecated-flag").notices
    assert notice.startswith("Flag --default-watch-cache-size has been deprecated, watch caches are sized automatically")
    assert recorded(f"{API}/deprecated-flag").accepted


def test_a_value_is_not_mistaken_for_a_flag() -> None:
    said = 'Error: invalid argument "a-max-wals" for "--election-timeout" flag: parse error'
    assert judge.understand(1, said, ["--max-wals=5", "--election-timeout=a-max-wals"]).flag == "election-timeout"


def test_a_program_that_says_nothing_or_is_not_there(tmp_path: Path) -> None:
    assert judge.understand(127, "\n", ["--max-wals=5"]) == judge.Verdict(False, "", "it exits without a word", ())
    with pytest.raises(KubetuneError, match="nowhere cannot be asked for its verdict"):
        judge.judge(str(tmp_path / "nowhere"), [])
    with pytest.raises(KubetuneError, match="--version says nothing usable"):
        judge.version("/bin/true")


# --- the host -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directories", "name"),
    [
        ([], ""),
        (["etc/kubernetes"], "kubeadm"),
        (["etc/kubernetes", "var/lib/rancher/rke2"], "RKE2"),
        (["var/lib/rancher/k3s"], "k3s"),
        (["etc/kubernetes", "var/lib/k0s"], "k0s"),
        (["var/snap/microk8s"], "MicroK8s"),
    ],
)
def test_distributions(tmp_path: Path, directories: list[str], name: str) -> None:
    for each in directories:
        (tmp_path / each).mkdir(parents=True)
    assert discover.distribution(tmp_path) == name


@pytest.mark.parametrize(
    ("config", "directory"),
    [
        ("kind: KubeletConfiguration\nstaticPodPath: /srv/manifests\nx: y\n", "/srv/manifests"),
        ("staticPodPath: '/srv/manifests'\n", "/srv/manifests"),
        ('staticPodPath:   "/srv/manifests"   # ours\n', "/srv/manifests"),
        ("# staticPodPath: /srv/manifests\n", "/etc/kubernetes/manifests"),
        ("staticPodPath:\nrotateCertificates: true\n", "/etc/kubernetes/manifests"),
        ('staticPodPath: ""\n', "/etc/kubernetes/manifests"),
    ],
)
def test_where_the_kubelet_looks_for_static_pods(tmp_path: Path, config: str, directory: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(config)
    assert discover.manifests_directory(path) == Path(directory)
    assert discover.manifests_directory(tmp_path / "none") == Path("/etc/kubernetes/manifests")


# --- access ---------------------------------------------------------------------------------------------------


def test_etcd_is_reached_with_its_own_certificate() -> None:
    flags = {
        "advertise-client-urls": ["https://10.0.0.1:2379,https://10.1.0.1:2379"],
        "trusted-ca-file": ["/etc/kubernetes/pki/etcd/ca.crt"],
        "cert-file": ["/etc/kubernetes/pki/etcd/server.crt"],
        "key-file": ["/etc/kubernetes/pki/etcd/server.key"],
    }
    access = etcd_access(flags, Path("/proc/7/root"))
    assert access.endpoints == ("https://10.0.0.1:2379", "https://10.1.0.1:2379")
    assert access.ca_file == "/proc/7/root/etc/kubernetes/pki/etcd/ca.crt"
    assert type(access).from_dict(json.loads(json.dumps(access.to_dict()))) == access
    with pytest.raises(KubetuneError, match="without --trusted-ca-file"):
        etcd_access({**flags, "key-file": []})
    with pytest.raises(KubetuneError, match="no --advertise-client-urls"):
        etcd_access({})


def test_an_api_server_without_address_or_ca_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(KubetuneError, match="no --advertise-address"):
        api_server({})
    with pytest.raises(KubetuneError, match=f"cannot use the CA {tmp_path}/ca.crt"):
        api_server({"advertise-address": ["127.0.0.1"], "client-ca-file": [f"{tmp_path}/ca.crt"]})


@pytest.mark.parametrize("name", ["cp1", "node-10.example.org", "a" * 63])
def test_the_node_s_name_ends_where_its_length_says(name: str) -> None:
    """In DER the subject is followed by a byte that reads as the digit 0."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"), x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{name}"[:64])]
    )
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    assert access.common_name_of_node(der) == name[: 64 - len("system:node:")]
    assert access.common_name_of_node(b"nothing of the kind") is None


@pytest.mark.parametrize(
    ("cgroup", "log", "is_one"),
    [
        ("0::/kubepods.slice/kubepods-pod0123456789abcdef0123456789abcdef.slice/x", "kube-system_etcd-cp1_0123456789abcdef0123456789abcdef", True),
        ("9:pids:/kubepods/burstable/pod0123456789abcdef0123456789abcdef/x", "kube-system_etcd-cp1_0123456789abcdef0123456789abcdef", True),
        ("0::/user.slice", "kube-system_etcd-cp1_0123456789abcdef0123456789abcdef", False),
        ("0::/kubepods/pod0123456789abcdef0123456789abcdef/x", "default_etcd-cp1_0123456789abcdef0123456789abcdef", False),
        ("0::/kubepods/pod0123456789abcdef0123456789abcdef/x", "kube-system_etcd-cp1_ffffffffffffffffffffffffffffffff", False),
    ],
)
def test_only_the_kubelet_s_own_pod_counts(proc: Proc, tmp_path: Path, cgroup: str, log: str, is_one: bool) -> None:
    """A command line can be forged; running somebody's program because it calls itself etcd would be a gift to them."""
    proc.run(7, ETCD_ARGV)
    (proc.path / "7" / "cgroup").write_text(cgroup + "\n")
    (process,) = processes.find("etcd", {}, proc.path)
    (tmp_path / "pods" / log).mkdir(parents=True)
    assert processes.of_static_pod(process, "etcd", proc.path, tmp_path / "pods") is is_one


# --- a process that ends while it is looked at ----------------------------------------------------------------


def looks(monkeypatch: pytest.MonkeyPatch, alive: list[bool], fails: bool = False) -> list[int]:
    """One look for each element: whether the process was there to its end. Returns what was looked at, by number."""
    looked: list[int] = []

    def look(_running: object, _as_api_server: bool) -> dict[str, int]:
        looked.append(len(looked))
        if fails:
            raise KubetuneError("its certificate is gone")
        return {"look": looked[-1]}

    process = processes.Process(100, 1, ("etcd",))
    monkeypatch.setattr(discover, "_running", lambda: {"etcd": [process], "kube-apiserver": []})
    monkeypatch.setattr(discover, "_look", look)
    monkeypatch.setattr(processes, "alive", lambda _process: alive[looked[-1]])
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    return looked


def test_a_process_that_was_restarted_meanwhile_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looks(monkeypatch, [False, True])
    assert discover.discover() == {"look": 1}


def test_what_cannot_be_read_of_a_process_that_is_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = looks(monkeypatch, [True], fails=True)
    with pytest.raises(KubetuneError, match="its certificate is gone"):
        discover.discover()
    assert looked == [0]


def test_a_process_that_never_stays_is_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = looks(monkeypatch, [False] * 4, fails=True)
    with pytest.raises(KubetuneError, match="ended each of 4 times while it was looked at"):
        discover.discover()
    assert looked == [0, 1, 2, 3]
