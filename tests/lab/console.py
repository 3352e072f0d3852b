# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands and progress lines: every line carries the seconds since the program started."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import LabError

_STARTED = time.monotonic()
_LAST_LINES = 15


def say(text: str) -> None:
    """One progress line, at once, on standard error (standard output belongs to results)."""
    print(f"[lab {time.monotonic() - _STARTED:6.1f}s] {text}", file=sys.stderr, flush=True)


@contextmanager
def waiting(text: str, every: float = 20.0) -> Iterator[None]:
    """Says what is going on, says it again each ``every`` seconds, and at the end how long it took."""
    say(f"{text} ...")
    begun = time.monotonic()
    done = threading.Event()

    def remind() -> None:
        while not done.wait(every):
            say(f"{text} ... {time.monotonic() - begun:.0f} s so far")

    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()
    try:
        yield
    finally:
        done.set()
        reminder.join()
    say(f"{text}: {time.monotonic() - begun:.1f} s")


def run(
    command: Sequence[str | Path],
    *,
    check: bool = True,
    stdin: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, with its output as text.

    check: a status other than 0 is a LabError with the command and its last lines. timeout: seconds.
    """
    words = [str(word) for word in command]
    try:
        result = subprocess.run(
            words, input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True, text=True,
            errors="replace", cwd=cwd, env=env, timeout=timeout, check=False,
        )  # fmt: skip
    except FileNotFoundError as missing:
        raise LabError(f"{words[0]} is not installed; tests/lab/bootstrap.sh installs what the lab needs") from missing
    except subprocess.TimeoutExpired as late:
        raise LabError(f"no end after {timeout:.0f} s: {' '.join(words)}") from late
    if check and result.returncode != 0:
        lines = (result.stdout + result.stderr).strip().splitlines()[-_LAST_LINES:]
        raise LabError(f"status {result.returncode} from: {' '.join(words)}\n" + "\n".join(lines))
    return result


def output(command: Sequence[str | Path], **options: object) -> str:
    """Standard output of a command that must succeed, without the white space around it."""
    return run(command, **options).stdout.strip()  # type: ignore[arg-type]


def until(what: str, test: Callable[[], bool], seconds: float, every: float = 0.5) -> None:
    """Waits until ``test`` says yes; LabError names ``what`` after ``seconds``."""
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            raise LabError(f"{what}: not so after {seconds:.0f} s")
        time.sleep(every)
