# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker engine: the one that answers, else one of our own, which is stopped by its recorded process id."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from .console import run, say, until
from .errors import LabError
from .settings import HOST_STATE, Settings

_PID_FILE = HOST_STATE / "dockerd.pid"
LABEL = "kubetune.lab"


def answers() -> bool:
    """Whether an engine answers the docker command."""
    if shutil.which("docker") is None:
        return False
    return run(["docker", "version", "--format", "{{.Server.Version}}"], check=False, timeout=30).returncode == 0


def own_pid() -> int | None:
    """Process id of the engine that a lab started, or None (not ours, ended, or the number belongs to another)."""
    try:
        pid = int(_PID_FILE.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if os.path.basename(command[0]) == b"dockerd" else None


def start(settings: Settings) -> None:
    """Starts an engine when none answers; its data lies among the assets, its log in the lab's folder."""
    if answers():
        return
    daemon = shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if daemon is None:
        raise LabError("no Docker engine answers and dockerd is not installed; tests/lab/bootstrap.sh installs it")
    HOST_STATE.mkdir(mode=0o700, exist_ok=True)
    settings.state.mkdir(parents=True, exist_ok=True)
    log = settings.state / "dockerd.log"
    say(f"no Docker engine answers: starting dockerd, log in {log}")
    with open(log, "ab") as stream:
        process = subprocess.Popen(
            [daemon, "--data-root", str(settings.assets / "engine"), "--pidfile", str(_PID_FILE)],
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip

    def ready() -> bool:
        if process.poll() is not None:
            lines = log.read_text(errors="replace").splitlines()[-10:]
            raise LabError(f"dockerd ended with status {process.returncode}:\n" + "\n".join(lines))
        return answers()

    until("dockerd answers", ready, seconds=60)


def stop() -> None:
    """Stops the engine if a lab started it and nobody else has containers in it, and waits for its end."""
    pid = own_pid()
    if pid is None:
        return
    left = run(["docker", "ps", "--all", "--format", "{{.Names}}"]).stdout.split()
    if left:
        say(f"dockerd (process {pid}) stays: it has other containers ({', '.join(left)})")
        return
    say(f"stopping dockerd (process {pid})")
    os.kill(pid, signal.SIGTERM)
    until(f"dockerd (process {pid}) has ended", lambda: own_pid() is None, seconds=60)


def labs() -> set[str]:
    """Names of the labs that have containers, stopped ones included."""
    listed = run(["docker", "ps", "--all", "--filter", f"label={LABEL}", "--format", f'{{{{.Label "{LABEL}"}}}}'])
    return set(listed.stdout.split())
