# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that must not notice anything: one put each 20 ms, the next endpoint on error, every acknowledged key
read back at the end, linearizably, through each member."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.lab.nodes import Lab

PREFIX = "/kubetune-benchmark/"
#: Seconds between two puts, and until a put without an answer is tried at the next endpoint.
PACE, PATIENCE = 0.02, 0.5


@dataclass
class Record:
    """acknowledged: (monotonic seconds, key number). errors: attempts without an acknowledgement."""

    acknowledged: list[tuple[float, int]] = field(default_factory=list)
    errors: int = 0

    def gaps(self) -> list[tuple[float, float]]:
        """(seconds between two acknowledged puts, monotonic time of the first of them), the longest first."""
        times = [at for at, _number in self.acknowledged]
        return sorted(((b - a, a) for a, b in zip(times, times[1:])), reverse=True)


class Etcd:
    """A lab's members by their gateways; an index is that of the node."""

    def __init__(self, lab: Lab) -> None:
        self.endpoints = lab.etcd_endpoints
        self._context = ssl.create_default_context(cafile=str(lab.etcd_ca))
        self._context.load_cert_chain(str(lab.etcd_certificate), str(lab.etcd_key))

    def connect(self, index: int, timeout: float = PATIENCE) -> http.client.HTTPSConnection:
        url = urlsplit(self.endpoints[index])
        return http.client.HTTPSConnection(url.hostname or "", url.port, timeout=timeout, context=self._context)

    def call(self, index: int, path: str, body: dict, timeout: float = 60) -> dict:
        """Raises OSError, http.client.HTTPException or ValueError where there is no answer."""
        connection = self.connect(index, timeout)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


class Writer(threading.Thread):
    """Start it, stop it with `finish`."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(name="writer", daemon=True)
        self.record = Record()
        self._etcd = Etcd(lab)
        self._stop_asked = threading.Event()

    def run(self) -> None:
        at = 0
        connection = self._etcd.connect(at)
        due = time.monotonic()
        number = 0
        while not self._stop_asked.is_set():
            body = json.dumps({"key": b64(f"{PREFIX}{number:08d}"), "value": b64(str(number))})
            while not self._stop_asked.is_set():
                try:
                    connection.request("POST", "/v3/kv/put", body, {"Content-Type": "application/json"})
                    response = connection.getresponse()
                    response.read()
                    if response.status == 200:
                        self.record.acknowledged.append((time.monotonic(), number))
                        break
                except (OSError, http.client.HTTPException):
                    pass
                self.record.errors += 1
                connection.close()
                at = (at + 1) % len(self._etcd.endpoints)
                connection = self._etcd.connect(at)
            number += 1
            due = max(due + PACE, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
        connection.close()

    def finish(self) -> Record:
        self._stop_asked.set()
        self.join()
        return self.record

    def lost(self) -> dict[str, list[int]]:
        """Endpoint -> acknowledged keys which a linearizable read there does not find."""
        wanted = {number for _at, number in self.record.acknowledged}
        return {endpoint: sorted(wanted - self._read(index)) for index, endpoint in enumerate(self._etcd.endpoints)}

    def clean_up(self) -> None:
        self._etcd.call(0, "/v3/kv/deleterange", {"key": b64(PREFIX), "range_end": b64(PREFIX[:-1] + "0")})

    def _read(self, index: int) -> set[int]:
        body = {"key": b64(PREFIX), "range_end": b64(PREFIX[:-1] + "0"), "keys_only": True}
        found = self._etcd.call(index, "/v3/kv/range", body).get("kvs", [])
        return {int(base64.b64decode(each["key"]).decode().rpartition("/")[2]) for each in found}


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
