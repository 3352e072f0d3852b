# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the program for the hosts: the private packages of module_utils in one executable file.

The same sources give the same bytes on every controller: entries are sorted, carry one fixed time and are stored, because
compressors differ between versions.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

PACKAGE = "kubetune_agent"

_SHEBANG = b"#!/usr/bin/env python3\n"
#: The earliest time that a zip file can carry.
_TIME = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o100644 << 16

_MAIN = f"""\
import sys

if sys.version_info < (3, 9):
    sys.exit("kubetune.pyz needs Python 3.9 or newer, and this is " + sys.version.split()[0])

from {PACKAGE}._program.cli import main

sys.exit(main(sys.argv[1:]))
"""


def build(module_utils: Path) -> bytes:
    """
    Args:
        module_utils: the collection's ``plugins/module_utils``; all that starts with an underscore goes in.
    """
    entries = {"__main__.py": _MAIN.encode(), f"{PACKAGE}/__init__.py": b""}
    for path in module_utils.rglob("*.py"):
        relative = path.relative_to(module_utils)
        if relative.parts[0].startswith("_"):
            entries[f"{PACKAGE}/{relative.as_posix()}"] = path.read_bytes()
    file = io.BytesIO()
    file.write(_SHEBANG)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, _TIME)
            info.external_attr = _FILE_MODE
            info.create_system = 3
            archive.writestr(info, entries[name])
    return file.getvalue()
