# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One static pod is put in or taken out, and the process behind it is proved.

The manifest is the switch, the process is the truth: nothing counts as done before the old process is gone and a new
one runs with exactly the planned arguments.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Callable, TypeVar

from .._errors import KubetuneError
from .._node import processes
from .._node.processes import Process
from .._node.state import sync_directory, write_atomically
from . import patience
from .order import Part

KUBELET_PODS = Path("/var/lib/kubelet/pods")
#: Seconds between two looks at /proc: the whole window is some 10 s.
POLL = 0.1
#: A process that was started this often and is gone again will not stay.
STARTS_BEFORE_GIVING_UP = 3

Found = TypeVar("Found")


class Pod:
    """
    Args:
        component: program, pod and container name.
        say: called with a text while something takes long.
        proc: where the host's processes are seen.
    """

    def __init__(
        self, component: str, part: Part, directory: Path, say: Callable[[str], None], proc: Path = Path("/proc")
    ) -> None:
        self.component = component
        self.part = part
        self.path = directory / f"{component}.yaml"
        self._staged = {
            text: directory / f".{component}.yaml.kubetune-{name}" for name, text in (("new", part.new), ("old", part.old))
        }
        self._say = say
        self._proc = proc
        #: Monotonic seconds; not before then will the kubelet start the next pod at once.
        self._free_at = 0.0

    def running(self) -> list[Process]:
        return processes.find(self.component, self.part.own_flags, self._proc)

    def process(self) -> Process:
        """The one that runs.

        Raises:
            KubetuneError: there is none.
        """
        found = self.running()
        if not found:
            raise KubetuneError(f"{self.component} does not run any more")
        return found[0]

    def make_sure_it_stays(self, process: Process) -> None:
        """Raises KubetuneError when a process has ended, or another one has taken its place."""
        if not processes.alive(process, self._proc):
            raise KubetuneError(f"{self.component} was ready, and has ended by itself soon after (pid {process.pid})")

    def text(self) -> str | None:
        return _read(self.path)

    def changed_by_others(self) -> bool:
        """Whether the manifest is neither as before nor as ordered nor away."""
        return self.text() not in (None, self.part.old, self.part.new)

    def stage(self) -> None:
        """Put both texts on disk beside the manifest, as dot-files, which the kubelet ignores.

        From here on the way there and the way back are renames, which a full disk does not stop.
        """
        try:
            mode = self.path.stat().st_mode & 0o777
        except FileNotFoundError:
            mode = 0o600
        for text, path in self._staged.items():
            if text is not None:
                write_atomically(path, text.encode(), mode)

    def unstage(self) -> None:
        for path in self._staged.values():
            try:
                path.unlink(missing_ok=True)
            except OSError:
                # A directory that is read-only now. Beside a manifest that is where it has to be they harm nobody;
                # where it is not, the order has to stay with them.
                if self.text() not in (self.part.old, self.part.new):
                    raise

    def put(self, text: str | None) -> None:
        """Make the manifest be this text, at once and as a whole; None removes it.

        Raises:
            KubetuneError: somebody else has changed it since the plan; it is left alone.
        """
        if text == self.text():
            return
        if text is not None:
            time.sleep(max(0.0, self._free_at - time.monotonic()))
        if self.changed_by_others():
            raise KubetuneError(f"{self.path} was changed by somebody else meanwhile: it is left as it is")
        staged = self._staged.get(text)
        if text is None:
            self.path.unlink()
        elif staged and _read(staged) == text:
            os.replace(staged, self.path)
        else:
            write_atomically(self.path, text.encode())
        sync_directory(self.path.parent)

    def take_out(self, seconds: float) -> None:
        """Remove the manifest and wait until the kubelet has let go of the pod, so that it starts the next one at once.

        While it still remembers a static pod it does not start another of the same name, and looks again only after 10 s
        (pkg/kubelet/pod_workers.go, backOffPeriod, Kubernetes 1.36). Its housekeeping, every 2 s, removes the pod's directory when the
        containers have ended; the pod's worker forgets the pod at about the same time, on a busy host some 0.3 s later.
        """
        directories = [KUBELET_PODS / uid for process in self.running() for uid in processes.pod_uids(process, self._proc)]
        self.put(None)
        self.wait_none(seconds)
        end = time.monotonic() + patience.HOUSEKEEPING
        while any(each.exists() for each in directories) and time.monotonic() < end:
            time.sleep(POLL)
        self._free_at = time.monotonic() + patience.FORGOTTEN

    def wait_gone(self, old: list[Process], seconds: float) -> None:
        until(
            lambda: not any(processes.alive(each, self._proc) for each in old),
            seconds,
            f"the old {self.component} has not ended",
            self._say,
        )

    def wait_none(self, seconds: float) -> None:
        """After the manifest was taken away: also a process that the kubelet was just about to start has to be gone."""
        until(lambda: not self.running(), seconds, f"{self.component} has not ended", self._say)

    def wait_new(self, old: list[Process], argv: tuple[str, ...], unready: Callable[[], str], seconds: float) -> Process:
        """Wait for a process that is not one of ``old``, runs exactly ``argv``, and is ready.

        Raises:
            KubetuneError: it did not come, came with other arguments, keeps dying, or does not become ready.
        """
        before = {each.key for each in old}
        seen: set[tuple[int, int]] = set()
        why = f"no new {self.component} was started"

        def ready() -> Process | None:
            nonlocal why
            for process in self.running():
                if process.key in before:
                    continue
                seen.add(process.key)
                if process.argv != argv:
                    why = f"{self.component} runs with other arguments than planned: {_difference(process.argv, argv)}"
                    continue
                why = unready()
                if not why:
                    return process
                why = f"{self.component} is not ready: {why}"
            if len(seen) >= STARTS_BEFORE_GIVING_UP:
                raise KubetuneError(f"{self.component} was started {len(seen)} times and does not stay: {why}")
            return None

        return until(ready, seconds, lambda: why, self._say)


def until(
    look: Callable[[], Found | None],
    seconds: float,
    why: str | Callable[[], str],
    say: Callable[[str], None],
    pause: float | None = None,
) -> Found:
    """What ``look`` finds; says every five seconds why it still waits, and raises with that when time is up."""
    started = time.monotonic()
    said = 0
    while True:
        found = look()
        if found:
            return found
        waited = time.monotonic() - started
        text = why if isinstance(why, str) else why()
        if waited > seconds:
            raise KubetuneError(f"{text} (waited {seconds:g} s)")
        if waited // 5 > said:
            said = int(waited // 5)
            say(text)
        time.sleep(POLL if pause is None else pause)


def _read(path: Path) -> str | None:
    """The text as `_node.discover` reads it, byte by byte: no line end is translated."""
    try:
        return path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return None


def _difference(actual: tuple[str, ...], planned: tuple[str, ...]) -> str:
    more, less = sorted(set(actual) - set(planned)), sorted(set(planned) - set(actual))
    parts = [f"has {' '.join(more)}" if more else "", f"lacks {' '.join(less)}" if less else ""]
    return ", ".join(part for part in parts if part) or "another order"
