# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client notices of site.yml: the longest time without a write, lost writes, and each node's window.

    python -m tests.benchmarks.site_gap [-- ARGUMENTS FOR ansible-playbook]

The lab has to be up. The writer starts before the first task and stops after the last. Status 1 when a key is lost.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from tests.benchmarks.writer import Writer
from tests.lab import nodes


def windows(lab: nodes.Lab, since: float) -> list[tuple[str, str, list[dict]]]:
    """(node, outcome, events) of each node window that began since then, in order."""
    found = []
    for node in lab.nodes:
        for window in node.shell("ls /var/lib/kubetune/history 2>/dev/null || true").stdout.split():
            folder = f"/var/lib/kubetune/history/{window}"
            events = [json.loads(line) for line in node.read(f"{folder}/journal.jsonl").splitlines()]
            if events and events[0]["time"] >= since:
                found.append((node.name, json.loads(node.read(f"{folder}/result.json"))["outcome"], events))
    return sorted(found, key=lambda each: each[2][0]["time"])


def step_at(opened: list[tuple[str, str, list[dict]]], moment: float) -> str:
    """What the windows were doing then."""
    before = [(event["time"], f"{name}: {event['step']} {event['state']}") for name, _o, events in opened for event in events]
    return max((each for each in before if each[0] <= moment), default=(0.0, "no window yet"))[1]


def main(arguments: list[str]) -> int:
    lab = nodes.load()
    writer = Writer(lab)
    began, offset = time.monotonic(), time.time() - time.monotonic()
    writer.start()
    time.sleep(2)
    command = ["ansible-playbook", "-i", str(lab.inventory), "kubetune.control_plane.site", *arguments]
    status = subprocess.run(command, check=False).returncode
    time.sleep(2)
    record = writer.finish()
    lost = writer.lost()
    writer.clean_up()
    took = time.monotonic() - began
    print(f"\nputs acknowledged     {len(record.acknowledged)} in {took:.0f} s, {record.errors} attempts without an answer")
    opened = windows(lab, began + offset)
    print("longest gaps          one put each 0.02 s, after which step")
    for gap, at in record.gaps()[:3]:
        print(f"{gap:20.3f} s  {step_at(opened, at + offset)}")
    for name, outcome, events in opened:
        moves = [event["time"] for event in events if event["step"] in ("api_out", "etcd_in", "kube-apiserver_in")]
        if moves:
            copy = [event["time"] for event in events if event["step"] == "wal_move" and event["state"] in ("begin", "done")]
            wal = f", of which the WAL's copy {copy[-1] - copy[0]:.1f} s" if copy else ""
            print(f"window of {name:<12}{moves[-1] - moves[0]:5.1f} s, {outcome}{wal}")
    for endpoint, keys in lost.items():
        print(f"lost through {endpoint}: {len(keys)}")
    return 1 if status or any(lost.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
