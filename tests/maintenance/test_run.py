# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maintenance on the lab, started as its timer does: a database full of holes shrinks on every member, and no write is lost."""

from __future__ import annotations

import re
from typing import Any, Callable, Iterator

import pytest

from tests.benchmarks.defragmentation import FILL, fragment, sizes
from tests.benchmarks.writer import Writer
from tests.faults.conftest import at_once, ready, wait_for
from tests.faults.fault import leader
from tests.faults.playbook import Playbook
from tests.lab.nodes import Lab
from tests.maintained import metrics, run_unit

pytestmark = pytest.mark.long

UNIT = "etcd-maintenance.service"
BACKUP, DRILL = "etcd-backup.service", "etcd-restore-drill.service"
METRICS = "/var/lib/node_exporter/textfile_collector/kubetune_etcd_maintenance.prom"
MB = 1_000_000
#: The unit of backups is there where it has a time; this one does not come while a test runs.
BACKUPS = {"etcd_maintenance_backup_calendar": "2099-01-01 00:00:00"}
#: The step is due again at once, and at every size.
EAGER = {"etcd_maintenance_interval_seconds": 60, "etcd_maintenance_defragmentation_rule": "dbSizeFree >= 50*1024*1024"}


@pytest.fixture
def maintained(lab: Lab, playbook: Playbook, request: pytest.FixtureRequest) -> Iterator[str]:
    """Set up with the method that the test names, and a client that writes meanwhile; afterwards every write is there."""
    method = request.param
    run = playbook("maintenance", {**EAGER, "etcd_maintenance_defragmentation_method": method})
    assert run.status == 0, run.output
    fragment(lab, 520)
    assert min(sizes(lab)) >= 500 * MB
    writer = Writer(lab)
    writer.start()
    yield method
    writer.finish()
    wait_for(lambda: ready(lab.nodes), 180, "every node is ready again")
    lost = writer.lost()
    writer.clean_up()
    lab.etcdctl("del", "--prefix", FILL)
    assert not any(lost.values()), lost


def defragmented(said: list[dict[str, Any]]) -> list[str]:
    return [line["member"] for line in said if (line["step"], line["outcome"]) == ("defragmentation", "done")]


@pytest.mark.parametrize("maintained", ["online"], indirect=True)
def test_one_node_does_it_for_all_the_leader_last(lab: Lab, maintained: str, seen: Callable[[str], None]) -> None:
    leads, before = leader(lab), sizes(lab)
    said = run_unit(next(node for node in lab.nodes if node != leads), UNIT)
    order = defragmented(said)
    assert sorted(order) == [node.name for node in lab.nodes] and order[-1] == leads.name
    assert max(sizes(lab)) < 0.7 * min(before)
    # The next one finds it done.
    assert defragmented(run_unit(leads, UNIT)) == []
    seen(f"online, by one node: {max(before) >> 20} to {max(sizes(lab)) >> 20} MiB, in the order {', '.join(order)}")


@pytest.mark.parametrize("maintained", ["window"], indirect=True)
def test_each_node_does_its_own_member_in_a_window(lab: Lab, maintained: str, seen: Callable[[str], None]) -> None:
    before = sizes(lab)
    manifests = at_once(lambda node: node.shell("sha256sum /etc/kubernetes/manifests/*").stdout, lab.nodes)
    for node in lab.nodes:
        assert defragmented(run_unit(node, UNIT)) == [node.name]
    assert max(sizes(lab)) < 0.7 * min(before)
    assert manifests == at_once(lambda node: node.shell("sha256sum /etc/kubernetes/manifests/*").stdout, lab.nodes)
    seen(f"in windows, each node its own: {max(before) >> 20} to {max(sizes(lab)) >> 20} MiB")


@pytest.mark.parametrize("maintained", ["window"], indirect=True)
def test_killed_in_the_middle_the_window_comes_to_its_end(lab: Lab, maintained: str) -> None:
    node = lab.nodes[0]
    node.run("systemctl", "start", "--no-block", UNIT)
    journal = "/var/lib/kubetune/window/journal.jsonl"
    wait_for(lambda: '"defragment"' in node.shell(f"cat {journal} 2>/dev/null || true").stdout, 120, "the defragmentation has begun")
    node.run("systemctl", "kill", "--signal=KILL", UNIT)
    node.run("systemctl", "kill", "--signal=KILL", "kubetune-window.service")
    wait_for(lambda: not node.exists("/var/lib/kubetune/window/pending.json"), 180, "the window has ended")
    wait_for(lambda: ready([node]), 60, "the node is ready")
    assert node.run("systemctl", "is-failed", UNIT, check=False).stdout.strip() == "failed"
    assert sizes(lab)[0] < 0.7 * sizes(lab)[1]
    node.run("systemctl", "reset-failed", UNIT)


def test_a_failed_run_fails_its_unit_and_leaves_the_metrics_old(lab: Lab, playbook: Playbook) -> None:
    """A disk without the room that is asked for: a good run before, a good one afterwards."""
    node = lab.nodes[0]
    assert playbook("maintenance", BACKUPS).status == 0
    run_unit(node, BACKUP)
    before = metrics(node.read(METRICS))
    assert before['step_success{step="backup"}'] == 1
    try:
        assert playbook("maintenance", {**BACKUPS, "etcd_maintenance_backup_min_free_bytes": 1 << 40}).status == 0
        said = run_unit(node, BACKUP, fails=True)
        (failed,) = [line for line in said if line["outcome"] == "failed"]
        assert failed["step"] == "backup"
        assert node.run("systemctl", "is-failed", BACKUP, check=False).stdout.strip() == "failed"
        told = node.output("journalctl", "--unit", BACKUP, "--priority=err", "--output=cat", "--no-pager")
        assert re.search("/var/backups/etcd has .* free, and .* are needed", told), told
        after = metrics(node.read(METRICS))
        assert after['step_success{step="backup"}'] == 0
        for name in ('step_last_success_timestamp_seconds{step="backup"}', "backup_timestamp_seconds", "backup_revision"):
            assert after[name] == before[name], name
    finally:
        assert playbook("maintenance", BACKUPS).status == 0
    run_unit(node, BACKUP)
    assert metrics(node.read(METRICS))['step_success{step="backup"}'] == 1


def test_units_are_sandboxed(lab: Lab, playbook: Playbook, seen: Callable[[str], None]) -> None:
    """Each of them does its work in its sandbox, and leaves nothing that others can read."""
    assert playbook("maintenance", BACKUPS).status == 0
    node = lab.nodes[0]
    for unit, step in ((BACKUP, "backup"), (DRILL, "drill")):
        assert "done" in [line["outcome"] for line in run_unit(node, unit) if line["step"] == step], unit
    assert metrics(node.read(METRICS))['step_success{step="drill"}'] == 1
    for unit in (UNIT, BACKUP, DRILL):
        line = node.output("systemd-analyze", "security", "--no-pager", unit).splitlines()[-1]
        exposure = float(line.split(":")[1].split()[0])
        assert exposure <= 3.0, line
        seen(f"{unit}: exposure {exposure}")
    readable = node.shell("find /var/backups/etcd /etc/kubetune /var/lib/kubetune -type f -perm /007 | head").stdout.split()
    assert readable == []
    key = "/etc/kubernetes/pki/etcd/healthcheck-client.key"
    line = node.read(key).splitlines()[1]
    copies = node.shell(f"grep -rlsF --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev -e {line} / || true", timeout=600).stdout.split()
    assert copies == [key], "an etcd client's key was copied"
    assert playbook("maintenance").status == 0
