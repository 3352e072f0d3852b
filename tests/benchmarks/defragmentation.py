# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients feel of a defragmentation: the guide's literal script, and the maintenance's two methods, in turns.

    python -m tests.benchmarks.defragmentation [MEGABYTES, 500 by default] [ROUNDS, 3 by default]

The lab has to be up and tuned. Before each turn the database is filled, half of it deleted and compacted. Then a client writes to etcd and
one to the API servers, each request to the next endpoint that is up, as etcd's own client and a balancer spread them: neither notices that
a server is slow, and both go on at once where one does not answer. Told are the longest time without an acknowledgement, attempts after which the
next endpoint was asked, writes that no endpoint took, and lost ones, per turn; the first also as a share of the guide's of the same round.

Each turn writes a database's worth of log. A starting etcd holds in memory what it wrote since its last snapshot, so they are made each
1000 entries here, not each 100 000: otherwise the third or fourth restart ends at the pod's memory limit.
"""

from __future__ import annotations

import base64
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any, Callable

from tests.benchmarks.clients import lost, start
from tests.benchmarks.writer import Etcd, b64
from tests.faults.fault import members
from tests.lab import nodes

FILL = "/kubetune-fill/"
PROGRAM = "python3 /usr/local/lib/kubetune/kubetune.pyz maintenance"


def fragment(lab: nodes.Lab, megabytes: int) -> None:
    """A database of so many megabytes, half of which is free."""
    etcd = Etcd(lab)
    value = base64.b64encode(os.urandom(375_000)).decode()
    keys = [f"{FILL}{number:06d}" for number in range(megabytes * 2)]
    for key in keys:
        etcd.call(0, "/v3/kv/put", {"key": b64(key), "value": b64(value)})
    etcd.call(0, "/v3/kv/deleterange", {"key": b64(FILL), "range_end": b64(keys[len(keys) // 2])})
    revision = etcd.call(0, "/v3/kv/put", {"key": b64(f"{FILL}end"), "value": ""})["header"]["revision"]
    etcd.call(0, "/v3/kv/compaction", {"revision": revision, "physical": True}, 120)
    # The deletion is seen as free pages once the compaction of each member is done.
    time.sleep(10)


def sizes(lab: nodes.Lab) -> list[int]:
    return [each["dbSize"] for each in members(lab)]


def by_guide(lab: nodes.Lab) -> None:
    """Step 4 of the guide's script, as it stands there."""
    lab.etcdctl("defrag")


def by_maintenance(lab: nodes.Lab) -> None:
    for node in lab.nodes:
        node.run("sh", "-c", f"{PROGRAM} defrag", timeout=600)


def set_up(lab: nodes.Lab, method: str) -> None:
    variables = {
        "etcd_maintenance_defragmentation_method": method,
        "etcd_maintenance_interval_seconds": 60,
        "etcd_maintenance_defragmentation_rule": "dbSizeFree >= 10*1024*1024",
    }
    play(lab, "maintenance", variables)


def play(lab: nodes.Lab, playbook: str, variables: dict[str, Any]) -> None:
    subprocess.run(
        ["ansible-playbook", "-i", str(lab.inventory), f"kubetune.control_plane.{playbook}", "-e", json.dumps(variables)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def turn(lab: nodes.Lab, megabytes: int, act: Callable[[nodes.Lab], None]) -> dict[str, Any]:
    fragment(lab, megabytes)
    before = sizes(lab)
    clients = start(lab)
    began = time.monotonic()
    act(lab)
    seconds = time.monotonic() - began
    time.sleep(3)
    stalls = {name: client.finish() for name, client in clients.items()}
    return {
        "gaps": {name: seconds for name, (seconds, _at) in stalls.items()},
        "why": {name: (at - began, clients[name].within(at, seconds)) for name, (seconds, at) in stalls.items()},
        "moved_on": {name: client.moved_on for name, client in clients.items()}, "lost": lost(lab, **clients), "seconds": seconds,
        "failed": sum(len(client.failed) for client in clients.values()),
        "before": max(before), "after": max(sizes(lab)),
    }  # fmt: skip


def main(arguments: list[str]) -> int:
    megabytes, rounds = (int(each) for each in (*arguments, *("500", "3")[len(arguments):]))
    lab = nodes.load()
    play(lab, "site", {"etcd_static_pod_flags": {"snapshot-count": 1000}, "node_window_watch_seconds": 0})
    shares: dict[tuple[str, str], list[float]] = {}
    failed = False
    for number in range(rounds):
        guide: dict[str, float] = {}
        for name, method in (("the guide's script", ""), ("online", "online"), ("window", "window")):
            if method:
                set_up(lab, method)
            found = turn(lab, megabytes, by_maintenance if method else by_guide)
            guide = guide or found["gaps"]
            failed = failed or bool(found["lost"] or method and found["failed"])
            gaps = ", ".join(
                f"{client} client {gap:.2f} s ({gap / guide[client]:.2f} of the guide's; {found['moved_on'][client]} moved on)"
                for client, gap in found["gaps"].items()
            )
            print(
                f"{number + 1}: {name:<19} {found['before'] >> 20} to {found['after'] >> 20} MiB in {found['seconds']:.0f} s; longest stall: "
                f"{gaps}; {found['failed']} failed, {found['lost']} lost",
                flush=True,
            )
            for client, (at, attempts) in found["why"].items():
                print(f"   {client} client's stall: {at:.1f} s into the turn; {', '.join(attempts)}", flush=True)
            for client, gap in found["gaps"].items():
                shares.setdefault((name, client), []).append(gap / guide[client])
    for (name, client), found in shares.items():
        print(f"{name:<19} {client} client: median {statistics.median(found):.2f} of the guide's longest stall, {min(found):.2f} to {max(found):.2f}")
    lab.etcdctl("del", "--prefix", FILL)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
