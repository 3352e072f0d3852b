# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a node window, on disk before the step that it announces."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, BinaryIO

from .._errors import KubetuneError
from .._node.state import STATE, make_state_directory, read_unfinished, surplus, sync_directory, write_atomically
from .order import Order

#: Folder beside a window's result with the manifests from before it, as files that a person can copy.
BEFORE = "before"
#: Outcomes after which the node was another one than before.
CHANGED = ("changed", "degraded", "broken")


class Journal:
    """One window's files: ``window/pending.json`` is the order, ``window/journal.jsonl`` what happened so far.

    When it is over both move to ``history/ID/`` beside ``result.json`` and the manifests from ``before``.
    """

    def __init__(self, state: Path = STATE) -> None:
        self._state = state
        self._window = state / "window"
        self._events = self._window / "journal.jsonl"
        self._undo_ready, self._undo = self._window / "undo-ready", self._window / "undo"
        #: On the way back the journal may fail: putting the old manifests back matters more than saying so.
        self.tolerant = False

    def begin(self, order: Order) -> None:
        """Put the order down; from here on the host finishes or undoes by itself."""
        for directory in (self._state, self._window, self._state / "history"):
            make_state_directory(directory)
        pending, draft = self._window / "pending.json", self._window / f"draft-{order.id}.json"
        if not pending.exists():
            self._clear()  # of a window whose end was cut off after its result was written
            write_atomically(self._undo_ready, b"")
        write_atomically(draft, json.dumps(order.to_dict()).encode())
        try:
            # Unlike a rename, a link does not replace: of two orders the second one fails.
            os.link(draft, pending)
        except FileExistsError:
            raise KubetuneError("a node window is open on this host already: wait for kubetune-window.service to end") from None
        finally:
            draft.unlink()
        sync_directory(self._window)

    def order(self) -> Order | None:
        data = read_unfinished(self._state)
        return Order.from_dict(data) if data else None

    def say(self, step: str, state: str, text: str = "", **facts: Any) -> None:
        """Append one event; it is on disk when this returns. ``state``: begin, wait, done or failed."""
        line = json.dumps({"time": round(time.time(), 3), "step": step, "state": state, "text": text, **facts})
        try:
            with open(self._events, "a+b") as stream:
                os.fchmod(stream.fileno(), 0o600)
                # A line that a crash cut off stays alone: what is said from now on has to be readable.
                stream.write(_end_of_last_line(stream) + line.encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as exc:
            if not self.tolerant:
                raise
            print(f"the journal cannot be written: {exc}", flush=True)
        print(f"{step} {state} {text}".rstrip(), flush=True)

    def undo(self, why: str, log: list[str]) -> None:
        """From here on the way is back, whatever happens: a full disk, on which nothing more can be said, has room for a rename."""
        self.tolerant = True  # it must not keep the old manifests away
        if self.undone():
            return
        self.say("undo", "begin", why, log=log)
        if self.reached("undo"):
            return
        try:
            os.replace(self._undo_ready, self._undo)
            sync_directory(self._window)
        except OSError as exc:
            print(f"the way back cannot be marked: {exc}", flush=True)

    def undone(self) -> dict[str, Any] | None:
        """``text`` and ``log`` of why this window goes back; None as long as it goes forward."""
        unsaid = {"text": "it was being undone already, and the disk was too full to say why (journalctl -u kubetune-window)", "log": []}
        return self.reached("undo") or (unsaid if self._undo.exists() else None)

    def events(self) -> list[dict[str, Any]]:
        return _events(self._events)

    def reached(self, step: str, state: str = "begin") -> dict[str, Any] | None:
        """The last such event, also of a process before this one."""
        found = [each for each in self.events() if each["step"] == step and each["state"] == state]
        return found[-1] if found else None

    def folder_of(self, order: Order) -> Path:
        """Where a window is kept once it is over."""
        return self._state / "history" / order.id

    def finish(self, order: Order, result: dict[str, Any]) -> None:
        target = self.folder_of(order)
        make_state_directory(target)
        write_atomically(target / "order.json", json.dumps(order.to_dict()).encode())
        make_state_directory(target / BEFORE)
        for component, part in (("etcd", order.etcd), ("kube-apiserver", order.kube_apiserver)):
            if part and part.old is not None:
                write_atomically(target / BEFORE / f"{component}.yaml", part.old.encode())
        if self._events.exists():
            write_atomically(target / "journal.jsonl", self._events.read_bytes())
        write_atomically(target / "result.json", json.dumps(result).encode())
        (self._window / "pending.json").unlink()
        self._clear()
        sync_directory(self._window)
        # By name, which begins with the controller's time: this host's clock may have been set back since. Never this one: a controller's
        # clock may be behind, too. Windows that left no other manifests are counted for themselves: they push no state away to which
        # somebody may want to go back.
        own = is_state(target)
        others = [each for each in sorted((self._state / "history").iterdir()) if each != target and is_state(each) == own]
        for old in surplus(others, order.keep):
            shutil.rmtree(old)

    def _clear(self) -> None:
        for path in (self._events, self._undo_ready, self._undo):
            path.unlink(missing_ok=True)


def is_state(folder: Path) -> bool:
    """Whether a finished window changed a manifest, so that what was before it is a state to go back to."""
    try:
        order = json.loads((folder / "order.json").read_text())
        outcome = json.loads((folder / "result.json").read_text())["outcome"]
        parts = [order[name] for name in ("etcd", "kube_apiserver") if order[name]]
    except (OSError, ValueError, KeyError, TypeError):
        return True  # what cannot be read is kept as long as a state
    return outcome in CHANGED and any(part["old"] != part["new"] for part in parts)


def follow(window_id: str, seen: int, state: Path = STATE) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """(events after the first ``seen``, the result or None while it runs) of a window on this host."""
    done = state / "history" / window_id
    try:
        result = json.loads((done / "result.json").read_text())
    except FileNotFoundError:
        return _events(state / "window" / "journal.jsonl")[seen:], None
    return _events(done / "journal.jsonl")[seen:], result


def _end_of_last_line(stream: BinaryIO) -> bytes:
    if stream.seek(0, os.SEEK_END) == 0:
        return b""
    stream.seek(-1, os.SEEK_END)
    return b"" if stream.read(1) == b"\n" else b"\n"


def _events(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # cut off by a crash: it was never acted upon
    return found
