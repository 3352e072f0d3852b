# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left on a host, read without changing anything: manifests, processes, its member's own view, data, backups."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from .._commands import output
from .._errors import KubetuneError
from .._etcd.client import EtcdError
from .._node import access
from .._node.discover import manifests_directory
from .._wal_disk.missing import missing
from .data import Data, Member
from .fence import COMPONENTS, Fence
from .snapshot import newest_backups
from .store import Store

#: Seconds for each call: a member without quorum does not answer what needs one.
_TIMEOUT = 5.0


def read(store: Store) -> dict[str, Any]:
    """What the controller needs to know the member: the manifests' texts, those that are kept out too."""
    directory = manifests_directory()
    fence = Fence(directory, store.manifests)
    found = {}
    for component in COMPONENTS:
        text, out = fence.manifest(component)
        found[component] = {"text": text, "out": out, "running": bool(fence.running(component))}
    pending, last = store.read(), store.last()
    return {
        "host": socket.gethostname(),
        "node": access.node_name() or "",
        "manifests_directory": str(directory),
        "components": found,
        "kubelet": output(["systemctl", "is-active", "kubelet"], check=False).strip(),
        "steps": list(pending.steps) if pending else [],
        "order": vars(pending.order) if pending else None,
        "ended": {"id": last["order"]["id"], "outcome": last["outcome"]} if last else None,
    }


def look(member: Member, config_file: Path) -> dict[str, Any]:
    """The member's data, its own view of the cluster, and this host's backups.

    ``etcd`` is None where it does not answer (``failure`` says why); its ``quorum`` says whether a linearizable read came through.
    ``unseen`` says why nothing is known of backups; empty where it is.
    """
    found: dict[str, Any] = {
        "data": {**Data(member, "").facts(), "unmounted": missing()}, "etcd": None, "failure": "", "backups": [], "unseen": "",
    }  # fmt: skip
    try:
        found["backups"] = newest_backups(config_file)
    except KubetuneError as exc:
        found["unseen"] = str(exc)
    try:
        found["etcd"] = _own_view(member)
    except KubetuneError as exc:
        found["failure"] = str(exc)
    return found


def _own_view(member: Member) -> dict[str, Any]:
    alone = member.access.client(_TIMEOUT)
    del alone.endpoints[1:]  # what another member thinks is that one's host's to say
    status = alone.status()
    view: dict[str, Any] = {
        "cluster_id": f"{status.cluster_id:x}", "member_id": f"{status.member_id:x}", "version": status.version,
        "term": status.raft_term, "index": status.raft_index, "revision": status.revision, "errors": list(status.errors),
        "leads": status.is_leader, "learner": status.is_learner, "members": [
            {"id": f"{each.member_id:x}", "name": each.name, "peer_urls": list(each.peer_urls), "learner": each.is_learner}
            for each in alone.members(linearizable=False)
        ],
    }  # fmt: skip
    try:
        alone.revision()
        view["quorum"] = True
    except EtcdError as exc:
        view["quorum"], view["failure"] = False, str(exc)
    return view
