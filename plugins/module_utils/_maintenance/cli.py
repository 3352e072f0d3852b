# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: ``kubetune.pyz maintenance run|status|validate --config FILE``."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Sequence

from .._errors import KubetuneError
from . import program, status
from .config import load
from .context import Context, client_of
from .journal import EXIT_STATUS, USAGE, Journal

DEFAULT_CONFIG = "/etc/kubetune/etcd-maintenance.json"


def main(argv: Sequence[str]) -> int:
    options = _parser().parse_args(argv)
    try:
        config = load(options.config)
        if options.command == "validate":
            return 0
        ctx = Context(
            config,
            # Under systemd a line's priority is told by its prefix, see sd-daemon(3).
            Journal(sys.stdout, priorities="JOURNAL_STREAM" in os.environ),
            socket.gethostname(),
            client_of(config),
            dry_run=options.command == "run" and options.dry_run,
            proc=Path(options.proc),
        )
    except KubetuneError as exc:
        print(f"maintenance: {exc}", file=sys.stderr)
        return USAGE
    # Leaves through the with-statements: the lock is given back, the unfinished snapshot removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    return status.show(ctx) if options.command == "status" else program.run(ctx)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubetune.pyz maintenance",
        description="Health, size, compaction, defragmentation and backup of an etcd cluster, from one of its members.",
        epilog="exit status: " + "; ".join(f"{status}: {meaning}" for status, meaning in EXIT_STATUS.items()),
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in {
        "run": "do the five steps",
        "status": "say what is known, change nothing",
        "validate": "check the configuration only",
    }.items():
        command = commands.add_parser(name, help=summary)
        command.add_argument("--config", default=DEFAULT_CONFIG, help="configuration, JSON (default: %(default)s)")
        command.add_argument("--proc", default="/proc", help=argparse.SUPPRESS)
        if name == "run":
            command.add_argument("--dry-run", action="store_true", help="say what would be done, change nothing")
    return parser
