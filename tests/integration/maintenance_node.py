# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with one etcd member and the maintenance program, as it is installed on hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.integration.assets import binary
from tests.integration.etcd_cluster import EtcdCluster, Member
from tests.maintained import metrics, said

MB = 1_000_000
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system of its own takes root")


@dataclass
class Run:
    status: int
    text: str

    @property
    def lines(self) -> list[dict[str, str]]:
        """The machine's half of each line."""
        return said(self.text)

    def of(self, step: str, outcome: str | None = None) -> list[dict[str, str]]:
        return [line for line in self.lines if line["step"] == step and outcome in (None, line["outcome"])]


class Node:
    """A host with one member: its configuration, state and backups."""

    def __init__(self, program: Path, cluster: EtcdCluster, member: Member, root: Path) -> None:
        self.program = program
        self.cluster = cluster
        self.member = member
        self.root = root / f"node-{member.name}"
        self.backups = self.root / "backups"
        self.proc = self.root / "proc"
        for path in (self.backups, self.proc, self.root / "metrics"):
            path.mkdir(parents=True)
        self.config: dict[str, Any] = {
            "endpoint": member.client_url,
            "ca_file": cluster.tls.ca_file,
            "cert_file": cluster.tls.cert_file,
            "key_file": cluster.tls.key_file,
            "data_directory": str(member.data_directory),
            "state_directory": str(self.root / "state"),
            "tools": str(binary("etcdutl").parent),
            "tools_directory": str(self.root / "kept"),
            "metrics_directory": str(self.root / "metrics"),
            "interval_seconds": 72_000,
            "lock_wait_seconds": 120,
            "settle_seconds": 10,
            "compaction": {"mode": "on", "retention_seconds": 300, "min_revisions": 1},
            "defragmentation": {
                "enabled": True,
                "method": "online",
                "online_max_bytes": 0,
                "rule": "dbSizeFree >= 4000000 && (dbSizeFree / dbSize >= 0.3 || dbQuotaUsage >= 0.8)",
                "hours": [],
                "timeout_seconds": 60,
            },
            "nospace": {"recover": False, "room": 0.9},
            "backup": {
                "enabled": True,
                "directory": str(self.backups),
                "keep_hourly": 3,
                "keep_daily": 7,
                "keep_weekly": 4,
                "keep_monthly": 6,
                "min_free_bytes": MB,
                "encryption": "none",
                "recipients_file": "",
                "identity_file": "",
                "host_paths": [],
                "copy_command": [],
                "copy_timeout_seconds": 60,
            },
            "drill": {"directory": str(self.root / "drill"), "start_timeout_seconds": 60},
        }

    def start(self, command: str = "run", *options: str) -> subprocess.Popen[str]:
        config = self.root / "config.json"
        config.write_text(json.dumps(self.config))
        return subprocess.Popen(
            # -I and -S: nothing but the program and the standard library.
            [
                sys.executable,
                "-I",
                "-S",
                self.program,
                "maintenance",
                command,
                "--config",
                config,
                "--proc",
                self.proc,
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str = "run", *options: str) -> Run:
        return finish(self.start(command, *options))

    def snapshots(self) -> list[Path]:
        return sorted(self.backups.glob("*/*.db"))

    def leftovers(self) -> list[Path]:
        return sorted(self.backups.glob("*/*.part"))

    def metrics(self) -> dict[str, float]:
        return metrics((self.root / "metrics/kubetune_etcd_maintenance.prom").read_text())


def finish(process: subprocess.Popen[str]) -> Run:
    text, _none = process.communicate(timeout=300)
    print(text)
    return Run(process.returncode, text)


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def accepted_by_etcdutl(snapshot: Path) -> dict[str, Any]:
    told = subprocess.run(
        [binary("etcdutl"), "snapshot", "status", snapshot, "--write-out=json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(told.stdout))
