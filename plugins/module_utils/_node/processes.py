# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The running processes of the control plane, read from /proc."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping

from .._commands import output
from .._static_pod.manifest import flags_of

#: Bytes at the end of a log that are read.
_TAIL = 64 * 1024


@dataclass(frozen=True)
class Process:
    """A process; ``pid`` and ``start_ticks`` together name it once and for all (until the next boot)."""

    pid: int
    start_ticks: int
    argv: tuple[str, ...]

    @property
    def key(self) -> tuple[int, int]:
        return self.pid, self.start_ticks


def find(program: str, own_flags: Mapping[str, str], proc: Path = Path("/proc")) -> list[Process]:
    """Processes of a program which run with these flags, so that a second etcd on the host is not taken.

    Args:
        program: base name of the program, such as ``etcd``.
        own_flags: flag -> value which tell the wanted process from others; empty for any.
    """
    found = []
    for process in processes(proc):
        if process.argv[0].rpartition("/")[2] != program:
            continue
        flags = settings(process, proc)
        if all(flags.get(name, [""])[-1] == value for name, value in own_flags.items()):
            found.append(process)
    return found


def settings(process: Process, proc: Path = Path("/proc")) -> dict[str, list[str]]:
    """Flags by name; etcd takes them from variables such as ETCD_DATA_DIR too, and does not start with both."""
    found = flags_of(process.argv[1:])
    if process.argv[0].rpartition("/")[2] != "etcd":
        return found
    try:
        variables = (proc / str(process.pid) / "environ").read_bytes().decode(errors="surrogateescape").split("\0")
    except OSError:
        return found
    for name, _equals, value in (each.partition("=") for each in variables if each.startswith("ETCD_")):
        found.setdefault(name.removeprefix("ETCD_").lower().replace("_", "-"), [value])
    return found


def processes(proc: Path = Path("/proc")) -> Iterator[Process]:
    for entry in proc.iterdir():
        if entry.name.isdigit():
            process = read(int(entry.name), proc)
            if process:
                yield process


def read(pid: int, proc: Path = Path("/proc")) -> Process | None:
    """None when it has ended, is a zombie or a kernel thread."""
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        # The program's name may hold spaces and brackets: fields are counted after its closing bracket.
        stat = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if not words[0] or stat[0] == "Z":
        return None
    return Process(pid, int(stat[19]), tuple(word.decode(errors="surrogateescape") for word in words))


def of_static_pod(process: Process, component: str, proc: Path = Path("/proc"), logs: Path = Path("/var/log/pods")) -> bool:
    """Whether a process runs in the kube-system pod of that name, by its cgroup and the kubelet's log directories.

    A command line can be forged by anybody who may start a process on the host; these two belong to the kubelet.
    """
    return any(list(logs.glob(f"kube-system_{component}-*_{uid}")) for uid in pod_uids(process, proc))


def pod_uids(process: Process, proc: Path = Path("/proc")) -> set[str]:
    """The UID of the pod that a process runs in, by its cgroups; empty outside of pods and when it has ended."""
    try:
        cgroups = (proc / str(process.pid) / "cgroup").read_text()
    except OSError:
        return set()
    return {uid.replace("_", "-") for uid in re.findall(r"pod([0-9a-f][0-9a-f_-]{31,35})", cgroups)}


def alive(process: Process, proc: Path = Path("/proc")) -> bool:
    """Whether this very process still runs (a reused pid does not count)."""
    now = read(process.pid, proc)
    return now is not None and now.start_ticks == process.start_ticks


def peak_rss_bytes(pid: int, proc: Path = Path("/proc")) -> int | None:
    """The largest resident set so far (VmHWM), file pages included."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", (proc / str(pid) / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None


def newest_log(component: str, since: float, lines: int = 8, root: Path = Path("/var/log/pods")) -> list[str]:
    """The last lines which a kube-system static pod wrote after ``since`` (seconds since the epoch).

    The newest log may be that of a process which has only just been started: the newest with content is taken. The
    container runtime's prefix of each line (time, stream, tag) is cut off. No log is no error: the kubelet removes them
    while we look.
    """
    written = []
    for log in root.glob(f"kube-system_{component}-*/{component}/*.log"):
        try:
            facts = log.stat()
        except OSError:
            continue
        if facts.st_size and facts.st_mtime >= since:
            written.append((facts.st_mtime, log))
    for _time, log in sorted(written, reverse=True):
        try:
            with open(log, "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL))
                tail = stream.read().decode(errors="replace").splitlines()[-lines:]
        except OSError:
            continue
        return [re.sub(r"^\S+ (stdout|stderr) [FP] ", "", line)[:300] for line in tail]
    return []


def kubelet_log(component: str, lines: int = 3) -> list[str]:
    """The kubelet's last complaints about a static pod: what there is to read when not even a container was started."""
    if not shutil.which("journalctl"):
        return []
    journal = output(["journalctl", "--unit=kubelet", "--no-pager", "--output=cat", "--lines=500"], check=False).splitlines()
    return [f"kubelet: {line[:300]}" for line in journal if line.startswith("E") and f"{component}-" in line][-lines:]
