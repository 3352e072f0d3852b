# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups there are, and which of them stay.

    DIRECTORY/20261124/etcd-snapshot-023012-cp1.db      the snapshot; .db.age or .db.gpg where it is encrypted
    DIRECTORY/20261124/etcd-snapshot-023012-cp1.json    what it is, see `sidecar`
    DIRECTORY/20261124/etcd-snapshot-023012-cp1.host.tar.age    files of the host, where they are asked for

All of it 0600, times in UTC. The member's name is in it so that several members may share a directory.

Only names and contents make a backup old, never the clock of now: one that has jumped forward deletes nothing. Whatever
there is was taken before now, so a name with a later time than now is a wrong clock's, and comes before all others in order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable, Iterator, Sequence

from .config import Backup

DATE, TIME = "%Y%m%d", "%H%M%S"
_DAY = "[0-9]" * 8
#: Everything that the program may leave in its directory.
PATTERN = f"{_DAY}/*etcd-snapshot-{'[0-9]' * 6}-*"
SUFFIXES = {"none": "", "age": ".age", "gpg": ".gpg"}
_NAME = re.compile(r"etcd-snapshot-(\d{6})-(.+)\.db(?:\.age|\.gpg)?")

#: Tier -> what two backups of one period have in common (strftime).
_PERIODS = {"hourly": "%Y%m%d%H", "daily": "%Y%m%d", "weekly": "%G%V", "monthly": "%Y%m"}


@dataclass(frozen=True)
class Snapshot:
    """
    Attributes:
        taken_at: seconds since 1970, by its name.
    """

    path: Path
    taken_at: float

    @property
    def stem(self) -> str:
        """What the names of all files of this backup begin with."""
        return re.sub(r"\.db(\.age|\.gpg)?$", "", self.path.name)

    @property
    def sidecar(self) -> Path:
        return self.path.with_name(self.stem + ".json")

    @property
    def encryption(self) -> str:
        return {suffix: name for name, suffix in SUFFIXES.items()}.get(self.path.suffix, "none")

    def files(self) -> list[Path]:
        """All files of this backup, its snapshot first."""
        others = [self.path.with_name(f"{self.stem}.host.tar{suffix}") for suffix in SUFFIXES.values()]
        return [each for each in (self.path, self.sidecar, *others) if each.exists()]


def file_name(member: str) -> str:
    """The member's name as it appears in file names."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", member) or "member"


def of_path(path: Path) -> Snapshot | None:
    """None where the name is not one of ours."""
    found = _NAME.fullmatch(path.name)
    try:
        taken = datetime.strptime(path.parent.name + found.group(1) if found else "", DATE + TIME)
    except ValueError:
        return None
    return Snapshot(path, taken.replace(tzinfo=timezone.utc).timestamp())


def snapshots(directory: Path, member: str | None, now: float) -> list[Snapshot]:
    """A member's snapshots, or every member's, oldest first; those of a wrong clock before them.

    Args:
        now: seconds since 1970.
    """
    found = []
    for path in directory.glob(f"{_DAY}/etcd-snapshot-*.db*"):
        name = _NAME.fullmatch(path.name)
        each = of_path(path)
        if name and each and (member is None or name.group(2) == file_name(member)):
            found.append(each)
    return sorted(found, key=lambda each: (each.taken_at <= now, each.taken_at, each.path.name))


def expired(
    known: Sequence[Snapshot], now: float, policy: Backup, is_good: Callable[[Snapshot], bool], cluster_of: Callable[[Snapshot], str]
) -> list[Snapshot]:
    """Those which no tier holds. The newest stays, and so does the newest good one: it is asked for from the newest on.

    So does the newest of each other cluster: a restore makes a new one, and may have been the wrong one.

    Those of a wrong clock stay, and take no place in a tier, until their time has come: it is the clock of now that may be wrong.

    Args:
        known: oldest first, as `snapshots` returns them.
        now: seconds since 1970.
        is_good: reads the whole file, so it is called until the first good one only.
        cluster_of: its cluster's id; empty where that is not known.
    """
    staying = {each for each in known if each.taken_at > now}
    staying.update(_held([each for each in known if each not in staying], policy))
    staying.update(known[-1:])
    newest = {cluster_of(each): each for each in known}
    staying.update(each for cluster_id, each in newest.items() if cluster_id)
    for each in reversed(known):
        if is_good(each):
            staying.add(each)
            break
    else:
        return []  # not a single good one: nothing is thrown away before a person has looked
    return [each for each in known if each not in staying]


def _held(known: Sequence[Snapshot], policy: Backup) -> Iterator[Snapshot]:
    """The newest of each of the last periods that have any, tier by tier."""
    for tier, form in _PERIODS.items():
        newest: dict[str, Snapshot] = {}
        for each in known:
            newest[datetime.fromtimestamp(each.taken_at, timezone.utc).strftime(form)] = each
        yield from sorted(newest.values(), key=lambda each: each.taken_at, reverse=True)[: getattr(policy, f"keep_{tier}")]
