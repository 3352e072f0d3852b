# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of the fault suite: one row for each fault that was made, as it was measured."""

from __future__ import annotations

import datetime
import json
import subprocess
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.lab.nodes import Lab

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "faults.md"
#: Seconds without an acknowledged write through any member, beyond which quorum does not count as held. The election after a
#: leader that died takes at most twice the election timeout (1 s in this lab), and the client gives each of three endpoints 0.5 s.
HELD = 5.0
HEADINGS = ("Fault", "Step", "Playbook", "Quorum held (longest gap)", "Lost writes", "What became of the run", "Repaired by a plain re-run", "Seconds")


@dataclass
class Row:
    """
    Attributes:
        fault, step: what was broken, and at which step of the window by its own journal.
        gap: longest stretch without an acknowledged write, in seconds; that of the fault itself is not in it.
        fault_gap: the longest one while the fault alone left no quorum; None for a fault that leaves one.
        acknowledged, lost: numbers of writes.
        playbook: which one was run, and how long its windows watch the new processes.
        outcome: what became of the run, from its windows' results.
        repair: what the re-run did.
        seconds: from the start of the run to the end of the last re-run.
        failure: why the row is not as it shall be; empty when it is.
        test: the test which made it; a later row of the same test replaces it.
        day: UTC, as 2026-11-24.
        revision: of the collection, with a + where files differ from it.
    """

    fault: str
    step: str
    gap: float
    fault_gap: float | None
    acknowledged: int
    lost: int
    outcome: str
    repair: str
    seconds: float
    playbook: str
    failure: str = ""
    test: str = ""
    day: str = field(default_factory=lambda: datetime.datetime.now(datetime.timezone.utc).date().isoformat())
    revision: str = field(default_factory=lambda: _revision())

    @property
    def cells(self) -> tuple[str, ...]:
        held = f"{'yes' if self.gap <= HELD else 'NO'} ({self.gap:.2f} s)"
        if self.fault_gap is not None:
            held += f"; the fault itself stops {'more than one member' if self.fault_gap > HELD else 'writes'} ({self.fault_gap:.1f} s)"
        lost = f"{self.lost} of {self.acknowledged}"
        repair = f"OPEN: {self.failure.splitlines()[0].rstrip(': ')} ({self.repair})" if self.failure else self.repair
        return self.fault, self.step, self.playbook, held, lost, self.outcome, repair, f"{self.seconds:.0f}"


@dataclass
class Table:
    rows: list[Row] = field(default_factory=list)

    def read(self, file: Path) -> Table:
        """The rows of earlier sessions in a file, and these."""
        kept = {row["test"]: Row(**row) for row in json.loads(file.read_text())} if file.exists() else {}
        kept.update({row.test: row for row in self.rows})
        return Table(list(kept.values()))

    def keep(self, file: Path) -> None:
        """Add the rows to those of earlier sessions in a file."""
        file.write_text(json.dumps([asdict(row) for row in self.read(file).rows], indent=1) + "\n")

    @property
    def tests(self) -> set[str]:
        """Those which made the rows."""
        return {row.test.rpartition(" ")[0] for row in self.rows}

    @property
    def done(self) -> set[str]:
        """Tests all of whose rows are as they shall be."""
        return self.tests - {row.test.rpartition(" ")[0] for row in self.failures}

    @property
    def failures(self) -> list[Row]:
        return [row for row in self.rows if row.failure]

    def lines(self) -> list[str]:
        """As a table of Markdown."""
        found = [_line(HEADINGS), _line(["---"] * len(HEADINGS))]
        return found + [_line(row.cells) for row in self.rows]

    def page(self, lab: Lab, asked: set[str]) -> str:
        """docs/faults.md.

        Args:
            asked: the tests that make rows.
        """
        node = lab.nodes[0]
        versions = {
            "Kubernetes": lab.kubernetes,
            "etcd": lab.etcd,
            "containerd": node.output("containerd", "--version").split()[2],
            "kernel": node.output("uname", "--kernel-release"),
            "ansible-core": version("ansible-core"),
        }
        days = sorted({row.day for row in self.rows})
        worst = max((row.gap for row in self.rows), default=0.0)
        return INTRODUCTION.format(
            rows=len(self.rows),
            tests=len(asked & self.tests),
            asked=len(asked),
            open=len(self.failures),
            revision=", ".join(sorted({row.revision for row in self.rows})),
            date=" to ".join(dict.fromkeys((days[0], days[-1]))),
            versions=", ".join(f"{name} {value}" for name, value in versions.items()),
            held=HELD,
            worst=worst,
            writes=sum(row.acknowledged for row in self.rows),
            lost=sum(row.lost for row in self.rows),
            table="\n".join(self.lines()),
        )


INTRODUCTION = """<!-- Written by `tests/run.sh faults --write-table`. -->
# Faults

{rows} faults by {tests} of the {asked} tests that make them, with real means on a lab of three real control-plane nodes, {date}: {versions};
the collection at {revision}. Rows which are not as they shall be: {open}.

During each one a client puts a key every 20 ms, at any member that takes it. Afterwards every acknowledged key is read back
linearizably through each member, the playbook is run again as it was, and, where that changed something, once more: it has to
succeed, and then to change nothing. In all {writes} acknowledged writes, {lost} lost.

- **Playbook**: `window.yml` is what `site.yml` does with the static pods, and nothing else (tests/faults/window.yml). Its windows end
  with the last proof, or watch the new processes for the seconds that are given (`node_window_watch_seconds`).
- **Step**: where the node's window was when the fault came, as its journal on the node says.
- **Quorum held**: there was no stretch of more than {held:g} s without an acknowledged write. The longest, with an election after a
  leader that died, took {worst:.2f} s. What a fault takes from the cluster by itself, as by stopping two members of three, is
  given beside it.
- **Refused**: no manifest was touched. **Undone**: the manifests from before are back, and the node was proved healthy with them.

{table}
"""

KEY = pytest.StashKey[Table]()


def of(config: pytest.Config) -> Table:
    """The table of a session."""
    return config.stash.setdefault(KEY, Table())


def _revision() -> str:
    """Of the checkout; empty where there is none."""
    told = subprocess.run(
        ["git", "describe", "--always", "--exclude=*", "--dirty=+"], cwd=PAGE.parent, capture_output=True, text=True, check=False
    )
    return told.stdout.strip()


def _line(cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"  # type: ignore[attr-defined]
