# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is lost of a cluster, which way back there is, and what it asks of whom. Pure: facts in, a plan or its refusal out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Mapping, Sequence

from .._errors import Refusal
from .._maintenance.restoration import BUMP
from .store import Order

CASES = ("plan", "member", "survivor", "backup", "cancel")


@dataclass(frozen=True)
class Wanted:
    """
    Attributes:
        case: one of `CASES`.
        host: inventory name: of the member to replace, of the survivor, or of the host with the backup; empty to have it found.
        backup: path on ``host``; empty for the newest of any host.
        without: names of members whose hosts are gone for good, and do not come back by this run.
        bump_revision: by how much the revision goes up.
    """

    case: str
    host: str = ""
    backup: str = ""
    without: tuple[str, ...] = ()
    bump_revision: int = BUMP


@dataclass(frozen=True)
class Plan:
    """
    Attributes:
        lines: what is there, and what is proposed, for people.
        case: what will be done; ``plan`` for nothing.
        order: None where nothing will be done.
        consent: what has to be said to it; it changes with the order.
        through: inventory name of the host whose member speaks for the cluster, for the case ``member``.
        resumed: whether the order is one that was begun before.
    """

    lines: tuple[str, ...]
    case: str
    order: Order | None
    consent: str
    through: str = ""
    resumed: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan(hosts: Mapping[str, Mapping[str, Any]], wanted: Wanted, new_id: str) -> Plan:
    """
    Args:
        hosts: inventory name -> ``read``, ``member`` and ``look``, as the module etcd_restore and the filter restore_member return them;
            a host that was not reached is missing.
        new_id: for a restore that begins.

    Raises:
        Refusal: it would do harm, or something that it takes is missing; nothing is changed.
    """
    if wanted.case not in CASES:
        raise Refusal([f"etcd_restore_case: {wanted.case!r} is not allowed; one of {', '.join(CASES)} is"])
    if not hosts:
        raise Refusal(["no host was reached: a restore needs those whose etcd shall serve afterwards"])
    cluster = _Cluster(hosts)
    begun = _begun(hosts)
    if wanted.case == "plan":
        lines = [*cluster.lines(), *(_of_begun(begun) if begun else cluster.advice())]
        return Plan(tuple(lines), "plan", None, "")
    if wanted.case == "cancel":
        if not begun:
            raise Refusal(["etcd_restore_case: cancel takes back a restore that is under way, and none is"])
        return Plan((f"restore {begun.id} (case {begun.case}) is taken back",), "cancel", begun, _consent(begun))
    if begun:
        if begun.case != wanted.case:
            raise Refusal([
                f"restore {begun.id} with etcd_restore_case={begun.case} is under way: finish it with the variables that it was begun with, "
                "or take it back with etcd_restore_case=cancel"
            ])  # fmt: skip
        return Plan(
            (f"restore {begun.id} (case {begun.case}) goes on",), begun.case, begun, _consent(begun), cluster.through(begun.source), True
        )
    order = {"member": cluster.member, "survivor": cluster.survivor, "backup": cluster.backup}[wanted.case](wanted, new_id)
    lines = [*cluster.lines(), *_what(order, cluster)]
    return Plan(tuple(lines), order.case, order, _consent(order), cluster.through(order.source))


def _begun(hosts: Mapping[str, Mapping[str, Any]]) -> Order | None:
    """The restore that is under way on one host or more."""
    found = {name: Order(**host["read"]["order"]) for name, host in hosts.items() if host["read"]["order"]}
    if len({order.id for order in found.values()}) > 1:
        raise Refusal([
            f"different restores are under way: {', '.join(f'{order.id} on {name}' for name, order in found.items())}; take them back one "
            "by one, with --limit and etcd_restore_case=cancel"
        ])  # fmt: skip
    return next(iter(found.values()), None)


def _of_begun(order: Order) -> list[str]:
    return [
        f"restore {order.id} is under way: finish it with etcd_restore_case={order.case} and etcd_restore_consent={_consent(order)}, or take it "
        "back with etcd_restore_case=cancel"
    ]


def _consent(order: Order) -> str:
    """Of this order only: what is not the same any more has to be agreed to anew. The id is chance, and no part of it."""
    text = json.dumps({**asdict(order), "id": ""}, sort_keys=True)
    return f"{order.case}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class _Cluster:
    """What the hosts say together."""

    def __init__(self, hosts: Mapping[str, Mapping[str, Any]]) -> None:
        self.hosts = hosts
        #: Every member that some manifest or some member knows of.
        self.names = {name for host in hosts.values() for name in (*host["member"]["known"], host["member"]["name"])}
        self.names |= {each["name"] for host in hosts.values() for each in self._members(host) if each["name"]}

    @staticmethod
    def _members(host: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return host["look"]["etcd"]["members"] if host["look"]["etcd"] else ()

    @property
    def serving(self) -> dict[str, Mapping[str, Any]]:
        """Hosts whose member answers with a quorum behind it, of the cluster that most of them belong to."""
        found = {
            name: host
            for name, host in self.hosts.items()
            if host["look"]["etcd"] and host["look"]["etcd"]["quorum"] and not self.anew(name)
        }
        if not found:
            return {}
        largest = max(found.values(), key=lambda host: len(self._members(host)))["look"]["etcd"]["cluster_id"]
        return {name: host for name, host in found.items() if host["look"]["etcd"]["cluster_id"] == largest}

    def anew(self, name: str) -> bool:
        """Whether a host's etcd has begun a cluster of its own beside the one that it belongs to, as kubeadm's first one does with no data.

        That cluster may well have the old one's id, which is made of the first member's URL and the token.
        """
        return len(self.names) > 1 and len(self._members(self.hosts[name])) == 1

    @property
    def survivors(self) -> list[str]:
        """Hosts with data of the old cluster, the most advanced first, as far as they say."""
        found = [name for name, host in self.hosts.items() if host["look"]["data"]["there"] and not self.anew(name)]

        def advance(name: str) -> tuple[int, int]:
            view = self.hosts[name]["look"]["etcd"]
            return (view["term"], view["index"]) if view else (0, 0)

        return sorted(found, key=advance, reverse=True)

    def through(self, source: str) -> str:
        """The host by which the cluster is spoken to while another one is away."""
        return next((name for name in self.serving if name != source), "")

    def lines(self) -> list[str]:
        found = []
        for name, host in self.hosts.items():
            view, data = host["look"]["etcd"], host["look"]["data"]
            if view is None:
                says = f"does not answer ({host['look']['failure']})"
            elif self.anew(name):
                says = f"serves a cluster of its own, {view['cluster_id']}, which it began with no data"
            else:
                says = f"answers{'' if view['quorum'] else ', without a quorum'}: cluster {view['cluster_id']}, revision {view['revision']}"
                says += "".join(f", {error}" for error in view["errors"]) + (", a learner" if view["learner"] else "")
            there = f"data {data['database_bytes'] >> 20} MiB and WAL {data['wal_bytes'] >> 20} MiB" if data["there"] else "no data"
            backups = [f"backup of {each['taken_at']} at revision {each['revision']}: {each['path']}" for each in host["look"]["backups"]]
            found.append("; ".join([f"{name}: member {host['member']['name']} {says}", there, *backups]))
        missing = sorted(self.names - {host["member"]["name"] for host in self.hosts.values()})
        return [*found, *(f"member {name} is of no host that was reached in this run" for name in missing)]

    def advice(self) -> list[str]:
        """Which case this is."""
        if self.serving:
            lost = [name for name in self.hosts if name not in self.serving]
            if lost:
                return [
                    "the cluster has its quorum. A member whose data is good starts by itself when its host is mended; one whose data is lost "
                    f"is replaced: etcd_restore_case=member etcd_restore_host={lost[0]}"
                ]
            alarms = sorted({error for host in self.serving.values() for error in host["look"]["etcd"]["errors"]})
            if alarms:
                return [f"every member answers, and the cluster reports {'; '.join(alarms)}: that is mended first, not restored"]
            return ["the cluster has its quorum and every member answers: nothing has to be restored"]
        quorum = len(self.names) // 2 + 1
        if len(self.survivors) >= quorum:
            return [
                f"no quorum, and yet {len(self.survivors)} of {len(self.names)} members have their data ({', '.join(self.survivors)}): {quorum} "
                "are enough; mend what keeps them from starting (journalctl -u kubelet, crictl ps -a), before anything is restored"
            ]
        if self.survivors:
            return [
                f"no quorum, and {self.survivors[0]} has data: what it had committed comes before any backup: etcd_restore_case=survivor"
            ]
        return ["no data is left: etcd_restore_case=backup, with the newest backup, or etcd_restore_host and etcd_restore_backup=PATH"]

    # --- the cases --------------------------------------------------------------------------------------------

    def member(self, wanted: Wanted, new_id: str) -> Order:
        host = self._known(wanted.host, "the host whose member is lost")
        if not self.serving:
            raise Refusal(["etcd_restore_case: member needs a cluster that has its quorum, and this one has none: see etcd_restore_case=plan"])
        others = [name for name in self.serving if name != wanted.host]
        if not others:
            raise Refusal([f"etcd_restore_host: {wanted.host} has the only member that answers: nobody is there to fill it again"])
        view = self.hosts[others[0]]["look"]["etcd"]
        ours = host["member"]
        found = [each for each in view["members"] if each["name"] == ours["name"] or set(each["peer_urls"]) & set(ours["peer_urls"])]
        sound = host["look"]["etcd"]
        if wanted.host in self.serving and not sound["learner"]:
            raise Refusal([f"etcd_restore_host: member {ours['name']} of {wanted.host} is well: it answers, as a voter of the cluster"])
        return Order(
            new_id, "member", wanted.host, "", view["cluster_id"], {wanted.host: _part(ours)}, found[0]["id"] if found else "", 0
        )

    def survivor(self, wanted: Wanted, new_id: str) -> Order:
        self._whole_cluster(wanted)
        if self.serving:
            raise Refusal(["etcd_restore_case: survivor is for a cluster without a quorum, and this one has it: see etcd_restore_case=plan"])
        if not self.survivors:
            raise Refusal(["etcd_restore_case: survivor needs a host with data, and none has it: etcd_restore_case=backup is what is left"])
        if not wanted.host and len(self.survivors) > 1 and any(self.hosts[name]["look"]["etcd"] is None for name in self.survivors):
            raise Refusal([
                f"several hosts have data, and not all of their members run to say which is the most advanced: {', '.join(self.survivors)}; "
                "name one as etcd_restore_host"
            ])  # fmt: skip
        source = wanted.host or self.survivors[0]
        if source not in self.survivors:
            raise Refusal([f"etcd_restore_host: {source} has no data; {', '.join(self.survivors)} has"])
        return Order(new_id, "survivor", source, "", "", self._parts(), "", wanted.bump_revision)

    def backup(self, wanted: Wanted, new_id: str) -> Order:
        self._whole_cluster(wanted)
        source, path = wanted.host, wanted.backup
        if path:
            self._known(source, "the host with the backup")
        else:
            of = {source: self._known(source, "the host with the backup")} if source else self.hosts
            known = [(each["taken_at"], name, each["path"]) for name, host in of.items() for each in host["look"]["backups"]]
            if not known:
                raise Refusal([f"there is no backup on {', '.join(of)}: name one, with etcd_restore_host and etcd_restore_backup=PATH"])
            _taken, source, path = max(known)
        ids = {host["look"]["etcd"]["cluster_id"] for name, host in self.hosts.items() if host["look"]["etcd"] and not self.anew(name)}
        ids = ids or self._ids_of_backups()
        return Order(new_id, "backup", source, path, ids.pop() if len(ids) == 1 else "", self._parts(), "", wanted.bump_revision)

    def _ids_of_backups(self) -> set[str]:
        """The cluster of which the hosts have backups, where it is one: a file from elsewhere has to be of it too."""
        return {each["cluster_id"] for host in self.hosts.values() for each in host["look"]["backups"]}

    def _parts(self) -> dict[str, dict[str, Any]]:
        return {name: _part(host["member"]) for name, host in self.hosts.items()}

    def _known(self, name: str, what: str) -> Mapping[str, Any]:
        if name not in self.hosts:
            raise Refusal([f"etcd_restore_host: {name!r} is not allowed; {what} is needed, one of {', '.join(self.hosts)}"])
        return self.hosts[name]

    def _whole_cluster(self, wanted: Wanted) -> None:
        """All members' hosts have to be there: one that is left out would go on with the old data."""
        missing = sorted(self.names - {host["member"]["name"] for host in self.hosts.values()} - set(wanted.without))
        wrong = [
            f"the host of member {name} is not in this run: bring it up, or, when it is gone for good and switched off, say "
            f"etcd_restore_without={name}"
            for name in missing
        ]
        wrong += [
            f"{name}: the kubelet does not run ({host['read']['kubelet']}), and it starts what is restored: mend it (systemctl status kubelet)"
            for name, host in self.hosts.items()
            if host["read"]["kubelet"] != "active"
        ]
        if wrong:
            raise Refusal(wrong)


def _part(member: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": member["name"], "peer_urls": list(member["peer_urls"])}


def _what(order: Order, cluster: _Cluster) -> list[str]:
    """What will be done, and what it costs."""
    if order.case == "member":
        return [
            f"member {order.old_member_id or '(already removed)'} leaves the cluster; {order.source} gets a new one with no data, as a learner, "
            "which the others fill; its old data is set aside. The other members and their API servers go on."
        ]
    where = f"{order.backup} on {order.source}" if order.backup else f"what {order.source} had committed"
    lines = [
        f"all API servers, controllers and etcd members stop; a new cluster of {', '.join(order.members)} is made of {where}; old data is set "
        f"aside; revisions go up by {order.bump_revision}, so that every watch begins anew; then all start again, in order"
    ]
    if order.case == "backup" and cluster.survivors:
        lines.append(
            f"NOTE: {', '.join(cluster.survivors)} has data of the cluster, which is newer than any backup: etcd_restore_case="
            f"{'survivor' if not cluster.serving else 'plan'} says more. With a backup, everything written since it is lost."
        )
    elif order.case == "backup":
        lines.append("everything that was written after the backup is lost")
    return lines

