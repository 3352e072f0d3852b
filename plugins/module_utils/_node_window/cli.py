# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``kubetune.pyz window run``: what kubetune-window.service starts, now and after a reboot."""

from __future__ import annotations

import fcntl
import sys

from .._node.state import STATE, make_state_directory
from .journal import Journal, follow
from .window import Window

USAGE = """usage: kubetune.pyz window run

Finish or undo the change of this node's static pods whose order is in /var/lib/kubetune/window/pending.json.
Exit status: 0 done or nothing to do, 1 refused, undone or broken (the journal says which), 2 usage.
"""


def main(argv: list[str]) -> int:
    if argv != ["run"]:
        sys.stderr.write(USAGE)
        return 2
    make_state_directory(STATE)
    with open(STATE / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        journal = Journal()
        order = journal.order()
        if order is None:
            return 0
        _events, result = follow(order.id, 0)
        if result is None:
            result = Window(order, journal).run()
        print(f"{result['outcome']} {result['message']}".rstrip(), flush=True)
        journal.finish(order, result)
    return 0 if result["outcome"] == "changed" else 1
