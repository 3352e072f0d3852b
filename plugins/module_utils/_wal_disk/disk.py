# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole: from a blank disk to a mounted one and back, each step found again by what is there."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .._block.device import identities_of
from .._errors import KubetuneError, Refusal
from .._kernel.tree import Tree
from .._node import processes
from .._node.state import SCHEMA, STATE, make_state_directory, write_atomically
from .._report import entry
from .._static_pod.wal import DIRECTORY, MOUNT_POINT
from . import blank
from .commands import output
from .mount import MountPoint

ROLE = "etcd_wal"
LABEL = "kubetune-wal"
#: File system -> command that makes it: with this UUID and label, complete at once instead of in the background.
MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-L", LABEL, "-U", "{uuid}"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-L", LABEL, "-m", "uuid={uuid}"],
}


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

    uuid: of the file system.
    """

    device: str
    identity: str
    uuid: str
    file_system: str
    data_directory: str
    schema: int = SCHEMA


@dataclass
class Outcome:
    report: list[dict[str, Any]] = field(default_factory=list)
    changed: bool = False

    def say(self, item: str, verdict: str, value: Any = None, reason: str = "") -> None:
        self.report.append(entry(ROLE, item, verdict, value, None, reason))
        self.changed = self.changed or verdict in ("changed", "restored")


class WalDisk:
    """
    Args:
        check_mode: nothing is changed, and the outcome tells what would be.
    """

    def __init__(self, data_directory: str, check_mode: bool = False, state: Path = STATE) -> None:
        self._data = data_directory.rstrip("/")
        self._check = check_mode
        self._state = state
        self._path = state / "wal-disk.json"
        self._outcome = Outcome()

    @property
    def mount_point(self) -> str:
        return f"{self._data}/{MOUNT_POINT}"

    def record(self) -> Record | None:
        try:
            data = json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        except ValueError as exc:
            raise KubetuneError(f"{self._path} is damaged ({exc}): findmnt {self.mount_point} tells the disk; mend it by hand") from exc
        if data.get("schema") != SCHEMA:
            raise KubetuneError(f"{self._path} has schema {data.get('schema')!r}, and this release reads {SCHEMA}")
        return Record(**data)

    # --- present --------------------------------------------------------------------------------------------------

    def ensure(self, wanted: Wanted) -> Outcome:
        """Make the disk be there, formatted and mounted.

        Raises:
            Refusal: with everything that speaks against it; nothing was changed.
        """
        record = self.record()
        if record is None and wanted.device is None:
            return self._outcome
        if record is None:
            record = self._accept(wanted, wanted.device)
        else:
            self._recognise(wanted, record)
        mount = MountPoint(self.mount_point, record.uuid)
        obstacle = mount.obstacle()
        if obstacle:
            raise Refusal([obstacle])
        device = self._locate(record, mount)
        self._format(record, device)
        self._install(record, wanted.mount_options, mount)
        self._mount(mount, device)
        return self._outcome

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
        record = Record(path, identity(device), str(uuid.uuid4()), wanted.file_system, self._data)
        obstacle = MountPoint(self.mount_point, record.uuid).obstacle()
        if obstacle:
            raise Refusal([obstacle])
        if not self._check:
            make_state_directory(self._state)
            write_atomically(self._path, json.dumps(asdict(record)).encode())
        return record

    def _recognise(self, wanted: Wanted, record: Record) -> None:
        """The disk of an earlier run; another one is no small change."""
        problems = []
        if record.data_directory != self._data:
            problems.append(f"data_directory {self._data}: this host's WAL disk belongs to {record.data_directory}")
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

    def _locate(self, record: Record, mount: MountPoint) -> blank.Device | None:
        """The device with our file system, or the one which shall get it; None in check mode before there is one."""
        for path in dict.fromkeys((f"/dev/disk/by-uuid/{record.uuid}", record.device, *self._by_uuid(record.uuid))):
            if not os.path.exists(path):
                continue
            device = blank.find(path)
            if blank.uuid_of(device.node) == record.uuid:
                return device
            # Not made yet, or half: the very disk that was blank when we remembered it, and on which nobody else has begun.
            if path == record.device and identity(device) == record.identity and not blank.signatures(device.node):
                return device
        raise KubetuneError(
            f"the WAL's disk is missing: no device of this host carries the file system {record.uuid} ({record.device} when it was "
            f"made). etcd does not start without it, on purpose: {self.mount_point} is immutable, so that no empty WAL is made. "
            f"Bring the disk back; {mount.unit} mounts it then, and etcd joins again by itself. If it is lost for good, the member "
            "has to be replaced (etcdctl member remove, then join anew)"
        )

    def _by_uuid(self, wanted: str) -> list[str]:
        """Device nodes by their content, for hosts without udevd, where nobody keeps links."""
        found = output(["blkid", "--cache-file", "/dev/null", "--match-token", f"UUID={wanted}", "--output", "device"], empty=2)
        return found.split()

    def _format(self, record: Record, device: blank.Device | None) -> None:
        item = f"file system of {record.device}"
        if device and blank.uuid_of(device.node) == record.uuid:
            self._outcome.say(item, "already_right", f"{record.file_system} {record.uuid}")
            return
        self._outcome.say(item, "changed", record.file_system)
        if self._check or device is None:
            return
        used = blank.uses(device)
        if used:
            raise KubetuneError(f"device {record.device}: {'; '.join(used)}: it was free when this began; it is left alone")
        output([word.format(uuid=record.uuid) for word in MAKE[record.file_system]] + [device.node])

    def _install(self, record: Record, options: str, mount: MountPoint) -> None:
        right = mount.unit_is(record.file_system, options)
        self._outcome.say(f"unit {mount.unit}", "already_right" if right else "changed", str(mount.unit_file))
        if not right and mount.mounted():
            self._outcome.say(f"unit {mount.unit}", "pending", options, "other options take effect when it is mounted the next time")
        if self._check:
            return
        if not mount.mounted() and not mount.guarded():
            mount.make_directory()
        if not right:
            mount.install(record.file_system, options)

    def _mount(self, mount: MountPoint, device: blank.Device | None) -> None:
        item = f"mount point {mount.path}"
        numbers = mount.mounted()
        if numbers and device and numbers == (device.sysfs / "dev").read_text().strip():
            self._outcome.say(item, "already_right", device.node)
            return
        if numbers:
            raise KubetuneError(f"{mount.path}: another device ({numbers}) is mounted there: findmnt {mount.path}; unmount it")
        self._outcome.say(item, "changed", device.node if device else None)
        if self._check:
            return
        mount.mount()
        if not mount.mounted():
            raise KubetuneError(f"{mount.unit} has started, and {mount.path} has nothing mounted: journalctl -u '{mount.unit}'")
        self._prove(mount.path)

    def _prove(self, path: Path) -> None:
        """Whose the data directory is, that is who runs etcd; and a file that reaches the disk."""
        owner = os.stat(self._data)
        os.chown(path, owner.st_uid, owner.st_gid)
        os.chmod(path, 0o700)
        probe = path / ".kubetune-probe"
        write_atomically(probe, b"x")
        probe.unlink()

    # --- absent ---------------------------------------------------------------------------------------------------

    def remove(self) -> Outcome:
        """Take the disk away, blank as it was.

        Raises:
            Refusal: the WAL is still on it.
        """
        record = self.record()
        if record is None:
            return self._outcome
        mount = MountPoint(self.mount_point, record.uuid)
        in_use = self._in_use(mount)
        if in_use and not self._check:
            raise Refusal([in_use])
        self._outcome.say(f"mount point {mount.path}", "restored", reason=in_use or "it is taken away")
        self._outcome.say(f"unit {mount.unit}", "restored", reason="it is taken away")
        device = next((path for path in (record.device, *self._by_uuid(record.uuid)) if os.path.exists(path)), None)
        ours = device is not None and blank.uuid_of(blank.find(device).node) == record.uuid
        if ours:
            self._outcome.say(f"file system of {record.device}", "restored", reason="the disk is blank again, as it was before")
        else:
            self._outcome.say(f"file system of {record.device}", "left_out", reason="the disk is not there: wipe it when it is back")
        if self._check:
            return self._outcome
        mount.unmount()
        mount.uninstall()
        mount.remove_directory()
        if ours and device:
            blank.erase(blank.find(device))
        self._path.unlink()
        return self._outcome

    def _in_use(self, mount: MountPoint) -> str:
        """Why the disk cannot go; empty when nothing needs it."""
        back = f"run site.yml with {ROLE}_state absent, which takes the WAL back before it removes the disk"
        for process in processes.find("etcd", {}):
            if any(path.startswith(f"{mount.path}/") for path in _open_files(process.pid)):
                return f"etcd (pid {process.pid}) has its WAL on {mount.path}: {back}"
        default = Path(self._data) / "member" / "wal"
        wal = Path(self._data) / DIRECTORY
        if default.is_symlink() or (not default.exists() and any(wal.glob("*.wal"))):
            return f"the WAL of this host's member is on {mount.path}, and {default} leads there: {back}"
        return ""


def identity(device: blank.Device) -> str:
    """What tells the disk from others for as long as it can be told: by WWN or serial number, else its name."""
    return str(identities_of(Tree(), str(device.sysfs))[0])


def _open_files(pid: int) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found.append(os.readlink(link))
        except OSError:
            continue
    return found
