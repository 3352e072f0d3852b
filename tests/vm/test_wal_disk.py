# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The WAL's disk goes away from a node with a real kernel, by force and for a reboot too: no etcd ever starts on an empty WAL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.lab import images
from tests.lab.console import until
from tests.lab.settings import from_environment
from tests.vm import node
from tests.vm.machine import Disk, Machine
from tests.vm.playbook import play_roles

pytestmark = pytest.mark.vm

DATA = "/var/lib/etcd"
DISK = f"{DATA}/wal-disk"
ROLES = ["etcd_wal", "etcd_static_pod"]
VARIABLES = {
    "etcd_wal_device": "/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_wal", "etcd_wal_format": True,
    # One member: its restart is a downtime.
    "etcd_static_pod_allow_downtime": True,
    # A host without an API server counts as no control plane unless it is said to be one.
    "etcd_static_pod_standalone": {
        "name": "test-wal", "image": "{{ etcd_image }}", "advertise_address": node.ADDRESS, "initial_cluster": f"test-wal=https://{node.ADDRESS}:2380",
    },
    "etcd_image": images.control_plane_names(from_environment())["etcd"],
}  # fmt: skip
WAL_DISK = Disk("wal", "nvme", size=2 << 30)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine("test-wal", [Disk("data", "ssd", size=2 << 30), WAL_DISK]) as machine:
        device = f"/dev/{machine.device('data')}"
        machine.shell(
            f"mkfs.ext4 -q -L etcd-data {device}; mkdir -m 700 {DATA}; echo 'LABEL=etcd-data {DATA} ext4 noatime 0 2' >>/etc/fstab; mount {DATA}"
        )
        node.install(machine)
        node.etcdctl(machine, "put /try/before-the-move yes")
        run = play_roles(machine, ROLES, VARIABLES)
        assert run.status == 0, run.output
        yield machine


def kept(machine: Machine) -> str:
    """All that an etcd which starts anew would replace: the member's directories and database."""
    return machine.shell(f"ls -id {DATA}/member {DATA}/member/snap {DATA}/member/snap/db; readlink {DATA}/member/wal").stdout


def mounted(machine: Machine) -> bool:
    return machine.run("mountpoint", "--quiet", DISK, check=False).returncode == 0


def mark(machine: Machine) -> None:
    """What containers say from now on is new."""
    machine.run("touch", "/run/test-mark")


def wait_for_the_reason(machine: Machine) -> None:
    """Until an etcd that was started after the mark has ended, and its log says why."""
    script = "find /var/log/pods/kube-system_etcd-*/etcd -name '*.log' -newer /run/test-mark -exec grep -i 'create.*WAL.*operation not permitted' {} +"
    until("etcd says why it does not start", lambda: machine.shell(script, check=False).stdout != "", seconds=600, every=3)


def assert_no_wal_anywhere(machine: Machine) -> None:
    """No file of a WAL below the data directory, and nothing at all in the mount point."""
    assert not mounted(machine)
    assert machine.shell(f"find {DATA} -name '*.wal*' -o -path '{DISK}/*'").stdout == ""


def assert_refused(machine: Machine, roles: list[str]) -> None:
    """A run says what is missing, and changes nothing."""
    run = play_roles(machine, roles, {**VARIABLES, "etcd_static_pod_flags": {"max-wals": 6}})
    assert run.status != 0
    assert DISK in run.output and "on purpose" in run.output, run.output
    assert run.changed == 0


def assert_serves(machine: Machine, key: str) -> None:
    """Every write is there, and another one is taken."""
    until("etcd is ready", lambda: node.etcd_ready(machine), seconds=600, every=3)
    node.etcdctl(machine, f"put /try/{key} yes")
    keys = node.etcdctl(machine, "get /try/ --prefix --keys-only").split()
    assert {"/try/before-the-move", f"/try/{key}"} <= set(keys)
    opened = machine.shell(f"readlink /proc/{node.etcd_pid(machine)}/fd/* | grep '[.]wal$'").stdout.split()
    assert {path.rpartition("/")[0] for path in opened} == {f"{DISK}/wal"}


def test_the_wal_is_on_its_disk(machine: Machine) -> None:
    assert_serves(machine, "after-the-move")
    again = play_roles(machine, ROLES, VARIABLES)
    assert (again.status, again.changed) == (0, 0), again.output


def test_unmounted_lazily(machine: Machine) -> None:
    """Under a running etcd, which then dies. The next run of the roles mounts the disk, which is there."""
    before = kept(machine)
    machine.shell(f"umount --lazy {DISK}")
    mark(machine)
    machine.shell(f"kill -KILL {node.etcd_pid(machine)}")
    wait_for_the_reason(machine)
    assert_no_wal_anywhere(machine)
    assert_refused(machine, ["etcd_static_pod"])
    assert kept(machine) == before
    run = play_roles(machine, ["etcd_wal"], VARIABLES)
    assert run.status == 0, run.output
    assert_serves(machine, "after-the-unmount")
    assert kept(machine) == before


def test_unplugged_and_rebooted_without_it(machine: Machine) -> None:
    before = kept(machine)
    mark(machine)
    machine.unplug("wal")
    until("the disk that is gone is unmounted", lambda: not mounted(machine), seconds=120)
    # The etcd that still runs has its WAL on a disk that is gone: it must not acknowledge a write, and ends.
    assert machine.shell(node.etcdctl_command("put /try/never yes"), check=False).returncode != 0
    wait_for_the_reason(machine)
    assert_no_wal_anywhere(machine)
    assert kept(machine) == before
    machine.reboot()
    mark(machine)
    wait_for_the_reason(machine)
    assert machine.output("systemctl", "is-system-running", "--wait") == "running", "the boot waits for nothing"
    assert_no_wal_anywhere(machine)
    assert_refused(machine, ROLES)
    assert kept(machine) == before
    machine.plug(WAL_DISK)
    assert_serves(machine, "after-the-reboot")
    assert kept(machine) == before


def test_taken_back(machine: Machine) -> None:
    run = play_roles(machine, list(reversed(ROLES)), {**VARIABLES, "etcd_wal_state": "absent"})
    assert run.status == 0, run.output
    until("etcd is ready", lambda: node.etcd_ready(machine), seconds=600, every=3)
    keys = node.etcdctl(machine, "get /try/ --prefix --keys-only").split()
    assert set(keys) == {f"/try/{name}" for name in ("before-the-move", "after-the-move", "after-the-unmount", "after-the-reboot")}
    assert not machine.exists(DISK)
    assert machine.run("blkid", "--probe", f"/dev/{machine.device('wal')}", check=False).returncode == 2, "the disk is blank again"
