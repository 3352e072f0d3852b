# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container cannot show of a window: the clock jumps by hours, the power goes, the machine reboots in the middle of it.

The clock also goes back between two runs of the maintenance. The tests of this file are one story and run in its order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.lab.console import until
from tests.maintained import run_unit
from tests.vm import node
from tests.vm.machine import Disk, Machine
from tests.vm.playbook import Run, play_roles

pytestmark = pytest.mark.vm

HISTORY = "/var/lib/kubetune/history"
UNIT = "etcd-maintenance.service"
JOURNAL = "/var/lib/kubetune/window/journal.jsonl"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine("test-window", [Disk("data", "ssd")]) as machine:
        machine.shell(f"mkfs.ext4 -q -L etcd /dev/{machine.device('data')}; mkdir -m 700 /var/lib/etcd")
        machine.shell("echo 'LABEL=etcd /var/lib/etcd ext4 defaults 0 2' >>/etc/fstab; mount /var/lib/etcd")
        node.install(machine)
        yield machine


def change(machine: Machine, wals: int, watch: float = 0) -> Run:
    """A window of etcd alone: this machine has no API server."""
    variables = {
        "etcd_static_pod_flags": {"max-wals": wals},
        "etcd_static_pod_profile": "upstream",
        "etcd_static_pod_mode": "merge",
        # Without an API server a host counts as a control plane only where a complete manifest could be had.
        "etcd_static_pod_standalone": {"name": "vm"},
        "etcd_static_pod_allow_downtime": True,
        "node_window_watch_seconds": watch,
    }
    return play_roles(machine, ["etcd_static_pod"], variables)


def jump_at(machine: Machine, step: str, shift: str) -> None:
    """Set the clock as soon as the window comes to a step.

    One process that sleeps: a shell's loop of grep would take most of an emulated core.
    """
    script = f"""
import pathlib, subprocess, time
journal = pathlib.Path("{JOURNAL}")
while not (journal.exists() and '"step": "{step}"' in journal.read_text()):
    time.sleep(0.05)
subprocess.run(["date", "--set={shift}"], check=True)
pathlib.Path("/root/jumped").touch()
"""
    machine.shell("rm -f /root/jumped")
    machine.run("systemd-run", "--quiet", "/usr/bin/python3", "-c", script)


def history(machine: Machine) -> set[str]:
    """The windows that are over."""
    return set(machine.run("ls", HISTORY, check=False).stdout.split())


def newest(machine: Machine) -> tuple[dict, list[dict]]:
    """(result, events) of the last window."""
    # By its name: the machine's clock says nothing here.
    folder = f"{HISTORY}/{max(history(machine))}"
    return json.loads(machine.read(f"{folder}/result.json")), [json.loads(line) for line in machine.read(f"{folder}/journal.jsonl").splitlines()]


def seconds_since_boot(machine: Machine) -> float:
    return float(machine.read("/proc/uptime").split()[0])


@pytest.mark.parametrize(
    ("wals", "step", "shift", "watch"),
    [(6, "etcd_out", "2 hours", 0), (7, "etcd_in", "-1 hour", 0), (8, "watch", "3 hours", 10), (9, "watch", "-2 hours", 10)],
    ids=["forward as etcd leaves", "back as etcd starts", "forward while it is watched", "back while it is watched"],
)
def test_the_clock_jumps(machine: Machine, wals: int, step: str, shift: str, watch: float) -> None:
    key = f"before-{wals}"
    node.etcdctl(machine, f"put {key} x")
    jump_at(machine, step, shift)
    began = seconds_since_boot(machine)
    run = change(machine, wals, watch)
    assert machine.exists("/root/jumped"), "the clock did not jump"
    assert run.status == 0, run.output
    result, events = newest(machine)
    assert result["outcome"] == "changed"
    assert result["seconds"] <= seconds_since_boot(machine) - began, "measured with a clock that does not jump"
    if watch:
        assert result["seconds"] >= watch, "watched to the end"
        assert events[-1]["step"] == "watch" and events[-1]["state"] == "done"
    assert f"--max-wals={wals}" in machine.shell(f"tr '\\0' ' ' </proc/{node.etcd_pid(machine)}/cmdline").stdout
    assert node.etcdctl(machine, f"get --print-value-only {key}") == "x"
    again = change(machine, wals, watch)
    assert again.status == 0 and again.changed == 0, again.output


def test_the_newest_windows_are_kept_whatever_the_clock_said(machine: Machine) -> None:
    """By their names the windows are in the controller's order, and a state to go back to is found by that."""
    assert len(history(machine)) == 4


def facts(said: list[dict[str, str]], step: str, outcome: str) -> dict[str, str]:
    (line,) = [each for each in said if (each["step"], each["outcome"]) == (step, outcome)]
    return line


def test_a_clock_that_goes_back_between_two_runs_hides_no_backup_and_forgets_no_history(machine: Machine) -> None:
    # Its certificates are new, and have to be valid before that, too.
    machine.shell("date --set='4 hours'")
    run = play_roles(
        machine,
        ["etcd_maintenance"],
        {
            "etcd_maintenance_compaction_mode": "on",
            "etcd_maintenance_compaction_min_revisions": 1,
            "etcd_maintenance_interval_seconds": 60,
            "etcd_maintenance_backup_min_free_bytes": 1 << 20,
        },
    )
    assert run.status == 0, run.output
    before = facts(run_unit(machine, UNIT), "backup", "done")

    machine.shell("date --set='-3 hours'")
    node.etcdctl(machine, "put since x")
    said = run_unit(machine, UNIT)
    after = facts(said, "backup", "done")
    assert after["path"] < before["path"], "named by the clock"
    assert int(after["revision"]) > int(before["revision"])
    assert facts(said, "prune", "warning")["path"] == before["path"]
    assert facts(said, "compaction", "nothing")["reason"] == "no_sample", "what it noted lies in the future"

    # What an operator asks for is the one that was taken last.
    told = machine.output("/usr/local/lib/kubetune/kubetune.pyz", "maintenance", "verify", "--json")
    (verified,) = [line for line in map(json.loads, told.splitlines()) if line["step"] == "verify" and line["outcome"] == "ok"]
    assert verified["path"] == after["path"]

    machine.shell("date --set='3 hours'")
    last = facts(run_unit(machine, UNIT), "backup", "done")
    backups = machine.output("find", "/var/backups/etcd", "-name", "*.db").split()
    # The first one is of the same hour as the last one, of which that stays.
    assert {after["path"], last["path"]} == set(backups)


@pytest.mark.parametrize(("wals", "step", "cut"), [(10, "etcd_out", True), (11, "etcd_in", False)], ids=["power is cut", "reboot"])
def test_the_node_ends_the_window_by_itself_after_it_was_off(machine: Machine, wals: int, step: str, cut: bool) -> None:
    """What was not on the disk is lost, and etcd's manifest is out; the playbook may have given up on its host meanwhile."""
    key = f"before-{wals}"
    node.etcdctl(machine, f"put {key} x")
    windows = history(machine)
    with ThreadPoolExecutor(1) as beside:
        going = beside.submit(change, machine, wals)
        until(
            f"the window comes to {step}",
            lambda: machine.run("grep", "-qs", f'"step": "{step}"', JOURNAL, check=False).returncode == 0,
            seconds=900,
            every=0.2,
        )
        if cut:
            machine.cut_power()
            machine.power_on()
        else:
            machine.reboot()
        going.result()
    until("the window is over", lambda: windows < history(machine), seconds=900, every=5)
    until("etcd is ready", lambda: node.etcd_ready(machine), seconds=600, every=5)
    result, events = newest(machine)
    # Undone where etcd, emulated, takes longer to come back than the window waits for a whole cluster before it stops a member.
    assert result["outcome"] in ("changed", "rolled_back"), (result, events)
    assert node.etcdctl(machine, f"get --print-value-only {key}") == "x"
    again = change(machine, wals)
    assert again.status == 0 and (again.changed == 0) == (result["outcome"] == "changed"), again.output
    assert f"--max-wals={wals}" in machine.shell(f"tr '\\0' ' ' </proc/{node.etcd_pid(machine)}/cmdline").stdout
    assert change(machine, wals).changed == 0
