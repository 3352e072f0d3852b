# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan for one node: the static pods that a role asks for, against the facts of the host.

`plan_node` is pure: facts in (`_node.discover`), parsed manifests in, plans and problems out. A problem names the
item, the value, what is allowed and what to do; with any problem nothing is changed anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping

from .._errors import KubetuneError
from . import checks, etcd_servers, recorded, standalone, timing, versions, wal
from .catalogue import COMPONENTS, ETCD, KUBE_APISERVER, Component
from .flags import version_of
from .manifest import Manifest, flags_of
from .plan import Memory, Plan, Wish, plan, plan_times, same, text, wishes

#: Days. kubeadm renews certificates at each upgrade; one that ends within a week may end in the middle of a repair.
CERTIFICATE_MIN_DAYS = 7
#: etcd's flag, and ETCD_CONFIG_FILE.
CONFIG_FILE = "config-file"


@dataclass(frozen=True)
class Request:
    """What a role's variables ask of one static pod.

    Attributes:
        state: ``present``, ``absent`` (all that was set before goes back), or ``recorded`` (the whole as it was once).
        mode: ``merge``, ``standalone`` (ours as a whole: rendered for the first start, merged into from then on), or
            ``auto``: standalone where there is no manifest or it is ours as a whole, else merge.
        profile: ``guide`` or ``upstream``.
        flags, resources: see `plan.wishes`.
        standalone: identity, listeners and paths of a complete manifest; see `standalone`.
        wal: where etcd's WAL shall live, one of `wal.PLACES`.
        etcd_servers: whom the API server asks, one of `etcd_servers.CHOICES`.
        termination_grace_seconds, startup_seconds: for the pod to leave and to start; None: what the sums of `timing` need.
        balancer: ``interval`` (seconds) and ``failures`` of its checks; empty where there is none.
        refused: profile flag -> why the target's binary turned it down.
        recorded: what to go back to, with state ``recorded``.
    """

    state: str = "present"
    mode: str = "auto"
    profile: str = "guide"
    flags: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    standalone: Mapping[str, Any] = field(default_factory=dict)
    allow_downtime: bool = False
    allow_unsafe_version: bool = False
    certificate_min_days: float = CERTIFICATE_MIN_DAYS
    wal: str = "as_it_is"
    etcd_servers: str = "as_it_is"
    termination_grace_seconds: int | None = None
    startup_seconds: int | None = None
    balancer: Mapping[str, Any] | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    recorded: recorded.Recorded | None = None


@dataclass
class Live:
    """A component as it is on the host.

    Attributes:
        manifest: parsed, or None where there is none.
        process: the fact of the running process that belongs to it, or None.
        memory: what the last run applied.
        hint: why it may not run, as far as the host can tell.
    """

    component: Component
    manifest: Manifest | None
    text: str | None
    sha256: str
    process: Mapping[str, Any] | None
    memory: Mapping[str, Any] | None
    hint: str = ""

    @property
    def peak_rss_bytes(self) -> int | None:
        """The most that this process or one before it has needed since the first run; None if unknown."""
        seen = self.process["peak_rss_bytes"] if self.process else None
        remembered = self.memory.get("peak_rss_bytes") if self.memory else None
        return max(seen or 0, remembered or 0) or None

    @property
    def own_flags(self) -> dict[str, str]:
        flags = self.manifest.flags() if self.manifest else {}
        return {name: flags[name][-1] for name in self.component.own_flags if name in flags}


@dataclass
class NodePlan:
    plans: dict[str, Plan] = field(default_factory=dict)
    live: dict[str, Live] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    rendered: dict[str, bool] = field(default_factory=dict)

    @property
    def report(self) -> list[dict[str, Any]]:
        return [line for each in self.plans.values() for line in each.report]

    def changes(self, name: str) -> bool:
        """Whether the manifest of a component will differ from what is there."""
        if name not in self.plans:
            return False
        before = self.live[name].manifest
        return before is None or before.pod != self.plans[name].manifest.pod


def plan_node(requests: Mapping[str, Request], facts: Mapping[str, Any], pods: Mapping[str, Any]) -> NodePlan:
    """
    Args:
        requests: component name -> what is asked of it; the other one stays as it is.
        facts: of `_node.discover.discover`.
        pods: file name -> parsed manifest, for every file in the manifests directory.
    """
    result = NodePlan()
    result.problems += _unfit_host(facts, requests)
    if result.problems:
        return result
    for name, component in COMPONENTS.items():
        try:
            result.live[name] = _live(component, facts, pods)
        except KubetuneError as exc:
            result.problems.append(str(exc))
    if result.problems:
        return result
    for name, request in requests.items():
        _plan_component(result, COMPONENTS[name], request, facts["cluster"])
    _relate(result, requests, facts, pods)
    return result


def _plan_component(
    result: NodePlan, component: Component, request: Request, cluster: Mapping[str, Any] | None
) -> None:
    live = result.live[component.name]
    if request.recorded:
        _plan_recorded(result, live, request.recorded, request)
        return
    try:
        base, rendered = _base(live, request, result.problems)
    except KubetuneError as exc:
        result.problems.append(str(exc))
        return
    if base is None:
        if request.state == "present":
            result.problems.append(
                f"{component.name}: there is no {component.manifest} to merge into, and {component.role}_standalone says "
                "nothing of a complete one: run kubeadm first, or give the standalone variables"
            )
        return
    if live.manifest is not None:
        result.problems += _unfit_process(live, request)
    try:
        version = _version(live, base)
    except ValueError as exc:
        result.problems.append(f"{component.name}: the version cannot be told: {exc}")
        return
    memory = Memory(_canonical(component, (live.memory or {}).get("settings", {})), rendered)
    wanted, dropped, wrong = ({}, {}, []) if request.state == "absent" else _wanted(component, request, base, memory, cluster)
    result.problems += wrong
    if wrong:
        return
    fitted = versions.fit(component, wanted, version)
    result.problems += fitted.problems
    wanted = fitted.wanted
    elsewhere, wrong = _given_elsewhere(base, component, wanted)
    result.problems += wrong
    if wrong:
        return
    wanted = {key: wish for key, wish in wanted.items() if key not in elsewhere}
    planned = plan(component, base, wanted, memory, version)
    for flag, reason in request.refused.items():
        planned.say(f"--{flag}", "refused", component.flag(flag).guide, reason=reason)
    for key, (verdict, value, reason) in elsewhere.items():
        planned.say(key, verdict, value, reason=reason)
    for key, reason in fitted.left_out.items():
        planned.say(key, "left_out", component.flag(key[2:]).guide, reason=reason)
    for key, reason in dropped.items():
        planned.say(key, "left_out", reason=reason)
    result.problems += versions.outlook(planned, version)
    result.problems += _settle_times(planned, request, base, version, cluster)
    if component.name == ETCD:
        result.problems += _unfit_wal(live, planned)
    result.plans[component.name] = planned
    result.rendered[component.name] = rendered


def _plan_recorded(result: NodePlan, live: Live, then: recorded.Recorded, request: Request) -> None:
    component = live.component
    wrong = recorded.obstacles(component, live.manifest, then)
    if wrong or live.manifest is None:
        result.problems += wrong
        return
    result.problems += _unfit_process(live, request)
    memory = Memory((live.memory or {}).get("settings", {}))
    result.plans[component.name] = recorded.plan(component, live.manifest, then, memory)
    result.rendered[component.name] = bool((then.memory or {}).get("rendered"))


def _canonical(component: Component, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is remembered, each flag under its present name."""
    return {f"--{component.flag(key[2:]).name}" if key.startswith("--") else key: each for key, each in settings.items()}


def _wanted(
    component: Component, request: Request, base: Manifest, memory: Memory, cluster: Mapping[str, Any] | None
) -> tuple[dict[str, Wish], dict[str, str], list[str]]:
    """Wishes for flags and resources, setting -> why the profile's wish is dropped, and what is wrong."""
    wrong = timing.unfit(component, request.termination_grace_seconds, request.startup_seconds, request.balancer)
    found, more = wishes(component, request.profile, request.flags, request.resources, request.refused)
    wrong += more
    if wrong:
        return {}, {}, wrong
    if component.name == ETCD:
        return {**found, **wal.wish(request.wal, base.flags(), memory)}, {}, []
    instead, dropped, wrong = timing.flag_wishes(component, found, request.termination_grace_seconds, request.balancer)
    servers, more = etcd_servers.wish(request.etcd_servers, base.flags(), memory, cluster)
    return {key: wish for key, wish in {**found, **instead, **servers}.items() if key not in dropped}, dropped, wrong + more


def _settle_times(
    planned: Plan, request: Request, base: Manifest, version: tuple[int, ...], cluster: Mapping[str, Any] | None
) -> list[str]:
    if request.state == "absent":
        plan_times(planned, {}, version)
        return []
    known = cluster or {}
    servers = planned.manifest.flags().get(etcd_servers.FLAG[2:], [])
    if request.etcd_servers != "local" and "," in ",".join(servers) and etcd_servers.FLAG in planned.settings:
        planned.say(etcd_servers.FLAG, "warning", servers, reason=etcd_servers.BLAST_RADIUS)
    return timing.settle(
        planned, base, version, known.get("database_bytes"),
        computed=request.profile == "guide" or bool(request.balancer) or any(name in request.flags for name in timing.FLAGS),
        grace=request.termination_grace_seconds,
        startup=request.startup_seconds,
        balancer=request.balancer,
        members=len(known.get("members", [])),
    )


def _base(live: Live, request: Request, problems: list[str]) -> tuple[Manifest | None, bool]:
    """The manifest that the settings are merged into, and whether the whole of it is ours.

    One that is there is always the base: a running member's identity, paths and version are not changed here.

    Raises:
        KubetuneError: a complete manifest is wanted, and cannot be rendered.
    """
    component = live.component
    remembered = live.memory or {}
    rendered_before = bool(remembered.get("rendered"))
    untouched = remembered.get("written_sha256") == live.sha256
    complete = request.mode == "standalone" or (request.mode == "auto" and bool(request.standalone))
    if request.state == "absent" or not complete:
        return live.manifest, rendered_before and untouched
    if live.manifest is not None and not rendered_before:
        if request.mode == "standalone":
            problems.append(
                f"{component.name}: {component.manifest} is there and was not rendered by this collection: use mode merge, or "
                "take the manifest away first"
            )
        return live.manifest, False
    rendered = Manifest(standalone.render(component.name, request.standalone), component.name)
    if live.manifest is None:
        return rendered, True
    moved = {key[2:] for key in (wal.FLAG, etcd_servers.FLAG) if key in (remembered.get("settings") or {})}
    differences = _differences(component, live.manifest, rendered, moved)
    # Somebody else has replaced ours, as kubeadm does: merge into theirs.
    if untouched or request.mode == "standalone":
        problems += differences
    return live.manifest, not differences


def _differences(component: Component, live: Manifest, rendered: Manifest, moved: set[str]) -> list[str]:
    """What a complete manifest must not change of one that is there, but for the flags that this collection ``moved``."""
    variable = f"{component.role}_standalone"
    before, after = live.flags(), rendered.flags()
    found = [
        f"{component.name} --{name}: {text(before.get(name)) or 'nothing'} is there, and {variable} makes "
        f"{text(after.get(name)) or 'nothing'} of it: identity, listeners, certificates and paths of a running member are not "
        "moved here; give what is there"
        for name in sorted(component.identity - standalone.FIRST_START - moved)
        if before.get(name) != after.get(name)
    ]
    if live.image != rendered.image:
        found.append(
            f"{component.name} image: {live.image} is there, and {variable} says {rendered.image}: an upgrade is another "
            "operation; give the image that is there, or upgrade the member first"
        )
    return found


def _unfit_host(facts: Mapping[str, Any], requests: Mapping[str, Request]) -> list[str]:
    name = facts["distribution"]
    if name not in ("", "kubeadm"):
        return [
            f"this is a {name} host: it manages its control plane itself, and only kubeadm's static pods are handled; "
            f"set the flags in {name}'s own configuration"
        ]
    standalone_wanted = any(request.standalone for request in requests.values())
    if not name and not standalone_wanted:
        return [
            "this is not a kubeadm control-plane host: /etc/kubernetes is missing; run kubeadm first, or take the host out "
            "of the group"
        ]
    has = facts["manifests"]
    if f"{KUBE_APISERVER}.yaml" not in has and not standalone_wanted:
        return [
            f"this host runs no control plane: {facts['manifests_directory']} has no {KUBE_APISERVER}.yaml; take the host "
            "out of the group (a worker?), or put the manifest back"
        ]
    return []


def _live(component: Component, facts: Mapping[str, Any], pods: Mapping[str, Any]) -> Live:
    files = [name for name, pod in pods.items() if _pod_name(pod) == component.name]
    for name in files:
        if name != component.manifest:
            raise KubetuneError(
                f"{component.name}: {facts['manifests_directory']}/{name} holds this pod too, and the kubelet reads every "
                "file whose name does not start with a dot: move it out of the directory"
            )
    try:
        manifest = Manifest(pods[component.manifest], component.name) if component.manifest in pods else None
    except KubetuneError as exc:
        raise KubetuneError(f"{facts['manifests_directory']}/{component.manifest}: {exc}") from exc
    file = facts["manifests"].get(component.manifest, {})
    live = Live(component, manifest, file.get("text"), file.get("sha256", ""), None, facts["memory"][component.name])
    for process in facts["processes"][component.name]:
        flags = flags_of(process["argv"][1:])
        if manifest and all(flags.get(name, [""])[-1] == value for name, value in live.own_flags.items()):
            live.process = process
    if component.name == ETCD:
        live.hint = facts["wal_disk"]
    if component.name == ETCD and manifest is None:
        _no_external_etcd(facts, pods)
    return live


def _no_external_etcd(facts: Mapping[str, Any], pods: Mapping[str, Any]) -> None:
    if f"{KUBE_APISERVER}.yaml" not in pods:
        return
    servers = Manifest(pods[f"{KUBE_APISERVER}.yaml"], KUBE_APISERVER).flags().get("etcd-servers", [""])[-1]
    if servers:
        raise KubetuneError(
            f"etcd: this cluster uses an external etcd ({servers}), and {facts['manifests_directory']} has no etcd.yaml: "
            "only etcd members which are kubeadm's static pods are handled"
        )


def _unfit_process(live: Live, request: Request) -> list[str]:
    """What is wrong with a running process; one that does not run is looked at when it is known whether it changes."""
    name = live.component.name
    references = live.manifest.references if live.manifest else []
    if references and (live.process is None or list(live.process["argv"]) != (live.manifest and live.manifest.argv)):
        return [
            f"{name}: the kubelet fills in {', '.join(references)} of its manifest, so that what runs cannot be compared with it: "
            "write the values themselves there"
        ]
    if live.process is None:
        return []
    wrong = []
    planned = live.manifest.argv if live.manifest else []
    if list(live.process["argv"]) != planned:
        wrong.append(
            f"{name}: the running process (pid {live.process['pid']}) does not have the arguments of its manifest: the "
            "kubelet has not taken the manifest up; look at its journal"
        )
    for fact in live.process["certificates"]:
        if fact["problem"]:
            wrong.append(f"{name} --{fact['flag']}: {fact['path']}: {fact['problem']}; renew it (kubeadm certs renew)")
        elif fact["days_left"] is not None and fact["days_left"] < request.certificate_min_days:
            wrong.append(
                f"{name} --{fact['flag']}: {fact['path']} ends in {fact['days_left']} days, at least "
                f"{request.certificate_min_days:g} are wanted before a restart; renew it (kubeadm certs renew)"
            )
    return wrong


def _given_elsewhere(
    live: Manifest, component: Component, wanted: Mapping[str, Wish]
) -> tuple[dict[str, tuple[str, list[str] | None, str]], list[str]]:
    """Settings that are given where merging does not reach: setting -> (verdict, value, reason); and what is wrong with that.

    etcd does not start with a flag and its variable both set, be they equal, and its --version does not tell
    (pkg/flags/flag.go, verifyEnv; 3.6.16 and 3.7.3 were run). With --config-file it reads nothing else.
    """
    found: dict[str, tuple[str, list[str] | None, str]] = {}
    file = live.flags().get(CONFIG_FILE) or live.variable(CONFIG_FILE)
    if file and wanted:
        return found, [
            f"{component.name} --{CONFIG_FILE}: etcd takes everything from that file, and ignores all flags and variables: put "
            f"its settings on the command line, or set {component.role}_profile to upstream and no flags or resources"
        ]
    strange = [variable.name for variable in (live.variable(name) for name in sorted(component.identity)) if variable]
    wrong = [
        f"{component.name}: the container's environment says who this member is ({', '.join(strange)}), and only flags are read: "
        "give it with flags instead"
    ] if strange and wanted else []
    for key, wish in wanted.items():
        if not key.startswith("--"):
            continue
        flag = component.flag(key[2:])
        variable = next((each for each in map(live.variable, flag.lives) if each), None)
        if variable is None:
            continue
        value = None if variable.value is None else [variable.value]
        if wish.values is None or same(flag, value, wish.values):
            found[key] = ("already_right" if wish.values else "left_out", value, f"{variable.name} in the container's environment gives it")
        elif wish.explicit:
            wrong.append(
                f"{component.name} {key}: {variable.name} is set in the container's environment "
                f"({text(value) or 'filled in by the kubelet'}), and etcd does not start with both: remove the variable from "
                f"{component.manifest}, or the flag from {component.role}_flags"
            )
        else:
            found[key] = (
                "kept", value,
                f"{variable.name} in the container's environment gives it, and etcd does not start with both: remove the variable "
                f"for the profile's {text(wish.values)}",
            )
    return found, wrong


def _unfit_wal(live: Live, planned: Plan) -> list[str]:
    """Why the WAL cannot be moved; empty where it can, or stays."""
    manifests = [each for each in (live.manifest, planned.manifest) if each]
    inside = [wal.directory(each.flags()) for each in manifests]
    if inside[0] == inside[-1]:
        return []
    return [
        f"etcd {wal.FLAG}: {path} is in no hostPath volume of the pod, and the host cannot move a WAL that it does not see"
        for each, path in zip(manifests, inside)
        if not each.host_path(path)
    ]


def _repair(result: NodePlan, name: str, known: bool) -> list[str]:
    """A manifest whose process does not run: a change of it is tried as the repair, anything else is for a person.

    Args:
        known: whether the cluster can be reached without it.
    """
    live, planned = result.live[name], result.plans[name]
    if result.changes(name) and known and not live.hint:
        planned.say("process", "warning", reason=f"no {name} runs now: this change of its manifest is tried as the repair")
        return []
    return [
        f"{name}: {live.component.manifest} is there, but no such process runs: "
        + (live.hint or f"mend it first (crictl ps -a, /var/log/pods/kube-system_{name}-*)")
    ]


def _relate(
    result: NodePlan, requests: Mapping[str, Request], facts: Mapping[str, Any], pods: Mapping[str, Any]
) -> None:
    """Everything that concerns more than one setting."""
    planned = list(result.plans.values())
    names = {f"{name}.yaml" for name in result.plans}
    others = [pod for name, pod in pods.items() if name not in names and isinstance(pod, Mapping)]
    for each in planned:
        result.problems += checks.limits(each, result.live[each.component.name].peak_rss_bytes)
    result.problems += checks.fit(planned, others, facts["allocatable"])
    cluster = facts["cluster"] or {}
    for name, each in result.plans.items():
        if result.live[name].manifest is not None and result.live[name].process is None:
            result.problems += _repair(result, name, known=name != ETCD or bool(cluster))
        version = _version(result.live[name], each.manifest)
        if name == ETCD:
            result.problems += checks.etcd_version(version, requests[name].allow_unsafe_version)
            result.problems += checks.etcd(each, version, cluster.get("database_bytes"))
        else:
            result.problems += checks.kube_apiserver(each, version)
    if any(result.changes(name) for name in result.plans):
        result.problems += [f"etcd: {problem}" for problem in cluster.get("problems", [])]
    if result.changes(ETCD) and len(cluster.get("members", [])) in (1, 2) and not requests[ETCD].allow_downtime:
        result.problems.append(
            f"etcd: this cluster has {len(cluster['members'])} member(s), and restarting one stops it for a while: set "
            "etcd_static_pod_allow_downtime to true to consent"
        )


def _version(live: Live, manifest: Manifest) -> tuple[int, ...]:
    """Of what will run: the process's own word, as the image stays; before the first start the image's tag."""
    return version_of(live.process["version"] if live.process else manifest.image.rpartition(":")[2])


def _pod_name(pod: Any) -> str:
    return str((pod.get("metadata") or {}).get("name")) if isinstance(pod, Mapping) else ""
