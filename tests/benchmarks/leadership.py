# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients feel when leadership is moved: how many of their writes etcd forgets, and how long those wait.

    python -m tests.benchmarks.leadership [MOVES, 60 by default]

The lab has to be up. A leader that gives its place away drops what others forward to it meanwhile (raft.go, leadTransferee), and nobody
tells the follower, which answers when its time is up: 5 s and twice the election timeout (etcd 3.6, server/config, ReqTimeout).
"""

from __future__ import annotations

import sys
import time

from tests.benchmarks.clients import Client, lost, start
from tests.faults.fault import leader, members
from tests.lab import nodes

#: Seconds of quiet before a move, and what of an attempt is no longer etcd's ordinary business.
PAUSE, LONG = 1.0, 4.0


def move(lab: nodes.Lab) -> None:
    """To the member behind the leader, so that each has its turn."""
    ids = [each["header"]["member_id"] for each in members(lab)]
    at = lab.nodes.index(leader(lab))
    lab.etcdctl("move-leader", f"{ids[(at + 1) % len(ids)]:x}", endpoints=[lab.nodes[at].etcd_endpoint])


def caught(client: Client, since: float) -> tuple[int, int]:
    """(attempts that were refused at once, attempts that had to wait for it), of those which ended after a moment."""
    tried = [(end - start, taken) for _at, start, end, taken in client.attempts if end >= since]
    return sum(seconds < LONG and not taken for seconds, taken in tried), sum(seconds >= LONG for seconds, _taken in tried)


def main(arguments: list[str]) -> int:
    moves = int((*arguments, "60")[0])
    lab = nodes.load()
    clients = start(lab)
    hit = dict.fromkeys(clients, 0)
    for number in range(moves):
        since = time.monotonic()
        move(lab)
        time.sleep(PAUSE)
        for name, client in clients.items():
            before = len(client.acknowledged)
            while len(client.acknowledged) == before:
                time.sleep(0.1)  # it is in one of those that wait
            at_once, waited = caught(client, since)
            hit[name] += bool(waited)
            if at_once or waited:
                print(f"{number + 1}: {name} client: {at_once} refused at once, {waited} after {LONG:g} s or more", flush=True)
    for name, client in clients.items():
        seconds, _at = client.finish()
        print(f"{name} client: {hit[name]} of {moves} moves made a write wait; longest stall {seconds:.2f} s; {len(client.acknowledged)} writes")
    print(f"{lost(lab, **clients)} acknowledged writes lost")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
