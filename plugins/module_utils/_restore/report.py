# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person has to know after a restore. Pure: what the hosts found in, lines out."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from .._maintenance.units import BACKUP
from .store import Order

#: Of each resource so many names are printed; all of them are in restore/revived.json of the collection's state, on the host that provided the snapshot.
_PRINTED = 40
_MEANING = {
    "clusterrolebindings": "cluster role bindings",
    "rolebindings": "role bindings",
    "secrets": "secrets, tokens of service accounts and bootstrap tokens among them",
    "serviceaccounts": "service accounts, whose tokens hold again",
    "certificatesigningrequests": "certificate signing requests",
}


def lines(
    order: Order, after: Mapping[str, Any] | None, finished: Mapping[str, Mapping[str, Any]], nodes: Sequence[str]
) -> list[str]:
    """
    Args:
        after: of `Host.after`; None for the case ``member``.
        finished: inventory name -> what `Host.finish` returned.
        nodes: names of the control plane's nodes.
    """
    if order.case == "member":
        found = [f"the member of {order.source} is a voter again, and the cluster is whole"]
    else:
        found = _restored(order, after or {}, finished, nodes)
    found += [
        f"{host}: the old data is set aside, and yours to remove when you are sure: {', '.join(each['set_aside'])}"
        for host, each in finished.items()
        if each["set_aside"]
    ]
    return found


def _restored(
    order: Order, after: Mapping[str, Any], finished: Mapping[str, Mapping[str, Any]], nodes: Sequence[str]
) -> list[str]:
    snapshot = finished[order.source]["snapshot"]
    taken = f", taken at {snapshot['taken_at']}" if snapshot["taken_at"] else ""
    found = [
        f"the cluster serves {snapshot['keys']} keys of revision {snapshot['revision']}{taken}, from {snapshot['path']} on {order.source}; what "
        "was committed later is lost"
    ]
    found += [
        f"the alarm {alarm} came back with the data: the API servers' writes are refused until it is mended"
        + (" (kubetune.pyz maintenance recover-space)" if alarm == "NOSPACE" else "")
        for alarm in after.get("alarms") or ()
    ]
    for resource, names in (after.get("grants") or {}).items():
        if names:
            more = f" and {len(names) - _PRINTED} more" if len(names) > _PRINTED else ""
            found.append(f"came back, and may have been revoked since: {_MEANING[resource]}: {', '.join(names[:_PRINTED])}{more}")
    known = after.get("nodes") or []
    found.append(
        f"nodes that are known: {', '.join(known) or 'none'}; one that joined later registers when its kubelet is restarted (systemctl restart "
        "kubelet), one that was removed since has to be deleted again"
    )
    missing = [node for node in nodes if node and node not in known]
    if missing:
        found.append(f"nodes of this run that are not known, and register anew now: {', '.join(missing)}")
    for host, each in finished.items():
        for key in each["keys"]:
            if not key["there"]:
                found.append(f"{host}: {key['path']} ({key['flag']}) is missing: without the key of then nothing that it signed or encrypted is read")
            elif snapshot["taken_at"] and key["changed_at"] > snapshot["taken_at"]:
                found.append(
                    f"{host}: {key['path']} ({key['flag']}) was changed at {key['changed_at']}, after the backup: tokens and secrets of then need "
                    "the key of then"
                )
    found.append("a KMS provider, where secrets are encrypted by one, has to know the key of then")
    begun = [host for host, each in finished.items() if not each["no_backup"]]
    if begun:
        found.append(f"{', '.join(begun)}: a first backup of the new cluster is being taken; see that it ends well (journalctl -u {BACKUP})")
    found += [
        f"{host}: take a backup now ({each['no_backup']}): those from before are of a cluster with another id, which a drill or the next "
        "restore does not take for this one's"
        for host, each in finished.items()
        if each["no_backup"]
    ]
    return found
