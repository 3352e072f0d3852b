# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on the real lab. Every test begins and ends with a whole cluster, tuned by site.yml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.benchmarks.writer import Writer
from tests.faults import table
from tests.faults.fault import Fault, at_once, ready, wait_for
from tests.faults.playbook import Playbook
from tests.lab import nodes

JOURNAL = "/var/lib/kubetune/window/journal.jsonl"
DATA = "/var/lib/etcd"
DISK = f"{DATA}/wal-disk"
#: The disk is blank: its node's spare loop device.
ON_DISK: dict[str, Any] = {"etcd_wal_device": "{{ lab_wal_device }}", "etcd_wal_format": True}
IN_DATA = {"etcd_wal_state": "absent"}


@pytest.fixture(scope="session")
def lab() -> nodes.Lab:
    return nodes.load()


@pytest.fixture(scope="session")
def playbook(lab: nodes.Lab) -> Playbook:
    return Playbook(lab)


@pytest.fixture(scope="session")
def tuned(lab: nodes.Lab, playbook: Playbook) -> None:
    """All nodes as site.yml leaves them; kubeadm's own API server takes half a minute to leave, ours some seconds."""
    if not all(node.exists("/var/lib/kubetune/applied/kube-apiserver.json") for node in lab.nodes):
        run = playbook()
        assert run.status == 0, run.output


@pytest.fixture
def fault(request: pytest.FixtureRequest, lab: nodes.Lab, playbook: Playbook, tuned: None) -> Iterator[Fault]:
    """A fault under way, with a client that writes. Afterwards the plain re-run and the proof, which make a row of the table."""
    it = Fault(lab, playbook)
    it.name = request.node.name
    yield it
    rows = it.prove(failed=request.node.stash.get(_FAILED, True))
    for number, row in enumerate(rows):
        row.test = f"{request.node.nodeid} {number}"
    table.of(request.config).rows += rows
    if request.config.getoption("--table-rows"):
        table.Table(rows).keep(request.config.getoption("--table-rows"))
    for row in rows:
        assert not row.failure, row.failure


_FAILED = pytest.StashKey[bool]()
#: The tests of this session that make rows, those that were left out, too.
_ASKED = pytest.StashKey[set[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call":
        item.stash[_FAILED] = report.failed
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-table", action="store_true", help="write docs/faults.md when every row is as it shall be")
    parser.addoption("--table-rows", type=Path, help="a file that keeps the rows, for a table that is made in several sessions")
    parser.addoption("--only-missing", action="store_true", help="leave out tests whose rows in that file are as they shall be")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[_ASKED] = {item.nodeid for item in items if "fault" in getattr(item, "fixturenames", ())}
    file = config.getoption("--table-rows", None)
    if not file or not config.getoption("--only-missing"):
        return
    done = table.Table().read(file).done
    kept = [item for item in items if item.nodeid not in done]
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
    items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = table.of(config)
    if config.getoption("--table-rows"):
        found = table.Table().read(config.getoption("--table-rows"))
    if not found.rows:
        return
    terminalreporter.section(f"faults: {len(found.rows)}, of which {len(found.failures)} are not as they shall be")
    for line in found.lines():
        terminalreporter.write_line(line)
    if config.getoption("--write-table") and not found.failures:
        table.PAGE.write_text(found.page(nodes.load(), config.stash[_ASKED]), encoding="utf-8")
        terminalreporter.write_line(f"written: {table.PAGE}")


@pytest.fixture(autouse=True)
def whole_cluster(lab: nodes.Lab) -> Iterator[None]:
    yield
    wait_for(lambda: ready(lab.nodes), 120, "every node is ready again")
    assert not any(at_once(lambda node: node.exists("/var/lib/kubetune/window/pending.json"), lab.nodes))


@pytest.fixture
def no_write_lost(lab: nodes.Lab) -> Iterator[Writer]:
    """A client writes during the whole test; afterwards every acknowledged key is read through every member."""
    writer = Writer(lab)
    writer.start()
    yield writer
    writer.finish()
    wait_for(lambda: all(node.etcd_ready() for node in lab.nodes), 120, "every member is ready again")
    lost = writer.lost()
    writer.clean_up()
    assert not any(lost.values()), lost


def reached(node: nodes.Node, step: str, state: str = "begin") -> bool:
    """Whether the open window of a node has come to a step."""
    text = node.shell(f"cat {JOURNAL} 2>/dev/null || true").stdout
    return any(
        event["step"] == step and event["state"] == state
        for event in (json.loads(line) for line in text.splitlines() if line.endswith("}"))
    )


def fingerprint(node: nodes.Node) -> str:
    """Processes (pid and start time) and manifests of a node."""
    return node.shell(
        "for name in etcd kube-apiserver; do pid=$(pgrep -xo $name); echo $name $pid $(cut -d' ' -f22 /proc/$pid/stat); done; "
        "sha256sum /etc/kubernetes/manifests/*"
    ).stdout


def kill_window(node: nodes.Node) -> None:
    node.shell("kill -KILL $(systemctl show --property MainPID --value kubetune-window)")


def wal_of(node: nodes.Node) -> str:
    """Where the running etcd has its WAL open, as its own file descriptors tell."""
    opened = node.shell(f"readlink /proc/{node.pid('etcd')}/fd/* | grep '[.]wal$'").stdout.split()
    (directory,) = {path.rpartition("/")[0] for path in opened}
    return directory
