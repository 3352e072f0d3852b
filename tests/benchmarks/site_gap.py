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


def windows(lab: nodes.Lab, since: float) -> dict[str, list[tuple[str, float, float]]]:
    """Node -> (outcome, first event, seconds from the first manifest out to the last process proved) of each window since then."""
    found: dict[str, list[tuple[str, float, float]]] = {}
    for node in lab.nodes:
        for window in node.shell("ls /var/lib/kubetune/history 2>/dev/null || true").stdout.split():
            folder = f"/var/lib/kubetune/history/{window}"
            events = [json.loads(line) for line in node.read(f"{folder}/journal.jsonl").splitlines()]
            outcome = json.loads(node.read(f"{folder}/result.json"))["outcome"]
            if not events or events[0]["time"] < since:
                continue
            moves = [each for each in events if each["step"] in ("api_out", "etcd_in", "kube-apiserver_in")]
            if moves:
                found.setdefault(node.name, []).append((outcome, moves[0]["time"], moves[-1]["time"] - moves[0]["time"]))
    return found


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
    print(f"longest gap           {record.longest_gap():.3f} s (one put each 0.02 s)")
    for name, each in windows(lab, began + offset).items():
        for outcome, start, seconds in each:
            gap = record.longest_gap(start - offset, start - offset + seconds)
            print(f"window of {name:<12}{seconds:5.1f} s, {outcome}; longest gap meanwhile {gap:.3f} s")
    for endpoint, keys in lost.items():
        print(f"lost through {endpoint}: {len(keys)}")
    return 1 if status or any(lost.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
