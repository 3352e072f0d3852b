# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which etcd members an API server asks: its own node's, as kubeadm writes it, or all of them."""

from __future__ import annotations

from typing import Any, Mapping, Sequence
from urllib.parse import urlsplit

from .plan import Memory, Wish

FLAG = "--etcd-servers"
CHOICES = ("as_it_is", "local", "all")
#: clientv3 balances round robin, without a health check of what it is connected to: measured with one member paused for 12 s.
BLAST_RADIUS = (
    "one member that hangs now stalls requests of every API server, not only of its own node's, for requests go round all of them and "
    "the first one has no preference; kubeadm upgrade takes the list back, since kubeadm-config is one for all nodes: run this again after it"
)


def wish(
    choice: str, flags: Mapping[str, Sequence[str]], memory: Memory, cluster: Mapping[str, Any] | None
) -> tuple[dict[str, Wish], list[str]]:
    """What a choice asks of ``--etcd-servers``, and why it cannot be.

    Args:
        choice: one of `CHOICES`; ``local`` is only the way back from ``all``.
        flags: of the manifest as it is.
        cluster: facts of the members, None where none runs here.
    """
    ours: Mapping[str, Any] | None = memory.settings.get(FLAG)
    if choice == "all":
        return _all(_urls(flags.get(FLAG[2:], [])), cluster)
    if ours is None:
        return {}, []
    return {FLAG: Wish(None if choice == "local" else list(ours["applied"]), explicit=True)}, []


def _all(there: list[str], cluster: Mapping[str, Any] | None) -> tuple[dict[str, Wish], list[str]]:
    variable = "kube_apiserver_static_pod_etcd_servers: all is not allowed"
    if cluster is None or not cluster["members"]:
        return {}, [f"{variable}, the members of the etcd cluster cannot be told"]
    urls = cluster["client_urls"]
    own = {url.rstrip("/") for url in urls.get(cluster["name"], [])}
    local = next((url for url in there if url in own or urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")), None)
    if local is None:
        return {}, [f"{variable}, {FLAG} ({','.join(there) or 'nothing'}) has no URL of this node's member ({', '.join(sorted(own))})"]
    others = [(name, (urls.get(name) or [""])[0].rstrip("/")) for name in cluster["members"] if name != cluster["name"]]
    wrong = [f"{variable}, member {name or '(unstarted)'} has no client URL" for name, url in others if not url]
    wrong += [
        f"{variable}, member {name} cannot be reached at {url} with the API server's certificate: {cluster['unreachable'][name]}"
        for name, url in others
        if name in cluster["unreachable"]
    ]
    if wrong:
        return {}, wrong
    target = [local, *sorted(url for _name, url in others)]
    # Another order of the same means the same.
    text = there if set(there) == set(target) else target
    return {FLAG: Wish([",".join(text)], explicit=True)}, []


def _urls(values: Sequence[str]) -> list[str]:
    return [url.strip().rstrip("/") for value in values for url in value.split(",") if url.strip()]
