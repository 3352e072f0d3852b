# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The weights of etcd's pod on a host made of files; with a real kernel, kubelet and systemd: tests/vm/test_priority.py."""

from __future__ import annotations

import configparser
import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError, Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._node import processes
from ansible_collections.kubetune.control_plane.plugins.module_utils._priority import cgroup, cli, disks, units, watch, weights
from ansible_collections.kubetune.control_plane.plugins.module_utils._priority.run import Request, check_request, run
from ansible_collections.kubetune.control_plane.plugins.modules import etcd_priority
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.module_utils.fake_host import FakeHost, ordinary_host

UID = "cbafd902c6869631d596146eb6171235"
POD = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID}.slice"
CONTAINER = f"{POD}/cri-containerd-4f15cabd6150b843924f9cae27332b01376ddd79e22f9956adde285b3968912e.scope"
MOUNTS = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n30 22 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n"
PRESENT = {"cpu.weight": "4", "io.weight": "default 100"}
ROLE = Path(__file__).resolve().parents[3] / "roles/etcd_priority"


class Host(FakeHost):
    """An ordinary host with cgroup v2, and a systemd that starts and stops the service."""

    active = False
    enabled = False
    frozen: frozenset[str] = frozenset()
    #: What systemd has for the pod's slice.
    slice: dict[str, str]

    def pod(self, group: str = POD, container: str = CONTAINER, uid: str = UID, pid: int = 900, start: int = 5) -> None:
        """Let the kubelet's etcd run in a container of a pod's group, as the kubelet has made it."""
        self.no_etcd()
        self.slice = {"CPUWeight": "4", "IOWeight": ""}
        for directory in (cgroup.ROOT, *(cgroup.directory(parent) for parent in _parents(group))):
            self.file(f"{directory}/cgroup.controllers", "cpu io memory pids\n")
            self.file(f"{directory}/cgroup.subtree_control", "cpu io memory pids\n")
        for name, line in PRESENT.items():
            self.file(f"{cgroup.directory(group)}/{name}", f"{line}\n")
        self.file(f"/proc/{pid}/cmdline", "etcd\0--name=cp1\0")
        self.file(f"/proc/{pid}/stat", f"{pid} (etcd) S {' '.join('0' * 18)} {start} 0 0\n")
        self.file(f"/proc/{pid}/cgroup", f"0::{container}\n")
        self.directory(f"/var/log/pods/kube-system_etcd-cp1_{uid}")

    def no_etcd(self) -> None:
        for path in Path(self.locate("/proc")).glob("[0-9]*"):
            if (path / "comm").exists() and (path / "comm").read_text() == "etcd\n" or (path / "cmdline").exists():
                shutil.rmtree(path)

    def weights(self, group: str = POD) -> dict[str, str]:
        return cgroup.weights(self, group)

    def set(self, path: str, text: str) -> None:
        if path.rpartition("/")[2] in self.frozen:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        super().set(path, text)

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        self.commands.append(list(arguments))
        if arguments[0] == "show" and arguments[-1].startswith("kubepods"):
            return "\n".join(f"{name}={value or '[not set]'}" for name, value in self.slice.items())
        if arguments[0] == "set-property":
            assert arguments[1] == "--runtime" and arguments[2].endswith(".slice"), arguments
            self.slice.update(each.split("=") for each in arguments[3:])
            self.reload()
        if arguments[0] == "show":
            return f"UnitFileState={'enabled' if self.enabled else ''}\nActiveState={'active' if self.active else 'inactive'}"
        if arguments[0] == "enable":
            self.enabled = True
        if arguments[0] == "disable":
            self.active = self.enabled = False
        if arguments[0] == "restart":
            # What the unit says is what the service does before it is up.
            words = configparser_of(self.read(units.PATH) or "")["Service"]["ExecStart"].split()
            wanted = {option.split("-")[2]: int(words[words.index(option) + 1]) for option in words if option.startswith("--")}
            self.active = True
            self.service(wanted).once()
        return ""

    def reload(self) -> None:
        """What systemd does at daemon-reload: it writes its slices' weights anew."""
        cpu, io = (int(self.slice[name] or 100) for name in ("CPUWeight", "IOWeight"))
        lines = {"cpu.weight": str(cpu), "io.weight": f"default {io}", "io.bfq.weight": f"default {cgroup.bfq_weight(io)}"}
        for name, line in lines.items():
            if self.exists(f"{cgroup.directory(POD)}/{name}") and name not in self.frozen:
                self.set(f"{cgroup.directory(POD)}/{name}", line)

    def service(self, wanted: dict[str, int], say: Any = lambda line: None) -> watch.Watch:
        return watch.Watch(self, wanted, say, lambda: None, self.systemctl)

    def settle(self, wanted: dict[str, int], group: str = POD) -> weights.Settled:
        return weights.settle(self, group, wanted, self.systemctl)

    def run(self, wanted: dict[str, int], check: bool = False, paths: tuple[str, ...] = ("/var/lib/etcd",)) -> Any:
        return run(self, Request(wanted, paths, "/p.pyz", "abc", "/usr/bin/python3"), check, self.systemctl)


def _parents(group: str) -> list[str]:
    parts = group.split("/")[1:]
    return ["/" + "/".join(parts[: index + 1]) for index in range(len(parts))]


def configparser_of(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def verdicts(outcome: Any) -> dict[str, str]:
    return {each["item"]: each["verdict"] for each in outcome.report}


def reason(outcome: Any, item: str) -> str:
    return str(next(each["reason"] for each in outcome.report if each["item"] == item))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    ordinary_host(tmp_path)
    made = Host(tmp_path)
    made.devices = {"/": (8, 1)}
    made.file("/proc/self/mountinfo", MOUNTS)
    made.file("/proc/sys/kernel/random/boot_id", "b1\n")
    made.pod()
    return made


# --- which group ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (CONTAINER, POD),
        (f"{POD}/crio-abc.scope/container", POD),
        (f"/kubepods/burstable/pod{UID}/4f15", f"/kubepods/burstable/pod{UID}"),
        (f"/kubepods/pod{UID}/4f15", f"/kubepods/pod{UID}"),
        (f"/kubepods.slice/kubepods-pod{UID}.slice/x.scope", f"/kubepods.slice/kubepods-pod{UID}.slice"),
        # A pod that is no static one, with either driver.
        ("/kubepods/besteffort/pod948e409a-2cbf-9dd9-f0cd-020e441c2dbe/x", "/kubepods/besteffort/pod948e409a-2cbf-9dd9-f0cd-020e441c2dbe"),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod948e409a_2cbf_9dd9_f0cd_020e441c2dbe.slice/x",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod948e409a_2cbf_9dd9_f0cd_020e441c2dbe.slice",
        ),
        # The kubelet's cgroupRoot; a node in a container.
        (f"/sys.slice/sys-kubepods.slice/sys-kubepods-pod{UID}.slice/x", f"/sys.slice/sys-kubepods.slice/sys-kubepods-pod{UID}.slice"),
        (f"/docker/0123/kubelet/kubepods/burstable/pod{UID}/x", f"/docker/0123/kubelet/kubepods/burstable/pod{UID}"),
        # The kubelet uses systemd and the runtime cgroupfs: the container is outside of the pod's group.
        (f"/system.slice/containerd.service/kubepods-burstable-pod{UID}.slice:cri-containerd:4f15", ""),
        ("/system.slice/etcd.service", ""),
        ("/user.slice/podman-123.scope", ""),
        ("/", ""),
        ("", ""),
    ],
)
def test_the_group_that_counts_is_the_pods(group: str, expected: str) -> None:
    assert cgroup.pod_group(group) == expected


HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
NAMES = st.text(st.characters(blacklist_characters="/\n", blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda name: not cgroup.pod_group(f"/{name}")
)


@given(HEX, st.lists(NAMES, max_size=4), st.lists(NAMES, max_size=3), st.sampled_from(["pod{}", "kubepods-burstable-pod{}.slice", "a-b-pod{}.slice"]))
def test_a_pods_group_is_found_at_any_depth(uid: str, above: list[str], below: list[str], form: str) -> None:
    pod = "/" + "/".join([*above, form.format(uid)])
    assert cgroup.pod_group("/".join([pod, *below])) == pod


@given(st.text())
def test_any_text_for_a_group_gives_a_part_of_it_or_nothing(text: str) -> None:
    assert text.startswith(cgroup.pod_group(cgroup.own_group(text)) or text[:0])
    assert not cgroup.pod_group(text) or text.startswith(cgroup.pod_group(text))


def test_the_unified_hierarchy_is_told_from_those_of_v1() -> None:
    assert cgroup.own_group(f"5:io:/a\n1:name=systemd:/b\n0::{CONTAINER}\n") == CONTAINER
    assert cgroup.own_group("1:cpu,cpuacct:/kubepods\n") == ""


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight", "bfq"), [(1, 1), (100, 100), (101, 100), (500, 136), (1000, 181), (10000, 1000)])
def test_bfq_has_a_scale_of_its_own(weight: int, bfq: int) -> None:
    assert cgroup.bfq_weight(weight) == bfq


@given(st.integers(1, 10000))
def test_a_weight_stays_in_bfqs_range_and_keeps_its_side_of_the_default(weight: int) -> None:
    assert 1 <= cgroup.bfq_weight(weight) <= 1000
    assert (cgroup.bfq_weight(weight) < 100) == (weight < 100)


@pytest.mark.parametrize("weight", [0, -1, 10001])
def test_every_weight_out_of_range_is_named(weight: int) -> None:
    with pytest.raises(Refusal) as refused:
        check_request({"cpu_weight": weight, "io_weight": weight})
    assert len(refused.value.problems) == 2
    assert refused.value.problems[0].startswith(f"cpu_weight: {weight} is not allowed")
    assert "1 to 10000" in refused.value.problems[0]
    check_request({"cpu_weight": 1, "io_weight": 10000})
    check_request({"cpu_weight": None, "io_weight": None})


def test_weights_are_set_remembered_and_put_back(host: Host) -> None:
    settled = host.settle({"cpu": 1000, "io": 500})
    assert host.weights() == {"cpu.weight": "1000", "io.weight": "default 500"}
    assert [(each.name, each.before, each.after) for each in settled.written] == [
        ("cpu.weight", "4", "1000"),
        ("io.weight", "default 100", "default 500"),
    ]
    assert not settled.problems
    assert weights.load(host).originals == PRESENT
    assert host.settle({"cpu": 1000, "io": 500}).written == []
    # One goes, the other one changes.
    host.settle({"cpu": 2000})
    assert host.weights() == {"cpu.weight": "2000", "io.weight": "default 100"}
    assert weights.load(host).originals == {"cpu.weight": "4"}
    host.settle({})
    assert host.weights() == PRESENT
    assert not host.exists(weights.PATH)


def test_bfqs_file_is_set_too_while_it_is_there(host: Host) -> None:
    host.settle({"io": 1000})
    host.file(f"{cgroup.directory(POD)}/io.bfq.weight", "default 100\n8:0 200\n")
    host.settle({"io": 1000})
    assert host.weights()["io.bfq.weight"] == "default 181"
    host.settle({})
    assert host.weights() == {**PRESENT, "io.bfq.weight": "default 100"}


@pytest.mark.parametrize("change", ["boot", "pod"])
def test_another_pod_has_other_originals(host: Host, change: str) -> None:
    host.settle({"cpu": 1000})
    if change == "boot":
        host.file("/proc/sys/kernel/random/boot_id", "b2\n")
    else:
        # The old directory's inode stays taken, as the kernel never gives one out twice.
        os.rename(host.locate(cgroup.directory(POD)), host.locate("/gone"))
    host.pod()
    host.file(f"{cgroup.directory(POD)}/cpu.weight", "39\n")
    assert weights.load(host) is None
    host.settle({"cpu": 1000})
    assert weights.load(host).originals == {"cpu.weight": "39"}


def test_a_weight_that_the_kernel_refuses_is_said_and_the_others_are_set(host: Host) -> None:
    host.frozen = frozenset({"io.weight"})
    settled = host.settle({"cpu": 1000, "io": 500})
    assert host.weights() == {"cpu.weight": "1000", "io.weight": "default 100"}
    assert settled.problems == {"io": "the kernel does not take 'default 500' in io.weight (Invalid argument)"}


def test_why_there_is_no_weight_of_io_is_named(host: Host) -> None:
    os.unlink(host.locate(f"{cgroup.directory(POD)}/io.weight"))
    assert host.settle({"io": 500}).problems == {"io": "the kernel has neither blk-iocost nor bfq: there is no weight of I/O"}
    host.file("/sys/fs/cgroup/kubepods.slice/cgroup.subtree_control", "cpu memory\n")
    assert "/sys/fs/cgroup/kubepods.slice/cgroup.subtree_control does not hand io down" in host.settle({"io": 500}).problems["io"]
    host.file("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
    assert "the kernel offers no controller io" in host.settle({"io": 500}).problems["io"]


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1}', '{"schema": 1, "boot": 1, "more": 2}', '{"schema": 7}'])
def test_a_damaged_record_is_named(host: Host, text: str) -> None:
    host.file(weights.PATH, text)
    with pytest.raises(KubetuneError, match=weights.PATH):
        weights.load(host)


# --- the service ------------------------------------------------------------------------------------------------------


def test_each_new_pod_gets_its_weights_and_the_journal_says_so_once(host: Host) -> None:
    said: list[str] = []
    service = host.service({"cpu": 1000, "io": 500}, said.append)
    assert service.once() and service.once()
    assert said == [f"{POD}: cpu.weight 1000 (was 4)", f"{POD}: io.weight default 500 (was default 100)"]
    other = POD.replace(UID, UID[::-1])
    host.pod(other, f"{other}/x.scope", UID[::-1], pid=901)
    service.once()
    assert host.weights(other) == {"cpu.weight": "1000", "io.weight": "default 500"}
    host.no_etcd()
    assert service.once() is None


def test_only_the_kubelets_own_etcd_counts(host: Host) -> None:
    shutil.rmtree(host.locate("/var/log/pods"))
    assert host.service({"cpu": 1000}).once() is None
    assert host.weights() == PRESENT


def test_of_two_etcds_the_newest_counts(host: Host) -> None:
    for pid, start in ((901, 9), (902, 7)):
        host.file(f"/proc/{pid}/cmdline", "etcd\0")
        host.file(f"/proc/{pid}/stat", f"{pid} (etcd) S {' '.join('0' * 18)} {start} 0 0\n")
        host.file(f"/proc/{pid}/cgroup", f"0::{CONTAINER}\n")
    assert weights.running_etcd(host).pid == 901


def test_a_problem_is_said_once_for_each_pod(host: Host) -> None:
    host.frozen = frozenset({"io.weight"})
    said: list[str] = []
    service = host.service({"io": 500}, said.append)
    service.once(), service.once()
    assert len(said) == 1 and said[0].startswith(f"io weight of {POD}: the kernel does not take")
    host.file("/proc/900/cgroup", f"0::/system.slice/containerd.service/kubepods-burstable-pod{UID}.slice:cri-containerd:4f15\n")
    service.once(), service.once()
    assert len(said) == 2 and "is in no pod's control group" in said[1]


def started(pid: int) -> processes.Process:
    """The process, once its command line can be read: that is a moment after exec(2) has let its parent go on."""
    for _attempt in range(1000):
        process = processes.read(pid)
        if process:
            return process
        time.sleep(0.01)
    raise AssertionError(f"process {pid} has no command line after 10 s")


def test_it_sleeps_until_etcd_ends() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        process = started(child.pid)
        threading.Timer(0.3, child.kill).start()
        begun = time.monotonic()
        watch.sleep_until_end(process, 300)
        assert time.monotonic() - begun < 100
        assert not processes.alive(process)


def test_it_looks_again_while_etcd_runs() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        try:
            process = started(child.pid)
            begun = time.monotonic()
            watch.sleep_until_end(process, 0.2)
            assert 0.15 < time.monotonic() - begun < 30
            assert child.poll() is None
        finally:
            child.kill()


def test_a_process_that_has_ended_is_not_waited_for() -> None:
    with subprocess.Popen(["sleep", "0"]) as child:
        process = processes.Process(child.pid, 1, ("sleep",))
    begun = time.monotonic()
    watch.sleep_until_end(process, 30)
    assert time.monotonic() - begun < 10


def test_systemd_is_told_that_the_service_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        watch.notify_ready()
        assert channel.recv(100) == b"READY=1"
    watch.notify_ready()  # once is enough: nobody listens any more


def test_the_program_knows_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--cpu-weight", "0"])
    assert "invalid choice: 0" in capsys.readouterr().err


def test_the_unit_may_write_weights_and_its_record_only() -> None:
    unit = configparser_of(units.service("/usr/bin/python3", "/p.pyz", "abc", {"io": 500, "cpu": 1000}))
    assert unit["Service"]["ExecStart"] == "/usr/bin/python3 /p.pyz priority run --cpu-weight 1000 --io-weight 500"
    assert unit["Service"]["ProtectSystem"] == "strict"
    assert unit["Service"]["ReadWritePaths"] == "/sys/fs/cgroup"
    assert f"/var/lib/{unit['Service']['StateDirectory']}/etcd-priority.json" == weights.PATH
    assert unit["Service"]["CapabilityBoundingSet"] == ""


# --- the module -------------------------------------------------------------------------------------------------------


def test_without_a_weight_nothing_is_done(host: Host) -> None:
    before = host.snapshot()
    outcome = host.run({})
    assert (outcome.changed, outcome.diff, host.commands, host.snapshot()) == (False, [], [], before)
    assert verdicts(outcome) == {"etcd cpu.weight and io.weight": "already_right"}


def test_check_mode_foresees_what_the_run_does(host: Host) -> None:
    before = host.snapshot()
    foreseen = host.run({"cpu": 1000, "io": 500}, check=True)
    assert host.snapshot() == before and not host.exists(weights.PATH)
    assert [command for command in host.commands if command[0] != "show"] == []
    done = host.run({"cpu": 1000, "io": 500})
    assert (foreseen.changed, foreseen.report, foreseen.diff) == (done.changed, done.report, done.diff)
    assert done.changed
    assert verdicts(done) == {
        units.SERVICE: "changed", "etcd cpu.weight": "changed", "etcd io.weight": "changed", "weight of I/O on sda": "ignored",
    }  # fmt: skip
    assert host.weights() == {"cpu.weight": "1000", "io.weight": "default 500"}


def test_a_second_run_changes_nothing(host: Host) -> None:
    host.run({"cpu": 1000})
    before = host.snapshot()
    host.commands.clear()
    outcome = host.run({"cpu": 1000})
    assert (outcome.changed, outcome.diff, host.snapshot()) == (False, [], before)
    assert [command[0] for command in host.commands] == ["show"]
    assert set(verdicts(outcome).values()) == {"already_right"}


@pytest.mark.parametrize("drift", ["weight", "unit", "stopped", "disabled"])
def test_drift_is_put_right(host: Host, drift: str) -> None:
    host.run({"cpu": 1000})
    if drift == "weight":
        host.file(f"{cgroup.directory(POD)}/cpu.weight", "7\n")
    elif drift == "unit":
        host.file(units.PATH, (host.read(units.PATH) or "") + "Nice=3\n")
    elif drift == "stopped":
        host.active = False
    else:
        host.enabled = False
    outcome = host.run({"cpu": 1000})
    assert outcome.changed and host.active and host.enabled
    assert host.weights()["cpu.weight"] == "1000"
    assert not host.run({"cpu": 1000}).changed
    # What was before us is still known.
    assert weights.load(host).originals == {"cpu.weight": "4"}


def test_a_weight_that_is_removed_goes_back(host: Host) -> None:
    host.run({"cpu": 1000, "io": 500})
    foreseen = host.run({"cpu": 1000}, check=True)
    outcome = host.run({"cpu": 1000})
    assert foreseen.report == outcome.report
    assert verdicts(outcome)["etcd io.weight"] == "restored"
    assert host.weights() == {"cpu.weight": "1000", "io.weight": "default 100"}
    assert not host.run({"cpu": 1000}).changed


@pytest.mark.parametrize("etcd", ["runs", "runs not", "is another"])
def test_absent_leaves_the_host_as_it_was(host: Host, etcd: str) -> None:
    before = host.snapshot()
    host.run({"cpu": 1000, "io": 500})
    if etcd == "runs not":
        host.no_etcd()
    elif etcd == "is another":
        os.rename(host.locate(cgroup.directory(POD)), host.locate("/gone"))
        host.pod()
        shutil.rmtree(host.locate("/gone"))
    foreseen = host.run({}, check=True)
    assert host.exists(units.PATH)
    outcome = host.run({})
    assert foreseen.changed and outcome.changed and foreseen.report == outcome.report and foreseen.diff == outcome.diff
    assert verdicts(outcome)[units.SERVICE] == "restored"
    assert not (host.active or host.enabled or host.exists(units.PATH) or host.exists(weights.PATH))
    assert host.weights() == PRESENT
    after = host.snapshot()
    assert {path: text for path, text in after.items() if not path.startswith("proc/900")} == {
        path: text for path, text in before.items() if not path.startswith("proc/900")
    }
    assert not host.run({}).changed


def test_a_service_that_does_not_start_is_taken_away_again(host: Host) -> None:
    before = host.snapshot()

    def failing(*arguments: str, check: bool = True) -> str:
        if arguments[0] == "restart":
            raise KubetuneError("systemctl restart: it failed")
        return host.systemctl(*arguments, check=check)

    request = Request({"cpu": 1000}, (), "/p.pyz", "abc", "/usr/bin/python3")
    with pytest.raises(KubetuneError, match="it failed .its unit is removed again"):
        run(host, request, execute=failing)
    assert host.snapshot() == before
    assert not host.enabled


def test_absent_that_was_cut_off_is_completed(host: Host) -> None:
    host.run({"cpu": 1000})
    host.systemctl("disable", "--now")
    os.unlink(host.locate(units.PATH))
    assert host.run({}).changed
    assert host.weights() == PRESENT
    assert not host.run({}).changed


def test_absent_that_cannot_put_a_weight_back_says_so_and_keeps_the_record(host: Host) -> None:
    host.run({"cpu": 1000})
    host.frozen = frozenset({"cpu.weight"})
    with pytest.raises(KubetuneError, match="etcd cpu.weight: the kernel does not take '4'"):
        host.run({})
    host.frozen = frozenset()
    assert host.run({}).changed
    assert host.weights() == PRESENT


def test_a_new_program_restarts_the_service(host: Host) -> None:
    host.run({"cpu": 1000})
    request = Request({"cpu": 1000}, (), "/p.pyz", "def", "/usr/bin/python3")
    assert run(host, request, execute=host.systemctl).changed
    assert ["restart", units.SERVICE] in host.commands


def test_an_etcd_that_does_not_run_gets_its_weights_later(host: Host) -> None:
    host.no_etcd()
    outcome = host.run({"cpu": 1000, "io": 500})
    assert verdicts(outcome)["etcd cpu.weight"] == verdicts(outcome)["etcd io.weight"] == "pending"
    assert not host.run({"cpu": 1000, "io": 500}).changed


def test_drivers_that_differ_are_said(host: Host) -> None:
    host.file("/proc/900/cgroup", f"0::/system.slice/containerd.service/kubepods-burstable-pod{UID}.slice:cri-containerd:4f15\n")
    outcome = host.run({"cpu": 1000})
    assert verdicts(outcome)["etcd cpu.weight"] == "refused"
    assert "have to use the same cgroup driver" in reason(outcome, "etcd cpu.weight")
    assert not host.run({"cpu": 1000}).changed


@pytest.mark.parametrize("kind", ["hybrid", "none"])
def test_cgroup_v1_is_refused_and_nothing_is_installed(host: Host, kind: str) -> None:
    unified = "31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    host.file("/proc/self/mountinfo", MOUNTS.replace("cgroup2 cgroup2", "tmpfs tmpfs") + unified if kind == "hybrid" else MOUNTS.splitlines()[0])
    before = host.snapshot()
    outcome = host.run({"cpu": 1000, "io": 500})
    assert (outcome.changed, host.snapshot(), host.commands) == (False, before, [])
    assert set(verdicts(outcome).values()) == {"refused"}
    assert "systemd.unified_cgroup_hierarchy=1" in reason(outcome, "etcd cpu.weight")


def test_a_kernel_without_weights_of_io_is_refused_and_the_run_is_idempotent(host: Host) -> None:
    os.unlink(host.locate(f"{cgroup.directory(POD)}/io.weight"))
    outcome = host.run({"cpu": 1000, "io": 500})
    assert verdicts(outcome)["etcd io.weight"] == "refused" and verdicts(outcome)["etcd cpu.weight"] == "changed"
    assert not host.run({"cpu": 1000, "io": 500}).changed


# --- the disks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedulers", "cost", "honours", "words"),
    [
        ("none [mq-deadline] kyber bfq\n", "", False, "its scheduler, mq-deadline, knows no weights. What would help: scheduler bfq"),
        ("[none] mq-deadline kyber bfq\n", "8:0 enable=0 ctrl=auto rpct=0.00\n", False, "its scheduler, none, knows no weights"),
        ("none mq-deadline [bfq]\n", "", True, "bfq, honours weights"),
        ("none [mq-deadline]\n", "259:0 enable=1 ctrl=auto\n8:0 enable=1 ctrl=user rpct=95.00\n", True, "blk-iocost is on for it"),
        ("none [mq-deadline]\n", "8:01 enable=1 ctrl=auto\n", False, "'8:0 enable=1' in /sys/fs/cgroup/io.cost.qos"),
    ],
)
def test_whether_a_disk_honours_weights(host: Host, schedulers: str, cost: str, honours: bool, words: str) -> None:
    host.file("/sys/block/sda/queue/scheduler", schedulers)
    host.file(disks.COST, cost)
    (found,) = disks.below(host, ["/var/lib/etcd", "/var/lib/etcd/wal-disk"])
    assert (found.name, found.honours) == ("sda", honours)
    assert words in found.reason
    outcome = host.run({"io": 500})
    assert verdicts(outcome)["weight of I/O on sda"] == ("already_right" if honours else "ignored")


def test_each_disk_of_etcds_is_judged_once(host: Host) -> None:
    wal = host.disk("nvme0n1", "259:0", bus="nvme", schedulers="none [bfq]\n")
    host.place("/var/lib/etcd/wal-disk", (259, 0))
    assert wal and [(each.name, each.honours) for each in disks.below(host, ["/var/lib/etcd", "/var/lib/etcd/wal-disk", "/etc"])] == [
        ("sda", False),
        ("nvme0n1", True),
    ]


def test_a_path_without_a_disk_says_why(host: Host) -> None:
    host.file("/proc/self/mountinfo", MOUNTS + "40 22 0:50 / /var/lib/etcd rw - tmpfs tmpfs rw\n")
    host.place("/var/lib/etcd", (0, 50))
    (found,) = disks.below(host, ["/var/lib/etcd"])
    assert (found.name, found.honours) == ("/var/lib/etcd", False) and "tmpfs" in found.reason


# --- the interface ----------------------------------------------------------------------------------------------------


def test_role_module_and_documentation_agree() -> None:
    aspects = ("type", "elements", "choices", "default")
    documented = yaml.safe_load(etcd_priority.DOCUMENTATION)["options"]
    spec = etcd_priority.ARGUMENT_SPEC
    assert {name: {key: option[key] for key in aspects if key in option} for name, option in documented.items()} == spec
    options = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    assert {name: option.get("default") for name, option in options.items()} == defaults
    assert {name.removeprefix("etcd_priority_") for name in options} == set(spec) - {"program", "checksum"}
    for name, default in defaults.items():
        assert spec[name.removeprefix("etcd_priority_")].get("default") == default


def test_python_of_the_module_runs_the_service() -> None:
    unit = units.service(sys.executable, "/p.pyz", "abc", {"cpu": 1})
    assert configparser_of(unit)["Service"]["ExecStart"].startswith(sys.executable)
