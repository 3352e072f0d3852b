# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kube-controller-manager and kube-scheduler go through in site.yml's windows: restarts, leases that move, time without a leader.

    python -m tests.benchmarks.leases [-- ARGUMENTS FOR ansible-playbook]

The lab has to be up. Both talk to the API server of their own node alone. A leader that cannot renew its lease for 10 s (renewDeadline)
ends itself, and its container is started again; another one takes the lease 15 s (leaseDuration) after the last renewal.
"""

from __future__ import annotations

import base64
import http.client
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.site_gap import windows
from tests.benchmarks.writer import Etcd, b64
from tests.lab import nodes

COMPONENTS = ("kube-controller-manager", "kube-scheduler")
#: Seconds between two looks. A leader renews every 2 s (retryPeriod).
PACE = 0.2
PREFIX = "/registry/leases/kube-system/"
_HOLDER = re.compile(rb"([a-z0-9.-]+)_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Renewal:
    """at: seconds since the epoch, as seen from here. holder: the node of the leader."""

    at: float
    holder: str


@dataclass(frozen=True)
class Account:
    """What happened to one lease in a span of time.

    silence: the longest time without a renewal, in seconds.
    moves: (from, to, seconds between the last renewal of the one and the first of the other).
    """

    silence: float
    moves: tuple[tuple[str, str, float], ...]


def account(renewals: Sequence[Renewal], since: float, until: float) -> Account:
    """Of the renewals, in order, those that end a silence within the span: a lease may move when the window is long over."""
    pairs = [(one, other) for one, other in zip(renewals, renewals[1:]) if since <= other.at < until]
    return Account(
        max((other.at - one.at for one, other in pairs), default=0.0),
        tuple((one.holder, other.holder, other.at - one.at) for one, other in pairs if one.holder != other.holder),
    )


def restarts(samples: Sequence[tuple[float, int | None]], since: float, until: float) -> list[float]:
    """When another process was seen than the one before, within the span. samples: (time, pid or None) in order."""
    found = []
    last = next((pid for _at, pid in samples if pid), None)
    for at, pid in samples:
        if pid and pid != last:
            last = pid
            if since <= at <= until:
                found.append(at)
    return found


class Leases(threading.Thread):
    """Looks into etcd, at whichever member answers: the API servers are what is changed."""

    def __init__(self, lab: nodes.Lab) -> None:
        super().__init__(name="leases", daemon=True)
        self.renewals: dict[str, list[Renewal]] = {name: [] for name in COMPONENTS}
        self._etcd = Etcd(lab)
        self._at = 0
        self._stop_asked = threading.Event()

    def run(self) -> None:
        seen: dict[str, int] = {}
        while not self._stop_asked.wait(PACE):
            for name, (revision, holder) in self._read().items():
                if revision > seen.get(name, 0):
                    seen[name] = revision
                    self.renewals[name].append(Renewal(time.time(), holder))

    def finish(self) -> None:
        self._stop_asked.set()
        self.join()

    def _read(self) -> dict[str, tuple[int, str]]:
        """Component -> (revision, holder's node) of its lease; empty while no member answers."""
        try:
            answer = self._etcd.call(self._at, "/v3/kv/range", {"key": b64(f"{PREFIX}kube-"), "range_end": b64(f"{PREFIX}kube-~")}, 1.0)
        except (OSError, http.client.HTTPException, ValueError):
            self._at = (self._at + 1) % len(self._etcd.endpoints)
            return {}
        found = {}
        for each in answer.get("kvs", []):
            name = base64.b64decode(each["key"]).decode().removeprefix(PREFIX)
            holder = _HOLDER.search(base64.b64decode(each["value"]))
            if name in COMPONENTS and holder:
                found[name] = int(each["mod_revision"]), holder[1].decode()
        return found


class Processes(threading.Thread):
    """Follows the process ids of one node, every half second, with a single shell there."""

    def __init__(self, node: nodes.Node) -> None:
        super().__init__(name=f"processes of {node.name}", daemon=True)
        self.samples: dict[str, list[tuple[float, int | None]]] = {name: [] for name in COMPONENTS}
        look = "; ".join(f'echo "{name} $(pgrep --exact --oldest {name[:15]})"' for name in COMPONENTS)
        command = ["docker", "exec", node.container, "sh", "-c", f"while {look}; do sleep 0.5; done"]
        self._shell = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def run(self) -> None:
        for line in self._shell.stdout or ():
            name, _, pid = line.strip().partition(" ")
            self.samples[name].append((time.time(), int(pid) if pid else None))

    def finish(self) -> None:
        self._shell.terminate()
        self._shell.wait()
        self.join()


def main(arguments: list[str]) -> int:
    lab = nodes.load()
    leases, processes = Leases(lab), {node.name: Processes(node) for node in lab.nodes}
    began = time.time()
    for thread in (leases, *processes.values()):
        thread.start()
    time.sleep(5)
    command = ["ansible-playbook", "-i", str(lab.inventory), "kubetune.control_plane.site", *arguments]
    status = subprocess.run(command, check=False).returncode
    time.sleep(30)
    for each in (leases, *processes.values()):
        each.finish()
    opened = windows(lab, began)
    ends = [events[0]["time"] for _name, _outcome, events in opened[1:]] + [time.time()]
    for (name, outcome, events), end in zip(opened, ends):
        since = events[0]["time"]
        print(f"\nwindow of {name}, {events[-1]['time'] - since:.1f} s, {outcome}; until the next one:")
        for component in COMPONENTS:
            holder = next((each.holder for each in reversed(leases.renewals[component]) if each.at <= since), "nobody")
            found = account(leases.renewals[component], since, end)
            moves = [f"{one} to {other} after {seconds:.1f} s" for one, other, seconds in found.moves]
            gone = [
                f"{node} at {at - since:.1f} s" for node, each in processes.items() for at in restarts(each.samples[component], since, end)
            ]
            print(
                f"  {component:<24} leader {holder}; longest without a renewal {found.silence:4.1f} s; "
                f"lease {', '.join(moves) or 'stays'}; restarts: {', '.join(gone) or 'none'}"
            )
    return status


if __name__ == "__main__":
    sys.exit(main([each for each in sys.argv[1:] if each != "--"]))
