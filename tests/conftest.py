# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes this checkout importable as ``ansible_collections.kubetune.control_plane``, as ansible-core does."""

from __future__ import annotations

import sys
import types
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent


def _namespace(name: str, path: Path | None = None) -> None:
    module = sys.modules.get(name)
    if module is None:
        module = types.ModuleType(name)
        module.__path__ = []
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    if path is not None:
        module.__path__ = [str(path)]


try:
    import ansible_collections  # noqa: F401  other collections stay importable
except ImportError:
    pass
_namespace("ansible_collections")
_namespace("ansible_collections.kubetune")
_namespace("ansible_collections.kubetune.control_plane", ROOT)

# Two cores with other work on them: how long an example takes says nothing.
settings.register_profile("kubetune", deadline=None, max_examples=60)
settings.load_profile("kubetune")
