# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that write one request after the other, each to the next endpoint that is up, and remember what became of each."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable

import yaml

from tests.benchmarks.writer import Etcd, b64
from tests.lab import nodes

PREFIX = "/kubetune-benchmark/"
#: Seconds between two requests of a client, and how long it waits for an answer: longer than any defragmentation of the benchmarks.
PACE, PATIENCE = 0.02, 60.0
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


def start(lab: nodes.Lab) -> dict[str, Client]:
    """One of etcd and one of the API servers, under way."""
    clients = {"etcd": _etcd_client(lab), "api": _api_client(lab)}
    for client in clients.values():
        client.start()
    time.sleep(2)
    return clients


def _etcd_client(lab: nodes.Lab) -> Client:
    etcd = Etcd(lab)

    def request(number: int) -> tuple:
        body = json.dumps({"key": b64(f"{PREFIX}{number:08d}"), "value": b64(str(number))})
        return "POST", "/v3/kv/put", body, {"Content-Type": "application/json"}

    return Client("etcd client", lambda index: etcd.connect(index, PATIENCE), len(lab.nodes), request)


def _api_client(lab: nodes.Lab) -> Client:
    lab.kubectl("-n", "kube-system", "create", "configmap", "kubetune-benchmark", check=False)

    def request(number: int) -> tuple:
        return "PATCH", CONFIG_MAP, json.dumps({"data": {"n": str(number)}}), {"Content-Type": "application/merge-patch+json"}

    return Client("API client", Api(lab).connect, len(lab.nodes), request, "/readyz")


def lost(lab: nodes.Lab, etcd: Client, api: Client) -> int:
    """How many acknowledged writes of both are not there; what they wrote is removed."""
    told = lab.etcdctl("get", "--prefix", "--keys-only", PREFIX).stdout.split()
    missing = len({number for _at, number in etcd.acknowledged} - {int(key.rpartition("/")[2]) for key in told})
    last = json.loads(lab.kubectl("-n", "kube-system", "get", "configmap", "kubetune-benchmark", "--output=json").stdout)["data"]["n"]
    lab.etcdctl("del", "--prefix", PREFIX)
    return missing + (int(last) < max(number for _at, number in api.acknowledged))
