# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to kubetune.control_plane: it may change in any release.
"""Programs of the host, such as systemctl and wipefs."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from typing import IO, Iterator, Mapping, Sequence

from ._errors import KubetuneError

#: For programs that nothing of ours shall reach: no proxy, no ETCD_ or ETCDCTL_ variable of somebody's shell.
ENVIRONMENT: Mapping[str, str] = {"LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

#: Bytes at the end of what a program in the background wrote, and seconds that it gets to end by itself.
_TAIL, _GRACE = 4096, 10.0


def output(
    command: Sequence[str],
    empty: int = 0,
    check: bool = True,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> str:
    """Standard output of a program.

    Args:
        empty: a status beside 0 that is no failure, such as the one by which blkid says that there is nothing.
        check: whether another status is one.
        environment: the whole of it; None for this process's own.
        timeout: seconds, then it is killed.

    Raises:
        KubetuneError: it is not on the host, failed, or took too long.
    """
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
            env=environment,
            timeout=timeout,
        )
    except OSError as exc:
        raise KubetuneError(f"{command[0]} cannot be run on this host ({exc})") from exc
    except subprocess.TimeoutExpired as exc:
        raise KubetuneError(f"{' '.join(command)} did not end within {timeout:g} s, and was killed") from exc
    if check and done.returncode not in (0, empty):
        said = done.stderr.strip() or done.stdout.strip()
        raise KubetuneError(f"{' '.join(command)} failed with status {done.returncode}: {said}")
    return done.stdout


class Background:
    """A program that runs beside this one; see `background`."""

    def __init__(self, command: Sequence[str], process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.process = process
        self._command = list(command)
        self._log = log

    @property
    def said(self) -> str:
        """The last lines of what it wrote to standard output and error."""
        self._log.seek(0, 2)
        self._log.seek(max(0, self._log.tell() - _TAIL))
        return self._log.read().decode(errors="replace").strip()

    def finish(self, timeout: float) -> None:
        """Wait for its end.

        Raises:
            KubetuneError: it failed, or took longer than ``timeout`` seconds.
        """
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired as exc:
            raise KubetuneError(f"{self._command[0]} did not end within {timeout:g} s, and was killed") from exc
        if status != 0:
            raise KubetuneError(f"{self._command[0]} failed with status {status}: {self.said[-600:] or 'it said nothing'}")


@contextmanager
def background(
    command: Sequence[str], environment: Mapping[str, str] | None = None, feed: bool = False, read: bool = False
) -> Iterator[Background]:
    """Start a program, which does not outlive the block.

    Args:
        feed: whether its standard input is written to (``.process.stdin``).
        read: whether its standard output, some kB at most until it has ended, is read apart (``.process.stdout``).
    """
    with tempfile.TemporaryFile() as log:
        stdin = subprocess.PIPE if feed else subprocess.DEVNULL
        try:
            stdout = subprocess.PIPE if read else log
            process = subprocess.Popen(list(command), stdin=stdin, stdout=stdout, stderr=log, env=environment)
        except OSError as exc:
            raise KubetuneError(f"{command[0]} cannot be run on this host ({exc})") from exc
        try:
            yield Background(command, process, log)
        finally:
            if process.stdin and not process.stdin.closed:
                try:
                    process.stdin.close()
                except OSError:
                    pass  # it has ended, and what was still on its way is lost with it
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(_GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if process.stdout:
                process.stdout.close()
