# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restored cluster brings back, and may have been revoked since: names, by etcd's keys, as the API server lays them out."""

from __future__ import annotations

import re
from typing import Any

from .._etcd.client import Client, prefix_end
from .._etcd.lock import PREFIX

#: Resource, as its objects' keys begin -> what Kubernetes or kubeadm makes itself, and nobody revokes.
_GRANTS = {
    "clusterrolebindings": r"(system:|kubeadm:|cluster-admin$)",
    "rolebindings": r"[^/]+/(system:|kubeadm:)",
    "secrets": None,
    "serviceaccounts": r"(kube-[^/]+/|[^/]+/default$)",
    "certificatesigningrequests": None,
}
_TIMEOUT = 60.0


def release_locks(client: Client) -> int:
    """Locks of runs that ended long before: return how many there were."""
    start = f"{PREFIX}lock/"
    return client.delete(start, prefix_end(start))


def revived(client: Client, prefix: str) -> dict[str, Any]:
    """
    Args:
        prefix: the API server's ``--etcd-prefix``.

    Returns:
        ``grants``: resource -> names of objects that give somebody access; ``nodes``: names of the nodes that are known again.
    """
    return {
        "grants": {
            resource: [name for name in _names(client, f"{prefix}/{resource}/") if not (usual and re.match(usual, name))]
            for resource, usual in _GRANTS.items()
        },
        "nodes": _names(client, f"{prefix}/minions/"),
    }


def _names(client: Client, start: str) -> list[str]:
    return [each.key[len(start):] for each in client.keys(start, _TIMEOUT)]
