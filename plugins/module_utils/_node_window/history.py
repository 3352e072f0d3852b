# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The states that a host can go back to: what its static pods were before each finished window."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .._node.state import STATE, read_record
from .journal import CHANGED


def states(state: Path = STATE) -> list[dict[str, Any]]:
    """One record for each window that changed something, oldest first: ``id``, ``run_id``, ``outcome`` and ``parts``.

    ``parts``: component -> ``text`` of its manifest before the window (None where there was none) and ``memory``, what was
    remembered of it then.

    Raises:
        KubetuneError: a record is damaged, or of another release.
    """
    found = []
    for folder in sorted((state / "history").glob("*")):
        order = read_record(folder / "order.json", "move its directory away: the other states stay")
        outcome = _outcome(folder / "result.json")
        if order is None or outcome not in CHANGED:
            continue
        parts = {
            component: {"text": part["old"], "memory": part.get("old_memory")}
            for component, part in (("etcd", order["etcd"]), ("kube-apiserver", order["kube_apiserver"]))
            if part and part["old"] != part["new"]
        }
        if not parts:
            continue  # a restart alone
        found.append({"id": order["id"], "run_id": order["run_id"], "outcome": outcome, "parts": parts})
    return found


def _outcome(path: Path) -> str:
    """Empty where the window's end was cut off: the next run finishes it."""
    try:
        return str(json.loads(path.read_text())["outcome"])
    except (OSError, ValueError, KeyError):
        return ""
