# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An etcd of one member, on loopback, for as long as it takes to look into a data directory."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager
from typing import Iterator, Mapping, Sequence

from .._commands import ENVIRONMENT, Background, background
from .._errors import KubetuneError
from .client import Client, EtcdError, Tls

_POLL = 0.2


@contextmanager
def serving(
    command: Sequence[str], certificates: Mapping[str, str], tls: Tls, timeout: float, call_timeout: float = 5.0
) -> Iterator[Client]:
    """A client of an etcd that is started with the block, answers, and ends with it.

    Args:
        command: etcd with all flags but those of its listeners, its certificates and its log.
        certificates: flag -> path, of cert-file, key-file and trusted-ca-file: nobody without a client certificate reads there.
        tls: of the client.
        timeout: seconds for it to serve.
        call_timeout: seconds for each call of the client.

    Raises:
        KubetuneError: it does not start, or not in time; with its last lines.
    """
    endpoint = f"https://127.0.0.1:{_free_port()}"
    with background([*command, *_listeners(endpoint, certificates), "--log-level=warn"], ENVIRONMENT) as etcd:
        client = Client([endpoint], tls, call_timeout)
        _wait_until_it_serves(client, etcd, timeout)
        yield client


def _listeners(endpoint: str, certificates: Mapping[str, str]) -> list[str]:
    return [
        f"--listen-client-urls={endpoint}",
        f"--advertise-client-urls={endpoint}",
        # Nobody's: port 0 is one that the kernel chooses.
        "--listen-peer-urls=https://127.0.0.1:0",
        "--client-cert-auth=true",
        "--peer-client-cert-auth=true",
        *(f"--{name}={path}" for name, path in certificates.items()),
        *(f"--peer-{name}={path}" for name, path in certificates.items()),
    ]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_it_serves(client: Client, etcd: Background, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            client.revision()
            return
        except EtcdError as exc:
            why = exc
        if etcd.process.poll() is not None:
            raise KubetuneError(f"etcd does not start on what was restored: {etcd.said[-600:]}")
        if time.monotonic() > deadline:
            raise KubetuneError(f"the restored etcd does not serve within {timeout} s: {why}; {etcd.said[-600:]}")
        time.sleep(_POLL)
