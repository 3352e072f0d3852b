# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong around a change: disks, peers, hand edits, a second controller, hosts and members that are not there."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.faults import disks
from tests.faults.conftest import fingerprint
from tests.faults.fault import MANIFESTS, STATE, Fault, at_once, change, leader, members, runs_with, wait_for
from tests.lab.nodes import Lab, Node

DATA = "/var/lib/etcd"
#: An annotation that somebody adds to a manifest.
EDIT = "    edited: by-hand\n"
SITE = Path(__file__).resolve().parent.parent.parent / "playbooks" / "site.yml"


def send(signal_name: str, node: Node) -> None:
    node.shell(f"kill -{signal_name} $(pgrep --exact --oldest etcd)")


def make_lead(lab: Lab, node: Node) -> None:
    """Move leadership to a node."""
    wanted, now = members(lab)[lab.nodes.index(node)]["header"]["member_id"], leader(lab)
    if now != node:
        lab.etcdctl("move-leader", f"{wanted:x}", endpoints=[now.etcd_endpoint])


def raise_alarm(lab: Lab, alarm: str) -> None:
    """By etcd's JSON gateway: etcdctl only takes alarms away."""
    context = ssl.create_default_context(cafile=str(lab.etcd_ca))
    context.load_cert_chain(str(lab.etcd_certificate), str(lab.etcd_key))
    body = {"action": "ACTIVATE", "memberID": str(members(lab)[0]["header"]["member_id"]), "alarm": alarm}
    request = urllib.request.Request(f"{lab.nodes[0].etcd_endpoint}/v3/maintenance/alarm", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10, context=context) as response:
        assert alarm in response.read().decode()


@contextlib.contextmanager
def kubelet_stopped(node: Node) -> Iterator[None]:
    """So that a manifest can be broken without an end of its process."""
    node.run("systemctl", "stop", "kubelet")
    try:
        yield
    finally:
        node.run("systemctl", "start", "kubelet")


def wait_until_settled(node: Node) -> None:
    """Until a node runs from its manifests: the kubelet looks at the directory each 20 s (fileCheckFrequency), and may end a pod then."""
    seen, since = "", time.monotonic()

    def same() -> bool:
        nonlocal seen, since
        now = fingerprint(node) if node.etcd_ready() and node.api_ready() else ""
        if not now or now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 25

    wait_for(same, 240, "the node runs from the manifests that are back")


def window_span(node: Node) -> tuple[float, float]:
    """When the newest window of a node took its member away and when it was whole again, by the clock that all nodes share."""
    window = node.shell(f"ls -t {STATE}/history | head -1").stdout.strip()
    events = [json.loads(line) for line in node.read(f"{STATE}/history/{window}/journal.jsonl").splitlines()]
    return (
        next(each["time"] for each in events if (each["step"], each["state"]) == ("gate", "done")),
        next(each["time"] for each in reversed(events) if each["state"] == "done"),
    )


# --- disks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directory", "megabytes"),
    [(MANIFESTS, 48), pytest.param(STATE, 512, marks=pytest.mark.long), pytest.param(DATA, 0, marks=pytest.mark.long)],
    ids=["manifests", "state", "data"],
)
@pytest.mark.parametrize("step", [pytest.param("", marks=pytest.mark.long), "api_out"])
def test_full_disk(fault: Fault, directory: str, megabytes: int, step: str) -> None:
    """etcd's data have a disk of their own in the lab, the other two get one."""
    node = fault.node
    fault.name = f"the file system of {directory} is full"
    if megabytes:
        disk = disks.own_file_system(node, directory, megabytes)
        disk.__enter__()
        fault.undo_later(lambda: disk.__exit__(None, None, None))
    fault.undo_later(lambda: disks.empty(node, directory))
    if step:
        run = fault.strike(step, disks.fill(directory))
        if directory == MANIFESTS:
            assert run.status == 0, run.output  # what has to be written was written before
    else:
        if directory == DATA:
            fault.name = f"the file system of {directory} has 64 MiB left"  # without any etcd itself ends
        node.shell(disks.fill(directory, "64M" if directory == DATA else ""))
        run = fault.run()
        assert run.status != 0
        assert directory in run.output and "make room" in run.output


@pytest.mark.long
@pytest.mark.parametrize("step", ["", "api_out", "etcd_in"])
def test_read_only_manifests(fault: Fault, step: str) -> None:
    node = fault.node
    fault.name = f"{MANIFESTS} is read-only"
    fault.undo_later(lambda: disks.writable(node, MANIFESTS))
    if step:
        run = fault.strike(step, disks.read_only(MANIFESTS))
    else:
        node.shell(disks.read_only(MANIFESTS))
        run = fault.run()
    assert run.status != 0
    assert MANIFESTS in run.output and "not permitted" in run.output


@pytest.mark.long
def test_slow_disk(fault: Fault) -> None:
    fault.name = "etcd's disk stalls for 0.4 s of each 0.5 s, for 20 s"
    fault.undo_later(lambda: at_once(lambda node: node.run("fsfreeze", "--unfreeze", DATA, check=False), fault.lab.nodes))
    run = fault.strike_each(("snapshot", "api_out", "etcd_out"), disks.stall(DATA, 20))
    assert run.status == 0, run.output


# --- peers ----------------------------------------------------------------------------------------------------


def test_a_peer_dies_between_gate_and_write(fault: Fault) -> None:
    fault.name = "a peer's etcd is killed"
    trap = fault.trap("api_out")
    process = fault.start()
    trap.sprung(process)
    send("KILL", fault.others[0])
    run = fault.finish(process)
    fault.step = trap.done()
    assert run.status == 0, run.output


@pytest.mark.long
def test_a_peer_dies_while_a_member_is_away(fault: Fault) -> None:
    fault.name = "a peer's etcd is killed"

    def peer_dies(node: Node, _process: subprocess.Popen[str]) -> None:
        others = [each for each in fault.lab.nodes if each != node]
        with fault.without_quorum():
            send("KILL", others[0])
            wait_for(lambda: all(each.etcd_ready() for each in others), 120, "the peer is back")

    run = fault.strike_each(("etcd_out", "etcd_in", "kube-apiserver_in"), then=peer_dies)
    assert run.status == 0, run.output


@pytest.mark.parametrize("leads", [False, True], ids=["a follower", "the leader"])
@pytest.mark.long
def test_a_peer_is_paused_before_the_run(fault: Fault, leads: bool) -> None:
    peer = fault.others[0]
    make_lead(fault.lab, peer if leads else fault.node)
    fault.name = f"a peer is paused, {'the leader' if leads else 'a follower'}"
    fault.undo_later(lambda: send("CONT", peer))
    send("STOP", peer)
    run = fault.run()
    assert run.status != 0
    assert f"member {peer.name}" in run.output and "does not answer" in run.output


@pytest.mark.long
def test_a_peer_is_paused_for_a_while(fault: Fault) -> None:
    fault.name = "a peer is paused for 20 s"
    peer = fault.others[0]
    fault.undo_later(lambda: send("CONT", peer))
    trap = fault.trap("api_out", "sleep 20")
    process = fault.start()
    trap.sprung(process)
    send("STOP", peer)
    fault.step = trap.done()
    send("CONT", peer)
    run = fault.finish(process)
    assert run.status == 0, run.output
    assert "etcd is not stopped" in run.output


@pytest.mark.long
def test_a_peer_stays_paused(fault: Fault) -> None:
    fault.name = "a peer is paused, and stays so until the run has ended"
    peer = fault.others[0]
    fault.undo_later(lambda: send("CONT", peer))
    trap = fault.trap("api_out")
    process = fault.start()
    trap.sprung(process)
    send("STOP", peer)
    run = fault.finish(process)
    fault.step = trap.done()
    assert run.status != 0
    assert f"member {peer.name}" in run.output
    assert "the old manifests are back and healthy" in run.output


@pytest.mark.long
def test_two_members_are_away(fault: Fault) -> None:
    fault.name = "two members of three are paused"
    for peer in fault.others:
        fault.undo_later(lambda peer=peer: send("CONT", peer))
    with fault.without_quorum():
        for peer in fault.others:
            send("STOP", peer)
        run = fault.run()
        fault.over()
        wait_for(lambda: all(node.etcd_ready() for node in fault.lab.nodes), 120, "every member is back")
    assert run.status != 0
    assert "quorum" in run.output, run.output


@pytest.mark.long
def test_a_learner_is_there(fault: Fault) -> None:
    fault.name = "a learner is in the member list"
    added = fault.lab.etcdctl("member", "add", "learner", "--learner", "--peer-urls=https://172.30.255.250:2380", "--write-out=json")
    learner = json.loads(added.stdout)["member"]["ID"]
    fault.undo_later(lambda: fault.lab.etcdctl("member", "remove", f"{learner:x}"))
    run = fault.run()
    assert run.status != 0
    assert f"{learner:x}) does not answer: it has not started yet" in run.output, run.output


@pytest.mark.long
@pytest.mark.parametrize("alarm", ["NOSPACE", "CORRUPT"])
def test_an_alarm_is_active(fault: Fault, alarm: str) -> None:
    """Under either of them etcd turns writes away."""
    fault.name = f"the alarm {alarm} is active"
    fault.undo_later(lambda: fault.lab.etcdctl("alarm", "disarm"))
    with fault.without_quorum():
        raise_alarm(fault.lab, alarm)
        run = fault.run()
        fault.over()
    assert run.status != 0
    assert alarm in run.output, run.output


@pytest.mark.long
def test_an_alarm_comes_between_gate_and_write(fault: Fault) -> None:
    fault.name = "the alarm NOSPACE is raised for 15 s"
    fault.undo_later(lambda: fault.lab.etcdctl("alarm", "disarm"))
    trap = fault.trap("api_out", "sleep 15")
    process = fault.start()
    trap.sprung(process)
    with fault.without_quorum():
        raise_alarm(fault.lab, "NOSPACE")
        fault.step = trap.done()
        fault.lab.etcdctl("alarm", "disarm")
    run = fault.finish(process)
    assert run.status == 0, run.output
    assert "NOSPACE" in run.output


# --- manifests and input --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a: [", ""], ids=["malformed", "empty"])
@pytest.mark.long
def test_a_corrupt_manifest_before_the_run(fault: Fault, text: str) -> None:
    node = fault.node
    path = f"{MANIFESTS}/etcd.yaml"
    fault.name = f"etcd.yaml is {'malformed' if text else 'empty'}"
    before = node.read(path)
    fault.undo_later(lambda: node.write(path, before, "0600"))
    with kubelet_stopped(node):
        node.write(path, text, "0600")
        run = fault.run()
        fault.over()
    assert run.status != 0
    assert path in run.output, run.output


@pytest.mark.long
@pytest.mark.parametrize("step", ["api_out", "snapshot", "etcd_in"])
def test_a_manifest_is_corrupted(fault: Fault, step: str) -> None:
    """By somebody who writes to it while the window is open; the text that is to be put back stands where the message says."""
    node = fault.node
    path = f"{MANIFESTS}/etcd.yaml"
    fault.name = "somebody writes garbage into etcd.yaml"
    fault.touched_manifests = True
    before = node.read(path)
    fault.undo_later(lambda: node.write(path, before, "0600"))
    run = fault.strike(step, f"echo 'a: [' >{path}")
    fault.over()
    wait_until_settled(node)
    assert run.status != 0
    assert path in run.output, run.output


@pytest.fixture
def edits_taken_out(lab: Lab) -> Iterator[None]:
    """After the proof, which leaves them in: other tests compare with what kubeadm wrote."""
    yield
    for node in lab.nodes:
        for component in ("etcd", "kube-apiserver"):
            path = f"{MANIFESTS}/{component}.yaml"
            text, pid = node.read(path), node.pid(component)
            if EDIT in text:
                node.write(path, text.replace(EDIT, ""), "0600")
                wait_for(lambda: node.pid(component) not in (None, pid), 120, f"{component} runs without the edit")


@pytest.mark.long
@pytest.mark.parametrize(("component", "step"), [("etcd", "api_out"), ("kube-apiserver", "etcd_in")], ids=["etcd", "kube-apiserver"])
def test_a_manifest_is_edited_by_hand(edits_taken_out: None, fault: Fault, component: str, step: str) -> None:
    """A valid one: the edit is left as it is, and the next run takes it in."""
    node = fault.node
    path = f"{MANIFESTS}/{component}.yaml"
    fault.name = f"somebody edits {component}.yaml"
    fault.touched_manifests = True
    text = node.read(path)
    assert text.count("  annotations:\n") == 1
    node.write("/root/edited.yaml", text.replace("  annotations:\n", f"  annotations:\n{EDIT}"), "0600")
    run = fault.strike(step, f"cp -p /root/edited.yaml {MANIFESTS}/.edited; mv {MANIFESTS}/.edited {path}")
    assert run.status != 0
    assert f"{path} was changed by somebody else meanwhile" in run.output, run.output
    assert EDIT in node.read(path)


@pytest.mark.long
def test_a_new_etcd_does_not_live(fault: Fault) -> None:
    """Which the binary's own judgement of the flags could not tell."""
    fault.name, fault.step = "the new etcd ends at its start", "etcd_in"
    run = fault.run({"etcd_static_pod_flags": {"cipher-suites": "NONE_SUCH"}})
    assert run.status != 0
    assert "the old manifests are back and healthy" in run.output


@pytest.mark.long
def test_a_new_api_server_does_not_live(fault: Fault) -> None:
    """On all nodes: the others are left alone."""
    fault.name, fault.step, fault.limit = "the new kube-apiserver ends at its start, all nodes", "kube-apiserver_in", ()
    before = {node.name: fingerprint(node) for node in fault.lab.nodes}
    run = fault.run({"kube_apiserver_static_pod_flags": {"kubelet-certificate-authority": "/etc/kubernetes/pki/missing.crt"}})
    assert run.status != 0
    assert "the old manifests are back and healthy" in run.output
    assert "/etc/kubernetes/pki/missing.crt" in run.output.partition("last lines of the container")[2]
    changed = [node.name for node in fault.lab.nodes if fingerprint(node) != before[node.name]]
    assert len(changed) == 1, changed


@pytest.mark.long
@pytest.mark.parametrize("process", ["etcd", "kube-apiserver"])
def test_a_new_process_dies_after_20_s(fault: Fault, process: str) -> None:
    """Time and again, for as long as it has the new flag: the window watches what it has put in."""
    fault.name, fault.step = f"the new {process} is healthy for 20 s, and then killed", "watch"
    flag, value = {
        "etcd": ("max-wals", fault.wanted["etcd_static_pod_flags"]["max-wals"]),
        "kube-apiserver": ("max-requests-inflight", fault.wanted["kube_apiserver_static_pod_flags"]["max-requests-inflight"]),
    }[process]
    killer = (
        f"while sleep 0.5; do pid=$(pgrep --exact --oldest {process[:15]}) || continue; "
        f"tr '\\0' '\\n' </proc/$pid/cmdline | grep --quiet --line-regexp -e --{flag}={value} || continue; "
        f"[ $(ps --no-headers -o etimes --pid $pid) -lt 20 ] || kill -KILL $pid; done"
    )
    unit, script = "kubetune-fault", "/root/kubetune-fault.sh"
    fault.node.write(script, killer)
    fault.undo_later(lambda: fault.node.run("systemctl", "stop", unit))
    fault.node.run("systemd-run", "--quiet", "--collect", "--unit", unit, "bash", script)
    run = fault.run({**fault.wanted, "node_window_watch_seconds": 40})
    assert run.status != 0
    assert "the old manifests are back and healthy" in run.output


@pytest.mark.long
def test_a_certificate_is_about_to_expire(fault: Fault) -> None:
    fault.name = "a certificate ends before the time that is asked for"
    run = fault.run({**fault.wanted, "etcd_static_pod_certificate_min_days": 4000})
    assert run.status != 0
    assert "/etc/kubernetes/pki/etcd/server.crt ends in" in run.output and "kubeadm certs renew" in run.output


# --- controllers and hosts ------------------------------------------------------------------------------------


@pytest.mark.long
def test_two_controllers_change_the_same_node(fault: Fault) -> None:
    """The second one comes while the window of the first is open, with other variables."""
    fault.name = "two controllers at once, the same node"
    first = change(900)
    trap = fault.trap("api_out")
    process = fault.start(first)
    trap.sprung(process)
    second = fault.start()
    fault.step = trap.done()
    one, two = fault.finish(process), fault.finish(second)
    assert one.status == 0, one.output
    assert two.status == 0, two.output
    assert runs_with(fault.node, fault.wanted)


@pytest.mark.long
def test_two_controllers_change_different_nodes(fault: Fault) -> None:
    fault.name = "two controllers at once, different nodes"
    other = fault.others[0]
    trap = fault.trap("api_out")
    process = fault.start()
    trap.sprung(process)
    fault.limit = ("--limit", other.name)
    second = fault.start()
    one, two = fault.finish(process), fault.finish(second)
    fault.step = trap.done()
    fault.limit = ("--limit", f"{fault.node.name},{other.name}")
    assert one.status == 0, one.output
    assert two.status == 0, two.output
    assert all(runs_with(node, fault.wanted) for node in (fault.node, other))
    (_begin, end), (begin, _end) = window_span(fault.node), window_span(other)
    assert begin > end, "the windows of two nodes were open at the same time"


@pytest.mark.long
def test_two_controllers_change_all_nodes(fault: Fault) -> None:
    fault.name = "two controllers at once, site.yml on all nodes"
    fault.playbook = "site"
    fault.limit = ()
    one, two = fault.start(change(901)), fault.start()
    runs = fault.finish(one), fault.finish(two)
    for run in runs:
        assert run.status == 0 or "changed since the plan: run again" in run.output or "a node window is open" in run.output, run.output


@pytest.mark.long
def test_strategy_free(fault: Fault, tmp_path: Path) -> None:
    fault.name = "site.yml with strategy: free, all nodes"
    fault.limit = ()
    free = tmp_path / "free.yml"
    text = SITE.read_text()
    assert text.count("  gather_facts: false\n") == 1
    free.write_text(text.replace("  gather_facts: false\n", "  gather_facts: false\n  strategy: ansible.builtin.free\n"))
    fault.playbook = str(free)
    run = fault.run()
    fault.playbook = "site"
    assert run.status == 0, run.output
    assert all(runs_with(node, fault.wanted) for node in fault.lab.nodes)


@pytest.mark.long
@pytest.mark.parametrize("limited", [True, False], ids=["limited to another", "all nodes"])
def test_a_host_cannot_be_reached(fault: Fault, tmp_path: Path, limited: bool) -> None:
    """By the controller; its member is well, and counted."""
    fault.name = f"a host cannot be reached, and the run is {'limited to another' if limited else 'of all nodes'}"
    away = fault.others[0]
    inventory = tmp_path / "away.yml"
    inventory.write_text(json.dumps({"kube_control_plane": {"hosts": {away.name: {"ansible_host": "no-such-host"}}}}))
    fault.playbook = "site"
    if not limited:
        fault.limit = ()
    run = fault.run(None, "-i", str(inventory))
    if limited:
        assert run.status == 0, run.output
        assert runs_with(fault.node, fault.wanted)
    else:
        assert run.status != 0
        assert "No such container: no-such-host" in run.output  # what UNREACHABLE is of other connections
        assert set(run.changed.values()) == {0}, run.output
