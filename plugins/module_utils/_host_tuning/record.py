# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was there before us, so that it can be put back: /var/lib/kubetune/host-tuning.json."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

from .._errors import KubetuneError
from .._kernel.tree import Tree
from .setting import Record, Value

PATH = "/var/lib/kubetune/host-tuning.json"
SCHEMA = 1


@dataclass(frozen=True)
class Original:
    """A file that we replaced.

    Attributes:
        content: None where there was no file.
        mode: permission bits of the file that was there.
        made: directories that were made for it, outermost first.
    """

    content: str | None
    mode: int = 0o644
    made: tuple[str, ...] = ()


@dataclass(frozen=True)
class Records:
    """Everything on this host that is ours: settings by their key, files by their path."""

    settings: dict[str, Record] = field(default_factory=dict)
    files: dict[str, Original] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.settings or self.files)


def load(tree: Tree) -> Records:
    """What was recorded; nothing on a host where we never were.

    Raises:
        KubetuneError: the file is damaged, or of a later release.
    """
    text = tree.read(PATH)
    if text is None:
        return Records()
    try:
        data = json.loads(text)
        if data["schema"] != SCHEMA:
            raise KubetuneError(
                f"{PATH} has schema {data['schema']!r}, and this release knows {SCHEMA}: run the release that wrote it"
            )
        return _decode(data)
    except (ValueError, KeyError, TypeError) as exc:
        raise KubetuneError(
            f"{PATH} is damaged ({exc!r}): it holds the values from before the tuning. Restore it from a backup, or move it "
            "away, and today's values count as the originals"
        ) from exc


def save(tree: Tree, records: Records) -> None:
    """Write it, for root alone; remove it when nothing is left to remember."""
    if records:
        tree.make_directories(os.path.dirname(PATH), 0o700)
        tree.replace(PATH, _encode(records), 0o600)
    else:
        tree.remove(PATH)


def _decode(data: dict[str, Any]) -> Records:
    settings = {
        key: Record(Value(*each["original"]), Value(*each["applied"])) for key, each in data["settings"].items()
    }
    files = {
        path: Original(each["content"], int(each["mode"], 8), tuple(each["made"]))
        for path, each in data["files"].items()
    }
    return Records(settings, files)


def _encode(records: Records) -> str:
    data = {
        "schema": SCHEMA,
        "settings": {
            key: {"original": list(each.original), "applied": list(each.applied)}
            for key, each in records.settings.items()
        },
        "files": {
            path: {"content": each.content, "mode": f"{each.mode:04o}", "made": list(each.made)}
            for path, each in records.files.items()
        },
    }
    return json.dumps(data, indent=2, sort_keys=True) + "\n"
