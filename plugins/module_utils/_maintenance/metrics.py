# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics for node_exporter's textfile collector, of what the runs said.

A step that fails leaves the time of its last success and its figures as they were; only its ``success`` becomes 0. So what was
known is kept in the state directory and written anew by each command.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from .._node.state import write_atomically

FILE = "kubetune_etcd_maintenance.prom"
STATE = "maintenance-metrics.json"

#: What says that a step was done, or that there was nothing to do; and what says that it was not.
_GOOD, _BAD = {"done", "ok", "nothing"}, {"failed", "locked", "unhealthy"}
#: "run" is the frame around the steps.
_STEPS = ("health", "nospace", "compaction", "defragmentation", "backup", "prune", "copy", "drill")


@dataclass(frozen=True)
class _Metric:
    """A gauge: of a step (label ``step``), of a member (label ``member``), or of this host alone.

    Attributes:
        source: where its value stands: group and key of what is kept.
        label: empty for none.
    """

    name: str
    help: str
    source: tuple[str, str]
    label: str = ""


_METRICS = [
    _Metric("step_success", "1 if the step was done at its last time or had nothing to do, 0 if it failed.", ("steps", "success"), "step"),
    _Metric("step_last_success_timestamp_seconds", "When the step was last done or had nothing to do.", ("steps", "at"), "step"),
    _Metric("step_duration_seconds", "How long the step took when it last did something.", ("steps", "seconds"), "step"),
    _Metric("database_size_bytes", "Size of the member's database file.", ("members", "size_bytes"), "member"),
    _Metric("database_in_use_bytes", "What of it is in use.", ("members", "in_use_bytes"), "member"),
    _Metric("database_quota_bytes", "The member's --quota-backend-bytes.", ("members", "quota_bytes"), "member"),
    _Metric("database_fragmentation_ratio", "Free share of the member's database file, 0 to 1.", ("members", "fragmentation"), "member"),
    _Metric("backup_timestamp_seconds", "When the newest backup of this host's member was taken.", ("backup", "taken_at")),
    _Metric("backup_size_bytes", "Size of the newest backup.", ("backup", "bytes")),
    _Metric("backup_revision", "Revision of etcd in the newest backup.", ("backup", "revision")),
    _Metric("backups", "How many backups of this host's member are kept.", ("prune", "kept")),
    _Metric("backups_size_bytes", "Size of all of them.", ("prune", "bytes")),
    _Metric("backup_copied_elsewhere", "1 if a copy command is set or the directory is on other storage.", ("backup", "elsewhere")),
    _Metric("drill_backup_timestamp_seconds", "When the backup was taken that the last good drill restored.", ("drill", "taken_at")),
    _Metric("drill_keys", "Keys that the last good drill found.", ("drill", "keys")),
    _Metric("drill_restore_seconds", "How long etcdutl took to restore in the last good drill.", ("drill", "restore_seconds")),
    _Metric("drill_start_seconds", "How long the restored etcd took to serve in the last good drill.", ("drill", "start_seconds")),
]
PREFIX = "kubetune_etcd_"

Known = Mapping[str, Any]


def updated(known: Known, said: Sequence[Mapping[str, Any]], now: float) -> dict[str, Any]:
    """What is known after a command.

    Args:
        known: what was kept of the earlier ones; empty at first.
        said: the journal's lines of this one.
        now: seconds since 1970.
    """
    new: dict[str, Any] = {group: dict(values) for group, values in known.items()}
    for step in _STEPS:
        outcomes = {line["outcome"] for line in said if line["step"] == step}
        was = new.get("steps", {}).get(step, {})
        if outcomes & _BAD:
            new.setdefault("steps", {})[step] = {**was, "success": 0}
        elif outcomes & _GOOD:
            seconds = sum(float(line["seconds"]) for line in said if line["step"] == step and "seconds" in line)
            duration = {"seconds": round(seconds, 3)} if seconds else {}
            new.setdefault("steps", {})[step] = {**was, "success": 1, "at": round(now, 3), **duration}
    sizes = [line for line in said if line["step"] == "size" and "size_bytes" in line]
    if sizes:
        # Members that left are forgotten.
        new["members"] = {line["member"]: _numbers(line, "size_bytes", "in_use_bytes", "quota_bytes", "fragmentation") for line in sizes}
    for step, keys in (
        ("backup", ("taken_at", "bytes", "revision")),
        ("prune", ("kept", "bytes")),
        ("drill", ("taken_at", "keys", "restore_seconds", "start_seconds")),
    ):
        for line in said:
            if line["step"] == step and line["outcome"] in _GOOD and keys[0] in line:
                new[step] = _numbers(line, *keys)
                if step == "backup":
                    only_here = any(each["step"] == "backup" and each.get("reason") == "only_here" for each in said)
                    new[step]["elsewhere"] = 0 if only_here else 1
    return new


def text(known: Known) -> str:
    """In Prometheus' text format; a metric without a value is left out."""
    lines = []
    for metric in _METRICS:
        samples = list(_samples(metric, known))
        if samples:
            name = PREFIX + metric.name
            lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} gauge", *(f"{name}{labels} {value!r}" for labels, value in samples)]
    return "\n".join(lines) + "\n" if lines else ""


def write(state: Path, directory: str, said: Sequence[Mapping[str, Any]], now: float) -> None:
    """Keep what is known, and hand it to the collector where there is a directory for it.

    The metrics are the one thing that everybody may read: node_exporter runs as a user of its own.
    """
    path = state / STATE
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}  # the first time; damage costs no more than figures of the past
    new = updated(known if isinstance(known, dict) else {}, said, now)
    write_atomically(path, json.dumps(new).encode())
    if directory:
        write_atomically(Path(directory) / FILE, text(new).encode(), 0o644)


def _samples(metric: _Metric, known: Known) -> Iterator[tuple[str, float]]:
    group, key = metric.source
    if not metric.label:
        if key in known.get(group, {}):
            yield "", known[group][key]
        return
    for label, values in sorted(known.get(group, {}).items()):
        if key in values:
            escaped = label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
            yield f'{{{metric.label}="{escaped}"}}', values[key]


def _numbers(line: Mapping[str, Any], *keys: str) -> dict[str, float]:
    return {key: line[key] for key in keys if isinstance(line.get(key), (int, float))}
