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
import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable

import yaml

from tests.benchmarks.writer import Etcd, b64
from tests.lab import nodes

PREFIX = "/kubetune-benchmark/"
FILL = "/kubetune-fill/"
#: Seconds between two requests of a client, and how long it waits for an answer: both longer than any defragmentation here.
PACE, PATIENCE = 0.02, 60.0
PROGRAM = "python3 /usr/local/lib/kubetune/kubetune.pyz maintenance"
CONFIG_MAP = "/api/v1/namespaces/kube-system/configmaps/kubetune-benchmark"


class Client(threading.Thread):
    """Sends one request after the other, each to the next endpoint that is up.

    One that breaks a connection or answers with an error is down, and the request goes to the one behind it at once. It is up again when a
    new connection stands and the probe says so, which nobody waits for: as with a gRPC client's connections, and a balancer's checks.

    acknowledged: (monotonic seconds, number). moved_on: attempts without an acknowledgement. failed: requests that no endpoint took, for
    which there was none left to go on to. attempts: (endpoint, monotonic seconds at its begin and its end, whether acknowledged).
    """

    def __init__(
        self, name: str, connect: Callable[[int], http.client.HTTPSConnection], count: int, request: Callable[[int], tuple], probe: str = ""
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._connect, self._count, self._request, self._probe = connect, count, request, probe
        self._stop_asked = threading.Event()
        self._up: dict[int, http.client.HTTPSConnection] = {}
        self.acknowledged: list[tuple[float, int]] = []
        self.attempts: list[tuple[int, float, float, bool]] = []
        self.moved_on = 0
        self.failed: set[int] = set()

    def run(self) -> None:
        for each in range(self._count):
            self._bring_up(each)
        at = number = 0
        while not self._stop_asked.is_set():
            at = (at + 1) % self._count
            connection = self._up.get(at)
            if connection is None:
                time.sleep(0.001)
                continue
            began = time.monotonic()
            taken = _answers(connection, *self._request(number))
            self.attempts.append((at, began, time.monotonic(), taken))
            if taken:
                self.acknowledged.append((self.attempts[-1][2], number))
                number += 1
                time.sleep(PACE)
                continue
            self.moved_on += 1
            connection.close()
            del self._up[at]
            if not self._up:
                self.failed.add(number)
            threading.Thread(target=self._bring_up, args=(at,), daemon=True).start()
        for connection in list(self._up.values()):
            connection.close()

    def _bring_up(self, at: int) -> None:
        while not self._stop_asked.is_set():
            connection = self._connect(at)
            try:
                connection.connect()
            except OSError:
                pass
            else:
                if not self._probe or _answers(connection, "GET", self._probe):
                    self._up[at] = connection
                    return
            connection.close()
            time.sleep(0.2)

    def finish(self) -> tuple[float, float]:
        """The longest time without an acknowledgement, and when it began."""
        self._stop_asked.set()
        self.join()
        times = [at for at, _number in self.acknowledged]
        return max(((b - a, a) for a, b in zip(times, times[1:])), default=(0.0, 0.0))

    def within(self, began: float, seconds: float) -> list[str]:
        """What it tried in that time, for a person who asks why it took so long."""
        return [
            f"server {at + 1} {'took' if taken else 'did not take'} it after {end - start:.2f} s"
            for at, start, end, taken in self.attempts
            if began < end <= began + seconds
        ]


def _answers(connection: http.client.HTTPSConnection, *request: Any) -> bool:
    try:
        connection.request(*request)
        response = connection.getresponse()
        response.read()
        return response.status == 200
    except (OSError, http.client.HTTPException):
        return False


class Api:
    """The lab's API servers, as the administrator."""

    def __init__(self, lab: nodes.Lab) -> None:
        config = yaml.safe_load(Path(lab.kubeconfig).read_text())
        user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
        self._context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.TemporaryDirectory() as directory:
            files = []
            for key in ("client-certificate-data", "client-key-data"):
                path = Path(directory) / key
                path.touch(0o600)
                path.write_bytes(base64.b64decode(user[key]))
                files.append(str(path))
            self._context.load_cert_chain(*files)
        self._hosts = [node.address for node in lab.nodes]

    def connect(self, index: int) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._hosts[index], 6443, timeout=PATIENCE, context=self._context)


def etcd_client(lab: nodes.Lab) -> Client:
    etcd = Etcd(lab)

    def request(number: int) -> tuple:
        body = json.dumps({"key": b64(f"{PREFIX}{number:08d}"), "value": b64(str(number))})
        return "POST", "/v3/kv/put", body, {"Content-Type": "application/json"}

    return Client("etcd client", lambda index: etcd.connect(index, PATIENCE), len(lab.nodes), request)


def api_client(lab: nodes.Lab) -> Client:
    lab.kubectl("-n", "kube-system", "create", "configmap", "kubetune-benchmark", check=False)

    def request(number: int) -> tuple:
        return "PATCH", CONFIG_MAP, json.dumps({"data": {"n": str(number)}}), {"Content-Type": "application/merge-patch+json"}

    return Client("API client", Api(lab).connect, len(lab.nodes), request, "/readyz")


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
    told = json.loads(lab.etcdctl("endpoint", "status", "--write-out=json").stdout)
    return [each["Status"]["dbSize"] for each in told]


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
        "etcd_maintenance_defragmentation_rule": "dbSizeFree >= 50*1024*1024",
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
    clients = {"etcd": etcd_client(lab), "api": api_client(lab)}
    for client in clients.values():
        client.start()
    time.sleep(2)
    began = time.monotonic()
    act(lab)
    seconds = time.monotonic() - began
    time.sleep(3)
    stalls = {name: client.finish() for name, client in clients.items()}
    written = {number for _at, number in clients["etcd"].acknowledged}
    told = lab.etcdctl("get", "--prefix", "--keys-only", PREFIX).stdout.split()
    lost = len(written - {int(key.rpartition("/")[2]) for key in told})
    last = json.loads(lab.kubectl("-n", "kube-system", "get", "configmap", "kubetune-benchmark", "--output=json").stdout)["data"]["n"]
    lost += int(last) < max(number for _at, number in clients["api"].acknowledged)
    lab.etcdctl("del", "--prefix", PREFIX)
    return {
        "gaps": {name: seconds for name, (seconds, _at) in stalls.items()},
        "why": {name: (at - began, clients[name].within(at, seconds)) for name, (seconds, at) in stalls.items()},
        "moved_on": {name: client.moved_on for name, client in clients.items()}, "lost": lost, "seconds": seconds,
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
