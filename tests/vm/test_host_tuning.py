# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host tuning on a kernel of its own: at once, after a reboot, on a disk that comes back, and taken back to the last file.

The tests of this file are one story and run in its order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.lab.console import run
from tests.lab.errors import LabError
from tests.vm.machine import Disk, Machine
from tests.vm.playbook import Run, play

pytestmark = pytest.mark.vm

# Mount point -> disk. The logical volume is a device of its own on top of its disk.
MOUNTED = {
    "/var/lib/etcd": Disk("data", "virtio", 256 << 20),
    "/srv/nvme": Disk("fast", "nvme", 256 << 20),
    "/srv/ssd": Disk("flash", "ssd", 256 << 20),
    "/srv/rotating": Disk("slow", "rotational", 256 << 20),
    "/srv/volume": Disk("volume", "ssd", 256 << 20),
}
BYSTANDER = Disk("bystander", "ssd", 64 << 20)
VARIABLES: dict[str, Any] = {"host_tuning_paths": list(MOUNTED)}
SCHEDULERS = {"data": "mq-deadline", "fast": "none", "flash": "mq-deadline", "slow": "mq-deadline", "volume": "mq-deadline"}
READ_AHEAD = {"data": "1024", "fast": "1024", "flash": "1024", "slow": "1024", "dm-0": "1024"}
SYSCTLS = {
    "net.core.rmem_max": "134217728",
    "net.core.wmem_max": "134217728",
    "net.ipv4.tcp_rmem": "4096 65536 134217728",
    "net.ipv4.tcp_wmem": "4096 65536 134217728",
    "vm.dirty_background_ratio": "5",
    "vm.dirty_ratio": "15",
    "vm.swappiness": "1",
}
NOFILE = "65536"
# What a host has of its own that is not the guide's; each has to be there again at the end.
LOW_LIMIT = "/etc/systemd/system/containerd.service.d/10-site.conf"
OWN_RULE = 'ACTION=="add|change", SUBSYSTEM=="block", ENV{ID_SCSI_SERIAL}=="flash", ATTR{queue/scheduler}="kyber", ATTR{queue/read_ahead_kb}="512"\n'
# The collection's lock: an empty file, which a run that waits for it may have open.
LEFT_BEHIND = ("/var/lib/kubetune", "/var/lib/kubetune/lock")

# As JSON: the values of all queues and of the kernel values above, and each file of the host that could be ours.
_SNAPSHOT = """
import glob, hashlib, json, os, stat, sys
read = lambda path: open(path).read().strip()
found = {}
for path in glob.glob("/sys/block/*/queue/scheduler") + glob.glob("/sys/block/*/queue/read_ahead_kb"):
    # Names change from boot to boot.
    name = path.split("/")[3]
    database = "/run/udev/data/b" + read(f"/sys/block/{name}/dev")
    lines = read(database).splitlines() if os.path.exists(database) else []
    serial = [line.partition("=")[2] for line in lines if line.startswith(("E:ID_SERIAL=", "E:DM_UUID="))]
    found["/".join(["queue", *(serial or [name]), path.split("/")[-1]])] = read(path)
for name in sys.argv[1:]:
    found[name] = " ".join(read("/proc/sys/" + name.replace(".", "/")).split())
for top in ("/etc", "/usr/lib/udev", "/usr/lib/sysctl.d", "/usr/lib/systemd", "/usr/local", "/run/udev/rules.d", "/run/sysctl.d", "/var/lib/kubetune"):
    for folder, _, files in os.walk(top):
        for path in [folder, *(os.path.join(folder, name) for name in files)]:
            if path.startswith(("/etc/lvm/archive", "/etc/lvm/backup")):
                continue
            status = os.lstat(path)
            content = ""
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(open(path, "rb").read()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[path] = [oct(status.st_mode), status.st_uid, status.st_gid, content]
print(json.dumps(found))
"""


class Host:
    """A machine and what is tuned on it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.original: dict[str, Any] = {}
        self.untouched: list[str] = []

    def snapshot(self) -> dict[str, Any]:
        names = [*SYSCTLS, "vm.dirty_bytes", "vm.dirty_background_bytes"]
        found: dict[str, Any] = json.loads(self.machine.run("python3", "-", *names, stdin=_SNAPSHOT).stdout)
        return {**found, "logins": self.login_limits(), "containerd": self.unit_limit("containerd.service")}

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """What is not as it was: name -> (then, now)."""
        then, now = self.original, self.snapshot()
        return {name: (then.get(name), now.get(name)) for name in then.keys() | now if then.get(name) != now.get(name)}

    def assert_as_it_was(self) -> None:
        differences = {name: pair for name, pair in self.differences().items() if name not in LEFT_BEHIND}
        assert not differences, json.dumps(differences, indent=1)

    def reboot(self) -> None:
        """Returns when udev has dealt with all disks, too."""
        self.machine.reboot()
        self.machine.run("udevadm", "settle", "--timeout=300")

    def queue(self, name: str, attribute: str) -> str:
        """Of a disk by its serial number, or of a device by its name."""
        device = name if name.startswith("dm-") else self.machine.device(name)
        text = self.machine.read(f"/sys/block/{device}/queue/{attribute}").strip()
        return text.partition("[")[2].partition("]")[0] or text

    def bystander(self) -> list[str]:
        """The queue of the disk that no path is on."""
        return [self.queue(BYSTANDER.name, attribute) for attribute in ("scheduler", "read_ahead_kb")]

    def login_limits(self) -> list[str]:
        """Soft and hard limit of open files in a session that sshd and PAM have opened for the user etcd."""
        command = ["ssh", "-F", self.machine.ssh_configuration, "-o", "ControlPath=none", "-l", "etcd", self.machine.name, "ulimit -Sn; ulimit -Hn"]
        return run(command, timeout=120).stdout.split()

    def unit_limit(self, unit: str) -> str:
        return self.machine.output("systemctl", "show", "--property", "LimitNOFILE", "--value", unit)

    def process_limits(self, unit: str) -> list[str]:
        """Soft and hard limit of open files of a service's main process, from the kernel."""
        pid = self.machine.output("systemctl", "show", "--property", "MainPID", "--value", unit)
        line = next(line for line in self.machine.read(f"/proc/{pid}/limits").splitlines() if line.startswith("Max open files"))
        return line.split()[3:5]

    def assert_tuned(self, *, restarted: bool) -> None:
        assert {name: self.queue(name, "scheduler") for name in SCHEDULERS} == SCHEDULERS
        assert {name: self.queue(name, "read_ahead_kb") for name in READ_AHEAD} == READ_AHEAD
        assert {name: " ".join(self.machine.output("sysctl", "--values", name).split()) for name in SYSCTLS} == SYSCTLS
        assert self.login_limits() == [NOFILE, NOFILE]
        assert self.unit_limit("containerd.service") == NOFILE
        assert (self.process_limits("containerd.service") == [NOFILE, NOFILE]) == restarted

    def play(self, variables: dict[str, Any] | None = None, *options: str) -> Run:
        done = play(self.machine, "host", {**VARIABLES, **(variables or {})}, *options)
        assert done.status == 0, done.output
        return done


def reported(done: Run, *words: str) -> bool:
    """Whether one line of the summary has all these words."""
    return any(all(word in line for word in words) for line in done.output.splitlines())


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Machine("test-tuning", [*MOUNTED.values(), BYSTANDER], memory=1024) as machine:
        _furnish(machine)
        yield Host(machine)


def _furnish(machine: Machine) -> None:
    """Mounts the disks, and gives the host values of its own."""
    volume = machine.device("volume")
    machine.shell(f"vgcreate --quiet volume /dev/{volume}; lvcreate --quiet --yes --extents 100%FREE --name etcd volume")
    sources = {point: "/dev/volume/etcd" if point == "/srv/volume" else f"/dev/{machine.device(disk.name)}" for point, disk in MOUNTED.items()}
    for point, source in sources.items():
        machine.shell(f"mkfs.ext4 -q {source}; mkdir -p {point}; echo UUID=$(blkid -s UUID -o value {source}) {point} ext4 noatime,nofail 0 0 >>/etc/fstab")
    machine.write(LOW_LIMIT, "[Service]\nLimitNOFILE=4096\n")
    machine.write("/etc/udev/rules.d/60-site.rules", OWN_RULE)
    machine.write("/etc/sysctl.d/50-site.conf", "vm.swappiness = 42\nvm.dirty_bytes = 0\n")
    machine.write("/home/etcd/.ssh/authorized_keys", (machine.state / "key.pub").read_text())
    machine.run("chown", "-R", "etcd:", "/home/etcd/.ssh")
    # As a boot would: what the host has of its own is in force.
    machine.shell(
        "systemctl daemon-reload; mount --all; systemctl enable --quiet --now containerd; systemctl restart systemd-sysctl; "
        "udevadm control --reload; udevadm trigger --settle --subsystem-match block --action change"
    )


def test_before(host: Host) -> None:
    assert host.queue("flash", "scheduler") == "kyber"
    assert host.machine.output("sysctl", "--values", "vm.swappiness") == "42"
    assert host.process_limits("containerd.service") == ["4096", "4096"]
    host.original, host.untouched = host.snapshot(), host.bystander()


def test_check_mode_changes_nothing_and_says_what_would(host: Host) -> None:
    done = host.play(None, "--check", "--diff")
    assert done.changed == 1
    assert reported(done, "vm.swappiness", "42")
    host.assert_as_it_was()


def test_everything_is_set_at_once(host: Host) -> None:
    done = host.play()
    assert done.changed == 1
    host.assert_tuned(restarted=False)
    assert reported(done, "containerd.service LimitNOFILE"), done.output
    assert host.bystander() == host.untouched


def test_a_second_run_changes_nothing(host: Host) -> None:
    assert host.play().changed == 0


def test_everything_is_there_after_a_reboot(host: Host) -> None:
    host.reboot()
    host.assert_tuned(restarted=True)
    assert host.play().changed == 0


@pytest.mark.parametrize("point", ["/srv/nvme", "/srv/ssd"])
def test_a_disk_that_comes_back_gets_its_values(host: Host, point: str) -> None:
    disk = MOUNTED[point]
    host.machine.run("umount", point)
    host.machine.unplug(disk.name)
    with pytest.raises(LabError):
        host.machine.device(disk.name)
    host.machine.plug(disk)
    host.machine.run("udevadm", "settle")
    assert (host.queue(disk.name, "scheduler"), host.queue(disk.name, "read_ahead_kb")) == (SCHEDULERS[disk.name], "1024")
    host.machine.shell(f"mountpoint -q {point} || mount {point}")
    assert host.play().changed == 0


def test_a_sysctl_file_that_is_read_later_is_named(host: Host) -> None:
    late = "/etc/sysctl.d/99-zzz-site.conf"
    host.machine.write(late, "vm.swappiness = 30\n")
    done = host.play()
    assert reported(done, "vm.swappiness", late, "30"), done.output
    # It is right to warn: this is what a boot does.
    host.machine.run("systemctl", "restart", "systemd-sysctl")
    assert host.machine.output("sysctl", "--values", "vm.swappiness") == "30"
    host.machine.run("rm", late)
    assert host.play().changed == 1
    host.assert_tuned(restarted=True)


def test_absent_puts_everything_back(host: Host) -> None:
    assert host.play({"host_tuning_state": "absent"}).changed == 1
    host.assert_as_it_was()
    assert host.play({"host_tuning_state": "absent"}).changed == 0


def test_nothing_comes_back_after_a_reboot(host: Host) -> None:
    host.reboot()
    host.assert_as_it_was()
    assert host.process_limits("containerd.service") == ["4096", "4096"]
