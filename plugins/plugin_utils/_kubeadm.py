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
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.plan import ANNOTATION, plan
from ansible_collections.kubetune.control_plane.plugins.module_utils._report import difference
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _static_pods


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
        data = _static_pods.load(text)
    except yaml.YAMLError as exc:
        raise KubetuneError(f"{KEY} in ConfigMap {NAMESPACE}/{NAME} is not YAML ({exc}): mend it first") from exc
    planned = plan(data, annotations.get(ANNOTATION), hosts, state, withdraw)
    after = text if planned.configuration.data == data else _static_pods.dump(planned.configuration.data)
    remembered = planned.memory.to_annotation()
    if after == text and remembered == annotations.get(ANNOTATION):
        return Change(None, [], planned.report)
    new = copy.deepcopy(dict(config_map))
    new["data"][KEY] = after
    annotations.pop(ANNOTATION, None)
    new["metadata"]["annotations"] = {**annotations, **({ANNOTATION: remembered} if remembered else {})}
    diff = [difference(f"ConfigMap {NAMESPACE}/{NAME} {KEY}", text, after)] if after != text else []
    return Change(new, diff, planned.report)
