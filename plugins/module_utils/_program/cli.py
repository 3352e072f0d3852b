# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``kubetune.pyz COMMAND ...``: the first word chooses, the rest belongs to the command."""

from __future__ import annotations

import importlib
import sys
from typing import Sequence

#: Command -> the package whose ``cli.main(argv)`` does it.
COMMANDS = {"maintenance": "_maintenance", "priority": "_priority", "window": "_node_window"}

USAGE = 2


def main(argv: Sequence[str]) -> int:
    """Return the exit status. Only the chosen command is imported."""
    if not argv or argv[0] not in COMMANDS:
        print(f"usage: kubetune.pyz {{{','.join(COMMANDS)}}} ...", file=sys.stderr)
        return USAGE
    root = __package__.rpartition(".")[0]
    command = importlib.import_module(f"{root}.{COMMANDS[argv[0]]}.cli")
    return int(command.main(list(argv[1:])))
