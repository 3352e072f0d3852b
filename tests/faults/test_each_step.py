# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What carries a change through is killed, stopped or cut off, at each step of a node's window, with a client writing meanwhile."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from tests.faults.fault import Fault, at_once, ready, runs_with, state_of, wait_for
from tests.faults.playbook import Playbook, kill, kill_connections
from tests.faults.trap import ORDER, PLAN
from tests.lab.console import run as command
from tests.lab.nodes import Node

#: Steps of a window at whose beginning the fault comes, as its journal names them. A snapshot is taken before the gate.
STEPS = ("snapshot", "gate", "api_out", "etcd_out", "etcd_in", "kube-apiserver_in")
KILL_MODULE = "until pkill --signal KILL --exact --full /usr/bin/python3; do sleep 0.005; done"
#: What a window says that is undone because of its kubelet.
GONE = "the kubelet has ended or was started anew since the gate"


#: The same in two runs on all nodes, in whose windows the fault comes at one step each.
HALVES = [STEPS[:3], STEPS[3:]]
NAMES = ["to api_out", "from etcd_out"]


def some(*short: str) -> list:
    """Each step, of which only some are part of `make test`."""
    return [pytest.param(step, marks=() if step in short else pytest.mark.long) for step in STEPS]


def each_runs(fault: Fault) -> bool:
    return all(at_once(lambda node: runs_with(node, fault.wanted), fault.lab.nodes))


def ended(node: Node) -> bool:
    return not node.exists("/var/lib/kubetune/window/pending.json")


@pytest.mark.parametrize("steps", [pytest.param(HALVES[0], marks=pytest.mark.long), HALVES[1]], ids=NAMES)
def test_the_window_is_killed(fault: Fault, steps: tuple[str, ...]) -> None:
    fault.name = "the window's process is killed"
    run = fault.strike_each(steps, "systemctl kill --signal KILL kubetune-window")
    assert run.status == 0, run.output
    assert each_runs(fault)


@pytest.mark.long
def test_the_window_is_asked_to_end(fault: Fault) -> None:
    """As a kill without -9, or a daemon that frees memory, does it: systemd takes that for a clean end."""
    fault.name = "the window's process gets SIGTERM"
    run = fault.strike_each(HALVES[1], "systemctl kill --signal TERM kubetune-window")
    assert run.status == 0, run.output
    assert each_runs(fault)


@pytest.mark.long
def test_the_window_is_stopped(fault: Fault, playbook: Playbook) -> None:
    """By a person, as a unit is: nothing starts it again but the next run, and none that only looks."""
    fault.name = "the window's unit is stopped"
    run = fault.strike("api_out", "systemctl stop kubetune-window")
    assert run.status != 0 and "ended without a result" in run.output, run.output
    before = state_of(fault.node)
    assert before.pending and not before.busy
    for look in (playbook("preflight"), playbook("rollback", {"kubetune_rollback_to": "list"})):
        assert look.status != 0 and "this run changes nothing: one of site.yml ends it first" in look.output, look.output
        assert not any(look.changed.values())
    assert state_of(fault.node) == before


@pytest.mark.long
def test_the_module_is_killed_while_it_plans(fault: Fault) -> None:
    fault.name = "the module's process is killed"
    run = fault.strike(PLAN, KILL_MODULE)
    assert run.status != 0
    assert fault.node.name in run.output


@pytest.mark.long
def test_the_module_is_killed_when_the_order_is_there(fault: Fault) -> None:
    """Whether it came to start the unit or not: the order is carried through."""
    fault.name = "the module's process is killed"
    fault.strike(ORDER, KILL_MODULE)


@pytest.mark.long
def test_the_module_is_killed_while_it_follows(fault: Fault) -> None:
    fault.name = "the module's process is killed"
    run = fault.strike_each(("api_out", "etcd_in", "kube-apiserver_in"), KILL_MODULE)
    assert run.status == 0, run.output
    assert "the window goes on there, asking again" in run.output


@pytest.mark.long
@pytest.mark.parametrize("steps", HALVES, ids=NAMES)
def test_the_kubelet_is_away_for_a_while(fault: Fault, steps: tuple[str, ...]) -> None:
    """One that starts while its API server is out ends no pod until it hears from it (pkg/kubelet/config, SeenAllSources): a window that
    has not taken etcd out yet is undone."""
    fault.name = "kubelet is stopped for 15 s"
    run = fault.strike_each(steps, "systemctl stop kubelet; sleep 15; systemctl start kubelet")
    if run.status == 0:
        assert each_runs(fault)
    else:
        assert GONE in run.output and "the old manifests are back and healthy" in run.output, run.output


@pytest.mark.long
def test_the_kubelet_stays_away(fault: Fault) -> None:
    """Before anything was touched: longer than the gate's patience, and the window does not begin."""
    fault.name = "kubelet is stopped, and stays so until the run has ended"
    fault.undo_later(lambda: fault.node.run("systemctl", "start", "kubelet"))
    run = fault.strike("snapshot", "systemctl stop kubelet")
    assert run.status != 0
    assert "no kubelet runs (waited 30 s), and without it no pod goes or comes: start it first" in run.output, run.output


@pytest.mark.long
def test_the_printed_steps_bring_a_node_back(fault: Fault) -> None:
    """Neither the new etcd nor the one from before can start: what a person is told to do is done, word for word."""
    fault.name = "kubelet is stopped, and stays so until a person comes"
    fault.undo_later(lambda: fault.node.run("systemctl", "start", "kubelet"))
    run = fault.strike("etcd_in", "systemctl stop kubelet")
    assert run.status != 0
    told = run.output.partition(f"By hand, on {fault.node.name}")[2].partition("(THIS NODE NEEDS A PERSON)")[0]
    steps = [command.strip() for command in re.findall(r"^ *\d\. ([^#\n]*)", told, re.MULTILINE)]
    assert steps[0].startswith("systemctl status kubelet") and len([each for each in steps if each.startswith("cp ")]) == 2, run.output
    fault.over()  # as the first says: the kubelet runs
    for each in steps[1:]:
        fault.node.shell(each, check=not each.startswith("tail "))  # a container that never started has no log
    wait_for(lambda: ready([fault.node]), 240, "the node runs from its manifests from before")
    assert not runs_with(fault.node, fault.wanted)


@pytest.mark.long
def test_the_container_runtime_is_killed(fault: Fault) -> None:
    fault.name = "containerd is killed"
    run = fault.strike_each(HALVES[1], "systemctl kill --signal KILL containerd")
    assert run.status == 0, run.output
    assert each_runs(fault)


@pytest.mark.long
def test_the_container_runtime_is_killed_behind_the_gate(fault: Fault) -> None:
    fault.name = "containerd is killed"
    run = fault.strike("api_out", "systemctl kill --signal KILL containerd")
    assert run.status == 0, run.output


@pytest.mark.long
def test_the_container_runtime_is_away_before_the_gate(fault: Fault) -> None:
    """No pod leaves a node on which none could start."""
    fault.name = "containerd is stopped, and stays so until the run has ended"
    fault.undo_later(lambda: fault.node.run("systemctl", "start", "containerd"))
    run = fault.strike("snapshot", "systemctl stop containerd")
    assert run.status != 0
    assert "nothing was changed" in run.output, run.output


@pytest.mark.long
def test_the_container_runtime_is_away_for_a_while(fault: Fault) -> None:
    fault.name = "containerd is stopped for 20 s"
    run = fault.strike_each(HALVES[1], "systemctl stop containerd; sleep 20; systemctl start containerd")
    assert run.status == 0, run.output
    assert each_runs(fault)


@pytest.mark.parametrize("step", some("api_out")[1:])
def test_the_controller_is_killed(fault: Fault, step: str) -> None:
    fault.name = "the controller is killed (SIGKILL)"
    trap = fault.trap(step)
    process = fault.start()
    trap.sprung(process)
    kill(process)
    fault.finish(process)
    fault.step = trap.done()
    wait_for(lambda: ended(fault.node), 180, "the window has ended without the controller")
    assert runs_with(fault.node, fault.wanted)


@pytest.mark.long
def test_the_controller_is_killed_while_it_plans(fault: Fault) -> None:
    fault.name, fault.playbook = "the controller is killed (SIGKILL), site.yml", "site"
    trap = fault.trap(PLAN)
    process = fault.start()
    trap.sprung(process)
    kill(process)
    fault.finish(process)
    fault.step = trap.done()


@pytest.mark.long
def test_the_connection_is_cut_once(fault: Fault) -> None:
    fault.name = "the controller's connections are cut once"

    def cut(_node: Node, process: subprocess.Popen[str]) -> None:
        wait_for(lambda: kill_connections(process), 10, "there is a connection to cut")

    run = fault.strike_each(("gate", "api_out", "etcd_in"), then=cut)
    assert run.status == 0, run.output
    assert each_runs(fault)


@pytest.mark.long
def test_the_connection_is_away_for_a_while(fault: Fault) -> None:
    fault.name = "the controller's connections are cut for 20 s"
    trap = fault.trap("api_out")
    process = fault.start()
    trap.sprung(process)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        kill_connections(process)
        time.sleep(0.02)
    run = fault.finish(process)
    fault.step = trap.done()
    assert run.status == 0, run.output
    assert "the window goes on there, asking again" in run.output


@pytest.mark.parametrize(
    "steps",
    [("etcd_in",), *(pytest.param(steps, marks=pytest.mark.long) for steps in (("gate", "api_out"), ("etcd_out", "kube-apiserver_in")))],
    ids="-".join,
)
def test_the_node_is_restarted(fault: Fault, steps: tuple[str, ...]) -> None:
    """At once, as by a power cut; without a kernel of its own what was not on the disk yet is not lost (tests/vm/test_window.py has that)."""
    fault.name = "the node is restarted"

    def start(node: Node, _process: subprocess.Popen[str]) -> None:
        state = ["docker", "inspect", "--format", "{{.State.Running}}", node.container]
        try:
            wait_for(lambda: command(state).stdout.strip() == "false", 60, "the node is off")
        finally:
            command(["docker", "start", node.container])

    run = fault.strike_each(steps, "systemctl reboot --force --force", start)
    if run.status == 0:
        assert each_runs(fault)
    else:  # behind the gate and before etcd is out: see test_the_kubelet_is_away_for_a_while
        assert "api_out" in steps and GONE in run.output and "the old manifests are back and healthy" in run.output, run.output
