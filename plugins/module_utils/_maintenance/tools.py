# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""etcd's own programs: etcdctl, etcdutl, and etcd itself for the drill.

They stand beside etcd in its image, so the running member has exactly those of its version. etcdutl is kept on the host for
the day when no etcd runs.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Iterator, Mapping

from .._commands import ENVIRONMENT, output
from .._errors import KubetuneError
from .._node.processes import Process, find, of_static_pod, settings
from .._node.state import sync_directory
from .._static_pod.flags import BadValue, version_of
from .context import Context

_KEPT = "etcdutl"
_PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/opt/bin"


def tool(ctx: Context, name: str) -> str | None:
    """Path of a program; the member's own before the host's, and both before the one that was kept."""
    if ctx.config.tools != "auto":
        return _executable(Path(ctx.config.tools) / name)
    return own_tool(ctx, name) or shutil.which(name, path=_PLACES) or _executable(Path(ctx.config.tools_directory) / name)


def needed(ctx: Context, name: str) -> str:
    """See `tool`.

    Raises:
        KubetuneError: there is none.
    """
    found = tool(ctx, name)
    if found is None:
        raise KubetuneError(
            f"there is no {name} on this host: not in the running etcd's image, not in {_PLACES.replace(':', ', ')}, not in "
            f"{ctx.config.tools_directory}; install it, or name its directory as tools in the configuration"
        )
    return found


def own_tool(ctx: Context, name: str) -> str | None:
    """Beside etcd in its own image. Reaching it takes CAP_SYS_PTRACE."""
    for process in _own_processes(ctx):
        found = _executable(ctx.proc / str(process.pid) / "root/usr/local/bin" / name)
        if found:
            return found
    return None


def member_flags(ctx: Context) -> Mapping[str, list[str]]:
    """Flags of this host's running member; empty where it does not run."""
    process = next(_own_processes(ctx), None)
    return settings(process, ctx.proc) if process else {}


def _own_processes(ctx: Context) -> Iterator[Process]:
    for process in find("etcd", {"data-dir": ctx.config.data_directory}, ctx.proc):
        if of_static_pod(process, "etcd", ctx.proc):
            yield process  # whoever calls himself etcd is neither given root nor trusted


def version(program: str) -> str:
    """Of etcdutl or etcdctl, such as ``3.6.16``; empty when it does not say."""
    command = [program, "version"]
    found = re.search(r"version: *v?(\d+\.\d+\.\d+\S*)", output(command, environment=ENVIRONMENT, timeout=30))
    return found.group(1) if found else ""


def reads(etcdutl_version: str, storage_version: str) -> bool:
    """Whether etcdutl of this version knows a database of that one; etcd 3.5 and older write no storage version."""
    try:
        return version_of(etcdutl_version)[:2] >= version_of(storage_version)[:2]
    except BadValue:
        return True  # one of the two does not say


def keep(ctx: Context) -> None:
    """A copy of the running member's etcdutl, renewed when the member has another version."""
    own = own_tool(ctx, _KEPT)
    if own is None or ctx.config.tools != "auto":
        return
    kept = Path(ctx.config.tools_directory) / _KEPT
    new = version(own)
    if kept.exists() and version(str(kept)) == new:
        return
    kept.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = kept.with_name(f".{_KEPT}.kubetune-tmp")
    try:
        shutil.copyfile(own, temporary)
        os.chmod(temporary, 0o755)
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, kept)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(kept.parent)
    ctx.journal.say("backup", "ok", f"etcdutl {new} is kept as {kept}, for a day without etcd", path=kept, version=new)


def _executable(path: Path) -> str | None:
    return str(path) if os.access(path, os.X_OK) and path.is_file() else None
