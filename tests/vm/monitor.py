# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's machine protocol: commands to a running machine, and the events that it reports."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError


class Monitor:
    """One connection to a machine's monitor socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(30)
        try:
            self._socket.connect(str(path))
            self._stream = self._socket.makefile("rwb")
            self._events: list[dict[str, Any]] = []
            self._read()  # the greeting
            self("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Ends the connection; the machine goes on."""
        self._socket.close()

    def __call__(self, command: str, **arguments: Any) -> Any:
        """Carries out one command; LabError with QEMU's words when it refuses."""
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self._stream.flush()
        while True:
            answer = self._read()
            if "event" in answer:
                self._events.append(answer)
            elif "error" in answer:
                raise LabError(f"QEMU refuses {command} {json.dumps(arguments)}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def wait_for(self, event: str, seconds: float, **data: Any) -> dict[str, Any]:
        """The first event of this name, since the start, that has this data; LabError after ``seconds``."""
        end = time.monotonic() + seconds
        while True:
            for known in self._events:
                if known["event"] == event and data.items() <= known.get("data", {}).items():
                    self._events.remove(known)
                    return known
            left = end - time.monotonic()
            if left <= 0:
                raise LabError(f"no event {event} {data} from QEMU in {seconds:.0f} s")
            self._socket.settimeout(left)
            try:
                self._events.append(self._read())
            except TimeoutError:
                continue
            finally:
                self._socket.settimeout(30)

    def _read(self) -> dict[str, Any]:
        line = self._stream.readline()
        if not line:
            raise LabError("QEMU has closed its monitor: the machine has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer
