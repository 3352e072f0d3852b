# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection keeps on a host: /var/lib/kubetune, 0700, a versioned schema, never half written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Sequence

from .._errors import KubetuneError

STATE = Path("/var/lib/kubetune")
SCHEMA = 1


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Either the old content or the new one is there, also after a power cut; readers never see half of it.

    The temporary name starts with a dot: in a manifests directory the kubelet ignores it.
    """
    temporary = path.with_name(f".{path.name}.kubetune-tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_state_directory(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(path, 0o700)


def memory_path(component: str, state: Path = STATE) -> Path:
    return state / "applied" / f"{component}.json"


def read_memory(component: str, state: Path = STATE) -> dict[str, Any] | None:
    """What was applied last to a component; None when nothing ever was."""
    return read_record(memory_path(component, state))


def read_unfinished(state: Path = STATE) -> dict[str, Any] | None:
    """The node window that is under way or was cut off on this host, if there is one."""
    return read_record(state / "window" / "pending.json")


def refuse_while_restoring(state: Path = STATE) -> None:
    """Manifests that a restore keeps out are not missing, and nobody else writes new ones.

    Raises:
        KubetuneError: a restore of etcd is under way on this host.
    """
    found = read_record(state / "restore" / "pending.json")
    if found:
        raise KubetuneError(
            f"restore {found['order']['id']} of etcd is under way on this host: finish it with the playbook restore, or take it back with "
            "etcd_restore_case=cancel"
        )


def read_record(path: Path, advice: str = "move it away, and compare the manifests by hand") -> dict[str, Any] | None:
    """A file of this directory; None where there is none.

    Args:
        advice: what to do with a damaged one.

    Raises:
        KubetuneError: it is damaged, or of another release.
    """
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as exc:
        raise KubetuneError(f"{path} is damaged ({exc}): {advice}") from exc
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise KubetuneError(f"{path} has schema {schema!r}, and this release reads {SCHEMA}: use the release that wrote it")
    return dict(data)


def free_bytes(directory: Path | str) -> int:
    """What others than root may still write to the file system of a directory."""
    facts = os.statvfs(directory)
    return facts.f_bavail * facts.f_frsize


def surplus(others: Sequence[Path], keep: int) -> Sequence[Path]:
    """Of what lies beside something that was just written, oldest first, that which goes when so many stay in all.

    The new one is never part of it, whatever a clock says of its age.
    """
    return others[: max(0, len(others) + 1 - keep)]
