# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One fault: a client writes, a run is under way, something breaks; then the proof that nothing was lost and all is repaired."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

from tests.benchmarks.writer import Writer
from tests.faults.playbook import UNWATCHED, Playbook, Run
from tests.faults.table import HELD, Row
from tests.faults.trap import Trap
from tests.lab.nodes import Lab, Node

#: What site.yml does with the static pods, and nothing else: it takes a third of the time.
WINDOW = str(Path(__file__).with_name("window.yml"))
STATE = "/var/lib/kubetune"
MANIFESTS = "/etc/kubernetes/manifests"
OUTCOMES = {
    "changed": "finished by itself",
    "degraded": "finished, and said that another member is not well",
    "refused": "refused",
    "rolled_back": "undone",
    "broken": "said that a person is needed, and what to do",
}
#: Not from 0: what an earlier session left on a node is no change.
_number = itertools.count(int(time.time()) % 1000)


def change(number: int) -> dict[str, Any]:
    """A change of both static pods which differs from test to test, so that each opens a window."""
    return {
        "etcd_static_pod_flags": {"max-wals": 6 + number % 50},
        "kube_apiserver_static_pod_flags": {"max-requests-inflight": 3001 + number},
    }


def runs_with(node: Node, wanted: dict[str, Any]) -> bool:
    """Whether both processes of a node have the flags of a change."""
    etcd, api = node.arguments("etcd"), node.arguments("kube-apiserver")
    return (
        f"--max-wals={wanted['etcd_static_pod_flags']['max-wals']}" in etcd
        and f"--max-requests-inflight={wanted['kube_apiserver_static_pod_flags']['max-requests-inflight']}" in api
    )


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)


def at_once(look: Callable[[Node], Any], nodes: Sequence[Node]) -> list[Any]:
    """What is seen on each node, asked at the same time."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        return list(pool.map(look, nodes))


@dataclass(frozen=True)
class State:
    """Of a node. windows: their outcomes by id, empty for one without a result. busy: a window runs, or is about to again."""

    manifests: str
    windows: dict[str, str]
    pending: bool
    busy: bool


def state_of(node: Node) -> State:
    told = node.shell(
        f"cd {MANIFESTS}; sha256sum *; echo ==; mkdir -p {STATE}/history; cd {STATE}/history; "
        "for each in *; do [ ! -d $each ] || echo $each $(cat $each/result.json 2>/dev/null); done; echo ==; "
        f"[ ! -e {STATE}/window/pending.json ] || echo pending; systemctl is-active kubetune-window || true"
    ).stdout
    sums, windows, rest = told.split("==\n")
    results = dict(line.partition(" ")[::2] for line in windows.splitlines())
    return State(
        sums,
        {window: json.loads(result)["outcome"] if result else "" for window, result in results.items()},
        "pending" in rest,
        rest.split()[-1] in ("active", "activating", "deactivating", "reloading"),
    )


def members(lab: Lab) -> list[dict[str, Any]]:
    """Status of each member, in the order of the lab's nodes."""
    told = json.loads(lab.etcdctl("endpoint", "status", "--write-out=json").stdout)
    by_endpoint = {each["Endpoint"]: each["Status"] for each in told}
    return [by_endpoint[node.etcd_endpoint] for node in lab.nodes]


def leader(lab: Lab) -> Node:
    return next(node for node, each in zip(lab.nodes, members(lab)) if each["header"]["member_id"] == each["leader"])


def ready(nodes: Sequence[Node]) -> bool:
    """Whether etcd and the API server of each node say so."""
    return all(at_once(lambda node: node.etcd_ready() and node.api_ready(), nodes))


@dataclass
class Stage:
    """A fault among several of one run, each in the window of another node. since: monotonic seconds; node: None for all."""

    since: float
    node: Node | None
    trap: Trap | None = None


class Fault:
    """What a test of the suite acts with; `prove` makes the row of it.

    Attributes:
        node: whose window it is; the run is limited to it unless a test says otherwise.
        others: the other nodes.
        wanted: variables of the run, which differ from those of every run before.
        rerun: those of the re-run: the same, unless what was wrong were the variables themselves.
        playbook: of the run and of the re-run.
        limit: options which say on which hosts.
        touched_manifests: the fault itself changes manifests.
    """

    def __init__(self, lab: Lab, playbook: Playbook) -> None:
        self.lab = lab
        number = next(_number)
        self.node = lab.nodes[number % len(lab.nodes)]
        self.others = [node for node in lab.nodes if node != self.node]
        self.wanted = change(number)
        self.rerun: dict[str, Any] = self.wanted
        self.name, self.step = "", "before the run"
        self.playbook = WINDOW
        self.limit: tuple[str, ...] = ("--limit", self.node.name)
        self._playbook = playbook
        self._undo: list[Callable[[], object]] = []
        self._without_quorum: list[tuple[float, float]] = []
        self._run: Run | None = None
        self._watch = 0.0
        self._began = time.monotonic()
        self._stages: list[Stage] = []
        self._before = at_once(state_of, lab.nodes)
        self.touched_manifests = False
        self.writer = Writer(lab)
        self.writer.start()

    # --- what a test does -------------------------------------------------------------------------------------

    def start(self, variables: dict[str, Any] | None = None, *options: str) -> subprocess.Popen[str]:
        """The run; its variables are ``wanted`` unless they are given."""
        variables = self.wanted if variables is None else variables
        self._watch = {**UNWATCHED, **variables}["node_window_watch_seconds"]
        return self._playbook.start(self.playbook, variables, *self.limit, *options)

    def finish(self, process: subprocess.Popen[str]) -> Run:
        self._run = self._playbook.finish(process)
        return self._run

    def run(self, variables: dict[str, Any] | None = None, *options: str) -> Run:
        return self.finish(self.start(variables, *options))

    def trap(self, step: str, script: str = "", state: str = "begin") -> Trap:
        return self._trap(self.node, step, script, state)

    def _trap(self, node: Node, step: str, script: str, state: str = "begin") -> Trap:
        trap = Trap(node, step, script, state)
        self._undo.append(trap.remove)
        return trap

    def strike(self, step: str, script: str, state: str = "begin") -> Run:
        """A run during which a script is executed in the node as soon as its window comes to a step."""
        trap = self.trap(step, script, state)
        process = self.start()
        trap.sprung(process)
        run = self.finish(process)
        self.step = trap.done()
        return run

    def strike_each(
        self, steps: Sequence[str], script: str = "", then: Callable[[Node, subprocess.Popen[str]], object] | None = None
    ) -> Run:
        """A run on all nodes, in which the fault comes to each node's window at another step. Each makes a row.

        Args:
            script: for the node.
            then: what is done from here, with the node and the run; the script may end the node.
        """
        self.limit = ()
        traps = [(node, self._trap(node, step, script)) for node, step in zip(self.order(), steps)]
        process = self.start()
        for node, trap in traps:
            self._stages.append(Stage(time.monotonic() if self._stages else self._began, node, trap))
            trap.sprung(process)
            if then:
                then(node, process)
        run = self.finish(process)
        for _node, trap in traps:
            if not then:
                trap.done()
        return run

    def order(self) -> list[Node]:
        """The nodes as their windows follow each other: the leader's last."""
        leads = leader(self.lab)
        return sorted(self.lab.nodes, key=lambda node: (node == leads, node.name))

    def undo_later(self, undo: Callable[[], object]) -> None:
        """What has to be mended whatever becomes of the test; each once, the last first."""
        self._undo.append(undo)

    def over(self) -> None:
        """The fault is over: what it did is mended."""
        while self._undo:
            self._undo.pop()()

    @contextlib.contextmanager
    def without_quorum(self) -> Iterator[None]:
        """While the fault itself leaves the cluster without quorum, or without leave to write."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._without_quorum.append((began, time.monotonic()))

    # --- the proof --------------------------------------------------------------------------------------------

    def prove(self, failed: bool) -> list[Row]:
        """Re-run, read everything back, and say what was found.

        Args:
            failed: the test has failed already; the cluster is mended all the same.
        """
        problems = ["the test failed"] if failed else []
        stages = self._stages or [Stage(self._began, None)]
        outcomes = ["?"] * len(stages)
        try:
            self.over()
            wait_for(lambda: not any(state.busy for state in at_once(state_of, self.lab.nodes)), 900, "the windows have ended")
            now = at_once(state_of, self.lab.nodes)
            outcomes = [self._outcome(stage.node, now, problems) for stage in stages]
        except Exception as exc:  # the row says so, and the next one begins with a whole cluster
            problems.append(str(exc))
        repair, trouble = self._repair()
        problems += trouble
        acknowledged = self.writer.finish().acknowledged
        lost = set().union(*self.writer.lost().values())
        self.writer.clean_up()
        rows = []
        for number, (stage, outcome) in enumerate(zip(stages, outcomes)):
            until = stages[number + 1].since if number + 1 < len(stages) else time.monotonic()
            written = [(at, key) for at, key in acknowledged if stage.since <= at < until]
            gap, fault_gap = self._gaps([at for at, _key in acknowledged], stage.since, until)
            missing = len(lost & {key for _at, key in written})
            failure = list(problems)
            failure += [f"no write was acknowledged for {gap:.1f} s"] if gap > HELD else []
            failure += [f"{missing} acknowledged writes are lost"] if missing else []
            rows.append(Row(
                self.name, stage.trap.step() if stage.trap else self.step, gap, fault_gap, len(written), missing, outcome, repair,
                until - stage.since, self._played, "; ".join(failure),
            ))  # fmt: skip
        return rows

    @property
    def _played(self) -> str:
        name = Path(self.playbook).name.removesuffix(".yml") + ".yml"
        return f"{name}, watch {self._watch:g} s" if self._watch else name

    def _outcome(self, only: Node | None, now: list[State], problems: list[str]) -> str:
        words = []
        for node, before, after in zip(self.lab.nodes, self._before, now):
            if only not in (None, node):
                continue
            words += [OUTCOMES[outcome] for window, outcome in after.windows.items() if outcome and window not in before.windows]
            words += ["its order stays on the node for the next run"] if after.pending else []
        if not words and self._run and self._run.status != 0:
            words = [OUTCOMES["refused"]]
        if set(words) <= {OUTCOMES["refused"], OUTCOMES["rolled_back"]} and not self.touched_manifests:
            changed = [
                node.name
                for node, before, after in zip(self.lab.nodes, self._before, now)
                if only in (None, node) and before.manifests != after.manifests
            ]
            problems += [f"the manifests are others on {', '.join(changed)}"] if changed else []
        return ", then ".join(dict.fromkeys(words)) or "nothing was begun"

    def _repair(self) -> tuple[str, list[str]]:
        """What the plain re-run did, and what is wrong with it."""
        problems = []
        first = self._playbook(self.playbook, self.rerun, *self.limit)
        runs = [first]
        if first.status == 0 and any(first.changed.values()):
            runs.append(self._playbook(self.playbook, self.rerun, *self.limit))
        for run, name in zip(runs, ("the re-run", "the run after it")):
            if run.status != 0:
                problems.append(f"{name} failed: {run.output[-3000:]}")
        if any(runs[-1].changed.values()):
            problems.append(f"the last run changed something: {runs[-1].changed}")
        try:
            wait_for(lambda: ready(self.lab.nodes), 300, "every node is ready again")
            limited = [self.node] if self.limit else self.lab.nodes
            problems += [f"{node.name} does not run as wanted" for node in limited if not runs_with(node, self.rerun)]
        except Exception as exc:
            problems.append(str(exc))
        if problems:
            return "NO", problems
        return "yes, it changed what was missing" if any(first.changed.values()) else "yes, nothing was left to do", []

    def _gaps(self, acknowledged: list[float], since: float, until: float) -> tuple[float, float | None]:
        """The longest stretch without an acknowledgement in a time, and the longest while the fault itself left no quorum."""
        times = [self._began, *acknowledged]
        ours, faults = [0.0], []
        for begin, end in zip(times, times[1:]):
            if end <= since or begin >= until:
                continue
            by_fault = any(begin < over and end > came for came, over in self._without_quorum)
            (faults if by_fault else ours).append(end - begin)
        return max(ours), max(faults, default=None)
