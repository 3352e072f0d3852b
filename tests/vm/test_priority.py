# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The weights of etcd's pod with a real kernel, kubelet and systemd on cgroup v2: through restarts of all of them, and taken back.

The tests of this file are one story and run in its order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.lab.console import say, until
from tests.vm import node
from tests.vm.machine import Disk, Machine
from tests.vm.playbook import Run, play_roles

pytestmark = pytest.mark.vm

WANTED = {"etcd_priority_cpu_weight": 1000, "etcd_priority_io_weight": 500}
SET = {"cpu.weight": "1000", "io.weight": "default 500"}
# Of a pod that requests 100m of CPU, which is kubeadm's, as this kubelet and containerd's runc make it.
ORIGINAL = {"cpu.weight": "4", "io.weight": "default 100"}
UNIT = "/etc/systemd/system/kubetune-etcd-priority.service"
PROGRAM = "/usr/local/lib/kubetune"
STATE = "/var/lib/kubetune"
MANIFEST = "/etc/kubernetes/manifests/etcd.yaml"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine("test-priority", [Disk("data", "ssd")]) as machine:
        device = f"/dev/{machine.device('data')}"
        machine.shell(f"mkfs.ext4 -q -L etcd-data {device}; mkdir -m 700 /var/lib/etcd; echo 'LABEL=etcd-data /var/lib/etcd ext4 noatime 0 2' >>/etc/fstab")
        machine.run("mount", "/var/lib/etcd")
        node.install(machine)
        yield machine


def play(machine: Machine, **variables: object) -> Run:
    """The role, with its report in the output."""
    run = play_roles(machine, ["etcd_priority"], variables, "-v")
    assert run.status == 0, run.output
    return run


def group(machine: Machine) -> str:
    """Directory of the pod's group that the running etcd is in; empty while none runs."""
    script = "for pid in $(pgrep -xo etcd); do sed -n 's|^0::\\(/.*\\)/[^/]*$|/sys/fs/cgroup\\1|p' /proc/$pid/cgroup; done"
    return machine.shell(script, check=False).stdout.strip()


def weights(machine: Machine, names: tuple[str, ...] = ("cpu.weight", "io.weight")) -> dict[str, str]:
    """Name of the file -> its first line, in the group of the running etcd's pod."""
    lines = machine.shell(f"cd {group(machine)}; head -qn 1 {' '.join(names)}").stdout.splitlines()
    return dict(zip(names, lines))


def wait_for_weights(machine: Machine, since: str) -> None:
    """A process of etcd other than before has the weights."""
    def there() -> bool:
        pid = node.etcd_pid(machine)
        return pid is not None and str(pid) != since and bool(group(machine)) and weights(machine) == SET

    until("the new etcd has its weights", there, seconds=900, every=1)


def test_without_weights_nothing_is_done(machine: Machine) -> None:
    assert play(machine).changed == 0
    assert not machine.exists(UNIT) and not machine.exists(PROGRAM)
    assert weights(machine) == ORIGINAL


def test_set_at_once_and_a_second_run_changes_nothing(machine: Machine) -> None:
    foreseen = play_roles(machine, ["etcd_priority"], dict(WANTED), "--check")
    assert foreseen.status == 0 and foreseen.changed == 2, foreseen.output
    assert weights(machine) == ORIGINAL and not machine.exists(UNIT)
    before = node.etcd_pid(machine)
    done = play(machine, **WANTED)
    assert done.changed == 2  # the program, and the service with the weights
    assert weights(machine) == SET
    assert node.etcd_pid(machine) == before
    # The guide's scheduler, and the kernel's own choice here, ignore weights; it is said.
    assert f"weight of I/O on {machine.device('data')}" in done.output and "knows no weights" in done.output
    assert play(machine, **WANTED).changed == 0


def test_systemd_reads_its_units_anew_and_the_weights_stay(machine: Machine) -> None:
    machine.run("systemctl", "daemon-reload")
    assert weights(machine) == SET


def test_the_service_holds_no_capability_and_what_it_may_not_write_is_read_only(machine: Machine) -> None:
    pid = machine.output("systemctl", "show", "--value", "--property", "MainPID", "kubetune-etcd-priority")
    status = machine.read(f"/proc/{pid}/status")
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    refused = machine.run("nsenter", "--target", pid, "--mount", "touch", "/etc/kubernetes/manifests/x", check=False)
    assert "Read-only file system" in refused.stderr


def test_a_killed_etcd_has_them_again(machine: Machine) -> None:
    before = str(node.etcd_pid(machine))
    machine.run("kill", "-KILL", before)
    wait_for_weights(machine, before)


def test_another_pod_gets_them_too(machine: Machine) -> None:
    before, old = str(node.etcd_pid(machine)), group(machine)
    machine.run("sed", "-i", "s/cpu: 100m/cpu: 200m/", MANIFEST)
    until("a new etcd runs", lambda: node.etcd_pid(machine) not in (None, int(before)) and group(machine) not in ("", old), seconds=900, every=0.5)
    begun = time.monotonic()
    wait_for_weights(machine, before)
    say(f"{machine.name}: the new pod's weights were there at most {time.monotonic() - begun:.1f} s after its process (emulated)")
    assert group(machine) != old
    machine.run("sed", "-i", "s/cpu: 200m/cpu: 100m/", MANIFEST)
    until("the pod of before is back", lambda: group(machine) == old, seconds=900, every=1)
    wait_for_weights(machine, before)


def test_they_are_there_again_after_a_reboot(machine: Machine) -> None:
    machine.reboot()
    wait_for_weights(machine, "")
    assert play(machine, **WANTED).changed == 0


def test_a_disk_that_honours_weights_is_told_from_one_that_does_not(machine: Machine) -> None:
    disk = machine.device("data")
    queue = f"/sys/block/{disk}/queue/scheduler"
    number = machine.read(f"/sys/block/{disk}/dev").strip()
    machine.shell(f"modprobe bfq; echo bfq >{queue}")
    assert "bfq, honours weights" in play(machine, **WANTED).output
    assert weights(machine, ("io.weight", "io.bfq.weight")) == {"io.weight": "default 500", "io.bfq.weight": "default 136"}
    machine.shell(f"echo mq-deadline >{queue}; echo '{number} enable=1' >/sys/fs/cgroup/io.cost.qos")
    run = play(machine, **WANTED)
    assert "blk-iocost is on for it" in run.output and run.changed == 0
    machine.shell(f"echo '{number} enable=0' >/sys/fs/cgroup/io.cost.qos")
    assert "mq-deadline, knows no weights" in play(machine, **WANTED).output


def test_a_weight_that_is_removed_goes_back(machine: Machine) -> None:
    assert play(machine, etcd_priority_cpu_weight=1000).changed == 1
    assert weights(machine) == {**SET, "io.weight": "default 100"}


def test_absent_leaves_the_host_as_it_was(machine: Machine) -> None:
    before = node.etcd_pid(machine)
    assert play(machine, etcd_priority_state="absent").changed == 2
    assert weights(machine) == ORIGINAL
    assert not any(machine.exists(path) for path in (UNIT, PROGRAM, STATE))
    assert machine.output("systemctl", "show", "--value", "--property", "LoadState", "kubetune-etcd-priority") == "not-found"
    assert node.etcd_pid(machine) == before
    machine.run("systemctl", "daemon-reload")
    assert weights(machine) == ORIGINAL
    assert play(machine, etcd_priority_state="absent").changed == 0


def test_the_same_with_the_cgroupfs_driver(machine: Machine) -> None:
    machine.shell(
        "sed -i 's/cgroupDriver: systemd/cgroupDriver: cgroupfs/' /var/lib/kubelet/config.yaml; "
        "sed -i 's/SystemdCgroup = true/SystemdCgroup = false/' /etc/containerd/config.toml"
    )
    machine.reboot()
    until("etcd is ready", lambda: node.etcd_ready(machine), seconds=900, every=3)
    assert "/kubepods/burstable/pod" in group(machine)
    assert weights(machine) == ORIGINAL
    assert play(machine, **WANTED).changed == 2
    assert weights(machine) == SET
    machine.run("systemctl", "daemon-reload")
    assert weights(machine) == SET
    before = str(node.etcd_pid(machine))
    machine.run("kill", "-KILL", before)
    wait_for_weights(machine, before)
    assert play(machine, **WANTED).changed == 0
    assert play(machine, etcd_priority_state="absent").changed == 2
    assert weights(machine) == ORIGINAL
