# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program's configuration file: every key has to be there, and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from .._errors import KubetuneError, Refusal
from . import rule

DAY = 86_400
GIB = 1 << 30


@dataclass(frozen=True)
class Compaction:
    """
    Attributes:
        mode: ``auto`` leaves it to the API server or to etcd where one of them compacts; ``on`` and ``off`` do not look.
        retention_seconds: history that stays, at least. kube-apiserver counts on its own 300 s.
        min_revisions: fewer revisions than that are not worth a compaction (the guide: 100000).
    """

    mode: str
    retention_seconds: int
    min_revisions: int


@dataclass(frozen=True)
class Defragmentation:
    """
    Attributes:
        enabled: whether this step is done at all.
        method: ``online``, of all members by one node, each of them serving nothing for as long as it takes; ``window``, of each
            node its own member while it and the node's API server are out, so that clients go on at another one; or ``auto``, a window
            where there is more to copy than ``online_max_bytes``, and one can be, see `own_window.possible`.
        online_max_bytes: what is in use of a database that is done so soon that nothing is stopped or moved for it.
        rule: when a member is due, see `rule`.
        hours: times of the host's day in which it may be done, each ``HH:MM-HH:MM``; empty for any time.
        timeout_seconds: for one member; it serves nothing meanwhile.
    """

    enabled: bool
    method: str
    online_max_bytes: int
    rule: str
    hours: list[str]
    timeout_seconds: int

    @property
    def may_open_windows(self) -> bool:
        return self.enabled and self.method != "online"


@dataclass(frozen=True)
class Nospace:
    """
    Attributes:
        recover: whether a run by the timer gets the cluster out of a NOSPACE alarm, as the command ``recover-space`` does.
        room: share of the quota (0 to 1) below which every member's file has to be before the alarm is taken away.
    """

    recover: bool
    room: float


@dataclass(frozen=True)
class Backup:
    """
    Attributes:
        enabled: whether this step is done at all.
        directory: where the dated directories are made.
        keep_hourly, keep_daily, keep_weekly, keep_monthly: of so many of the last hours (days, ISO weeks, months) that have
            backups the newest one stays; see `retention`.
        min_free_bytes: what has to be free on that disk after the snapshot.
        encryption: ``none``, ``age`` or ``gpg``.
        recipients_file: whom to encrypt for: age's recipients, one a line, or public keys that gpg exported.
        identity_file: the private key, for `verify` and the drill on this host; empty where it is not here.
        host_paths: files and directories of the host that go into the backup, encrypted only.
        copy_command: takes a backup elsewhere, see `elsewhere`; empty for none.
        copy_timeout_seconds: for one call of it.
    """

    enabled: bool
    directory: str
    keep_hourly: int
    keep_daily: int
    keep_weekly: int
    keep_monthly: int
    min_free_bytes: int
    encryption: str
    recipients_file: str
    identity_file: str
    host_paths: list[str]
    copy_command: list[str]
    copy_timeout_seconds: int


@dataclass(frozen=True)
class Drill:
    """
    Attributes:
        directory: the newest backup is restored below it, and thrown away.
        start_timeout_seconds: for the restored etcd to serve.
    """

    directory: str
    start_timeout_seconds: int


@dataclass(frozen=True)
class Config:
    """
    Attributes:
        endpoint: client URL of the member on this host; the others come from the member list.
        ca_file, cert_file, key_file: PEM files for it.
        data_directory: of the member on this host.
        state_directory: holds the lock that keeps two runs on this host apart.
        tools: directory with etcd, etcdctl and etcdutl, or ``auto``; see `tools`.
        tools_directory: where etcdutl is kept for the day when no etcd runs.
        metrics_directory: of node_exporter's textfile collector; empty for no metrics.
        interval_seconds: compaction and defragmentation are done once in it, by one node for all.
        lock_wait_seconds: how long a run waits for another one, on this host or in the cluster.
        settle_seconds: how long the cluster may take to be whole, at the start and after each member's turn.
    """

    endpoint: str
    ca_file: str
    cert_file: str
    key_file: str
    data_directory: str
    state_directory: str
    tools: str
    tools_directory: str
    metrics_directory: str
    interval_seconds: int
    lock_wait_seconds: int
    settle_seconds: int
    compaction: Compaction
    defragmentation: Defragmentation
    nospace: Nospace
    backup: Backup
    drill: Drill


@dataclass(frozen=True)
class _Number:
    minimum: int
    maximum: int
    unit: str
    whole: bool = True

    def problem(self, value: Any) -> str:
        right_type = type(value) is int or (not self.whole and type(value) is float)
        if right_type and self.minimum <= value <= self.maximum:
            return ""
        return f"a {'whole ' if self.whole else ''}number from {self.minimum} to {self.maximum} ({self.unit})"


@dataclass(frozen=True)
class _Text:
    pattern: str
    allowed: str

    def problem(self, value: Any) -> str:
        return "" if isinstance(value, str) and re.fullmatch(self.pattern, value) else self.allowed


@dataclass(frozen=True)
class _Switch:
    def problem(self, value: Any) -> str:
        return "" if isinstance(value, bool) else "true or false"


@dataclass(frozen=True)
class _Texts:
    each: _Text

    def problem(self, value: Any) -> str:
        right = isinstance(value, list) and not any(self.each.problem(text) for text in value)
        return "" if right else f"a list, each of it {self.each.allowed},"


@dataclass(frozen=True)
class _Rule:
    def problem(self, value: Any) -> str:
        why = rule.problem(value) if isinstance(value, str) else "it is no text"
        return f"a rule made of {rule.ALLOWED} ({why})" if why else ""


_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d"

# Spaces and percent signs would end or change a path in a unit file.
_PATH = _Text(r"/[^\s%\"'\\]*", "an absolute path without spaces, quotes, backslashes or percent signs")

_PATH_OR_NONE = _Text(rf"|{_PATH.pattern}", f"{_PATH.allowed}, or empty")

_TOP: Mapping[str, Any] = {
    "endpoint": _Text(r"https://[^\s/]+:\d+", "an https URL with its port, such as https://127.0.0.1:2379"),
    "ca_file": _PATH,
    "cert_file": _PATH,
    "key_file": _PATH,
    "data_directory": _PATH,
    "state_directory": _PATH,
    "tools": _Text(rf"auto|{_PATH.pattern}", "auto or an absolute path"),
    "tools_directory": _PATH,
    "metrics_directory": _PATH_OR_NONE,
    "interval_seconds": _Number(60, 31 * DAY, "seconds"),
    "lock_wait_seconds": _Number(0, DAY, "seconds"),
    "settle_seconds": _Number(0, 600, "seconds"),
}
_TIERS = {"hourly": "hours", "daily": "days", "weekly": "weeks", "monthly": "months"}

_SECTIONS: Mapping[str, tuple[type, Mapping[str, Any]]] = {
    "compaction": (
        Compaction,
        {
            "mode": _Text("auto|on|off", "auto, on or off"),
            "retention_seconds": _Number(300, 31 * DAY, "seconds; the API server needs 300"),
            "min_revisions": _Number(1, 10**12, "revisions"),
        },
    ),
    "defragmentation": (
        Defragmentation,
        {
            "enabled": _Switch(),
            "rule": _Rule(),
            "method": _Text("auto|online|window", "auto, online or window"),
            "online_max_bytes": _Number(0, 2**40, "bytes"),
            "hours": _Texts(_Text(rf"({_TIME})-(?!\1){_TIME}", "two times of the day such as 22:00-05:00")),
            "timeout_seconds": _Number(10, 3600, "seconds"),
        },
    ),
    "nospace": (Nospace, {"recover": _Switch(), "room": _Number(0, 1, "share of the quota", whole=False)}),
    "backup": (
        Backup,
        {
            "enabled": _Switch(),
            "directory": _PATH,
            **{f"keep_{tier}": _Number(0, 1000, f"{unit} with backups") for tier, unit in _TIERS.items()},
            "min_free_bytes": _Number(0, 1024 * GIB, "bytes"),
            "encryption": _Text("none|age|gpg", "none, age or gpg"),
            "recipients_file": _PATH_OR_NONE,
            "identity_file": _PATH_OR_NONE,
            "host_paths": _Texts(_PATH),
            "copy_command": _Texts(_Text(r"[^\0\n]+", "a text without line breaks")),
            "copy_timeout_seconds": _Number(1, DAY, "seconds"),
        },
    ),
    "drill": (
        Drill,
        {"directory": _PATH, "start_timeout_seconds": _Number(10, 3600, "seconds")},
    ),
}


#: Default of `Defragmentation.online_max_bytes`: half a second, and no less than a window's own stall (docs/results.md).
ONLINE_MAX_BYTES = 32 << 20
#: What came after the first files were written: a program that is newer than its file goes on, and so does a restore.
_ADDED: Mapping[str, Mapping[str, Any]] = {"defragmentation": {"online_max_bytes": ONLINE_MAX_BYTES}}


def load(path: str) -> Config:
    """A file on a host, of this release or an older one.

    Raises:
        KubetuneError: the file cannot be read or is no JSON object.
        Refusal: keys are missing, unknown or out of range; all of them are named.
    """
    try:
        data = json.loads(Path(path).read_text())
    except OSError as exc:
        raise KubetuneError(f"the configuration {path} cannot be read: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise KubetuneError(f"the configuration {path} is not JSON: {exc}") from exc
    for section, added in _ADDED.items():
        if isinstance(data, dict) and isinstance(data.get(section), dict):
            data[section] = {**added, **data[section]}
    return parse(data)


def parse(data: Any) -> Config:
    """See `load`."""
    if not isinstance(data, Mapping):
        raise KubetuneError("the configuration is not a JSON object")
    found = problems(data)
    if found:
        raise Refusal(found)
    sections = {name: kind(**data[name]) for name, (kind, _rules) in _SECTIONS.items()}
    return Config(**{name: data[name] for name in _TOP}, **sections)


def problems(data: Mapping[str, Any]) -> list[str]:
    """What is wrong with a configuration, one sentence each."""
    found = _problems(data, {**_TOP, **dict.fromkeys(_SECTIONS)}, "")
    for name, (_kind, rules) in _SECTIONS.items():
        section = data.get(name)
        if isinstance(section, Mapping):
            found += _problems(section, rules, f"{name}.")
        elif name in data:
            found.append(f"{name}: {section!r} is not allowed; an object with {', '.join(rules)} is needed")
    return found or _contradictions(data["backup"])


def _contradictions(backup: Mapping[str, Any]) -> list[str]:
    """What the keys of a backup, each of them allowed, do not allow together."""
    found = []
    encrypted = backup["encryption"] != "none"
    if encrypted and not backup["recipients_file"]:
        found.append(f"backup.recipients_file is empty: {backup['encryption']} needs to know whom to encrypt for")
    if backup["host_paths"] and not encrypted:
        found.append("backup.host_paths: keys and manifests are backed up encrypted only; backup.encryption age or gpg is needed")
    if not any(backup[f"keep_{tier}"] for tier in _TIERS):
        found.append("backup.keep_hourly, keep_daily, keep_weekly and keep_monthly are all 0: at least one has to keep something")
    return found


def _problems(data: Mapping[str, Any], rules: Mapping[str, Any], prefix: str) -> list[str]:
    found = [f"{prefix}{name} is unknown; known are {', '.join(rules)}" for name in data if name not in rules]
    for name, needed in rules.items():
        if name not in data:
            found.append(f"{prefix}{name} is missing")
        elif needed is not None and needed.problem(data[name]):
            found.append(f"{prefix}{name}: {data[name]!r} is not allowed; {needed.problem(data[name])} is needed")
    return found
