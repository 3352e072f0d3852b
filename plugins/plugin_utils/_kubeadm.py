# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of kubeadm's configuration: YAML in, plan, the new ConfigMap out. No connection here."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

import yaml

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.config_map import KEY, NAME, NAMESPACE
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.hosts import Host
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.plan import ANNOTATION, ITEM, ROLE, plan
from ansible_collections.kubetune.control_plane.plugins.module_utils._report import difference, entry
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _yaml, _yaml_edit


@dataclass
class Change:
    """
    Attributes:
        new: the ConfigMap as it shall be, None where it stays.
        diff: of the ClusterConfiguration, empty where it stays.
    """

    new: dict[str, Any] | None
    diff: list[dict[str, str]]
    report: list[dict[str, Any]]


def change(config_map: Mapping[str, Any], hosts: Sequence[Host], state: str, withdraw: bool = False) -> Change:
    """What becomes of the ConfigMap as it was read.

    Raises:
        KubetuneError: it cannot be understood; the text says what to do.
    """
    text = (config_map.get("data") or {}).get(KEY)
    if not text:
        raise KubetuneError(f"ConfigMap {NAMESPACE}/{NAME} has no {KEY}: mend it first (kubeadm init phase upload-config kubeadm)")
    annotations = dict(config_map["metadata"].get("annotations") or {})
    try:
        data = _yaml.load(text)
    except yaml.YAMLError as exc:
        raise KubetuneError(f"{KEY} in ConfigMap {NAMESPACE}/{NAME} is not YAML ({exc}): mend it first") from exc
    planned = plan(data, annotations.get(ANNOTATION), hosts, state, withdraw)
    report = list(planned.report)
    try:
        after = _yaml_edit.edit(text, planned.configuration.data)
    except _yaml_edit.NotKept as exc:
        after = _yaml.dump(planned.configuration.data)
        report.append(entry(ROLE, ITEM, "warning", reason=f"comments and layout of {KEY} are not kept, it is written anew: {exc}"))
    remembered = planned.memory.to_annotation()
    if after == text and remembered == annotations.get(ANNOTATION):
        return Change(None, [], report)
    new = copy.deepcopy(dict(config_map))
    new["data"][KEY] = after
    annotations.pop(ANNOTATION, None)
    new["metadata"]["annotations"] = {**annotations, **({ANNOTATION: remembered} if remembered else {})}
    diff = [difference(f"ConfigMap {NAMESPACE}/{NAME} {KEY}", text, after)] if after != text else []
    return Change(new, diff, report)
