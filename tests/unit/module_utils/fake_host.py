# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in a directory: the files of /sys, /proc and /etc that the tuning reads, and the kernel's manners when written to."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from ansible_collections.kubetune.control_plane.plugins.module_utils._kernel.tree import Tree

LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max open files            {soft:<20} {hard:<20} files
Max locked memory         8388608              8388608              bytes
"""

#: The module's options where nothing is given.
DEFAULTS: dict[str, Any] = {
    "state": "present",
    "profile": "guide",
    "paths": ["/var/lib/etcd", "/var/lib/etcd/wal-disk"],
    "scheduler": None,
    "scheduler_by_class": {},
    "read_ahead_kb": None,
    "read_ahead_mode": "exact",
    "dirty_limits": "ratio",
    "sysctls": {},
    "nofile": None,
    "restart_container_runtime": False,
}

#: As on a Debian 12 host of today, before any tuning.
SYSCTLS = {
    "fs/nr_open": "1048576",
    "kernel/osrelease": "6.1.0-39-amd64",
    "kernel/pid_max": "4194304",
    "kernel/core_pattern": "core",
    "net/core/rmem_max": "212992",
    "net/core/wmem_max": "212992",
    "net/ipv4/tcp_rmem": "4096\t131072\t6291456",
    "net/ipv4/tcp_wmem": "4096\t16384\t4194304",
    "vm/dirty_background_bytes": "0",
    "vm/dirty_background_ratio": "10",
    "vm/dirty_bytes": "0",
    "vm/dirty_ratio": "20",
    "vm/swappiness": "60",
}


class FakeHost(Tree):
    """A `Tree` whose kernel files behave: schedulers keep their list, the dirty limits exclude each other, some say no."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.root = root
        self.devices: dict[str, tuple[int, int]] = {"/": (8, 1)}
        self.read_only: set[str] = set()
        self.refusing: set[str] = set()
        self.writes: list[tuple[str, str]] = []
        self.commands: list[list[str]] = []

    # Building the host

    def file(self, path: str, content: str = "") -> None:
        target = Path(self.locate(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")

    def directory(self, path: str) -> None:
        Path(self.locate(path)).mkdir(parents=True, exist_ok=True)

    def link(self, path: str, target: str) -> None:
        """A relative link, as in sysfs; ``target`` is absolute below the root."""
        self.directory(os.path.dirname(path))
        Path(self.locate(path)).symlink_to(os.path.relpath(self.locate(target), os.path.dirname(self.locate(path))))

    def disk(
        self,
        name: str,
        number: str,
        bus: str = "scsi",
        schedulers: str = "none [mq-deadline] kyber bfq\n",
        read_ahead_kb: int = 128,
        rotational: int = 0,
        udev: dict[str, str] | None = None,
        partitions: dict[str, str] | None = None,
    ) -> str:
        """A disk with a queue, its partitions (name -> number) and its entry in udev's database; returns its directory."""
        directory = f"/sys/devices/pci0000:00/{bus}0/block/{name}"
        self.file(f"{directory}/dev", f"{number}\n")
        self.file(f"{directory}/queue/scheduler", schedulers)
        self.file(f"{directory}/queue/read_ahead_kb", f"{read_ahead_kb}\n")
        self.file(f"{directory}/queue/rotational", f"{rotational}\n")
        self.directory(f"{directory}/slaves")
        self.directory(f"/sys/bus/{bus}")
        self.link(f"{directory}/device/subsystem", f"/sys/bus/{bus}")
        self.link(f"/sys/block/{name}", directory)
        self.link(f"/sys/dev/block/{number}", directory)
        for partition, its_number in (partitions or {}).items():
            self.file(f"{directory}/{partition}/partition", "1\n")
            self.file(f"{directory}/{partition}/dev", f"{its_number}\n")
            self.link(f"/sys/dev/block/{its_number}", f"{directory}/{partition}")
        self.udev_data(number, udev or {})
        return directory

    def stacked(self, name: str, number: str, kind: str, slaves: list[str], read_ahead_kb: int = 128) -> str:
        """A device on top of others (dm or md); ``slaves`` are directories in sysfs."""
        directory = f"/sys/devices/virtual/block/{name}"
        self.file(f"{directory}/dev", f"{number}\n")
        self.directory(f"{directory}/{kind}")
        self.file(f"{directory}/queue/read_ahead_kb", f"{read_ahead_kb}\n")
        self.directory(f"{directory}/slaves")
        for slave in slaves:
            self.link(f"{directory}/slaves/{os.path.basename(slave)}", slave)
        self.link(f"/sys/block/{name}", directory)
        self.link(f"/sys/dev/block/{number}", directory)
        return directory

    def loop(self, name: str, number: str, backing_file: str) -> str:
        directory = self.stacked(name, number, "loop", [])
        self.file(f"{directory}/queue/scheduler", "[none] mq-deadline kyber bfq\n")
        self.file(f"{directory}/loop/backing_file", f"{backing_file}\n")
        return directory

    def udev_data(self, number: str, properties: dict[str, str]) -> None:
        if properties:
            lines = ["S:disk/by-path/some-path", *(f"E:{name}={value}" for name, value in properties.items())]
            self.file(f"/run/udev/data/b{number}", "\n".join(lines) + "\n")

    def place(self, path: str, number: tuple[int, int]) -> None:
        """A directory whose files are on the device of this number."""
        self.directory(path)
        self.devices[path] = number

    def sysctls(self, values: dict[str, str]) -> None:
        for name, value in values.items():
            self.file(f"/proc/sys/{name}", f"{value}\n")

    def process(
        self, pid: int, name: str, soft: int, hard: int, cgroup: str = "/", capabilities: str = "000001ffffffffff"
    ) -> None:
        self.file(f"/proc/{pid}/comm", f"{name}\n")
        self.file(f"/proc/{pid}/limits", LIMITS.format(soft=soft, hard=hard))
        self.file(f"/proc/{pid}/cgroup", f"0::{cgroup}\n")
        self.file(f"/proc/{pid}/status", f"Name:\t{name}\nCapEff:\t{capabilities}\n")
        self.file(f"/proc/{pid}/uid_map", "         0          0 4294967295\n")

    # The kernel's manners

    def device(self, path: str) -> tuple[int, int]:
        best = max((each for each in self.devices if path == each or path.startswith(each.rstrip("/") + "/")), key=len)
        return self.devices[best]

    def writable(self, path: str) -> bool:
        return path not in self.read_only and super().writable(path)

    def set(self, path: str, text: str) -> None:
        self.writes.append((path, text))
        if path in self.refusing:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if path.endswith("/queue/scheduler"):
            names = (self.read(path) or "").replace("[", "").replace("]", "").split()
            text = " ".join(f"[{name}]" if name == text else name for name in names)
        for pair in (("dirty_ratio", "dirty_bytes"), ("dirty_background_ratio", "dirty_background_bytes")):
            for name, other in (pair, pair[::-1]):
                if path == f"/proc/sys/vm/{name}":
                    super().set(f"/proc/sys/vm/{other}", "0\n")
        super().set(path, text.replace(" ", "\t") + "\n" if path.startswith("/proc/sys/") else text + "\n")

    def execute(self, command: Any) -> None:
        self.commands.append(list(command))

    # Looking at it

    def snapshot(self) -> dict[str, str]:
        """Every file with its content and every directory, except for the lock and its directory."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if name.startswith("var/lib/kubetune"):
                continue
            found[name] = path.read_text(errors="surrogateescape") if path.is_file() else "directory"
        return found


def ordinary_host(root: Path) -> FakeHost:
    """A kubeadm node on one SSD, with udevd, systemd, containerd and an etcd that has enough open files."""
    host = FakeHost(root)
    host.sysctls(SYSCTLS)
    host.disk(
        "sda",
        "8:0",
        schedulers="[none] mq-deadline kyber bfq\n",
        udev={"ID_SERIAL": "ACME_SSD_0001", "ID_WWN": "0x5000c500a1b2c3d4"},
        partitions={"sda1": "8:1"},
    )
    host.file("/proc/self/mountinfo", "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n")
    host.file("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
    host.directory("/var/lib/etcd")
    host.file("/run/udev/control")
    host.directory("/etc/udev/rules.d")
    host.directory("/etc/sysctl.d")
    host.directory("/etc/security/limits.d")
    host.file("/etc/security/limits.conf", "# <domain> <type> <item> <value>\n")
    host.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    host.directory("/run/systemd/system")
    host.directory("/etc/systemd/system")
    host.file("/lib/systemd/system/containerd.service", "[Service]\nExecStart=/usr/bin/containerd\n")
    host.process(1, "systemd", 1024, 1048576)
    host.process(300, "containerd", 1024, 524288, "/system.slice/containerd.service")
    host.process(900, "etcd", 524287, 524288, "/kubepods/burstable/pod1/abc")
    return host
