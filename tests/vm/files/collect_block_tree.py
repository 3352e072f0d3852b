# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in the guest: prints what its kernel, udev and lsblk say about the disks below a path, as JSON.

    python3 collect_block_tree.py PATH DISK ...

PATH is where the file system is mounted, each DISK the name of a disk below it, such as sda.
"""

import json
import os
import subprocess
import sys

# Attributes of a device's directory in sysfs that say what it is; what counts its work is different each time.
FILES = (
    "dev", "size", "removable", "ro", "partition", "start", "serial", "wwid", "uuid", "nguid", "eui", "uevent",
    "dm/name", "dm/uuid", "dm/suspended", "md/level", "md/metadata_version", "md/raid_disks", "md/array_state", "loop/backing_file",
    "bcache/state", "bcache/cache_mode", "bcache/label",
    "device/vendor", "device/model", "device/rev", "device/serial", "device/wwid", "device/type", "device/state", "device/queue_depth",
    "device/transport", "device/uevent",
    "queue/scheduler", "queue/read_ahead_kb", "queue/rotational", "queue/nr_requests", "queue/max_sectors_kb", "queue/max_hw_sectors_kb",
    "queue/logical_block_size", "queue/physical_block_size", "queue/optimal_io_size", "queue/minimum_io_size", "queue/write_cache",
    "queue/nomerges", "queue/rq_affinity", "queue/wbt_lat_usec", "queue/discard_granularity", "queue/zoned",
)  # fmt: skip
LINKS = ("subsystem", "bdi", "device", "device/subsystem", "device/driver")
# Directories whose entries are what is told: links to other devices, and one directory for each hardware queue.
FOLDERS = ("slaves", "holders", "mq", "bcache/cache")


def collect(path, disks):
    tree = Tree()
    directories = closure([os.path.realpath(f"/sys/class/block/{name}") for name in disks])
    for directory in directories:
        tree.device(directory)
    for uuid in names("/sys/fs/btrfs"):
        for name in names(f"/sys/fs/btrfs/{uuid}/devices"):
            tree.link(f"/sys/fs/btrfs/{uuid}/devices/{name}")
    tree.file("/proc/self/mountinfo")
    tree.file("/proc/sys/kernel/osrelease")
    source = output("findmnt", "--noheadings", "--first-only", "--output", "SOURCE", "--target", path)
    tree.link(source)
    known = {os.path.basename(directory) for directory in directories}
    number = os.stat(path).st_dev
    return {
        "path": path,
        "device": [os.major(number), os.minor(number)],
        "files": dict(sorted(tree.files.items())),
        "links": dict(sorted(tree.links.items())),
        "folders": sorted(tree.folders),
        "lsblk": json.loads(output("lsblk", "--json", "--output-all", *(f"/dev/{name}" for name in disks)))["blockdevices"],
        "udev": {name: properties(name) for name in sorted(known)},
    }


class Tree:
    """Files with their content, links with their target as it stands in them, and directories that may be empty."""

    def __init__(self):
        self.files = {}
        self.links = {}
        self.folders = set()

    def device(self, directory):
        name = os.path.basename(directory)
        self.folders.add(directory)
        for each in FILES:
            self.file(f"{directory}/{each}")
        for each in LINKS:
            self.link(f"{directory}/{each}")
        for each in FOLDERS:
            if os.path.isdir(f"{directory}/{each}"):
                self.folders.add(f"{directory}/{each}")
            for entry in names(f"{directory}/{each}"):
                if os.path.islink(f"{directory}/{each}/{entry}"):
                    self.link(f"{directory}/{each}/{entry}")
                elif each == "mq":
                    self.folders.add(f"{directory}/{each}/{entry}")
        for each in ("dm", "md", "bcache"):
            if os.path.isdir(f"{directory}/{each}"):
                self.folders.add(f"{directory}/{each}")
        for entry in names(f"{directory}/bcache"):
            self.link(f"{directory}/bcache/{entry}")
        with open(f"{directory}/dev") as stream:
            number = stream.read().strip()
        self.link(f"/sys/block/{name}")
        self.link(f"/sys/class/block/{name}")
        self.link(f"/sys/dev/block/{number}")
        self.file(f"/run/udev/data/b{number}")

    def file(self, path):
        try:
            with open(path, errors="replace") as stream:
                self.files[place(path)] = stream.read()
        except OSError:
            return

    def link(self, path):
        if os.path.islink(path):
            path = place(path)
            self.links[path] = os.readlink(path)
            # What it leads to is there, even where nothing in it is told.
            if os.path.isdir(path):
                self.folders.add(os.path.realpath(path))


def place(path):
    """The path without links on the way; /proc/self would be this process, which is not there when it is read again."""
    if path.startswith("/proc/"):
        return path
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def closure(directories):
    """These disks, their partitions, and all that stands on them."""
    found = []
    while directories:
        directory = directories.pop(0)
        if directory not in found:
            found.append(directory)
            directories += [os.path.join(directory, name) for name in names(directory) if os.path.exists(f"{directory}/{name}/partition")]
            directories += [os.path.realpath(f"{directory}/holders/{name}") for name in names(f"{directory}/holders")]
    return found


def names(directory):
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def properties(name):
    lines = output("udevadm", "info", "--query", "property", "--name", f"/dev/{name}").splitlines()
    # When a device was first seen tells nothing.
    return dict(sorted(line.partition("=")[::2] for line in lines if not line.startswith("USEC_INITIALIZED=")))


if __name__ == "__main__":
    print(json.dumps(collect(sys.argv[1], sys.argv[2:])))
