# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of members that a test cannot time. tests/integration has real ones."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Iterator

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._etcd.client import Client, EtcdError, Unreachable

#: As a member's gateway said while its own server did not listen yet (etcd 3.6.16), and when a revision was compacted.
STARTING = {"code": 14, "message": 'connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:2379: connect: connection refused"'}
COMPACTED = {"code": 11, "message": "etcdserver: mvcc: required revision has been compacted"}


@contextlib.contextmanager
def member(status: int, answer: dict[str, Any]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_member_that_is_not_available_yet_is_passed_over() -> None:
    with member(503, STARTING) as first, member(200, {"count": "3"}) as second:
        assert Client([first, second]).count() == 3


def test_no_member_is_available() -> None:
    with member(503, STARTING) as first, pytest.raises(Unreachable, match="is not available for /v3/kv/range: connection error"):
        Client([first]).count()


def test_a_refusal_is_the_same_everywhere() -> None:
    with member(400, COMPACTED) as first, member(200, {"count": "3"}) as second:
        with pytest.raises(EtcdError, match="refused") as found:
            Client([first, second]).count()
    assert found.value.code == 11 and not isinstance(found.value, Unreachable)
