# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``kubetune.pyz window run``: what kubetune-window.service starts, now and after a reboot."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from .._errors import KubetuneError
from .._node.host_lock import host_lock
from .._node.state import STATE, refuse_while_restoring
from .journal import Journal, follow
from .window import Window

USAGE = """usage: kubetune.pyz window run

Finish or undo the change of this node's static pods whose order is in /var/lib/kubetune/window/pending.json.
Exit status: 0 done or nothing to do, 1 refused, undone or broken (the journal says which), 2 usage.
"""


def main(argv: list[str], state: Path = STATE) -> int:
    if argv != ["run"]:
        sys.stderr.write(USAGE)
        return 2
    # As a kill ends it: an exception on its way out would give back the lock in the middle of a window.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with host_lock(state / "lock", wait=True):
        try:
            result = _run(Journal(state), state)
        except KubetuneError as exc:
            print(f"error: {exc}", file=sys.stderr, flush=True)
            return 1
        except OSError as exc:
            # A full or read-only disk: the order stays, and with it the next run's, or boot's, way to the end.
            print(f"error: the window cannot be ended: {exc}; mend that, and run again", file=sys.stderr, flush=True)
            return 1
    return 0 if result is None or result["outcome"] == "changed" else 1


def _run(journal: Journal, state: Path) -> dict[str, Any] | None:
    """The result of the window whose order is there; None where there is none."""
    order = journal.order()
    if order is None:
        return None
    refuse_while_restoring(state)
    # A process before this one may have been cut off between the result and the clearing up.
    _events, result = follow(order.id, 0, state)
    if result is None:
        try:
            window = Window(order, journal, state)
        except KubetuneError as exc:
            # Without its access nothing can be proved. Before the gate that is a verdict, behind it the order has to stay.
            if journal.reached("gate", "done"):
                raise
            result = {"outcome": "refused", "message": str(exc), "log": [], "seconds": 0.0, "snapshot": ""}
        else:
            result = window.run()
    print(f"{result['outcome']} {result['message']}".rstrip(), flush=True)
    journal.finish(order, result)
    return result
