# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rolling changes of etcd's and kube-apiserver's flags under 50 writes a second, round after round.

    python -m tests.benchmarks.rolling [ROUNDS, 20 by default]

The lab has to be up. Each round changes a flag of both on every node, with the part of site.yml that opens windows. Told are: writes
that got no answer from any endpoint or were lost; the longest gap of each round while a window was open, and while none was; each node
window (first manifest out until the last process is ready); how each process that was replaced ended, as the container runtime saw it.

The nodes share this machine, which on a cluster they do not: what runs on all of them at once, such as the modules between two windows,
holds all members up at once. So each round ends with a control: every node is busy for a second, with nothing else, and that gap is told.

Status 1 when a write failed or was lost, a window is not "changed", or a process did not end by itself.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import Counter

from tests.benchmarks.site_gap import windows
from tests.benchmarks.writer import PACE, Record, Writer
from tests.faults.fault import WINDOW, at_once
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
    # On a cluster the controller is another machine: here it takes only what the nodes leave.
    playbook = ["nice", "-n", "19", "ansible-playbook", "-i", str(lab.inventory), WINDOW, "-e"]
    # The first windows of untouched nodes wait for an API server that does not end its watches yet.
    subprocess.run([*playbook, json.dumps(change(-1))], check=True, stdout=subprocess.DEVNULL)
    exits, writer = Exits(lab), Writer(lab)
    offset = time.time() - time.monotonic()
    writer.start()
    time.sleep(2)
    replaced: dict[tuple[str, int], str] = {}
    took: list[float] = []
    bad = 0
    print(f"{rounds} rounds, one put each {PACE:g} s; longest gaps in seconds\nround  in windows  between them  control  windows")
    found: list[tuple[float, float, float]] = []
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
            spans = [(events[0]["time"] - offset, events[-1]["time"] - offset) for _name, _outcome, events in opened]
            finished, controlled = time.monotonic(), control(lab)
            found.append((*longest(writer.record, (began, finished), spans), longest(writer.record, controlled, [controlled])[0]))
            inside, outside, busy = found[-1]
            print(
                f"{number + 1:5}  {inside:10.3f}  {outside:12.3f}  {busy:7.3f}  {' '.join(f'{each:5.1f}' for each in times)}", flush=True
            )
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
    for name, each in zip(("in windows", "between windows", "control"), zip(*found)):
        print(f"{name:<22}longest gap of a round: median {statistics.median(each):.3f} s, longest {max(each):.3f} s")
    if took:
        print(f"node windows          {len(took)}: median {statistics.median(took):.1f} s, longest {max(took):.1f} s")
    print("processes ended       " + "; ".join(f"{component}: {count} with status {status}" for (component, status), count in sorted(how.items())))
    print(f"                      {killed} killed or not seen (status {KILLED} is SIGKILL, 143 SIGTERM)")
    return 1 if bad or failed or killed or any(lost.values()) else 0


def control(lab: nodes.Lab) -> tuple[float, float]:
    """Nothing but a busy second on each node, all at once; when that was."""
    began = time.monotonic()
    at_once(lambda node: node.run("python3", "-c", "import time\nend = time.time() + 1\nwhile time.time() < end: pass"), lab.nodes)
    return began, time.monotonic()


def longest(record: Record, within: tuple[float, float], spans: list[tuple[float, float]]) -> tuple[float, float]:
    """The longest gap of a time that is in a span, even in part, and the longest that is in none."""
    inside, outside = [0.0], [0.0]
    for gap, at in record.gaps():
        if within[0] <= at < within[1]:
            (inside if any(at < end and at + gap > begin for begin, end in spans) else outside).append(gap)
    return max(inside), max(outside)


def _window(events: list[dict]) -> float:
    """Seconds from the first manifest out until the last process is ready."""
    moves = [event["time"] for event in events if event["step"] in ("api_out", "etcd_out", "etcd_in", "kube-apiserver_in")]
    return max(moves) - min(moves) if moves else 0.0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
