# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole: from a blank disk to a mounted one and back, each step found again by what is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import uuid
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .._block.device import identities_of
from .. import _report
from .._commands import output
from .._errors import KubetuneError, Refusal
from .._kernel.tree import Tree
from .._node import processes
from .._node.host_lock import host_lock
from .._node.state import SCHEMA, STATE, make_state_directory, read_record, sync_directory, write_atomically
from .._static_pod.wal import DIRECTORY, MOUNT_POINT
from . import blank
from .missing import RECORD
from .mount import MountPoint

ROLE = "etcd_wal"
LABEL = "kubetune-wal"
#: File system -> command that makes it: with this UUID and label, complete at once instead of in the background.
MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-L", LABEL, "-U", "{uuid}"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-L", LABEL, "-m", "uuid={uuid}"],
}
#: What the record says of the file system, each written before it begins. ``making``: there may be half of one.
#: ``leaving``: it was found to hold no WAL. ``erasing``: there may be half of one again.
MAKING, MADE, LEAVING, ERASING = "making", "made", "leaving", "erasing"


@dataclass(frozen=True)
class Wanted:
    """device: path of a block device; None: that of an earlier run. format: consent to make a file system on a blank disk."""

    device: str | None
    data_directory: str = "/var/lib/etcd"
    file_system: str = "ext4"
    mount_options: str = "noatime"
    format: bool = False


@dataclass(frozen=True)
class Record:
    """What we made, on disk before it is made. device: as it was given. identity: what it is, whatever it is called later.

    stable: whether the identity outlives a reboot. boot: the kernel's id of the boot in which it was recorded.
    uuid: of the file system, chosen before it is made. stage: one of those above.
    """

    device: str
    identity: str
    uuid: str
    file_system: str
    data_directory: str
    stable: bool = True
    boot: str = ""
    stage: str = MADE
    schema: int = SCHEMA

    def is_of(self, device: blank.Device) -> bool:
        """Whether a device without our file system is still the very disk that was blank: names change with a reboot."""
        return identity(device)[0] == self.identity and (self.stable or self.boot == _boot())


class Outcome(_report.Outcome):
    def say(self, item: str, verdict: str, value: Any = None, reason: str = "") -> None:
        self.report.append(_report.entry(ROLE, item, verdict, value, None, reason))
        self.changed = self.changed or verdict in ("changed", "restored")

    def show(self, file: Path, before: str, after: str) -> None:
        if before != after:
            self.diff.append(_report.difference(file, before, after))


class WalDisk:
    """
    Args:
        check_mode: nothing is changed, and the outcome tells what would be.
    """

    def __init__(self, data_directory: str, check_mode: bool = False, state: Path = STATE) -> None:
        if not re.fullmatch(r"/[^\x00-\x1f]+", data_directory) or ".." in data_directory.split("/"):
            raise Refusal([f"data_directory {data_directory!r}: give an absolute path, such as /var/lib/etcd"])
        self._data = os.path.normpath(data_directory)
        self._check = check_mode
        self._state = state
        self._path = state / RECORD
        self._outcome = Outcome()

    @property
    def mount_point(self) -> str:
        """Without symbolic links: systemd mounts on no other path."""
        return f"{os.path.realpath(self._data)}/{MOUNT_POINT}"

    def record(self) -> Record | None:
        data = read_record(self._path, f"findmnt {self.mount_point} tells the disk; mend it by hand")
        return Record(**data) if data else None

    # --- present --------------------------------------------------------------------------------------------------

    def ensure(self, wanted: Wanted) -> Outcome:
        """Make the disk be there, formatted and mounted.

        Raises:
            Refusal: with everything that speaks against it; nothing was changed.
        """
        if not re.fullmatch(r"[\x21-\x7e]+", wanted.mount_options):
            raise Refusal([f"mount_options {wanted.mount_options!r}: give them separated by commas, without spaces, such as noatime"])
        with self._lock():
            record = self.record()
            if record is None and wanted.device is None:
                return self._outcome
            if record is None:
                record = self._accept(wanted, str(wanted.device))
            else:
                self._recognise(wanted, record)
            mount = MountPoint(self.mount_point, record.uuid)
            device = self._locate(record, mount)
            self._refuse_obstacles(mount, device)
            record = self._format(record, device)
            self._install(record, wanted.mount_options, mount)
            self._mount(mount, device)
        return self._outcome

    def _lock(self) -> AbstractContextManager[None]:
        return nullcontext() if self._check else host_lock(self._state / "lock")

    def _remember(self, record: Record) -> Record:
        if not self._check:
            make_state_directory(self._state)
            write_atomically(self._path, json.dumps(asdict(record)).encode())
        return record

    def _refuse_obstacles(self, mount: MountPoint, device: blank.Device) -> None:
        numbers = mount.mounted()
        obstacle = mount.obstacle()
        if numbers and numbers != device.numbers:
            obstacle = (
                f"{mount.path}: device {numbers} is mounted there, and the WAL's disk is {device.node} ({device.numbers}): "
                f"see findmnt {mount.path}; unmount it with etcd stopped, then run again"
            )
        if obstacle:
            raise Refusal([obstacle])

    def _accept(self, wanted: Wanted, path: str) -> Record:
        """A disk that nobody uses and that holds nothing, with consent; remembered before anything is written on it."""
        device = blank.find(path)
        found = blank.contents(device)
        if found:
            raise Refusal([
                f"device {path}: {'; '.join(found)}: only a blank disk that nothing uses is taken; choose another one, or "
                "empty this one yourself when you are sure (wipefs, blkdiscard)"
            ])
        if not wanted.format:
            raise Refusal([
                f"device {path} is blank, and {wanted.file_system} would be made on it: set {ROLE}_format to true to consent"
            ])
        program = MAKE[wanted.file_system][0]
        if not shutil.which(program):
            raise Refusal([f"file_system {wanted.file_system}: {program} is not installed on this host: install it, or choose another"])
        for doubt in blank.doubts(device, self._data):
            self._outcome.say(f"WAL disk {path}", "warning", reason=doubt)
        name, stable = identity(device)
        if not stable:
            reason = f"it is known by {name} alone, which another disk may have after a reboot; its file system's UUID tells it from then on"
            self._outcome.say(f"WAL disk {path}", "warning", reason=reason)
        record = Record(path, name, str(uuid.uuid4()), wanted.file_system, self._data, stable, _boot(), MAKING)
        self._refuse_obstacles(MountPoint(self.mount_point, record.uuid), device)
        return self._remember(record)

    def _recognise(self, wanted: Wanted, record: Record) -> None:
        """The disk of an earlier run; another one is no small change."""
        problems = []
        self._refuse_other_directory(record)
        if wanted.file_system != record.file_system:
            problems.append(f"file_system {wanted.file_system}: the disk was made with {record.file_system}, and is not made anew")
        if wanted.device and os.path.exists(wanted.device) and os.path.realpath(wanted.device) != os.path.realpath(record.device):
            if blank.uuid_of(blank.find(wanted.device).node) != record.uuid:
                problems.append(
                    f"device {wanted.device}: this host's WAL disk is {record.device} (UUID {record.uuid}); take the WAL back first "
                    f"({ROLE}_state absent), then give the other disk"
                )
        if problems:
            raise Refusal(problems)

    def _refuse_other_directory(self, record: Record) -> None:
        if record.data_directory != self._data:
            raise Refusal([f"data_directory {self._data}: this host's WAL disk belongs to {record.data_directory}"])

    def _locate(self, record: Record, mount: MountPoint) -> blank.Device:
        """The device with our file system, or the one which shall get it.

        Raises:
            KubetuneError: it is not there.
        """
        device = self._find(record)
        if device:
            return device
        if record.stage in (MAKING, ERASING):
            raise KubetuneError(
                f"device {record.device} is not the disk any more that was blank when a file system was to be made on it, or it is "
                f"gone: nothing is written. Bring that one back ({record.identity}), or move {self._path} away and give a blank disk"
            )
        raise KubetuneError(
            f"the WAL's disk is missing: no device of this host carries the file system {record.uuid} ({record.device} when it was "
            f"made). etcd does not start without it, on purpose: {self.mount_point} is immutable, so that no empty WAL is made. "
            f"Bring the disk back; {mount.unit} mounts it then, and etcd joins again by itself. If it is lost for good, the member "
            "has to be replaced (etcdctl member remove, then join anew)"
        )

    def _find(self, record: Record) -> blank.Device | None:
        """The disk, whatever it is called today."""
        for path in dict.fromkeys((f"/dev/disk/by-uuid/{record.uuid}", record.device, *self._by_uuid(record.uuid))):
            if os.path.exists(path):
                device = blank.find(path)
                if blank.uuid_of(device.node) == record.uuid:
                    return device
        # Not made yet, or half, or half erased: the very disk, on which nobody else has begun.
        if record.stage in (MAKING, ERASING) and os.path.exists(record.device):
            device = blank.find(record.device)
            if record.is_of(device) and not blank.signatures(device.node):
                return device
        return None

    def _by_uuid(self, wanted: str) -> list[str]:
        """Device nodes by their content, for hosts without udevd, where nobody keeps links."""
        found = output(["blkid", "--cache-file", "/dev/null", "--match-token", f"UUID={wanted}", "--output", "device"], empty=2)
        return found.split()

    def _format(self, record: Record, device: blank.Device) -> Record:
        item = f"file system of {record.device}"
        if record.stage == MADE:
            self._outcome.say(item, "already_right", f"{record.file_system} {record.uuid}")
            return record
        if record.stage == LEAVING:
            # The way out was cut off before anything was erased, and is not wanted any more.
            self._outcome.say(item, "already_right", f"{record.file_system} {record.uuid}")
            return self._remember(replace(record, stage=MADE))
        self._outcome.say(item, "changed", record.file_system)
        if self._check:
            return record
        used = blank.uses(device)
        if used:
            raise KubetuneError(f"device {record.device}: {'; '.join(used)}: it was free when this began; it is left alone")
        # Also where our UUID is there already: mkfs was cut off, or nobody has used it since.
        self._remember(replace(record, stage=MAKING))
        output([word.format(uuid=record.uuid) for word in MAKE[record.file_system]] + [device.node])
        return self._remember(replace(record, stage=MADE))

    def _install(self, record: Record, options: str, mount: MountPoint) -> None:
        right = mount.unit_is(record.file_system, options)
        self._outcome.say(f"unit {mount.unit}", "already_right" if right else "changed", str(mount.unit_file))
        self._outcome.show(mount.unit_file, mount.installed_text(), mount.unit_text(record.file_system, options))
        if not right and mount.mounted():
            self._outcome.say(f"unit {mount.unit}", "pending", options, "other options take effect when it is mounted the next time")
        if self._check:
            return
        if not mount.mounted() and not mount.guarded():
            mount.make_directory()
        if not right:
            mount.install(record.file_system, options)

    def _mount(self, mount: MountPoint, device: blank.Device) -> None:
        item = f"mount point {mount.path}"
        mounted = bool(mount.mounted())
        right = mounted and self._owner_is_right(mount.path)
        self._outcome.say(item, "already_right" if right else "changed", device.node)
        if self._check or right:
            return
        if not mounted:
            mount.mount()
        if mount.mounted() != device.numbers:
            raise KubetuneError(
                f"{mount.unit} has started, and {mount.path} has {mount.mounted() or 'nothing'} mounted instead of {device.node} "
                f"({device.numbers}): journalctl -u '{mount.unit}'"
            )
        # Whose the data directory is, that is who runs etcd; and a file that reaches the disk.
        owner = os.stat(self._data)
        os.chown(mount.path, owner.st_uid, owner.st_gid)
        os.chmod(mount.path, 0o700)
        probe = mount.path / ".kubetune-probe"
        write_atomically(probe, b"x")
        probe.unlink()

    def _owner_is_right(self, path: Path) -> bool:
        facts, owner = os.stat(path), os.stat(self._data)
        return (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (owner.st_uid, owner.st_gid, 0o700)

    # --- absent ---------------------------------------------------------------------------------------------------

    def remove(self) -> Outcome:
        """Take the disk away, blank as it was.

        Raises:
            Refusal: the WAL is still on it.
        """
        with self._lock():
            record = self.record()
            if record is None:
                return self._outcome
            self._refuse_other_directory(record)
            mount = MountPoint(self.mount_point, record.uuid)
            device = self._find(record)
            in_use = self._in_use(record, mount, device)
            if in_use and not self._check:
                raise Refusal([in_use])
            self._outcome.say(f"mount point {mount.path}", "restored", reason=in_use or "it is taken away")
            self._outcome.say(f"unit {mount.unit}", "restored", reason="it is taken away")
            self._outcome.show(mount.unit_file, mount.installed_text(), "")
            item = f"file system of {record.device}"
            if device:
                self._outcome.say(item, "restored", reason="the disk is blank again, as it was before")
            else:
                self._outcome.say(item, "left_out", reason=f"the disk with {record.uuid} is not there: wipe it when it is back")
            if not self._check:
                self._take_away(record, mount, device)
        return self._outcome

    def _take_away(self, record: Record, mount: MountPoint, device: blank.Device | None) -> None:
        if record.stage == MADE:
            record = self._remember(replace(record, stage=LEAVING))
        mount.unmount()
        mount.uninstall()
        # Containers that were started meanwhile have the mount in namespaces of their own, and would hold the disk: the kernel
        # takes mounts away everywhere when their point is removed (fs/namei.c, vfs_rmdir, detach_mounts, since Linux 3.18).
        mount.remove_directory()
        if device:
            self._remember(replace(record, stage=ERASING))
            blank.erase(device)
        self._path.unlink()
        sync_directory(self._state)

    def _in_use(self, record: Record, mount: MountPoint, device: blank.Device | None) -> str:
        """Why the disk cannot go; empty when nothing needs it."""
        back = f"run site.yml with {ROLE}_state absent, which takes the WAL back before it removes the disk"
        if device and any(_has_open(each.pid, device.numbers) for each in processes.find("etcd", {})):
            return f"etcd has its WAL on {mount.path}: {back}"
        default = Path(self._data) / "member" / "wal"
        if default.is_symlink():
            return f"the WAL of this host's member is on {mount.path}, and {default} leads there: {back}"
        if record.stage == MADE and device and not mount.mounted() and not self._check:
            # What cannot be seen may be a WAL.
            mount.mount()
        if not default.exists() and any((Path(self.mount_point).parent / DIRECTORY).glob("*.wal")):
            return f"the WAL of this host's member is on {mount.path}, and {default} is not there: {back}"
        return ""


def identity(device: blank.Device) -> tuple[str, bool]:
    """What tells the disk from others, by WWN or serial number, else its name; and whether that outlives a reboot."""
    best = identities_of(Tree(), str(device.sysfs))[0]
    return str(best), best.stable


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _has_open(pid: int, numbers: str) -> bool:
    """Whether a process has a file on a device open, whatever its path is called in the process's container."""
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            held = link.stat().st_dev
        except OSError:
            continue
        if f"{os.major(held)}:{os.minor(held)}" == numbers:
            return True
    return False
