# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Defragmentation of this host's member in a node window: API server out, etcd out, etcdutl, etcd in and proved, API server in.

Who is connected to a member that goes away moves on to another one at once; who is connected to one that is defragmented while it
runs waits until it is done, for neither etcd's clients nor API servers notice. The window is the one of `_node_window`, run by its own
unit: it takes the cluster lock, asks the gate, moves leadership away, and goes on by itself when this program is killed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Mapping, Sequence

from .._errors import KubetuneError
from .._etcd.cluster import ClusterView, MemberView
from .._node.access import EtcdAccess, address_flags
from .._node.discover import manifests_directory
from .._node.processes import Process, find, of_static_pod
from .._node.state import STATE, read_memory, read_unfinished, refuse_while_restoring
from .._node_window import unit
from .._node_window.journal import Journal, follow
from .._node_window.order import Offline, Order, Part, new_id
from .._static_pod.catalogue import COMPONENTS, ETCD, KUBE_APISERVER
from .._static_pod.manifest import flags_of, grace_in
from . import tools
from .context import Context

#: All hosts' windows are of one run: where one fails, the others do not begin for an hour.
RUN_ID = "maintenance-defragmentation"
#: Of which one can be missed.
_MIN_VOTERS = 3
_POLL = 1.0
#: Seconds without a word of a window, and without its unit.
_SILENCE, _IDLE = 900.0, 60.0


def defragment(ctx: Context, view: ClusterView, member: MemberView, state: Path = STATE) -> Mapping[str, Any]:
    """Do it; return the facts of the window's step ``defragment``.

    Raises:
        KubetuneError: it is not done, and why; the member is as it was unless the message says otherwise.
    """
    order = make_order(ctx, view, member)
    if read_unfinished(state):
        raise KubetuneError("a node window is open on this host, or was cut off: the next playbook run, or the next boot, ends it")
    Journal(state).begin(order)
    unit.start()
    return _wait(ctx, order.id, state)


def possible(ctx: Context) -> bool:
    """Whether etcd is a static pod of this host, in a cluster that can miss a member."""
    voters = [each for each in ctx.client.members(linearizable=False) if not each.is_learner]
    return len(voters) >= _MIN_VOTERS and unit.PATH.exists() and (manifests_directory() / f"{ETCD}.yaml").exists()


def make_order(ctx: Context, view: ClusterView, member: MemberView) -> Order:
    """The manifests stay as they are; etcd goes out and comes in again.

    Args:
        member: of this host.

    Raises:
        KubetuneError: this host has no such static pods, or the collection's window is not set up.
    """
    refuse_while_restoring()
    if not unit.PATH.exists():
        raise KubetuneError(f"{unit.PATH} is missing, which runs the window: run the playbook maintenance again")
    tools.keep(ctx)
    etcdutl = Path(ctx.config.tools_directory) / "etcdutl" if ctx.config.tools == "auto" else Path(ctx.config.tools) / "etcdutl"
    if not etcdutl.exists():
        raise KubetuneError(f"there is no {etcdutl}, which defragments while etcd is out")
    config = ctx.config
    if len(view.voters) < _MIN_VOTERS:
        raise KubetuneError(
            f"a cluster of {len(view.voters)} voters cannot miss one: set etcd_maintenance_defragmentation_method to online for it"
        )
    others = [each.endpoint for each in view.members if each.endpoint and each is not member]
    api = _part(ctx, KUBE_APISERVER, {})
    return Order(
        id=new_id(),
        run_id=RUN_ID,
        host=ctx.host,
        manifests_directory=str(manifests_directory()),
        etcd=_part(ctx, ETCD, {"data-dir": config.data_directory}, restart=True),
        kube_apiserver=api,
        etcd_access=EtcdAccess((config.endpoint, *others), config.ca_file, config.cert_file, config.key_file).to_dict(),
        member=member.member.name,
        api_server=address_flags(flags_of(api.argv[1:])) if api else {},
        defragmentation=Offline(str(etcdutl), config.data_directory, config.defragmentation.timeout_seconds),
    )


def _part(ctx: Context, component: str, own_flags: Mapping[str, str], restart: bool = False) -> Part | None:
    """A static pod as it is; None where an API server does not run here."""
    path = manifests_directory() / f"{component}.yaml"
    running: list[Process] = [each for each in find(component, own_flags, ctx.proc) if of_static_pod(each, component, ctx.proc)]
    if not running or not path.exists():
        if component == KUBE_APISERVER:
            return None
        raise KubetuneError(f"{component} does not run here from {path}: only a static pod can be defragmented in a window; set method online")
    text = path.read_bytes().decode(errors="replace")
    argv = running[0].argv
    flags = flags_of(argv[1:])
    memory = read_memory(component)
    return Part(
        old=text,
        new=text,
        argv=argv,
        old_argv=argv,
        own_flags={name: flags[name][-1] for name in COMPONENTS[component].own_flags if name in flags},
        memory=memory,
        old_memory=memory,
        grace=grace_in(text),
        restart=restart,
    )


def _wait(ctx: Context, window_id: str, state: Path) -> Mapping[str, Any]:
    """Follow the window to its end.

    Raises:
        KubetuneError: the window refused, undid, or broke; or is not heard of.
    """
    events: Sequence[Mapping[str, Any]] = []
    heard = running = time.monotonic()
    while True:
        news, result = follow(window_id, len(events), state)
        events = [*events, *news]
        now = time.monotonic()
        heard = now if news else heard
        running = now if unit.active() else running
        if result is not None:
            break
        if now - heard > _SILENCE or now - running > _IDLE:
            raise KubetuneError(f"node window {window_id} says nothing any more: see 'journalctl -u kubetune-window'")
        ctx.sleep(_POLL)
    done = next((each for each in events if (each["step"], each["state"]) == ("defragment", "done")), None)
    if result["outcome"] not in ("changed", "degraded") or done is None:
        raise KubetuneError(f"node window {window_id} ended as {result['outcome']}: {result['message']}")
    return {"before_bytes": done["before_bytes"], "after_bytes": done["after_bytes"], "window_seconds": result["seconds"]}
