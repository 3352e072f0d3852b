# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds stacks of block devices in a virtual machine and records what its kernel says about them.

    python -m tests.vm.record_block_trees [CASE ...]

Writes tests/unit/fixtures/block/CASE.json, which tests/unit/module_utils/test_block_recorded.py reads.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.console import say
from tests.lab.errors import LabError
from tests.lab.settings import REPOSITORY

from .machine import Disk, Machine

FIXTURES = REPOSITORY / "tests/unit/fixtures/block"
PATH = "/var/lib/etcd"
_COLLECTOR = Path(__file__).with_name("files") / "collect_block_tree.py"
_SIZE = 256 << 20
_KEY = "echo -n recorded >/run/key; "
_PARTITION = "echo 'type=L' | sfdisk --quiet --label gpt"


@dataclass(frozen=True)
class Case:
    """A stack.

    disks: (role in the script, kind of disk). make, remove: bash; $NAME is the device node of the disk with that role. What
    ``make`` leaves is mounted at $path. packages: Debian's, whose versions matter.
    """

    disks: tuple[tuple[str, str], ...]
    make: str
    remove: str = ""
    packages: tuple[str, ...] = ()
    second_path: bool = False


CASES: dict[str, Case] = {
    "nvme": Case((("a", "nvme"),), "mkfs.ext4 -q $a; mount $a $path"),
    "partition": Case((("a", "virtio"),), f"{_PARTITION} $a; udevadm settle; mkfs.ext4 -q ${{a}}1; mount ${{a}}1 $path"),
    "crypt": Case(
        (("a", "rotational"),),
        _KEY + "cryptsetup luksFormat --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $a /run/key; "
        "cryptsetup open --key-file /run/key $a secret; mkfs.ext4 -q /dev/mapper/secret; mount /dev/mapper/secret $path",
        "cryptsetup close secret",
        ("cryptsetup-bin",),
    ),
    "lvm-linear": Case(
        (("a", "ssd"), ("b", "rotational")),
        "vgcreate --quiet data $a $b; lvcreate --quiet --yes --extents 100%FREE --name etcd data; "
        "mkfs.ext4 -q /dev/data/etcd; mount /dev/data/etcd $path",
        "vgremove --quiet --yes data",
        ("lvm2",),
    ),
    "md-raid1": Case(
        (("a", "ssd"), ("b", "ssd")),
        "mdadm --quiet --create /dev/md0 --run --level 1 --raid-devices 2 --assume-clean $a $b; mkfs.ext4 -q /dev/md0; mount /dev/md0 $path",
        "mdadm --quiet --stop /dev/md0",
        ("mdadm",),
    ),
    "lvm-on-md-on-partitions": Case(
        (("a", "virtio"), ("b", "virtio")),
        f"{_PARTITION} $a; {_PARTITION} $b; udevadm settle; "
        "mdadm --quiet --create /dev/md0 --run --level 1 --raid-devices 2 --assume-clean ${a}1 ${b}1; "
        "vgcreate --quiet data /dev/md0; lvcreate --quiet --yes --extents 100%FREE --name etcd data; "
        "mkfs.ext4 -q /dev/data/etcd; mount /dev/data/etcd $path",
        "vgremove --quiet --yes data; mdadm --quiet --stop /dev/md0",
        ("lvm2", "mdadm"),
    ),
    "multipath": Case(
        (("a", "ssd"),),
        "printf 'defaults {\\n find_multipaths no\\n user_friendly_names yes\\n}\\nblacklist {\\n devnode \"^(vd|nvme)\"\\n}\\n' >/etc/multipath.conf; "
        "modprobe dm_multipath; multipath -v0 $a; udevadm settle; mkfs.ext4 -q /dev/mapper/mpatha; mount /dev/mapper/mpatha $path",
        "multipath -f mpatha; rm /etc/multipath.conf",
        ("multipath-tools",),
        second_path=True,
    ),
    "btrfs": Case(
        (("a", "nvme"), ("b", "ssd")),
        "mkfs.btrfs -q -f --data raid1 --metadata raid1 $a $b; btrfs device scan >/dev/null; mount $a $path",
        packages=("btrfs-progs",),
    ),
    "bcache": Case(
        (("back", "rotational"), ("cache", "nvme")),
        "modprobe bcache; make-bcache --bucket 64k -B $back -C $cache >/dev/null; udevadm settle; "
        "for each in $back $cache; do echo $each >/sys/fs/bcache/register || true; done 2>/dev/null; udevadm settle; "
        "mkfs.ext4 -q /dev/bcache0; mount /dev/bcache0 $path",
        "set=$(echo /sys/fs/bcache/*-*-*); echo 1 >/sys/block/bcache0/bcache/stop; echo 1 >$set/stop; sleep 5",
        ("bcache-tools",),
    ),
}


def disks_of(name: str, case: Case) -> list[Disk]:
    """The disks of a case; their serial numbers tell its name and their roles."""
    short = name.replace("-linear", "").replace("lvm-on-md-on-partitions", "deep")
    disks = [Disk(f"{short}-{role}", bus, _SIZE) for role, bus in case.disks]
    return disks + [Disk(f"{short}-a2", "ssd", _SIZE, shares=f"{short}-a")] * case.second_path


def record(machine: Machine, name: str, case: Case) -> dict[str, Any]:
    """Builds one stack, collects what there is to tell, and takes it apart again."""
    disks = disks_of(name, case)
    devices = {disk.name: machine.device(disk.name) for disk in disks if not disk.shares}
    variables = "".join(f"{serial.rpartition('-')[2]}=/dev/{device}; " for serial, device in devices.items())
    prelude = f"export path={PATH}; {variables}"
    machine.shell(f"{prelude}mkdir -p $path; {case.make}; udevadm settle")
    every = list(devices.values()) if not case.second_path else _paths_of(machine, disks[0].name)
    collected = json.loads(machine.run("python3", "-", PATH, *every, stdin=_COLLECTOR.read_text()).stdout)
    nodes = " ".join(f"/dev/{each}" for each in devices.values())
    machine.shell(f"{prelude}umount $path; {case.remove}\nudevadm settle; wipefs --quiet --all --force {nodes}; udevadm settle")
    return {
        "recorded": {
            "date": machine.output("date", "--utc", "+%Y-%m-%d"),
            "kernel": machine.output("uname", "-srv"),
            "packages": dict(
                line.split(" ") for line in machine.output(
                    "dpkg-query", "--show", "--showformat", "${Package} ${Version}\n", "udev", "util-linux", *case.packages,
                ).splitlines()
            ),
            "qemu": machine.qemu_version,
            "made by": case.make,
            "disks": {disk.name: disk.bus for disk in disks},
        },
        **collected,
    }  # fmt: skip


def _paths_of(machine: Machine, serial: str) -> list[str]:
    lines = machine.output("lsblk", "--nodeps", "--noheadings", "--output", "KNAME,SERIAL").splitlines()
    return sorted(name for name, _, number in (line.partition(" ") for line in lines) if number.strip() == serial)


def main(arguments: list[str]) -> int:
    """Records the cases that are named, or all."""
    unknown = set(arguments) - set(CASES)
    if unknown:
        raise LabError(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    cases = {name: CASES[name] for name in arguments or CASES}
    FIXTURES.mkdir(exist_ok=True)
    with Machine("record", [disk for name, case in cases.items() for disk in disks_of(name, case)], memory=1024) as machine:
        for name, case in cases.items():
            text = json.dumps(record(machine, name, case), indent=1, sort_keys=False)
            (FIXTURES / f"{name}.json").write_text(text + "\n")
            say(f"{name}: recorded, {len(text)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
