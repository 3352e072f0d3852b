# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of the static pods: YAML in, plan, order for the host out. No connection here."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Mapping, Sequence

import yaml

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError, Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.access import address_flags, etcd_access
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.state import SCHEMA
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.order import KEEP, Order, Part, Wal, new_id
from ansible_collections.kubetune.control_plane.plugins.module_utils._report import difference
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod import wal
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS, ETCD, KUBE_APISERVER
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.manifest import Manifest
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.node import (
    Live,
    NodePlan,
    Request,
)
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.plan import Plan
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.recorded import Recorded, describe, parts_at
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _yaml, _yaml_edit


def parse_manifests(facts: Mapping[str, Any]) -> dict[str, Any]:
    """File name -> parsed YAML of each file in the manifests directory.

    Raises:
        Refusal: a file is no YAML; the kubelet would stop its pod at the next restart.
    """
    pods, wrong = {}, []
    for name, file in facts["manifests"].items():
        try:
            pods[name] = _yaml.load(file["text"])
        except yaml.YAMLError as exc:
            if isinstance(exc, yaml.composer.ComposerError) and "single document" in str(exc.context):
                wrong.append(
                    f"{facts['manifests_directory']}/{name} holds several YAML documents, and the kubelet reads the first one only: "
                    "take the others out"
                )
                continue
            mark = getattr(exc, "problem_mark", None)
            where = f" line {mark.line + 1}" if mark else ""
            wrong.append(
                f"{facts['manifests_directory']}/{name}{where} is not YAML ({getattr(exc, 'problem', exc)}): mend it, the "
                "kubelet drops a pod whose manifest it cannot read"
            )
    if wrong:
        raise Refusal(wrong)
    return pods


def requests_for(
    states: Sequence[Mapping[str, Any]], window: str, requests: Mapping[str, Request]
) -> dict[str, Request]:
    """What going back to before a window asks of each static pod that has changed since.

    Args:
        requests: component -> the request that it would be otherwise, for its consents and limits.
    """
    return {
        component: replace(
            requests.get(component, Request()),
            state="recorded",
            recorded=Recorded(by, part["text"], None if part["text"] is None else _yaml.load(part["text"]), part["memory"]),
        )
        for component, (by, part) in parts_at(states, window).items()
    }


def describe_states(states: Sequence[Mapping[str, Any]], live: Mapping[str, Live]) -> list[dict[str, Any]]:
    """Each recorded state as ``id``, ``run_id``, ``outcome`` of the window that ended it, and ``differences`` from now."""
    found = []
    for state in states:
        lines: list[str] = []
        for component, request in requests_for(states, state["id"], {}).items():
            now = live[component].manifest
            if now and request.recorded:
                lines += describe(COMPONENTS[component], now, request.recorded)
        found.append({**{key: state[key] for key in ("id", "run_id", "outcome")}, "differences": lines})
    return found


def new_text(planned: Plan, live: Live, request: Request) -> str | None:
    """The manifest's text after the change; the very bytes of before us where nobody else has touched it since.

    A text that is there is edited; one that cannot be is written anew, and ``planned`` reports it.
    """
    memory = live.memory or {}
    if live.manifest is not None and live.manifest.pod == planned.manifest.pod:
        return live.text
    if request.recorded:
        return request.recorded.text
    if request.state == "absent" and memory:
        untouched = memory.get("written_sha256") == live.sha256
        if untouched and memory.get("rendered"):
            return None
        if untouched and memory.get("original_text") is not None:
            return str(memory["original_text"])
    if live.text is None:
        return _yaml.dump(planned.manifest.pod)
    try:
        return _yaml_edit.edit(live.text, planned.manifest.pod)
    except _yaml_edit.NotKept as exc:
        planned.say(
            "layout", "warning", reason=f"comments and layout of {planned.component.manifest} are not kept, it is written anew: {exc}"
        )
        return _yaml.dump(planned.manifest.pod)


def make_order(
    result: NodePlan,
    requests: Mapping[str, Request],
    facts: Mapping[str, Any],
    run_id: str,
    foresee: bool = False,
    watch_seconds: float = 0,
    history_keep: int = KEEP,
) -> Order | None:
    """The order for the host; None where nothing changes.

    Args:
        foresee: it is only looked at (check mode): etcd may be what another task would have started.
    """
    etcd_manifest, api_manifest = _manifest(result, ETCD), _manifest(result, KUBE_APISERVER)
    member = etcd_manifest.flags().get("name", ["default"])[-1] if etcd_manifest else ""
    access: dict[str, Any] = {}
    if etcd_manifest:
        access = etcd_access(on_host(etcd_manifest)).to_dict()
        access["endpoints"] = list(dict.fromkeys([*access["endpoints"], *(facts["cluster"] or {}).get("endpoints", [])]))
    # With it the cluster is found on a day when this host's own etcd does not run.
    notes = {ETCD: {"access": {**access, "member": member}}, KUBE_APISERVER: {}}
    parts = {name: _part(result, name, requests.get(name), notes[name]) for name in (ETCD, KUBE_APISERVER)}
    if not any(part and part.changes for part in parts.values()):
        return None
    if etcd_manifest is None and not foresee:
        raise KubetuneError("etcd: this host has no member, and without one no change can be proved")
    return Order(
        id=new_id(),
        run_id=run_id,
        host=facts["host"],
        manifests_directory=facts["manifests_directory"],
        etcd=parts[ETCD],
        kube_apiserver=parts[KUBE_APISERVER],
        etcd_access=access,
        member=member,
        api_server=where(api_manifest) if api_manifest else {},
        wal=_wal(result) if result.changes(ETCD) else None,
        bootstraps=facts["cluster"] is None,
        allow_downtime=any(request.allow_downtime for request in requests.values()),
        watch_seconds=watch_seconds,
        keep=history_keep,
    )


def diffs(order: Order | None, facts: Mapping[str, Any]) -> list[dict[str, str]]:
    found = []
    for name, part in ((ETCD, order and order.etcd), (KUBE_APISERVER, order and order.kube_apiserver)):
        if part and part.changes:
            path = f"{facts['manifests_directory']}/{name}.yaml"
            found.append(difference(path, part.old or "", part.new or ""))
    return found


def _part(result: NodePlan, name: str, request: Request | None, notes: Mapping[str, Any]) -> Part | None:
    live, planned = result.live[name], result.plans.get(name)
    if planned is None or request is None:
        if live.manifest is None:
            return None
        argv = tuple(live.manifest.argv)
        return Part(live.text, live.text, argv, argv, live.own_flags, None, grace=live.manifest.grace)
    text = new_text(planned, live, request)
    # The text of before us may spell or order the same settings in another way than the plan.
    after = planned.manifest if text is None else Manifest(_yaml.load(text), name)
    flags = after.flags()
    return Part(
        old=live.text,
        new=text,
        argv=tuple(after.argv),
        old_argv=tuple(live.manifest.argv) if live.manifest else (),
        own_flags={key: flags[key][-1] for key in planned.component.own_flags if key in flags},
        memory=_memory(result, name, text, request, notes),
        old_memory=live.memory,
        # The old process has to go on the way there, the new one on the way back.
        grace=max(each.grace for each in (live.manifest, planned.manifest) if each),
    )


def _wal(result: NodePlan) -> Wal | None:
    """Where the WAL is and shall be on the host; None where the manifest does not tell."""
    live, new = result.live[ETCD].manifest, result.plans[ETCD].manifest
    flags = new.flags()
    data = new.host_path(wal.data_directory(flags))
    place = new.host_path(wal.directory(flags))
    before = live.host_path(wal.directory(live.flags())) if live else ""
    if not data or not place or before is None:
        return None
    disk = f"{data}/{wal.MOUNT_POINT}"
    return Wal(old=before, new=place, data=data, mount=disk if place.startswith(f"{disk}/") else "")


def _memory(
    result: NodePlan, name: str, text: str | None, request: Request, notes: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    if request.recorded:
        return request.recorded.memory
    if request.state == "absent":
        return None
    live, planned = result.live[name], result.plans[name]
    before = live.memory or {}
    original = live.text
    if before:
        # Somebody else wrote in between: the first text is no longer what to go back to.
        original = before.get("original_text") if before.get("written_sha256") == live.sha256 else None
    return {
        **notes,
        "schema": SCHEMA,
        "component": name,
        "settings": planned.settings,
        "rendered": result.rendered[name],
        "original_text": original,
        # A restart sets the process's own peak back, and the next run would take a tight limit for a safe one.
        "peak_rss_bytes": live.peak_rss_bytes,
        "written_sha256": hashlib.sha256((text or "").encode()).hexdigest(),
    }


def _manifest(result: NodePlan, name: str) -> Manifest | None:
    if name in result.plans:
        return result.plans[name].manifest
    return result.live[name].manifest


def on_host(manifest: Manifest) -> dict[str, list[str]]:
    """The flags with each path as the host sees it."""
    return {
        name: [manifest.host_path(value) or value if value.startswith("/") else value for value in values]
        for name, values in manifest.flags().items()
    }


def where(manifest: Manifest) -> dict[str, list[str]]:
    return address_flags(on_host(manifest))
