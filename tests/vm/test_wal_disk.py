# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The WAL's disk goes away from a node with a real kernel, by force and for a reboot too: no etcd ever starts on an empty WAL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.lab.console import until
from tests.vm import node
from tests.vm.machine import Disk, Machine
from tests.vm.playbook import play_roles

pytestmark = pytest.mark.vm

DATA = "/var/lib/etcd"
DISK = f"{DATA}/wal-disk"
UNIT = r"var-lib-etcd-wal\x2ddisk.mount"
ROLES = ["etcd_wal", "etcd_static_pod"]
VARIABLES = {
    "etcd_wal_device": "/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_wal", "etcd_wal_format": True,
    # One member: its restart is a downtime.
    "etcd_static_pod_allow_downtime": True,
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


def kill_etcd(machine: Machine) -> None:
    machine.shell(f"kill -KILL {node.etcd_pid(machine)}")


def etcd_log(machine: Machine) -> str:
    """What the last few etcd containers said."""
    return machine.shell("tail -qn 20 /var/log/pods/kube-system_etcd-*/etcd/*.log").stdout


def wait_for_the_reason(machine: Machine) -> None:
    until("etcd says why it does not start", lambda: "operation not permitted" in etcd_log(machine).lower(), seconds=300, every=3)


def assert_no_wal_anywhere(machine: Machine) -> None:
    """No file of a WAL below the data directory, and nothing at all in the mount point."""
    assert machine.run("mountpoint", "--quiet", DISK, check=False).returncode != 0
    assert machine.shell(f"find {DATA} -name '*.wal*' -o -path '{DISK}/*'").stdout == ""


def assert_refused(machine: Machine) -> None:
    """A run says what is missing, and changes nothing."""
    run = play_roles(machine, ROLES, {**VARIABLES, "etcd_static_pod_flags": {"max-wals": 6}})
    assert run.status != 0
    assert DISK in run.output
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
    before = kept(machine)
    machine.shell(f"umount --lazy {DISK}")
    kill_etcd(machine)
    wait_for_the_reason(machine)
    assert_no_wal_anywhere(machine)
    assert_refused(machine)
    assert kept(machine) == before
    machine.run("systemctl", "restart", UNIT)
    assert_serves(machine, "after-the-unmount")


def test_unplugged_and_rebooted_without_it(machine: Machine) -> None:
    before = kept(machine)
    machine.unplug("wal")
    until("the dead disk is unmounted", lambda: machine.run("mountpoint", "--quiet", DISK, check=False).returncode != 0, seconds=120)
    if node.etcd_pid(machine) is not None:  # it may have given up by itself when a write failed
        kill_etcd(machine)
    wait_for_the_reason(machine)
    assert_no_wal_anywhere(machine)
    assert kept(machine) == before
    machine.reboot()
    # Of this boot, and not the log of before.
    boot = machine.output("uptime", "--since")
    until(
        "etcd has been tried again", lambda: machine.shell(f"find /var/log/pods/kube-system_etcd-*/ -name '*.log' -newermt '{boot}'").stdout != "",
        seconds=600, every=3,
    )  # fmt: skip
    wait_for_the_reason(machine)
    assert_no_wal_anywhere(machine)
    assert_refused(machine)
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
    assert machine.run("blkid", "--probe", f"/dev/{machine.device('wal')}", check=False).returncode == 2
