# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One virtual machine: started with its disks, reached by ssh, rebooted, cut off, and gone at the end.

    with Machine("try", disks=[Disk("wal", bus="nvme")]) as machine:
        machine.run("lsblk")
        machine.unplug("wal")
        machine.reboot()

The process of the machine ends with this one, however this one ends. State lies in ``.work/vm-NAME`` while it runs.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.lab.console import run, say, until
from tests.lab.errors import LabError
from tests.lab.settings import REPOSITORY, Settings, from_environment

from . import image
from .monitor import Monitor

# What each kind of disk is to QEMU. SCSI ones pass for a vendor's, for the collection knows QEMU's own as made up, and then
# whether they rotate says nothing.
_DEVICES: dict[str, dict[str, Any]] = {
    "virtio": {"driver": "virtio-blk-pci"},
    "nvme": {"driver": "nvme"},
    "ssd": {"driver": "scsi-hd", "bus": "scsi.0", "vendor": "LAB", "product": "SSD", "rotation_rate": 1},
    "rotational": {"driver": "scsi-hd", "bus": "scsi.0", "vendor": "LAB", "product": "ROTATING", "rotation_rate": 7200},
}
_BOOT_SECONDS = 600
_SIGNAL_AT_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(frozen=True)
class Disk:
    """A disk besides the root disk.

    name: also its serial number, by which the guest finds it: letters, digits and '-', at most 20 (virtio's limit).
    bus: ``virtio``, ``nvme``, or ``ssd`` and ``rotational``, which are SCSI.
    size: bytes. iops, bandwidth: operations and bytes each second, 0 for as many as come.
    file: the disk's content, instead of an empty one of ``size`` bytes; it is written to unless ``read_only``.
    shares: name of an earlier SCSI disk whose content and identity this one shows too, as a second path to it does.
    """

    name: str
    bus: str = "virtio"
    size: int = 1 << 30
    iops: int = 0
    bandwidth: int = 0
    file: Path | None = None
    read_only: bool = False
    shares: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z0-9-]{1,20}", self.name):
            raise LabError(f"disk {self.name!r}: allowed are at most 20 lower-case letters, digits and '-'")
        if self.bus not in _DEVICES:
            raise LabError(f"disk {self.name}: bus {self.bus!r}; there are {', '.join(_DEVICES)}")

    @property
    def scsi(self) -> bool:
        """Whether it hangs on the SCSI controller."""
        return self.bus in ("ssd", "rotational")

    @property
    def wwn(self) -> int:
        """A world-wide name of a SCSI disk, the same for all paths to it (NAA 5, 64 bits)."""
        return 0x5 << 60 | zlib.crc32((self.shares or self.name).encode())


class Machine:
    """A virtual machine with Debian on it.

    name: of the machine and its folder; two of the same name cannot run at once.
    disks: besides the root disk, in the order in which the guest finds those of one kind.
    memory: MiB. cpus: virtual processors; one, for with two of them an emulated guest now and then waits for ever for its other one
        (QEMU 7.2, seen after a reboot on a busy machine).
    base: the root disk to start from; a copy-on-write overlay of it is used and thrown away.
    """

    def __init__(
        self, name: str, disks: Sequence[Disk] = (), *, memory: int = 2048, cpus: int = 1, base: Path | None = None,
        settings: Settings | None = None,
    ) -> None:  # fmt: skip
        if not re.fullmatch("[a-z][a-z0-9-]{0,23}", name):
            raise LabError(f"machine {name!r}: allowed is a lower-case name of at most 24 letters, digits and '-'")
        self.name, self.memory, self.cpus = name, memory, cpus
        self.state = REPOSITORY / ".work" / f"vm-{name}"
        self._settings = settings or from_environment()
        self._base = base
        self._disks = {disk.name: disk for disk in disks}
        self._image: image.BaseImage | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: Monitor | None = None
        # Sockets have short paths at most (108 bytes, unix(7)), and a checkout may be deep down.
        self._sockets = Path()
        self._port = 0
        self._console_before = 0

    # Life

    def __enter__(self) -> Machine:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            say(f"{self.name}: the last lines of its console:\n{self.console_tail()}")
        self.remove()

    def start(self) -> None:
        """Makes a new machine and returns when ssh works."""
        base = self._image = image.provide(self._settings)
        self._claim()
        try:
            self._sockets = Path(tempfile.mkdtemp(prefix="vm-"))
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", _format(self._base or base.root), "-b", self._base or base.root, self._root_file])
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vm", "-f", self.state / "key"])
            for disk in self._disks.values():
                self._make(disk)
            self._write_ssh_configuration(base)
            self.power_on()
        except BaseException:
            self.remove()
            raise

    def power_on(self) -> None:
        """Starts the machine's process, with the disks that it has by now, and returns when ssh works."""
        assert self._image is not None
        begun, self._console_before = time.monotonic(), len(self._console())
        with open(self.state / "qemu.log", "ab") as log:
            self._process = subprocess.Popen(
                # A session of its own: the kernel then gives it a share of a busy machine that does not depend on who started it.
                self._command(self._image), stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent,
                start_new_session=True,
            )  # fmt: skip
        until(f"{self.name}: QEMU opens its monitor", self._monitor_is_there, seconds=30, every=0.05)
        self._monitor = Monitor(self._sockets / "monitor")
        for disk in self._disks.values():
            self._apply_throttle(disk)
        self._await_ssh()
        say(f"{self.name}: up after {time.monotonic() - begun:.1f} s ({accelerator()})")

    def reboot(self) -> None:
        """Restarts the guest the ordinary way and returns when ssh works again."""
        before, begun, self._console_before = self._boot_id(), time.monotonic(), len(self._console())
        self.run("systemctl", "--no-block", "reboot")
        self._hang_up()
        self._await_ssh(other_than=before)
        say(f"{self.name}: rebooted in {time.monotonic() - begun:.1f} s")

    def cut_power(self) -> None:
        """Ends the machine from one moment to the next; ``power_on`` starts it again, with the disks it has.

        What the guest has not flushed and QEMU has written already stays, unlike in a real disk's volatile cache.
        """
        self._end(signal.SIGKILL)

    def shut_down(self) -> None:
        """Switches the guest off the ordinary way."""
        self.run("systemctl", "--no-block", "poweroff")
        self._hang_up()
        assert self._process is not None
        try:
            self._process.wait(timeout=120)
        except subprocess.TimeoutExpired as late:
            raise LabError(f"{self.name}: not off after 120 s:\n{self.console_tail()}") from late
        self._end(signal.SIGTERM)

    def remove(self) -> None:
        """Ends the machine, whatever its state, and removes all that is left of it."""
        self._end(signal.SIGKILL)
        if self._sockets != Path():
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = Path()
        shutil.rmtree(self.state, ignore_errors=True)

    def console_tail(self, lines: int = 25) -> str:
        """The last lines of the serial console."""
        return "\n".join(self._console().decode(errors="replace").splitlines()[-lines:])

    # Commands

    def run(
        self, *command: str, check: bool = True, stdin: str | None = None, timeout: float | None = 300
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the guest as root; LabError on a status other than 0, unless ``check`` is off."""
        return run(["ssh", "-F", self.ssh_configuration, self.name, shlex.join(command)], check=check, stdin=stdin, timeout=timeout)

    def output(self, *command: str, timeout: float | None = 300) -> str:
        """Standard output of a command that must succeed, without the white space around it."""
        return self.run(*command, timeout=timeout).stdout.strip()

    def shell(self, script: str, check: bool = True, timeout: float | None = 300) -> subprocess.CompletedProcess[str]:
        """Runs a bash script in the guest; it ends at the first failing command."""
        return self.run("bash", "--norc", "-euo", "pipefail", "-c", script, check=check, timeout=timeout)

    def exists(self, path: str) -> bool:
        """Whether a path exists in the guest."""
        return self.run("test", "-e", path, check=False).returncode == 0

    def read(self, path: str) -> str:
        """A text file of the guest."""
        return self.run("cat", path).stdout

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        """Writes a text file in the guest at once (a temporary file, then a rename); its folder is made."""
        script = 'umask 077; mkdir -p "$(dirname "$0")"; cat >"$0.new"; chmod "$1" "$0.new"; mv "$0.new" "$0"'
        self.run("bash", "-euc", script, path, mode, stdin=text)

    def copy_in(self, source: Path, target: str) -> None:
        """Copies a file of this machine into the guest, with its mode."""
        run(["scp", "-q", "-p", "-F", self.ssh_configuration, source, f"{self.name}:{target}"], timeout=600)

    def device(self, disk: str) -> str:
        """The guest's name for a disk, such as sda, by its serial number (of several paths the first)."""
        for line in self.output("lsblk", "--nodeps", "--noheadings", "--output", "KNAME,SERIAL").splitlines():
            name, _, serial = line.partition(" ")
            if serial.strip() == disk:
                return name
        raise LabError(f"{self.name}: the guest sees no disk with serial number {disk}:\n{self.output('lsblk', '-o', '+SERIAL')}")

    @property
    def ssh_configuration(self) -> Path:
        """For ``ssh -F``: the host's name is the machine's."""
        return self.state / "ssh_config"

    @property
    def inventory(self) -> Path:
        """Ansible inventory of this machine alone, in the group kube_control_plane."""
        return self.state / "inventory.yml"

    # Disks

    def plug(self, disk: Disk) -> None:
        """Adds a disk while the guest runs, or one that was unplugged, with the content it had."""
        self._disks[disk.name] = disk
        self._make(disk)
        monitor = self._connected()
        monitor("blockdev-add", **_node(disk, self._file(disk)))
        monitor("device_add", **_device(disk))
        self._apply_throttle(disk)

    def unplug(self, name: str) -> None:
        """Takes a disk away while the guest runs; its content stays for ``plug``."""
        monitor = self._connected()
        monitor("device_del", id=name)
        monitor.wait_for("DEVICE_DELETED", 60, device=name)
        monitor("blockdev-del", **{"node-name": f"{name}-node"})
        del self._disks[name]

    def take_out(self, name: str) -> None:
        """Takes a disk away while the machine is off."""
        if self._process is not None:
            raise LabError(f"{self.name}: runs; `unplug` takes {name} away then")
        del self._disks[name]

    def put_in(self, disk: Disk) -> None:
        """Adds a disk, with the content it had, while the machine is off."""
        if self._process is not None:
            raise LabError(f"{self.name}: runs; `plug` adds {disk.name} then")
        self._disks[disk.name] = disk
        self._make(disk)

    def throttle(self, name: str, *, iops: int = 0, bandwidth: int = 0) -> None:
        """Limits a disk to so many operations and bytes each second; 0 takes the limit away."""
        # The half of a virtio device that has the disk is a device of its own.
        device = f"/machine/peripheral/{name}/virtio-backend" if self._disks[name].bus == "virtio" else name
        self._connected()("block_set_io_throttle", id=device, iops=iops, iops_rd=0, iops_wr=0, bps=bandwidth, bps_rd=0, bps_wr=0)

    @property
    def qemu_version(self) -> str:
        """Of the running machine."""
        version = self._connected()("query-version")["qemu"]
        return "{major}.{minor}.{micro}".format(**version)

    def disk(self, name: str) -> Disk:
        """A disk that the machine has now."""
        return self._disks[name]

    # Inside

    def _claim(self) -> None:
        """Makes the machine's folder; clears away what a machine has left whose process is gone."""
        pid_file = self.state / "qemu.pid"
        if pid_file.exists() and _is_qemu(pid_file.read_text().strip()):
            raise LabError(f"machine {self.name} runs already (process {pid_file.read_text().strip()})")
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir(mode=0o700, parents=True)

    @property
    def _root_file(self) -> Path:
        return self.state / "root.qcow2"

    def _file(self, disk: Disk) -> Path:
        return disk.file or self.state / f"{disk.shares or disk.name}.img"

    def _make(self, disk: Disk) -> None:
        file = self._file(disk)
        if not file.exists():
            with open(file, "wb") as stream:
                stream.truncate(disk.size)

    def _command(self, base: image.BaseImage) -> list[str | Path]:
        accelerated = accelerator() == "kvm"
        key = base64.b64encode((self.state / "key.pub").read_bytes()).decode()
        self._port = _free_port()
        self._write_port()
        command: list[str | Path] = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", "pc", "-display", "none",
            *(["-accel", "kvm", "-cpu", "host"] if accelerated else ["-accel", "tcg,thread=multi", "-cpu", "max"]),
            "-smp", str(self.cpus), "-m", str(self.memory), "-rtc", "base=utc", "-pidfile", self.state / "qemu.pid",
            "-chardev", f"file,id=console,append=on,path={self.state / 'console.log'}", "-serial", "chardev:console",
            "-qmp", f"unix:{self._sockets / 'monitor'},server=on,wait=off",
            "-kernel", base.kernel, "-initrd", base.initrd,
            # no_timer_check: on a busy machine the emulated timer misses the moment at which the kernel looks for it.
            "-append", f"root=LABEL=root ro console=ttyS0 quiet no_timer_check net.ifnames=0 systemd.show_status=no systemd.hostname={self.name}",
            # systemd.system-credentials(7): root's key, without a change of the image.
            "-smbios", f"type=11,value=io.systemd.credential.binary:ssh.authorized_keys.root={key}",
            "-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self._port}-:22", "-device", "virtio-net-pci,netdev=net",
            "-device", "virtio-rng-pci",
            "-blockdev", f"driver=file,filename={self._root_file},node-name=root-file",
            "-blockdev", "driver=qcow2,file=root-file,node-name=root-node,discard=unmap",
            "-device", "virtio-blk-pci,drive=root-node,serial=root",
            "-device", "virtio-scsi-pci,id=scsi",
        ]  # fmt: skip
        for disk in self._disks.values():
            command += ["-blockdev", json.dumps(_node(disk, self._file(disk))), "-device", json.dumps(_device(disk))]
        return command

    def _monitor_is_there(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise LabError(f"{self.name}: QEMU ended with status {self._process.returncode}: {(self.state / 'qemu.log').read_text()}")
        return (self._sockets / "monitor").exists()

    def _connected(self) -> Monitor:
        if self._monitor is None:
            raise LabError(f"{self.name}: is not running")
        return self._monitor

    def _apply_throttle(self, disk: Disk) -> None:
        if disk.iops or disk.bandwidth:
            self.throttle(disk.name, iops=disk.iops, bandwidth=disk.bandwidth)

    def _write_ssh_configuration(self, base: image.BaseImage) -> None:
        (self.state / "known_hosts").write_text(f"{self.name} {base.host_key.read_text()}")
        host = {
            "ansible_ssh_args": f"-F {shlex.quote(str(self.ssh_configuration))}",
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        lines = ["---", "kube_control_plane:", "  hosts:", f"    {self.name}:", *(f"      {name}: {value}" for name, value in host.items())]
        self.inventory.write_text("\n".join(lines) + "\n")

    def _write_port(self) -> None:
        self.ssh_configuration.write_text(
            f"Host {self.name}\n  HostName 127.0.0.1\n  Port {self._port}\n  User root\n  HostKeyAlias {self.name}\n"
            f'  IdentityFile "{self.state / "key"}"\n  IdentitiesOnly yes\n  UserKnownHostsFile "{self.state / "known_hosts"}"\n'
            "  StrictHostKeyChecking yes\n  BatchMode yes\n  ConnectTimeout 120\n  ServerAliveInterval 10\n  ServerAliveCountMax 12\n"
            # A handshake takes the emulated processor a second: one connection for all commands.
            f"  ControlMaster auto\n  ControlPersist 600\n  ControlPath {self._sockets}/ssh-%r\n  LogLevel ERROR\n"
        )

    def _console(self) -> bytes:
        """All that the serial console has shown."""
        try:
            return (self.state / "console.log").read_bytes()
        except OSError:
            return b""

    def _boot_id(self) -> str:
        return self.read("/proc/sys/kernel/random/boot_id").strip()

    def _await_ssh(self, other_than: str = "") -> None:
        """Returns when the guest answers, in another boot than the given one.

        Not before its console asks for a login: on a busy machine each connection that is given up costs the guest more than it has.
        """

        def asks_for_login() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise LabError(f"{self.name}: QEMU ended with status {self._process.returncode}:\n{self.console_tail()}")
            return b" login:" in self._console()[self._console_before :]

        def answers() -> bool:
            try:
                found = self.run("cat", "/proc/sys/kernel/random/boot_id", check=False, timeout=180)
            except LabError:  # no end in time: the guest is half way up or down
                self._hang_up()
                return False
            if found.returncode == 0 and found.stdout.strip() != other_than:
                return True
            self._hang_up()
            return False

        try:
            until(f"{self.name}: its console asks for a login", asks_for_login, seconds=_BOOT_SECONDS)
            until(f"{self.name}: ssh answers", answers, seconds=_BOOT_SECONDS)
        except LabError as error:
            raise LabError(f"{error}; the last lines of its console:\n{self.console_tail()}") from error

    def _hang_up(self) -> None:
        """Ends the shared ssh connections; the next command makes a new one."""
        if self._sockets != Path():
            for path in self._sockets.glob("ssh-*"):
                user = path.name.removeprefix("ssh-")
                run(["ssh", "-F", self.ssh_configuration, "-O", "exit", "-l", user, self.name], check=False, timeout=10)
                path.unlink(missing_ok=True)

    def _end(self, number: int) -> None:
        """Ends the machine's process and what hangs on it."""
        self._hang_up()
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(number)
            self._process.wait()
            self._process = None
        if self._sockets != Path():
            (self._sockets / "monitor").unlink(missing_ok=True)


def accelerator() -> str:
    """``kvm`` where the processor's virtualization and /dev/kvm can be had, else ``tcg``, which emulates the processor."""
    flags = re.search(r"^flags\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    usable = flags and {"vmx", "svm"} & set(flags.group(1).split()) and os.access("/dev/kvm", os.R_OK | os.W_OK)
    return "kvm" if usable else "tcg"


def _node(disk: Disk, file: Path) -> dict[str, Any]:
    """The content of a disk, for blockdev-add."""
    protocol = {"driver": "file", "filename": str(file), "locking": "off" if disk.shares else "auto"}
    return {"driver": "raw", "node-name": f"{disk.name}-node", "read-only": disk.read_only, "discard": "unmap", "file": protocol}


def _device(disk: Disk) -> dict[str, Any]:
    """The device that shows it, for device_add."""
    device = {**_DEVICES[disk.bus], "id": disk.name, "drive": f"{disk.name}-node", "serial": disk.shares or disk.name}
    if disk.scsi:
        # Two paths to one disk are two writers of one file.
        device |= {"wwn": disk.wwn, "share-rw": True}
    return device


def _format(file: Path) -> str:
    return "qcow2" if file.suffix == ".qcow2" else "raw"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_qemu(pid: str) -> bool:
    try:
        return b"qemu-system" in Path(f"/proc/{int(pid)}/cmdline").read_bytes().split(b"\0")[0]
    except (OSError, ValueError):
        return False


def _die_with_parent() -> None:
    """In the child, before QEMU: the kernel ends it when the thread that started it is gone."""
    ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
