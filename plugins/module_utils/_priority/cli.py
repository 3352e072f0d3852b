# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: ``kubetune.pyz priority run --cpu-weight N --io-weight N``."""

from __future__ import annotations

import argparse
import sys
from typing import Sequence

from .._errors import KubetuneError
from .._kernel.tree import Tree
from .cgroup import CPU, IO, MAXIMUM, MINIMUM, unified_problem
from .watch import Watch, notify_ready


def main(argv: Sequence[str]) -> int:
    options = _parser().parse_args(argv)
    tree = Tree()
    wanted = {name: weight for name, weight in ((CPU, options.cpu_weight), (IO, options.io_weight)) if weight is not None}
    problem = unified_problem(tree)
    try:
        if problem:
            raise KubetuneError(problem)
        Watch(tree, wanted, lambda line: print(line, flush=True), notify_ready).forever()
    except KubetuneError as exc:
        print(f"priority: {exc}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kubetune.pyz priority", description="Gives etcd's pod its CPU and I/O weight, whenever it is made anew."
    )
    run = parser.add_subparsers(dest="command", required=True).add_parser("run", help="until it is ended")
    for name in ("--cpu-weight", "--io-weight"):
        run.add_argument(name, type=int, choices=range(MINIMUM, MAXIMUM + 1), metavar=f"{MINIMUM}..{MAXIMUM}")
    return parser
