# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rolling changes of etcd's and kube-apiserver's flags under 50 writes a second, round after round.

    python -m tests.benchmarks.rolling [ROUNDS, 20 by default]

The lab has to be up. Each round changes a flag of both on every node with site.yml. Told are: writes that got no answer from any
endpoint or were lost, the longest gap of each round, each node window (first manifest out until the last process is ready),
and how each process that was replaced ended, as the container runtime saw it. Status 1 when a write failed or was lost, a
window is not "changed", or a process did not end by itself.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import Counter

from tests.benchmarks.site_gap import step_at, windows
from tests.benchmarks.writer import PACE, Writer
from tests.lab import nodes

COMPONENTS = ("etcd", "kube-apiserver")
#: Seconds after which a client of etcd gives a write up (etcd's own request timeout is 5 s and twice the election timeout).
FAILED = 5.0
#: Exit status of a process that was killed: 128 and SIGKILL.
KILLED = 137


class Exits:
    """The exits that the container runtime of each node reports while it listens."""

    def __init__(self, lab: nodes.Lab) -> None:
        command = ["ctr", "-n", "k8s.io", "events"]
        self._listening = {
            node: subprocess.Popen(["docker", "exec", node.container, *command], stdout=subprocess.PIPE, text=True) for node in lab.nodes
        }

    def finish(self) -> dict[tuple[str, int], int]:
        """(node, process id in the node) -> exit status."""
        found = {}
        for node, process in self._listening.items():
            # In the node: docker passes no signal on.
            node.run("pkill", "--full", "^ctr -n k8s.io events", check=False)
            output, _ = process.communicate()
            for line in output.splitlines():
                _before, mark, data = line.partition(" /tasks/exit ")
                if mark:
                    event = json.loads(data)
                    found[(node.name, int(event["pid"]))] = int(event.get("exit_status", 0))
        return found


def change(number: int) -> dict:
    """What a round asks for; no round asks for what the one before has."""
    return {
        "etcd_static_pod_flags": {"max-wals": 6 + number % 2},
        "kube_apiserver_static_pod_flags": {"event-ttl": f"{2 + number % 2}h"},
        "node_window_watch_seconds": 0,
    }


def pids(lab: nodes.Lab) -> dict[tuple[str, str], int | None]:
    return {(node.name, component): node.pid(component) for node in lab.nodes for component in COMPONENTS}


def main(arguments: list[str]) -> int:
    rounds = int(arguments[0]) if arguments else 20
    lab = nodes.load()
    playbook = ["ansible-playbook", "-i", str(lab.inventory), "kubetune.control_plane.site", "-e"]
    # The first windows of untouched nodes wait for an API server that does not end its watches yet.
    subprocess.run([*playbook, json.dumps(change(-1))], check=True, stdout=subprocess.DEVNULL)
    exits, writer = Exits(lab), Writer(lab)
    offset = time.time() - time.monotonic()
    writer.start()
    time.sleep(2)
    replaced: dict[tuple[str, int], str] = {}
    took: list[float] = []
    bad = 0
    print(f"{rounds} rounds, one put each {PACE:g} s\nround  longest gap  after                                windows")
    try:
        for number in range(rounds):
            before, began = pids(lab), time.monotonic()
            done = subprocess.run([*playbook, json.dumps(change(number))], check=False, capture_output=True, text=True)
            after = pids(lab)
            replaced.update({(name, pid): component for (name, component), pid in before.items() if pid and after[name, component] != pid})
            opened = windows(lab, began + offset)
            bad += done.returncode != 0 or len(opened) != len(lab.nodes) or any(outcome != "changed" for _n, outcome, _e in opened)
            if done.returncode != 0:
                print(done.stdout[-2000:])
            times = [_window(events) for _name, _outcome, events in opened]
            took += times
            gap, at = next((gap for gap in writer.record.gaps() if gap[1] >= began), (0.0, 0.0))
            print(f"{number + 1:5}  {gap:9.3f} s  {step_at(opened, at + offset):<36} {' '.join(f'{each:5.1f}' for each in times)}", flush=True)
    except KeyboardInterrupt:
        print("interrupted: what follows is of the rounds so far")
        bad += 1
    time.sleep(2)
    record, ended = writer.finish(), exits.finish()
    lost = writer.lost()
    writer.clean_up()
    gaps = [gap for gap, _at in record.gaps()]
    failed = sum(gap > FAILED for gap in gaps)
    how = Counter((component, ended.get(key, -1)) for key, component in replaced.items())
    killed = sum(count for (_component, status), count in how.items() if status in (KILLED, -1))
    print(f"\nwrites acknowledged   {len(record.acknowledged)}, failed {failed}, lost {sum(map(len, lost.values()))}")
    print(f"                      {record.errors} attempts went on to the next endpoint")
    print(f"longest gaps          {', '.join(f'{gap:.3f}' for gap in gaps[:5])} s; above 0.5 s: {sum(gap > 0.5 for gap in gaps)}")
    if took:
        print(f"node windows          {len(took)}: median {statistics.median(took):.1f} s, longest {max(took):.1f} s")
    print("processes ended       " + "; ".join(f"{component}: {count} with status {status}" for (component, status), count in sorted(how.items())))
    print(f"                      {killed} killed or not seen (status {KILLED} is SIGKILL, 143 SIGTERM)")
    return 1 if bad or failed or killed or any(lost.values()) else 0


def _window(events: list[dict]) -> float:
    """Seconds from the first manifest out until the last process is ready."""
    moves = [event["time"] for event in events if event["step"] in ("api_out", "etcd_out", "etcd_in", "kube-apiserver_in")]
    return max(moves) - min(moves) if moves else 0.0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
