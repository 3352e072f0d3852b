# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maintenance program's configuration: every key, its type and range."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError, Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.config import load, parse

GOOD: dict[str, Any] = {
    "endpoint": "https://127.0.0.1:2379",
    "ca_file": "/etc/kubernetes/pki/etcd/ca.crt",
    "cert_file": "/etc/kubernetes/pki/etcd/healthcheck-client.crt",
    "key_file": "/etc/kubernetes/pki/etcd/healthcheck-client.key",
    "data_directory": "/var/lib/etcd",
    "state_directory": "/var/lib/kubetune",
    "tools": "auto",
    "tools_directory": "/usr/local/lib/kubetune/etcd-tools",
    "metrics_directory": "/var/lib/node_exporter/textfile_collector",
    "interval_seconds": 72_000,
    "lock_wait_seconds": 900,
    "settle_seconds": 60,
    "compaction": {"mode": "auto", "retention_seconds": 3600, "min_revisions": 100_000},
    "defragmentation": {
        "enabled": True,
        "method": "auto",
        "online_max_bytes": 33_554_432,
        "rule": "dbSizeFree >= 100*1024*1024 && (dbSizeFree / dbSize >= 0.45 || dbQuotaUsage >= 0.8)",
        "hours": [],
        "timeout_seconds": 300,
    },
    "nospace": {"recover": False, "room": 0.9},
    "backup": {
        "enabled": True,
        "directory": "/var/backups/etcd",
        "keep_hourly": 6,
        "keep_daily": 7,
        "keep_weekly": 4,
        "keep_monthly": 6,
        "min_free_bytes": 1 << 30,
        "encryption": "none",
        "recipients_file": "",
        "identity_file": "",
        "host_paths": [],
        "copy_command": [],
        "copy_timeout_seconds": 1800,
    },
    "drill": {"directory": "/var/lib/kubetune/drill", "start_timeout_seconds": 300},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(GOOD)
    *sections, key = path.split(".")
    place = config
    for section in sections:
        place = place[section]
    place[key] = value
    return config


def test_good_configuration_is_taken_as_it_is() -> None:
    config = parse(GOOD)
    assert config.compaction.retention_seconds == 3600
    assert config.nospace.room == 0.9
    assert config.backup.directory == "/var/backups/etcd"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("endpoint", "http://127.0.0.1:2379"),
        ("endpoint", "https://127.0.0.1"),
        ("endpoint", "https://127.0.0.1:2379/path"),
        ("ca_file", "relative.crt"),
        ("backup.directory", "/with space"),
        ("backup.directory", "/with%percent"),
        ("interval_seconds", 59),
        ("interval_seconds", "72000"),
        ("interval_seconds", True),
        ("interval_seconds", 72000.0),
        ("compaction.mode", "On"),
        ("compaction.mode", True),
        ("compaction.retention_seconds", 299),
        ("compaction.min_revisions", 0),
        ("defragmentation.enabled", "yes"),
        ("defragmentation.method", "offline"),
        ("defragmentation.online_max_bytes", -1),
        ("defragmentation.rule", "dbSize"),
        ("defragmentation.rule", 0.45),
        ("defragmentation.hours", ["22:00-24:00"]),
        ("defragmentation.hours", ["22:00-22:00"]),
        ("defragmentation.hours", "22:00-05:00"),
        ("nospace.room", 1.01),
        ("nospace.room", -0.1),
        ("defragmentation.timeout_seconds", 3601),
        ("backup.keep_daily", -1),
        ("backup.keep_weekly", "4"),
        ("backup.encryption", "zip"),
        ("backup.recipients_file", "keys"),
        ("backup.host_paths", "/etc/kubernetes/pki"),
        ("backup.host_paths", ["pki"]),
        ("backup.copy_command", ["rclone", ""]),
        ("backup.copy_command", ["rclone", 5]),
        ("tools", "etcdutl"),
        ("drill.start_timeout_seconds", 9),
    ],
)
def test_bad_value_is_named_with_what_is_allowed(path: str, value: Any) -> None:
    with pytest.raises(Refusal) as refused:
        parse(changed(path, value))
    assert len(refused.value.problems) == 1
    assert refused.value.problems[0].startswith(f"{path}: {value!r} is not allowed; ")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("compaction.retention_seconds", 300),
        ("defragmentation.rule", "dbSizeFree > 0"),
        ("defragmentation.hours", ["22:00-05:00", "12:00-12:30"]),
        ("nospace.room", 1),
        ("tools", "/opt/etcd"),
        ("metrics_directory", ""),
        ("backup.keep_daily", 0),
        ("backup.copy_command", ["/usr/local/bin/offsite", "--to", "s3 bucket"]),
    ],
)
def test_edges_are_allowed(path: str, value: Any) -> None:
    parse(changed(path, value))


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"encryption": "age"}, "backup.recipients_file is empty: age needs to know"),
        ({"host_paths": ["/etc/kubernetes/pki"]}, "backup.host_paths: keys and manifests are backed up encrypted only"),
        ({f"keep_{tier}": 0 for tier in ("hourly", "daily", "weekly", "monthly")}, "are all 0"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(section: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        parse({**GOOD, "backup": {**GOOD["backup"], **section}})


def test_unknown_and_missing_keys_are_all_named() -> None:
    config = changed("backup.kepe", 5)
    del config["backup"]["keep_daily"], config["endpoint"], config["compaction"]
    with pytest.raises(Refusal) as refused:
        parse(config)
    text = str(refused.value)
    for part in (
        "backup.kepe is unknown; known are enabled, directory, keep_hourly",
        "backup.keep_daily is missing",
        "endpoint is missing",
        "compaction is missing",
    ):
        assert part in text


def test_section_that_is_no_object_is_named() -> None:
    with pytest.raises(Refusal, match="backup: 7 is not allowed; an object with enabled"):
        parse(changed("backup", 7))


def test_file_that_is_missing_or_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(KubetuneError, match=f"{path} cannot be read: No such file"):
        load(str(path))
    path.write_text("{")
    with pytest.raises(KubetuneError, match=f"{path} is not JSON"):
        load(str(path))
    path.write_text("[]")
    with pytest.raises(KubetuneError, match="not a JSON object"):
        load(str(path))
    path.write_text(json.dumps(GOOD))
    assert load(str(path)) == parse(GOOD)


def test_file_of_an_older_release_is_read(tmp_path: Path) -> None:
    """A restore finds the backups by it, and the program may be newer than its file for a while."""
    path = tmp_path / "older.json"
    old = {**GOOD, "defragmentation": {name: value for name, value in GOOD["defragmentation"].items() if name != "online_max_bytes"}}
    path.write_text(json.dumps(old))
    assert load(str(path)) == parse(GOOD)
    path.write_text(json.dumps({**old, "defragmentation": []}))
    with pytest.raises(Refusal, match="defragmentation"):
        load(str(path))
