# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that must never be formatted, and the one that may: real loop devices, real tools, a mount of its own.

Signatures are made by their own programs where a minimal host has them; those of LVM and LUKS are what their programs
wrote (signatures.json), the one of md is built as include/uapi/linux/raid/md_p.h describes it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Callable, Iterator

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError, Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._wal_disk import blank, mount
from ansible_collections.kubetune.control_plane.plugins.module_utils._wal_disk.disk import MAKE, WalDisk, Wanted

#: Bytes of the test's disks; a WAL needs more.
SIZE = 400 << 20
RECORDED = json.loads((Path(__file__).parent / "signatures.json").read_text())


def run(*command: str, stdin: str | None = None) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, input=stdin).stdout.strip()


@pytest.fixture(autouse=True)
def small_disks_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blank, "MIN_BYTES", 300 << 20)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Makes loop devices, blank and sparse."""
    made: list[str] = []

    def new(size: int = SIZE, *options: str) -> str:
        image = tmp_path / f"disk{len(made)}"
        with open(image, "wb") as stream:
            stream.truncate(size)
        made.append(run("losetup", "--find", "--show", *options, str(image)))
        return made[-1]

    yield new
    for device in made:
        run("losetup", "--detach", device)


@pytest.fixture
def device(loop: Callable[..., str]) -> str:
    return loop()


@pytest.fixture
def disk(tmp_path: Path) -> WalDisk:
    data = tmp_path / "etcd"
    data.mkdir()
    return WalDisk(str(data), state=tmp_path / "state")


def put(device: str, places: list[tuple[int, bytes]]) -> None:
    with open(device, "r+b") as stream:
        for offset, data in places:
            stream.seek(offset)
            stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def recorded(name: str) -> Callable[[str], None]:
    return lambda device: put(device, [(offset, base64.b64decode(data)) for offset, data in RECORDED[name]["bytes"]])


def md(device: str) -> None:
    """A member of a mirror, metadata 1.2: superblock at 4 KiB."""
    block = struct.pack(
        "<IIII16s32sQIIQIIIIQIIIIQQQ",
        0xA92B4EFC, 1, 0, 0, bytes(range(16)), b"host:0", 1_700_000_000, 1, 0, 2_000_000, 0, 2, 8, 0, 0, 0, 0, 0, 0, 2048, 2_000_000, 8,
    )
    put(device, [(4096, block)])


def digest(device: str) -> str:
    with open(device, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@pytest.mark.parametrize(
    ("fill", "text"),
    [
        (lambda device: run("mkfs.ext4", "-q", device), "a signature: ext4"),
        (lambda device: run("sfdisk", "--quiet", device, stdin="label: gpt\n"), "a signature: gpt"),
        (lambda device: run("sfdisk", "--quiet", device, stdin="label: dos\n,100M\n"), "a signature: dos"),
        (lambda device: run("mkswap", device), "a signature: swap"),
        (recorded("LVM"), "a signature: LVM2_member"),
        (recorded("LUKS"), "a signature: crypto_LUKS"),
        (md, "a signature: linux_raid_member"),
        (lambda device: put(device, [(0, b"a raw database")]), "data that nothing here knows, such as at byte 0"),
        (lambda device: put(device, [(SIZE - 10, b"end")]), f"such as at byte {SIZE - 10}"),
        (lambda device: put(device, [((SIZE // 16) * 5 + 7, b"in the middle")]), "data that nothing here knows"),
    ],
    ids=["ext4", "GPT", "MBR", "swap", "LVM", "LUKS", "md", "raw data", "raw data at the end", "raw data in the middle"],
)
def test_a_disk_that_holds_something_is_refused(
    device: str, disk: WalDisk, fill: Callable[[str], object], text: str
) -> None:
    fill(device)
    before = digest(device)
    with pytest.raises(Refusal) as refusal:
        disk.ensure(Wanted(device, format=True))
    for part in (f"device {device}", text, "only a blank disk that nothing uses is taken"):
        assert part in str(refusal.value)
    assert digest(device) == before
    assert disk.record() is None and not Path(disk.mount_point).exists()


def test_a_partition_is_refused_by_name(loop: Callable[..., str], disk: WalDisk) -> None:
    device = loop(SIZE, "--partscan")
    run("sfdisk", "--quiet", device, stdin="label: gpt\nsize=200M\nsize=200M\n")
    with pytest.raises(Refusal, match="it has partitions: loop[0-9]+p1, loop[0-9]+p2|a signature: gpt"):
        disk.ensure(Wanted(device, format=True))


def test_a_mounted_disk_is_refused_though_its_signature_were_hidden(device: str, disk: WalDisk, tmp_path: Path) -> None:
    run("mkfs.ext4", "-q", device)
    point = tmp_path / "mounted"
    point.mkdir()
    run("mount", device, str(point))
    try:
        with pytest.raises(Refusal, match=f"it is mounted at {point}"):
            disk.ensure(Wanted(device, format=True))
    finally:
        run("umount", str(point))


def test_a_disk_that_somebody_has_claimed_is_refused(device: str, disk: WalDisk) -> None:
    claim = os.open(device, os.O_RDONLY | os.O_EXCL)
    try:
        with pytest.raises(Refusal, match="some program or device has claimed it"):
            disk.ensure(Wanted(device, format=True))
    finally:
        os.close(claim)


def test_a_disk_that_is_read_only_or_too_small_is_refused(loop: Callable[..., str], disk: WalDisk) -> None:
    with pytest.raises(Refusal, match="it is read-only"):
        disk.ensure(Wanted(loop(SIZE, "--read-only"), format=True))
    with pytest.raises(Refusal, match="it has 100 MiB, and a WAL needs at least 300"):
        disk.ensure(Wanted(loop(100 << 20), format=True))


def test_what_is_no_disk_is_refused(disk: WalDisk, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path, text in (("/dev/no-such-disk", "there is no such device"), (str(tmp_path / "file"), "it is no block device")):
        with pytest.raises(KubetuneError, match=text):
            disk.ensure(Wanted(path, format=True))


def test_the_disk_of_the_root_file_system_is_refused(disk: WalDisk) -> None:
    numbers = os.stat("/").st_dev
    sysfs = Path(f"/sys/dev/block/{os.major(numbers)}:{os.minor(numbers)}")
    if not sysfs.exists():
        pytest.skip("the root file system of this machine is on no block device")
    with pytest.raises(Refusal, match="it is mounted at /|it has partitions"):
        disk.ensure(Wanted(f"/dev/{sysfs.resolve().name}", format=True))


def test_a_blank_disk_needs_consent(device: str, disk: WalDisk) -> None:
    before = digest(device)
    with pytest.raises(Refusal, match="is blank, and ext4 would be made on it: set etcd_wal_format to true"):
        disk.ensure(Wanted(device))
    assert digest(device) == before


def test_check_mode_says_what_would_be_done_and_does_nothing(device: str, tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    before = digest(device)
    outcome = WalDisk(str(tmp_path / "etcd"), True, tmp_path / "state").ensure(Wanted(device, format=True))
    assert outcome.changed
    assert [entry["verdict"] for entry in outcome.report if entry["verdict"] != "warning"] == ["changed"] * 3
    assert digest(device) == before
    assert not (tmp_path / "state").exists() and not (tmp_path / "etcd/wal-disk").exists()


def test_a_mount_point_with_content_is_refused(device: str, disk: WalDisk) -> None:
    (Path(disk.mount_point) / "wal").mkdir(parents=True)
    with pytest.raises(Refusal, match=r"is there and not empty \(wal\)"):
        disk.ensure(Wanted(device, format=True))
    assert disk.record() is None


class Systemd:
    """Stands for systemd, which this machine need not run: units are mounted as it would. On the lab it is the real one."""

    def __init__(self, units: Path) -> None:
        self.units = units
        self.killed_at: str | None = None

    def __call__(self, command: list[str], empty: int = 0) -> str:
        if self.killed_at and self.killed_at in command:
            raise KeyboardInterrupt
        if command[0] != "systemctl":
            return blank.output(command, empty)
        if command[1] in ("start", "stop"):
            settings = dict(
                line.split("=", 1) for line in (self.units / command[2]).read_text().splitlines() if "=" in line and line[0] != "#"
            )
            if command[1] == "stop":
                run("umount", settings["Where"])
            elif subprocess.run(["mountpoint", "-q", settings["Where"]], check=False).returncode:
                uuid = settings["What"].rpartition("=")[2].rpartition("/")[2]
                run("mount", "-o", settings["Options"], "-t", settings["Type"], f"UUID={uuid}", settings["Where"])
        if command[1] in ("enable", "disable"):
            self._link(command[-1], command[1] == "enable")
        return ""

    def _link(self, unit: str, wanted: bool) -> None:
        lines = (self.units / unit).read_text().splitlines()
        for target in (line.partition("=")[2] for line in lines if line.startswith("WantedBy=")):
            link = self.units / f"{target}.wants" / unit
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            if wanted:
                link.symlink_to(self.units / unit)


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, disk: WalDisk) -> Iterator[Systemd]:
    double = Systemd(tmp_path)
    monkeypatch.setattr(mount, "_UNITS", tmp_path)
    monkeypatch.setattr(mount, "output", double)
    yield double
    subprocess.run(["umount", disk.mount_point], check=False, capture_output=True)
    if Path(disk.mount_point).exists():
        mount._set_immutable(Path(disk.mount_point), False)


@pytest.mark.parametrize("file_system", sorted(MAKE))
def test_there_and_back(device: str, disk: WalDisk, systemd: Systemd, tmp_path: Path, file_system: str) -> None:
    wanted = Wanted(device, file_system=file_system, format=True)
    assert disk.ensure(wanted).changed
    point = Path(disk.mount_point)
    record = disk.record()
    assert record and record.uuid == blank.uuid_of(device)
    assert os.path.ismount(point) and point.stat().st_mode & 0o777 == 0o700
    again = WalDisk(str(point.parent), state=tmp_path / "state").ensure(wanted)
    assert not again.changed and {entry["verdict"] for entry in again.report} == {"already_right"}
    assert not WalDisk(str(point.parent), state=tmp_path / "state").ensure(Wanted(None, file_system=file_system)).changed

    systemd(["systemctl", "stop", mount.MountPoint(str(point), record.uuid).unit])
    with pytest.raises(PermissionError):
        (point / "wal").mkdir()
    assert WalDisk(str(point.parent), state=tmp_path / "state").ensure(wanted).changed, "it is mounted again"

    removed = WalDisk(str(point.parent), state=tmp_path / "state").remove()
    assert removed.changed and {entry["verdict"] for entry in removed.report} == {"restored"}
    assert not point.exists() and disk.record() is None and not list(tmp_path.glob("*.mount"))
    assert blank.contents(blank.find(device)) == []
    assert not WalDisk(str(point.parent), state=tmp_path / "state").remove().changed
    assert disk.ensure(wanted).changed, "and it can be done again"


@pytest.mark.parametrize("killed_at", ["mkfs.ext4", "daemon-reload", "enable", "start"])
def test_a_run_that_was_cut_off_is_completed(
    device: str, disk: WalDisk, systemd: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    from ansible_collections.kubetune.control_plane.plugins.module_utils._wal_disk import disk as module

    monkeypatch.setattr(module, "output", systemd)
    systemd.killed_at = killed_at
    with pytest.raises(KeyboardInterrupt):
        disk.ensure(Wanted(device, format=True))
    systemd.killed_at = None
    assert WalDisk(str(Path(disk.mount_point).parent), state=tmp_path / "state").ensure(Wanted(device, format=True)).changed
    assert os.path.ismount(disk.mount_point)
    assert len(list(tmp_path.glob("*.wants/*.mount"))) == 2, "it is mounted at boot, and when the disk comes back"


def test_a_half_made_file_system_is_made_anew_and_another_one_is_not(
    device: str, disk: WalDisk, systemd: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible_collections.kubetune.control_plane.plugins.module_utils._wal_disk import disk as module

    monkeypatch.setattr(module, "output", systemd)
    systemd.killed_at = "mkfs.ext4"
    with pytest.raises(KeyboardInterrupt):
        disk.ensure(Wanted(device, format=True))
    systemd.killed_at = None
    run("mkfs.xfs", "-q", device)  # somebody else's, meanwhile
    with pytest.raises(KubetuneError, match="is not the disk any more that was blank"):
        disk.ensure(Wanted(device, format=True))
    run("wipefs", "--all", device)  # what is left of it is no signature
    assert disk.ensure(Wanted(device, format=True)).changed


def test_a_file_system_is_not_trusted_before_its_mkfs_has_ended(
    device: str, disk: WalDisk, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible_collections.kubetune.control_plane.plugins.module_utils._wal_disk import disk as module

    def cut_off(command: list[str], empty: int = 0) -> str:
        systemd(command, empty)
        if command[0] == "mkfs.ext4":
            raise KeyboardInterrupt
        return ""

    monkeypatch.setattr(module, "output", cut_off)
    with pytest.raises(KeyboardInterrupt):
        disk.ensure(Wanted(device, format=True))
    monkeypatch.undo()
    monkeypatch.setattr(mount, "_UNITS", systemd.units)
    monkeypatch.setattr(mount, "output", systemd)
    monkeypatch.setattr(blank, "MIN_BYTES", 300 << 20)
    record = disk.record()
    assert record and record.uuid == blank.uuid_of(device)
    put(device, [(8192, b"\xff" * 8192)])  # the superblock is there, the rest is not
    assert disk.ensure(Wanted(device, format=True)).changed
    run("umount", disk.mount_point)
    run("e2fsck", "-f", "-n", device)


def test_a_disk_known_by_its_name_alone_is_not_formatted_after_a_reboot(
    device: str, disk: WalDisk, systemd: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible_collections.kubetune.control_plane.plugins.module_utils._wal_disk import disk as module

    monkeypatch.setattr(module, "output", systemd)
    systemd.killed_at = "mkfs.ext4"
    with pytest.raises(KeyboardInterrupt):
        disk.ensure(Wanted(device, format=True))
    systemd.killed_at = None
    before = digest(device)
    file = tmp_path / "state/wal-disk.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "another"}))
    with pytest.raises(KubetuneError, match="is not the disk any more that was blank.*nothing is written"):
        disk.ensure(Wanted(device, format=True))
    assert digest(device) == before


def test_an_erasure_that_was_cut_off_is_completed(
    device: str, disk: WalDisk, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.ensure(Wanted(device, format=True))
    with monkeypatch.context() as patched:
        patched.setattr(blank, "_places", lambda size: [(_ for _ in ()).throw(KeyboardInterrupt)])
        with pytest.raises(KeyboardInterrupt):
            disk.remove()
    assert blank.signatures(device) == [] and blank.contents(blank.find(device)), "wiped, and not blank yet"
    assert disk.remove().changed
    assert blank.contents(blank.find(device)) == [] and disk.record() is None


def test_a_pod_that_carries_the_mount_does_not_hold_the_disk(device: str, disk: WalDisk, systemd: Systemd) -> None:
    """As etcd's own pod does after its WAL was moved back: it was started while the disk was mounted."""
    disk.ensure(Wanted(device, format=True))
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as pod:
        try:
            assert pod.stdout and pod.stdout.readline()
            mounts = Path(f"/proc/{pod.pid}/mountinfo")
            assert disk.mount_point in mounts.read_text()
            disk.remove()
            assert disk.mount_point not in mounts.read_text()
        finally:
            pod.kill()
    assert blank.contents(blank.find(device)) == []


def test_another_file_system_on_the_mount_point_is_refused(loop: Callable[..., str], disk: WalDisk, systemd: Systemd) -> None:
    device, other = loop(), loop()
    run("mkfs.ext4", "-q", other)
    Path(disk.mount_point).mkdir()
    run("mount", other, disk.mount_point)
    with pytest.raises(Refusal, match="is mounted there, and the WAL's disk is"):
        disk.ensure(Wanted(device, format=True))
    assert disk.record() is None and blank.contents(blank.find(device)) == []


def test_a_data_directory_behind_a_link(device: str, systemd: Systemd, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("etcd")
    disk = WalDisk(str(tmp_path / "link"), state=tmp_path / "state")
    assert disk.mount_point == str(tmp_path / "etcd/wal-disk")
    assert disk.ensure(Wanted(device, format=True)).changed
    assert not disk.ensure(Wanted(device, format=True)).report[-1]["verdict"] == "changed"
    assert disk.remove().changed


def test_a_disk_below_a_loop_device_is_refused(device: str, disk: WalDisk) -> None:
    above = run("losetup", "--find", "--show", device)
    try:
        with pytest.raises(Refusal, match=f"{Path(above).name} lies on it"):
            disk.ensure(Wanted(device, format=True))
    finally:
        run("losetup", "--detach", above)


def test_an_unmounted_wal_is_seen(device: str, disk: WalDisk, systemd: Systemd) -> None:
    disk.ensure(Wanted(device, format=True))
    wal = Path(disk.mount_point) / "wal"
    wal.mkdir()
    (wal / "0-0.wal").write_bytes(b"x")
    run("umount", disk.mount_point)
    with pytest.raises(Refusal, match="is not there: run site.yml"):
        disk.remove()
    assert (wal / "0-0.wal").read_bytes() == b"x"


def test_another_disk_is_no_small_change(loop: Callable[..., str], disk: WalDisk, systemd: Systemd) -> None:
    first, second = loop(), loop()
    disk.ensure(Wanted(first, format=True))
    with pytest.raises(Refusal, match=f"device {second}: this host's WAL disk is {first}"):
        disk.ensure(Wanted(second, format=True))
    with pytest.raises(Refusal, match="file_system xfs: the disk was made with ext4"):
        disk.ensure(Wanted(first, file_system="xfs", format=True))


def test_a_disk_with_the_wal_stays(device: str, disk: WalDisk, systemd: Systemd) -> None:
    disk.ensure(Wanted(device, format=True))
    wal = Path(disk.mount_point) / "wal"
    wal.mkdir()
    (wal / "0-0.wal").write_bytes(b"x")
    with pytest.raises(Refusal, match="run site.yml with etcd_wal_state absent"):
        disk.remove()
    default = Path(disk.mount_point).parent / "member/wal"
    default.parent.mkdir()
    default.symlink_to("../wal-disk/wal")
    with pytest.raises(Refusal, match="leads there"):
        disk.remove()
    assert os.path.ismount(disk.mount_point)
