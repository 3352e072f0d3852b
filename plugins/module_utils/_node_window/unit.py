# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd unit that runs a window: it outlives the connection, a kill, and a reboot."""

from __future__ import annotations

from pathlib import Path

from .._commands import output
from .._node.state import write_atomically

NAME = "kubetune-window.service"
PATH = Path("/etc/systemd/system") / NAME


def text(python: str, program: str) -> str:
    return f"""# Written by kubetune.control_plane.
[Unit]
Description=Finish or undo the change of this node's static pods
Documentation=https://github.com/kubetune/control_plane
ConditionPathExists=/var/lib/kubetune/window/pending.json
After=kubelet.service
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={python} {program} window run
# Killed: take up the journal again; also by what systemd takes for a clean end. Ended with a verdict: that stands.
Restart=on-abnormal
RestartForceExitStatus=SIGTERM SIGINT SIGHUP
RestartSec=1
UMask=0077
NoNewPrivileges=yes
# Not more: the host's Python may live there.
ProtectHome=read-only

[Install]
WantedBy=multi-user.target
"""


def install(python: str, program: str) -> None:
    """Put the unit down where it is not there yet, and have it started at each boot."""
    wanted = text(python, program)
    if not PATH.exists() or PATH.read_text() != wanted:
        write_atomically(PATH, wanted.encode(), 0o644)
        _systemctl("daemon-reload")
    _systemctl("enable", "--quiet", NAME)


def start() -> None:
    """Start it without waiting for its end."""
    _systemctl("reset-failed", NAME, check=False)
    _systemctl("start", "--no-block", NAME)


def active() -> bool:
    return _systemctl("is-active", NAME, check=False).strip() in ("active", "activating", "reloading", "deactivating")


def remove() -> bool:
    """Take the unit away; True when it was there."""
    if not PATH.exists():
        return False
    _systemctl("disable", "--quiet", NAME)
    PATH.unlink()
    _systemctl("daemon-reload")
    return True


def _systemctl(*arguments: str, check: bool = True) -> str:
    return output(["systemctl", *arguments], check=check)
