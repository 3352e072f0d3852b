# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the run says: one line for each decision, for people first and for programs behind the bar.

    defragmentation: cp2 went from 542 MB to 252 MB | step=defragmentation outcome=done member=cp2 ...

The exit status is the worst of what was said, see `EXIT_STATUS`.
"""

from __future__ import annotations

import json
import re
from typing import Any, TextIO

#: Exit status -> meaning, from good to worst. 1 is left to what nobody foresaw; systemd has names of its own for 3 to 7.
EXIT_STATUS = {
    0: "everything was done, or there was nothing to do",
    2: "the command line or the configuration is wrong; nothing was done",
    10: "another run or a change held a lock for too long; what needs that lock was left out",
    11: "the cluster is not whole; compaction and defragmentation were left out",
    12: "compaction, defragmentation, the way out of NOSPACE or the removal of old backups failed",
    15: "there is a new backup, and its copy elsewhere failed",
    14: "a backup is refused by verify or restore, or the restore drill failed",
    13: "there is no new backup",
}
USAGE, LOCKED, UNHEALTHY, STEP_FAILED, NO_BACKUP, BAD_BACKUP, NO_COPY = 2, 10, 11, 12, 13, 14, 15
#: What a failure of these steps means; of all others it is STEP_FAILED.
_FAILURES = {"backup": NO_BACKUP, "verify": BAD_BACKUP, "restore": BAD_BACKUP, "drill": BAD_BACKUP, "copy": NO_COPY}

#: Outcome -> (syslog priority, exit status).
_OUTCOMES = {
    "ok": (6, 0),
    "done": (5, 0),
    "nothing": (6, 0),
    "left_out": (6, 0),
    "planned": (6, 0),
    "waiting": (6, 0),
    "warning": (4, 0),
    "locked": (4, LOCKED),
    "unhealthy": (3, UNHEALTHY),
    "failed": (3, STEP_FAILED),
}

#: What needs no quotes; everything else is a JSON string.
_PLAIN = re.compile(r"[\w./:+@-]+", re.ASCII)


class Journal:
    """
    Args:
        stream: where the lines go.
        priorities: put a ``<N>`` in front, which systemd's journal takes for the syslog priority of the line.
        as_json: each line is one JSON object with step, outcome, message and the facts.

    Attributes:
        said: step, outcome and facts of each line, for the metrics.
    """

    def __init__(self, stream: TextIO, priorities: bool = False, as_json: bool = False) -> None:
        self._stream = stream
        self._priorities = priorities and not as_json
        self._as_json = as_json
        self.exit_status = 0
        self.said: list[dict[str, Any]] = []

    def say(self, step: str, outcome: str, sentence: str, **facts: Any) -> None:
        """
        Args:
            step: health, size, nospace, compaction, defragmentation, backup, prune, copy, verify, restore, drill or run.
            outcome: a key of the table above; it decides on priority and exit status.
            sentence: for people.
            facts: for programs, with the unit in the name (``seconds=2.7``).
        """
        priority, status = _OUTCOMES[outcome]
        if outcome == "failed":
            status = _FAILURES.get(step, status)
        self.exit_status = max(self.exit_status, status, key=list(EXIT_STATUS).index)
        line = {"step": step, "outcome": outcome, **facts}
        self.said.append(line)
        if self._as_json:
            print(json.dumps({**line, "message": sentence}, default=str), file=self._stream, flush=True)
            return
        tail = " ".join(f"{key}={_text(value)}" for key, value in line.items())
        mark = f"<{priority}>" if self._priorities else ""
        print(f"{mark}{step}: {' '.join(sentence.splitlines())} | {tail}", file=self._stream, flush=True)


def megabytes(size: float) -> str:
    """Bytes for people: ``542.3 MB``."""
    return f"{size / 1e6:.1f} MB"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    return json.dumps(text).replace("|", "\\u007c")  # the bar divides the line
