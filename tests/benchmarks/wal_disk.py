# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk of its own does for the WAL's fsync, beside a busy neighbour on the disk of the data. Emulated.

    python -m tests.benchmarks.wal_disk [--rounds 6] [--seconds 15]

A virtual machine has two disks that QEMU limits separately, to the same rates. On the first one lie etcd's data and a
neighbour that writes and flushes all the time; the WAL lies there too, or on the second disk. Both places are measured in
each round, in turn, by fio as etcd's documentation advises (2300 bytes, fdatasync after each) and by etcd's own histogram.
The figures say how the two places compare, not how fast any real disk is.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
from dataclasses import dataclass
from typing import Sequence

from tests.lab import binaries
from tests.lab.console import say, until
from tests.lab.settings import from_environment
from tests.vm.machine import Disk, Machine, accelerator

#: Of each disk: like a small cloud volume. Slower than the emulated processor, so that the disks are what is measured.
IOPS, BANDWIDTH = 500, 20 << 20
SHARED, OWN = "/mnt/shared", "/mnt/own"
#: Size of a WAL record in fio's check of a disk for etcd (etcd FAQ, "What does the etcd warning ... mean?").
RECORD = 2300
FIO = "fio --name=wal --directory={place} --rw=write --ioengine=sync --fdatasync=1 --bs={record} --size=64m --time_based --runtime={seconds} --unlink=1 --output-format=json"
#: As a pull of an image: large buffered writes, flushed every 16 MiB.
NEIGHBOUR = (
    "systemd-run --quiet --unit neighbour fio --name=neighbour --directory=/mnt/shared --rw=write --ioengine=sync --bs=1m --size=256m "
    "--fsync=16 --time_based --runtime=1d"
)
ETCD = (
    "systemd-run --quiet --unit etcd --property LimitNOFILE=65536 /usr/local/bin/etcd --name=vm --data-dir=/mnt/shared/etcd --wal-dir={place}/wal"
)
#: Puts through etcd's JSON gateway over one connection: no client program has to start for each.
PUTS = """
import base64, http.client, itertools, json, sys, time
end = time.monotonic() + float(sys.argv[1])
connection = http.client.HTTPConnection("127.0.0.1", 2379, timeout=120)
for number in itertools.takewhile(lambda _: time.monotonic() < end, itertools.count()):
    body = json.dumps({"key": base64.b64encode(b"/try/%06d" % number).decode(), "value": base64.b64encode(b"x" * 1024).decode()})
    connection.request("POST", "/v3/kv/put", body)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(content)
"""
METRIC = "etcd_disk_wal_fsync_duration_seconds"


@dataclass(frozen=True)
class Histogram:
    """Cumulative counts of a Prometheus histogram: upper bound in seconds (infinity is the last) -> observations up to it."""

    counts: dict[float, int]

    @classmethod
    def parse(cls, text: str, name: str) -> Histogram:
        """One histogram without further labels out of /metrics."""
        found = re.findall(rf'^{name}_bucket{{le="([^"]+)"}} ([0-9.e+]+)$', text, re.MULTILINE)
        return cls({math.inf if bound == "+Inf" else float(bound): int(float(count)) for bound, count in found})

    def since(self, before: Histogram) -> Histogram:
        """What was observed after ``before``."""
        return Histogram({bound: count - before.counts[bound] for bound, count in self.counts.items()})

    @property
    def total(self) -> int:
        """Number of observations."""
        return self.counts[math.inf]

    def quantile(self, part: float) -> float:
        """Seconds, by a straight line within the bucket, as Prometheus' histogram_quantile has it."""
        rank, lower, below = part * self.total, 0.0, 0
        for bound, count in sorted(self.counts.items()):
            if count >= rank and count > below:
                return lower if bound == math.inf else lower + (bound - lower) * (rank - below) / (count - below)
            lower, below = (bound, count) if bound != math.inf else (lower, count)
        return math.nan


def spread(values: Sequence[float], digits: int = 1) -> str:
    """``median (least to largest)``."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def apart(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the ranges of two series do not overlap: otherwise no difference is shown."""
    return min(first) > max(second) or min(second) > max(first)


def prepare(machine: Machine) -> None:
    """File systems on both disks, etcd, and the neighbour at work."""
    for name, place in (("shared", SHARED), ("own", OWN)):
        device = f"/dev/{machine.device(name)}"
        machine.shell(f"mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 {device}; mkdir -p {place}; mount -o noatime {device} {place}")
    settings = from_environment()
    binaries.provide(settings)
    machine.copy_in(binaries.etcd_dir(settings) / "etcd", "/usr/local/bin/etcd")
    machine.write("/root/puts.py", PUTS)
    for disk in ("shared", "own"):
        machine.throttle(disk, iops=IOPS, bandwidth=BANDWIDTH)
    machine.shell(NEIGHBOUR)
    stat = f"/sys/block/{machine.device('shared')}/stat"
    # What it writes at first goes to memory. The seventh number counts sectors of 512 bytes (Documentation/block/stat.rst).
    begun = int(machine.read(stat).split()[6])
    until("the neighbour is at work on the disk", lambda: int(machine.read(stat).split()[6]) - begun > (64 << 20) // 512, seconds=300)


def fio_p99(machine: Machine, place: str, seconds: int) -> float:
    """99th percentile of fdatasync in milliseconds."""
    told = json.loads(machine.shell(FIO.format(place=place, record=RECORD, seconds=seconds), timeout=1200).stdout)
    return float(told["jobs"][0]["sync"]["lat_ns"]["percentile"]["99.000000"]) / 1e6


def etcd_histogram(machine: Machine) -> Histogram:
    return Histogram.parse(machine.output("curl", "--silent", "--fail", "http://127.0.0.1:2379/metrics"), METRIC)


def etcd_p99(machine: Machine, place: str, seconds: int) -> float:
    """99th percentile of the WAL's fsync in milliseconds, by a fresh etcd's own count, while keys are put one after the other."""
    machine.shell(f"rm -rf {SHARED}/etcd {place}/wal; {ETCD.format(place=place)}")
    ready = ("curl", "--silent", "--fail", "--max-time", "5", "http://127.0.0.1:2379/readyz")
    until("etcd is ready", lambda: machine.run(*ready, check=False).returncode == 0, seconds=300)
    before = etcd_histogram(machine)
    machine.run("python3", "/root/puts.py", str(seconds), timeout=1200)
    after = etcd_histogram(machine)
    machine.shell(f"systemctl stop etcd; rm -rf {SHARED}/etcd {place}/wal")
    return after.since(before).quantile(0.99) * 1000


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.wal_disk", description="The WAL's fsync on a shared disk and on its own.")
    parser.add_argument("--rounds", type=int, default=6, help="measurements of each kind in each place (6)")
    parser.add_argument("--seconds", type=int, default=15, help="length of each measurement (15)")
    options = parser.parse_args(arguments)
    results: dict[str, dict[str, list[float]]] = {"fio": {SHARED: [], OWN: []}, "etcd": {SHARED: [], OWN: []}}
    with Machine("wal-benchmark", [Disk("shared", size=4 << 30), Disk("own", size=2 << 30)]) as machine:
        prepare(machine)
        kernel = machine.output("uname", "-r")
        for number in range(options.rounds):
            # In turn, and the order turned round each time: what drifts meets both.
            places = (SHARED, OWN) if number % 2 == 0 else (OWN, SHARED)
            for kind, measure in (("fio", fio_p99), ("etcd", etcd_p99)):
                for place in places:
                    results[kind][place].append(measure(machine, place, options.seconds))
                    say(f"round {number + 1}: {kind} on {place}: p99 {results[kind][place][-1]:.1f} ms")
    print(f"EMULATED: QEMU ({accelerator()}), Linux {kernel}, two disks of {IOPS} operations and {BANDWIDTH >> 20} MiB each second each;")
    print(f"{options.rounds} rounds of {options.seconds} s; median (least to largest) of the rounds' 99th percentiles")
    for kind, title in (("fio", f"fio, fdatasync after each {RECORD} bytes"), ("etcd", f"etcd, {METRIC}")):
        shared, own = results[kind][SHARED], results[kind][OWN]
        ratios = [first / second for first, second in zip(shared, own)]
        print(f"\n{title}")
        print(f"  WAL on the disk of data and neighbour  {spread(shared)} ms")
        print(f"  WAL on its own disk                    {spread(own)} ms")
        print(f"  ratio                                  {spread(ratios)}{'' if apart(shared, own) else '; the ranges overlap: no difference shown'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
