# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the other tests here rely on: a machine keeps its disks through a reboot and a power cut, and ends with its test."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lab.errors import LabError
from tests.vm.machine import Disk, Machine

pytestmark = pytest.mark.vm

DISKS = (Disk("data"), Disk("fast", "nvme"), Disk("flash", "ssd"), Disk("slow", "rotational"))


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine("test-machine", DISKS, memory=1024) as machine:
        yield machine


def test_each_disk_is_found_by_its_serial_number(machine: Machine) -> None:
    assert {disk.name: machine.device(disk.name)[:2] for disk in DISKS} == {"data": "vd", "fast": "nv", "flash": "sd", "slow": "sd"}
    assert machine.read(f"/sys/block/{machine.device('slow')}/queue/rotational").strip() == "1"
    assert machine.read(f"/sys/block/{machine.device('flash')}/queue/rotational").strip() == "0"


def test_the_guest_is_systemd_on_cgroup_v2(machine: Machine) -> None:
    assert machine.output("stat", "--file-system", "--format", "%T", "/sys/fs/cgroup") == "cgroup2fs"
    assert machine.output("systemctl", "is-system-running", "--wait") == "running"


def test_what_is_flushed_outlives_a_power_cut_and_a_reboot(machine: Machine) -> None:
    machine.shell(f"mkfs.ext4 -q /dev/{machine.device('fast')}; mount /dev/{machine.device('fast')} /mnt; echo kept >/mnt/file; sync /mnt/file")
    machine.cut_power()
    machine.power_on()
    assert machine.shell(f"mount /dev/{machine.device('fast')} /mnt; cat /mnt/file").stdout == "kept\n"
    machine.reboot()
    assert not machine.exists("/mnt/file")
    assert machine.shell(f"mount /dev/{machine.device('fast')} /mnt; cat /mnt/file; umount /mnt").stdout == "kept\n"


def test_a_disk_comes_and_goes(machine: Machine) -> None:
    slow = machine.disk("slow")
    machine.shell(f"echo kept >/dev/{machine.device('slow')}; sync")
    machine.unplug("slow")
    with pytest.raises(LabError, match="no disk with serial number slow"):
        machine.device("slow")
    machine.plug(slow)
    machine.run("udevadm", "settle")
    assert machine.output("head", "--bytes", "5", f"/dev/{machine.device('slow')}") == "kept"


def test_a_throttled_disk_is_slow(machine: Machine) -> None:
    write = ("dd", "if=/dev/zero", f"of=/dev/{machine.device('data')}", "bs=4096", "count=100", "oflag=direct")
    machine.throttle("data", iops=20)
    begun = time.monotonic()
    machine.run(*write)
    throttled = time.monotonic() - begun
    machine.throttle("data")
    begun = time.monotonic()
    machine.run(*write)
    assert throttled > 4 > time.monotonic() - begun


def test_a_machine_ends_with_the_process_that_started_it() -> None:
    # Killed without a chance to clean up, as a test run is at worst.
    script = (
        "import os, signal\n"
        "from tests.vm import machine\n"
        "class Killed(machine.Machine):\n"
        "    def _await_ssh(self, other_than=''):\n"
        "        print(self._process.pid, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Killed('test-orphan', memory=512).start()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    process = Path("/proc") / ended.stdout.strip()
    assert process.name.isdecimal(), ended.stderr
    for _ in range(50):
        if not process.exists():
            break
        time.sleep(0.1)
    assert not process.exists()
    leftovers = Machine("test-orphan")
    assert leftovers.state.exists()
    leftovers.remove()
