# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: ``kubetune.pyz maintenance COMMAND --config FILE``."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Sequence

from .._errors import KubetuneError
from . import program, restoration, status
from .config import load
from .context import Context, client_of
from .journal import EXIT_STATUS, USAGE, Journal

DEFAULT_CONFIG = "/etc/kubetune/etcd-maintenance.json"

#: Command -> (one line, the rest that a person wants to know).
_COMMANDS = {
    "run": ("all steps, as the timer does", "Health, size, compaction, defragmentation, backup, prune, copy elsewhere, in this order."),
    "health": ("is the cluster whole, how large is it", "Changes nothing. Exit status 11 when the cluster is not whole."),
    "status": ("health, and who did what last", "Changes nothing. Also says who holds the cluster lock, and how old the newest backup is."),
    "compact": ("compaction alone", "Never to the newest revision: the history of compaction.retention_seconds stays."),
    "defrag": ("defragmentation alone", "Members with enough to gain, one after another, the leader last."),
    "recover-space": (
        "out of the alarm NOSPACE",
        "Compacts, defragments every member, proves that there is room, and takes the alarm away. On the host of the member with the "
        "lowest id, which the others name: under the alarm no lock can be taken in etcd.",
    ),
    "backup": ("a backup of this host's member", "Then prune, and the copy elsewhere. Does without a healthy cluster."),
    "verify": (
        "are backups whole, undamaged, of this cluster",
        "Of the newest backup, of the files that are named, or of all. Each is refused with its reason: empty, cut, damaged, of "
        "another cluster, of a version that etcdutl here does not read. Changes nothing, and works while etcd is down.",
    ),
    "prune": ("delete backups that no tier keeps", "Tiers are backup.keep_hourly, ..._monthly. The newest and the last good one stay."),
    "drill": (
        "restore the newest backup, on loopback, and throw it away",
        "Counts and compares what was restored, and times it. The running etcd is not touched.",
    ),
    "restore": (
        "a member's data out of a snapshot, by hand",
        "Checks the file as verify does, and makes a data directory of it, which must not be there. The running etcd is not touched. To bring "
        "a cluster back use the playbook restore, which stops what has to be stopped on every host, and starts it in order.",
    ),
    "validate": ("check the configuration only", "Names every problem."),
}
_CHANGING = frozenset(program.COMMANDS)


def main(argv: Sequence[str]) -> int:
    options = _parser().parse_args(argv)
    try:
        config = load(options.config)
        if options.command == "validate":
            return 0
        ctx = Context(
            config,
            # Under systemd a line's priority is told by its prefix, see sd-daemon(3).
            Journal(sys.stdout, priorities="JOURNAL_STREAM" in os.environ, as_json=options.json),
            socket.gethostname(),
            client_of(config),
            dry_run=options.command in _CHANGING and options.dry_run,
            keep_revisions=options.keep_revisions if options.command == "recover-space" else None,
            proc=Path(options.proc),
        )
    except KubetuneError as exc:
        print(f"maintenance: {exc}", file=sys.stderr)
        return USAGE
    # Leaves through the with-statements: the lock is given back, the unfinished snapshot removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if options.command == "status":
        return status.show(ctx)
    if options.command == "health":
        return status.check_health(ctx)
    if options.command == "restore":
        initial = options.initial_cluster or f"{options.name}={options.peer_url}"
        identity = restoration.Identity(options.name, options.peer_url.split(","), initial, options.token)
        return restoration.by_hand(ctx, options.file.absolute(), options.into.absolute(), identity, options.bump_revision)
    if options.command == "verify":
        return status.verify(ctx, [path.absolute() for path in options.files], options.all)
    return program.run(ctx, options.command)


def _parser() -> argparse.ArgumentParser:
    statuses = "\n".join(f"  {status:<3} {meaning}" for status, meaning in EXIT_STATUS.items())
    parser = argparse.ArgumentParser(
        prog="kubetune.pyz maintenance",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Health, size, compaction, defragmentation, backup and restore drills of an etcd cluster, from one of its members.",
        epilog=f"""\
exit status, the worst of what was said:
{statuses}
  130, 143  ended by a signal; an unfinished snapshot is removed, locks are given back

examples:
  kubetune.pyz maintenance run --dry-run            what the next run would do
  kubetune.pyz maintenance status                   members, who did what, the newest backup
  kubetune.pyz maintenance verify --all             every backup in the directory
  kubetune.pyz maintenance restore FILE --into /srv/look --name cp1 --peer-url https://10.0.0.11:2380 --token look-1
  kubetune.pyz maintenance backup --json            one JSON object per line, for programs

Each line is for people before the bar and for programs behind it: step=, outcome= (ok, done, nothing, left_out, planned,
waiting, warning, locked, unhealthy, failed) and facts with their unit. COMMAND --help says more of each.""",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, (summary, more) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {more}")
        command.add_argument("--config", metavar="FILE", default=DEFAULT_CONFIG, help="the one configuration file (default: %(default)s)")
        command.add_argument("--json", action="store_true", help="one JSON object per line: step, outcome, message and facts")
        command.add_argument("--proc", default="/proc", help=argparse.SUPPRESS)
        if name in _CHANGING:
            command.add_argument("--dry-run", action="store_true", help="decide and say it, change nothing")
        if name == "recover-space":
            command.add_argument(
                "--keep-revisions", metavar="N", type=_count, default=None,
                help="how many of the newest revisions stay (default: compaction.min_revisions); with 0 what was deleted is gone at "
                "once, and watches and continued lists on older revisions start anew",
            )  # fmt: skip
        if name == "restore":
            command.add_argument("file", metavar="FILE", type=Path, help="the snapshot")
            command.add_argument("--into", metavar="DIRECTORY", type=Path, required=True, help="the new data directory")
            command.add_argument("--name", required=True, help="of the member")
            command.add_argument("--peer-url", metavar="URL", required=True, help="of the member, such as https://10.0.0.11:2380")
            command.add_argument("--initial-cluster", metavar="NAME=URL,...", help="all members of the new cluster (default: this one alone)")
            command.add_argument("--token", required=True, help="of the new cluster: one that no cluster of yours has had")
            command.add_argument(
                "--bump-revision", metavar="N", type=_count, default=restoration.BUMP,
                help="by how much the revision goes up, so that watches begin anew (default: %(default)s)",
            )  # fmt: skip
        if name == "verify":
            command.add_argument("files", metavar="FILE", nargs="*", type=Path, help="snapshots; none for the newest of this host")
            command.add_argument("--all", action="store_true", help="all in the backup directory, of whichever member")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; a whole number from 0 is needed")
    return int(text)
