# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind the module ``kubeadm_config``: read on the host, merge here, replace on the host unless it changed meanwhile."""

from __future__ import annotations

import json
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.kubetune.control_plane.plugins.module_utils import _report
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.hosts import Host, leaves_its_disk
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.plan import ITEM, ROLE
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import KUBE_APISERVER
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _kubeadm

CONFIG_MAP = "kubetune.control_plane.kubeadm_config_map"
#: Times that somebody else may be faster.
TRIES = 5

_HOST = {
    "name": {"type": "str", "required": True},
    "member": {"type": "str", "default": ""},
    "members": {"type": "list", "elements": "str", "default": []},
    "problem": {"type": "str", "default": ""},
    "components": {"type": "list", "elements": "str", "default": []},
    "tuned": {"type": "dict", "default": {}},
    "running": {"type": "dict", "default": {}},
}
_SPEC = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "hosts": {"type": "list", "elements": "dict", "required": True, "options": _HOST},
    "withdraw": {"type": "bool", "default": False},
    "kubeconfig": {"type": "path", "default": "/etc/kubernetes/admin.conf"},
}


class ActionModule(ActionBase):
    _requires_connection = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        name = self._vars.get("inventory_hostname", "this host")
        _checked, given = self.validate_argument_spec(argument_spec=_SPEC)
        # Plain data from here on: ansible-core tags the strings of variables, and YAML's dumper knows no such type.
        given = json.loads(json.dumps(given))
        try:
            result.update(self._keep([Host(**host) for host in given["hosts"]], given))
        except KubetuneError as exc:
            raise AnsibleActionFail(f"{name}: {exc}") from None
        return result

    def _keep(self, hosts: list[Host], given: dict[str, Any]) -> dict[str, Any]:
        if not any(KUBE_APISERVER in host.components for host in hosts):
            return _left_out("no host of this play runs an API server yet: there is nothing to ask")
        if given["withdraw"] and not any(leaves_its_disk(host) for host in hosts):
            return {"changed": False, "report": [], "diff": []}
        problems = [f"{host.name}: {host.problem}" for host in hosts if host.problem]
        if problems:
            raise KubetuneError(f"the members of the etcd cluster cannot be told, so nothing is kept: {'; '.join(problems)}")
        for _attempt in range(TRIES):
            text = self._module(operation="read", kubeconfig=given["kubeconfig"])["object"]
            if not text:
                return _left_out("this cluster has none: its manifests are not kubeadm's, and no upgrade of kubeadm's touches them")
            change = _kubeadm.change(json.loads(text), hosts, given["state"], given["withdraw"])
            result = {"changed": change.new is not None, "report": change.report, "diff": change.diff}
            if change.new is None or self._task.check_mode:
                return result
            done = self._module(operation="replace", kubeconfig=given["kubeconfig"], object=json.dumps(change.new))
            if done["kept"]:
                if done["notice"]:
                    change.report.append(_report.entry(ROLE, ITEM, "warning", reason=done["notice"]))
                return {**result, "kept": done["kept"]}
        raise KubetuneError(
            f"kubeadm-config was changed by somebody else each of the {TRIES} times that it was to be written: find out by whom "
            "(kubectl --namespace kube-system get configmap kubeadm-config --show-managed-fields --output yaml), then run again"
        )

    def _module(self, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(module_name=CONFIG_MAP, module_args=arguments, task_vars=self._vars)
        if answer.get("failed"):
            raise KubetuneError(answer.get("msg", str(answer)))
        return answer


def _left_out(reason: str) -> dict[str, Any]:
    return {"changed": False, "report": [_report.entry(ROLE, ITEM, "left_out", reason=reason)], "diff": []}
