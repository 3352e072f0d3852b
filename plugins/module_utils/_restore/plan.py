# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is lost of a cluster, which way back there is, and what it asks of whom. Pure: facts in, a plan or its refusal out."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Mapping, Sequence

from .._errors import Refusal
from .._maintenance.restoration import BUMP
from .host import EXCHANGED, STARTED
from .store import Order

#: Revisions are 64 bits wide: what this leaves is more than any cluster writes.
MOST_BUMP = 10**12
CASES = ("plan", "member", "survivor", "backup", "cancel", "abandon")


@dataclass(frozen=True)
class Wanted:
    """
    Attributes:
        case: one of `CASES`.
        host: inventory name: of the member to replace, of the survivor, or of the host with the backup; empty to have it found.
        backup: path on ``host``; empty for the best of any host.
        without: inventory names of hosts, or names of members, that are gone for good, and do not come back by this run.
        bump_revision: by how much the revision goes up.
        cluster_id: hexadecimal, of which cluster the backup has to be; empty for the one that answers, or that all backups are of.
        everybody: inventory names of all hosts that a member belongs on, whether this run is limited or not.
    """

    case: str
    host: str = ""
    backup: str = ""
    without: tuple[str, ...] = ()
    bump_revision: int = BUMP
    cluster_id: str = ""
    everybody: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """
    Attributes:
        lines: what is there, and what is proposed, for people.
        case: what will be done; ``plan`` for nothing.
        order: None where nothing will be done.
        consent: what has to be said to it; it changes with the order, and with what is there.
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
    if not 1 <= wanted.bump_revision <= MOST_BUMP:
        raise Refusal([f"etcd_restore_bump_revision: {wanted.bump_revision} is not allowed; 1 to {MOST_BUMP} is"])
    if not re.fullmatch(r"[0-9a-f]{0,16}", wanted.cluster_id):
        raise Refusal([f"etcd_restore_cluster_id: {wanted.cluster_id!r} is not allowed; up to 16 hexadecimal digits are, as the plan prints them"])
    if not hosts:
        raise Refusal(["no host was reached: a restore needs those whose etcd shall serve afterwards"])
    cluster = _Cluster(hosts, wanted)
    begun = _begun(hosts)
    if wanted.case == "plan":
        return Plan((*cluster.lines(), *(_of_begun(begun, cluster) if begun else cluster.advice())), "plan", None, "")
    if wanted.case in ("cancel", "abandon"):
        return _end_of(begun, wanted.case, cluster)
    if begun:
        return _resumed(begun, wanted, cluster)
    order = {"member": cluster.member, "survivor": cluster.survivor, "backup": cluster.backup}[wanted.case](wanted, new_id)
    order = replace(order, consent=_consent(order, cluster))
    return Plan((*cluster.lines(), *_what(order, cluster)), order.case, order, order.consent, cluster.through(order.source))


def _begun(hosts: Mapping[str, Mapping[str, Any]]) -> Order | None:
    """The restore that is under way on one host or more."""
    found = {name: Order(**host["read"]["order"]) for name, host in hosts.items() if host["read"]["order"]}
    if len({order.id for order in found.values()}) > 1:
        raise Refusal([
            f"different restores are under way: {', '.join(f'{order.id} on {name}' for name, order in found.items())}; take them back one "
            "by one, with --limit and etcd_restore_case=cancel"
        ])  # fmt: skip
    return next(iter(found.values()), None)


def _of_begun(order: Order, cluster: _Cluster) -> list[str]:
    back = _no_way_back(order, cluster)
    return [
        f"restore {order.id} is under way: finish it with etcd_restore_case={order.case} and the other variables that it was begun with, or "
        + (f"give it up where it is with etcd_restore_case=abandon ({back})" if back else "take it back with etcd_restore_case=cancel")
    ]


def _no_way_back(order: Order, cluster: _Cluster) -> str:
    """Why a restore cannot be taken back; empty where it can."""
    started = [name for name, host in cluster.hosts.items() if host["read"]["order"] and STARTED in host["read"]["steps"]]
    ended = [name for name, host in cluster.hosts.items() if host["read"]["ended"] == {"id": order.id, "outcome": "done"}]
    if started or ended:
        return f"etcd was started on the new data on {', '.join(started or ended)}"
    if any(EXCHANGED in host["read"]["steps"] for host in cluster.hosts.values()):
        return f"the lost member of {order.source} has left the cluster"
    return ""


def _end_of(order: Order | None, case: str, cluster: _Cluster) -> Plan:
    if order is None:
        raise Refusal([f"etcd_restore_case: {case} ends a restore that is under way, and none is"])
    missing = sorted(set(order.members) - set(cluster.hosts))
    back = _no_way_back(order, cluster)
    if case == "abandon":
        lines = [
            f"restore {order.id} (case {order.case}) is given up where it is: all data stays as it is, what is kept out starts on it. Old data that "
            "was set aside comes back where nothing is in its place yet; a host with no data at all stays without etcd and API server, for "
            "etcd_restore_case=member or backup. Look afterwards which members agree (etcd_restore_case=plan), before anything is written."
        ]
    elif back:
        raise Refusal([
            f"restore {order.id} cannot be taken back: {back}; finish it with etcd_restore_case={order.case}, or, where that cannot be, give it "
            "up where it is with etcd_restore_case=abandon"
        ])  # fmt: skip
    elif missing:
        raise Refusal([f"restore {order.id} is taken back on all its hosts or on none, and {', '.join(missing)} is not in this run"])
    else:
        lines = [f"restore {order.id} (case {order.case}) is taken back"]
    return Plan((*cluster.lines(), *lines), case, order, _consent(replace(order, case=case), cluster))


def _resumed(order: Order, wanted: Wanted, cluster: _Cluster) -> Plan:
    """The same command goes on, as long as nobody has made the cluster serve again meanwhile."""
    wrong = []
    if order.case != wanted.case:
        wrong.append(
            f"restore {order.id} with etcd_restore_case={order.case} is under way: finish it with the variables that it was begun with, or "
            "take it back with etcd_restore_case=cancel"
        )
    for name, given, begun in (
        ("etcd_restore_host", wanted.host, order.source), ("etcd_restore_backup", wanted.backup, order.backup),
        ("etcd_restore_cluster_id", wanted.cluster_id, order.cluster_id),
    ):  # fmt: skip
        if given and given != begun:
            wrong.append(f"{name}: {given} is not what restore {order.id} was begun with, which is under way: {begun}")
    missing = sorted(set(order.members) - set(cluster.hosts))
    if missing:
        wrong.append(f"restore {order.id} goes on with all its hosts, and {', '.join(missing)} is not in this run")
    through = cluster.through(order.source)
    if order.case == "member" and not through:
        wrong.append("the others have no quorum any more: give this restore up with etcd_restore_case=abandon, and look at etcd_restore_case=plan")
    serving = bool(cluster.serving) and order.case != "member" and not _no_way_back(order, cluster)
    if serving and order.case == "survivor":
        wrong.append("the cluster has its quorum again: take the restore back with etcd_restore_case=cancel")
    if wrong:
        raise Refusal(wrong)
    # A cluster that serves while its restore is under way has been brought back by somebody: what it has now is more than it was.
    consent = _consent(order, cluster) if serving else order.consent
    lines = [*cluster.lines(), f"restore {order.id} (case {order.case}) goes on", *(_what(order, cluster) if serving else [])]
    return Plan(tuple(lines), order.case, order, consent, through, True)


def _consent(order: Order, cluster: _Cluster) -> str:
    """Of this order, and of what is there, only: what is not the same any more has to be agreed to anew. The id is chance, and no part of it."""
    there = {
        "order": {**asdict(order), "id": "", "consent": ""},
        "serving": sorted(cluster.serving),
        "survivors": sorted(cluster.survivors),
        "clusters": sorted({host["look"]["etcd"]["cluster_id"] for host in cluster.hosts.values() if host["look"]["etcd"]}),
        "ended": {name: host["read"]["ended"] for name, host in cluster.hosts.items()},
    }
    return f"{order.case}-{hashlib.sha256(json.dumps(there, sort_keys=True).encode()).hexdigest()[:8]}"


class _Cluster:
    """What the hosts say together."""

    def __init__(self, hosts: Mapping[str, Mapping[str, Any]], wanted: Wanted) -> None:
        self.hosts = hosts
        #: Every member that some manifest or some member knows of.
        self.names = {name for host in hosts.values() for name in (*host["member"]["known"], host["member"]["name"])}
        self.names |= {each["name"] for host in hosts.values() for each in self._members(host) if each["name"]}
        ours = {host["member"]["name"] for host in hosts.values()}
        #: Members, and hosts of the inventory, that are of no host of this run, and were not given up.
        self.missing = sorted((self.names - ours | set(wanted.everybody) - set(hosts)) - set(wanted.without) - ours)

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
        """Whether a host's etcd has begun a cluster of its own with no data, as kubeadm's first one does when its data is gone.

        It knows itself alone, and either others know better, or it is at a revision below that of a backup: revisions never fall. That
        cluster may well have the old one's id, which is made of the first member's URL and the token.
        """
        view = self.hosts[name]["look"]["etcd"]
        if view is None or len(view["members"]) != 1:
            return False
        behind = any(
            each["revision"] > view["revision"] and (len(self.names) > 1 or each["cluster_id"] == view["cluster_id"])
            for host in self.hosts.values()
            for each in host["look"]["backups"]
        )
        others = [host for other, host in self.hosts.items() if other != name]
        return behind or any(host["look"]["data"]["there"] or len(self._members(host)) > 1 for host in others)

    @property
    def survivors(self) -> list[str]:
        """Hosts with data of the old cluster, the most advanced first, as far as they say.

        What a member calls its index is what it knows to be committed: of two the one with the larger has all of the other's.
        """
        found = [name for name, host in self.hosts.items() if host["look"]["data"]["there"] and not self.anew(name)]

        def advance(name: str) -> tuple[int, int]:
            view = self.hosts[name]["look"]["etcd"]
            return (view["index"], view["term"]) if view else (0, 0)

        return sorted((name for name in found if not (self.hosts[name]["look"]["etcd"] or {}).get("learner")), key=advance, reverse=True)

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
            if data["database_bytes"] and not data["wal_bytes"]:
                there = f"a database of {data['database_bytes'] >> 20} MiB and no WAL: {data['unmounted'] or 'is its disk mounted?'}"
            backups = [
                f"backup of {each['taken_at']} at revision {each['revision']} of cluster {each['cluster_id']}: {each['path']}"
                for each in host["look"]["backups"]
            ]
            backups += [f"no backup was looked for: {host['look']['unseen']}"] if host["look"]["unseen"] else []
            found.append("; ".join([f"{name}: member {host['member']['name']} {says}", there, *backups]))
        return [*found, *(f"{name} was not reached in this run" for name in self.missing)]

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
        if self.missing:
            return [
                f"no quorum, and what {', '.join(self.missing)} has is not known: bring them up, run without --limit, or, when they are gone for "
                f"good and switched off, say etcd_restore_without={','.join(self.missing)}"
            ]
        unmounted = [name for name, host in self.hosts.items() if host["look"]["data"]["unmounted"]]
        if unmounted:
            return [f"the disk of the WAL is not mounted on {', '.join(unmounted)}: bring it back before anything is restored"]
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
        if host["look"]["data"]["unmounted"]:
            raise Refusal([f"{wanted.host}: {host['look']['data']['unmounted']}; where it is lost for good, prepare another one with etcd_wal"])
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
        self._whole_cluster()
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
        self._whole_cluster()
        source, path = wanted.host, wanted.backup
        of = {source: self._known(source, "the host with the backup")} if source or path else self.hosts
        answering = {host["look"]["etcd"]["cluster_id"] for name, host in self.hosts.items() if host["look"]["etcd"] and not self.anew(name)}
        cluster_id = wanted.cluster_id or (answering.pop() if len(answering) == 1 else "")
        if path:
            known = self._ids_of_backups()
            cluster_id = cluster_id or (known.pop() if len(known) == 1 else "")
            found = next((each["cluster_id"] for each in of[source]["look"]["backups"] if each["path"] == path), cluster_id)
            if cluster_id and found != cluster_id:
                raise Refusal([
                    f"etcd_restore_backup: {path} is of cluster {found}, and one of {cluster_id} is wanted; where that was made of it by a restore, "
                    f"say etcd_restore_cluster_id={found}"
                ])  # fmt: skip
        else:
            # By revision, which never falls, not by time: a cluster that began anew with no data may have been backed up since.
            candidates = [
                (each["revision"], name, each["path"], each["cluster_id"])
                for name, host in of.items() for each in host["look"]["backups"] if cluster_id in ("", each["cluster_id"])
            ]  # fmt: skip
            if not candidates:
                unseen = "".join(f"; {name}: {host['look']['unseen']}" for name, host in of.items() if host["look"]["unseen"])
                raise Refusal([
                    f"there is no backup{f' of cluster {cluster_id}' if cluster_id else ''} on {', '.join(of)}{unseen}: name one, with "
                    "etcd_restore_host and etcd_restore_backup=PATH"
                ])  # fmt: skip
            clusters = sorted({each[3] for each in candidates})
            if len(clusters) > 1:
                raise Refusal([
                    f"there are backups of different clusters: {', '.join(clusters)}; say which it is, with etcd_restore_cluster_id, or name the "
                    "backup, with etcd_restore_host and etcd_restore_backup=PATH"
                ])  # fmt: skip
            _revision, source, path, cluster_id = max(candidates)
        return Order(new_id, "backup", source, path, cluster_id, self._parts(), "", wanted.bump_revision)

    def _ids_of_backups(self) -> set[str]:
        """The cluster of which the hosts have backups, where it is one: a file from elsewhere has to be of it too."""
        return {each["cluster_id"] for host in self.hosts.values() for each in host["look"]["backups"]}

    def _parts(self) -> dict[str, dict[str, Any]]:
        return {name: _part(host["member"]) for name, host in self.hosts.items()}

    def _known(self, name: str, what: str) -> Mapping[str, Any]:
        if name not in self.hosts:
            raise Refusal([f"etcd_restore_host: {name!r} is not allowed; {what} is needed, one of {', '.join(self.hosts)}"])
        return self.hosts[name]

    def _whole_cluster(self) -> None:
        """All members' hosts have to be there: one that is left out would go on with the old data."""
        wrong = [
            f"{name} is not in this run: bring it up, run without --limit, or, when it is gone for good and switched off, say "
            f"etcd_restore_without={name}"
            for name in self.missing
        ]
        wrong += [
            f"{name}: {host['look']['data']['unmounted']}; where it is lost for good, prepare another one with etcd_wal"
            for name, host in self.hosts.items()
            if host["look"]["data"]["unmounted"]
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
    if order.case == "backup" and cluster.serving:
        lines.append(f"NOTE: {', '.join(cluster.serving)} serves: everything that was written since the backup is lost")
    elif order.case == "backup" and cluster.survivors:
        lines.append(
            f"NOTE: {', '.join(cluster.survivors)} has data of the cluster, which is newer than any backup: see etcd_restore_case=survivor. "
            "With a backup, everything that was written since is lost."
        )
    elif order.case == "backup":
        lines.append("everything that was written after the backup is lost")
    if order.case == "backup" and not order.cluster_id:
        lines.append("NOTE: of which cluster the backup is is not compared: nobody here knows which it has to be (etcd_restore_cluster_id)")
    return lines

