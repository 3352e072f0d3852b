# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The root disk that all machines start from: Debian with its own kernel, made once and kept in the cache."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab import binaries
from tests.lab.console import run, waiting
from tests.lab.images import SUITE
from tests.lab.settings import Settings

PACKAGES = (
    # linux-image-cloud-amd64 would lack NVMe's, SCSI's and device mapper's drivers.
    "linux-image-amd64", "initramfs-tools", "systemd", "systemd-sysv", "dbus", "udev", "kmod", "procps", "util-linux", "mount",
    "fdisk", "login", "passwd", "libpam-modules", "openssh-server", "python3", "iproute2", "iptables", "ethtool", "conntrack",
    "socat", "ca-certificates", "curl", "less", "psmisc",
    "e2fsprogs", "xfsprogs", "btrfs-progs", "lvm2", "mdadm", "cryptsetup-bin", "multipath-tools", "bcache-tools", "nvme-cli", "fio",
    "containerd", "containernetworking-plugins",
)  # fmt: skip
# Units that want a network, or act on disks before a test has asked for it.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
          "fstrim.timer", "nvmf-autoconnect.service")  # fmt: skip
DISABLED = ("multipathd.service", "containerd.service", "mdmonitor-oneshot.timer", "mdcheck_start.timer", "mdcheck_continue.timer")
ENABLED = ("vm-network.service", "ssh.service")
ROOT_BYTES = 8 << 30
_TREE = Path(__file__).with_name("files") / "guest"


@dataclass(frozen=True)
class BaseImage:
    """root: raw disk with one ext4 file system. kernel, initrd: of that system. host_key: sshd's public key."""

    root: Path
    kernel: Path
    initrd: Path
    host_key: Path


def base_image(settings: Settings) -> BaseImage:
    """Where the base image is, made or not; its folder is named after what is in it."""
    tree = [path.relative_to(_TREE).as_posix() + path.read_text() for path in sorted(_TREE.rglob("*")) if path.is_file()]
    parts = (*PACKAGES, *MASKED, *DISABLED, *ENABLED, str(ROOT_BYTES), *tree)
    folder = settings.assets / f"vm-{SUITE}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:12]}"
    return BaseImage(folder / "root.img", folder / "vmlinuz", folder / "initrd.img", folder / "host_key.pub")


def provide(settings: Settings) -> BaseImage:
    """Makes the base image with Debian's own packages where it is missing."""
    image = base_image(settings)
    folder = image.root.parent
    # It appears whole; whoever has it need not wait for somebody who makes another one.
    if folder.exists():
        return image
    with binaries.cache_lock(settings):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=settings.assets, prefix="vm-build-") as scratch:
                system, result = Path(scratch) / "system", Path(scratch) / "result"
                with waiting(f"making the virtual machines' base system (Debian {SUITE})"):
                    _install(system)
                    _pack(system, result)
                result.rename(folder)
    return image


def _install(system: Path) -> None:
    run([
        "mmdebstrap", "--quiet", "--variant=minbase", "--format=directory", f"--include={','.join(PACKAGES)}",
        # Before the packages are configured: the kernel's package makes the initial RAM disk.
        f"--essential-hook=copy-in {' '.join(str(path) for path in sorted((_TREE / 'etc').iterdir()))} /etc",
        f"--customize-hook=chroot \"$1\" systemctl mask --quiet {' '.join(MASKED)}",
        f"--customize-hook=chroot \"$1\" systemctl disable --quiet {' '.join(DISABLED)}",
        f"--customize-hook=chroot \"$1\" systemctl enable --quiet {' '.join(ENABLED)}",
        "--customize-hook=chroot \"$1\" useradd --create-home --shell /bin/bash etcd",
        SUITE, system,
    ])  # fmt: skip


def _pack(system: Path, result: Path) -> None:
    result.mkdir()
    shutil.copy(next((system / "boot").glob("vmlinuz-*")), result / "vmlinuz")
    shutil.copy(next((system / "boot").glob("initrd.img-*")), result / "initrd.img")
    shutil.copy(system / "etc/ssh/ssh_host_ed25519_key.pub", result / "host_key.pub")
    # The kernel fills /dev itself.
    for device in (system / "dev").iterdir():
        shutil.rmtree(device) if device.is_dir() and not device.is_symlink() else device.unlink()
    # Newer than all that is in /usr, or the first boot compiles the hardware database anew (systemd-update-done.service(8)).
    for folder in ("etc", "var"):
        (system / folder / ".updated").touch()
    # Each machine gets its own.
    (system / "etc/machine-id").write_text("")
    with open(result / "root.img", "wb") as stream:
        stream.truncate(ROOT_BYTES)
    run(["mkfs.ext4", "-q", "-F", "-L", "root", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", system, result / "root.img"])
