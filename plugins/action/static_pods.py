# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind the module ``static_pods``: discover, plan and judge; then the window, followed with progress."""

from __future__ import annotations

import json
import time
from typing import Any, Mapping

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError, Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window import patience
from ansible_collections.kubetune.control_plane.plugins.module_utils._node_window.order import KEEP
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import ETCD, KUBE_APISERVER
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.etcd_servers import CHOICES
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.node import NodePlan, Request, plan_node
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.wal import PLACES
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _static_pods

display = Display()

INFO = "kubetune.control_plane.static_pods_info"
WINDOW = "kubetune.control_plane.node_window"
#: Value of ``recorded`` that only lists.
LIST = "list"
#: A window ends by itself (`_node_window.window`); this is only how long nobody hears of it.
SILENCE = 900
#: Seconds that its unit may need to be started again: after a reboot it waits for the kubelet.
IDLE = 60
#: Seconds before a lost host is asked again.
LOST_PAUSE = 5

_OPTIONS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "mode": {"type": "str", "choices": ["auto", "merge", "standalone"], "default": "auto"},
    "profile": {"type": "str", "choices": ["guide", "upstream"], "default": "guide"},
    "flags": {"type": "dict", "default": {}},
    "resources": {"type": "dict", "default": {}},
    "standalone": {"type": "dict", "default": {}},
    "allow_downtime": {"type": "bool", "default": False},
    "allow_unsafe_version": {"type": "bool", "default": False},
    "certificate_min_days": {"type": "float", "default": 7},
    "startup_seconds": {"type": "int"},
}
_OF_API_SERVER: dict[str, dict[str, Any]] = {
    "etcd_servers": {"type": "str", "choices": list(CHOICES), "default": CHOICES[0]},
    "termination_grace_seconds": {"type": "int"},
    "balancer": {"type": "dict"},
}
_SPEC = {
    "apply": {"type": "bool", "default": True},
    "resume": {"type": "bool", "default": True},
    "run_id": {"type": "str"},
    "recorded": {"type": "str"},
    "watch_seconds": {"type": "float", "default": 30},
    "history_keep": {"type": "int", "default": KEEP},
    "etcd": {"type": "dict", "options": {**_OPTIONS, "wal": {"type": "str", "choices": list(PLACES), "default": PLACES[0]}}},
    "kube_apiserver": {"type": "dict", "options": {**_OPTIONS, **_OF_API_SERVER}},
}


class ActionModule(ActionBase):
    _requires_connection = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        self._host = self._vars.get("inventory_hostname", "this host")
        _checked, given = self.validate_argument_spec(argument_spec=_SPEC)
        # Plain data from here on: ansible-core tags the strings of variables, and YAML's dumper knows no such type.
        given = json.loads(json.dumps(given))
        requests = {
            name: Request(**{key: value for key, value in given[option].items()})
            for name, option in ((ETCD, "etcd"), (KUBE_APISERVER, "kube_apiserver"))
            if given[option] is not None
        }
        try:
            _in_range(given)
            result.update(self._change(requests, given))
        except Refusal as exc:
            lines = "\n".join(f"- {problem}" for problem in exc.problems)
            raise AnsibleActionFail(f"{self._host}: refused, and nothing was changed:\n{lines}") from None
        except KubetuneError as exc:
            raise AnsibleActionFail(f"{self._host}: {exc}") from None
        return result

    def _change(self, requests: dict[str, Request], given: Mapping[str, Any]) -> dict[str, Any]:
        apply, run_id = given["apply"], given["run_id"] or f"{self._host}-{time.time_ns()}"
        facts, ended = self._facts(
            given["resume"] and not self._task.check_mode,
            history=bool(given["recorded"]), as_api_server=any(request.etcd_servers == "all" for request in requests.values()),
        )
        if given["recorded"] == LIST:
            return {"changed": False, "states": self._states(facts)}
        if given["recorded"]:
            requests = _static_pods.requests_for(facts["history"], given["recorded"], requests)
        plan, requests = self._plan(requests, facts)
        order = _static_pods.make_order(
            plan, requests, facts, run_id, self._task.check_mode, given["watch_seconds"], given["history_keep"]
        )
        cluster = facts["cluster"] or {}
        result = {
            "changed": ended or (apply and order is not None),
            "needs_change": order is not None,
            "report": plan.report,
            "member": cluster.get("name", ""),
            "leads": bool(cluster.get("name")) and cluster.get("name") == cluster.get("leader"),
            "run_id": run_id,
        }
        if apply:
            result["diff"] = _static_pods.diffs(order, facts)
        if order is None or not apply or self._task.check_mode:
            return result
        self._module(WINDOW, operation="start", order=order.to_dict())
        result["window"] = self._follow(order.id)
        return result

    # --- discover and plan ------------------------------------------------------------------------------------

    def _facts(self, resume: bool, **options: Any) -> tuple[dict[str, Any], bool]:
        """(what is on the host, whether a window that was open there or was cut off has come to its end first)."""
        facts = self._look(options)
        unfinished = facts["unfinished"]
        if unfinished and not resume:
            raise KubetuneError("a node window is open on this host or was cut off, and this run changes nothing: one of site.yml ends it first")
        if unfinished:
            display.display(f"{self._host}: a node window is open or was cut off; it is ended first")
            self._module(WINDOW, operation="resume")
            try:
                self._follow(unfinished["id"])
            except _Unchanged as exc:
                # The node is well and as it was before that window: this run's own plan decides.
                display.warning(f"{self._host}: the window that was open there has ended: {exc}")
            facts = self._look(options)
        return facts, bool(unfinished)

    def _look(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Facts of the host; while another host's window has its member away, that is waited for and not refused."""
        end, said = time.monotonic() + patience.LOCK_WAIT, False
        while True:
            facts: dict[str, Any] = self._module(INFO, **options)["facts"]
            etcd = facts["cluster"] or {}
            holder = etcd.get("changing")
            if not holder or not etcd["problems"] or facts["unfinished"] or time.monotonic() > end:
                return facts
            if not said:
                display.display(
                    f"{self._host}: waiting for {holder.get('host', 'another host')}, which has the cluster lock for "
                    f"{holder.get('purpose', 'an unknown purpose')} ({'; '.join(etcd['problems'])})"
                )
                said = True
            time.sleep(patience.LOCK_PAUSE)

    def _states(self, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
        plan = plan_node({}, facts, _static_pods.parse_manifests(facts))
        if plan.problems:
            raise Refusal(plan.problems)
        return _static_pods.describe_states(facts["history"], plan.live)

    def _plan(self, requests: dict[str, Request], facts: Mapping[str, Any]) -> tuple[NodePlan, dict[str, Request]]:
        """Plan until the binaries take it: a flag of the profile that one refuses is left out, an explicit one is an error."""
        pods = _static_pods.parse_manifests(facts)
        while True:
            plan = plan_node(requests, facts, pods)
            if plan.problems:
                raise Refusal(plan.problems)
            turned_down = self._judge(plan, requests)
            if not turned_down:
                return plan, requests
            for name, refused in turned_down.items():
                request = requests[name]
                requests = {**requests, name: Request(**{**vars(request), "refused": {**request.refused, **refused}})}

    def _judge(self, plan: NodePlan, requests: Mapping[str, Request]) -> dict[str, dict[str, str]]:
        """Component -> profile flags that its binary does not take; deprecation notices go into the report."""
        programs: dict[str, dict[str, Any]] = {}
        for name, planned in plan.plans.items():
            live = plan.live[name]
            argv = planned.manifest.argv
            if not plan.changes(name) or (live.manifest and argv == live.manifest.argv):
                continue
            which = {"pid": live.process["pid"]} if live.process else {"image": (planned.manifest.container or {})["image"]}
            programs[name] = {**which, "flags": argv[1:]}
        if not programs:
            return {}
        verdicts = self._module(WINDOW, operation="judge", judge=programs)["verdicts"]
        turned_down: dict[str, dict[str, str]] = {}
        wrong = []
        for name, verdict in verdicts.items():
            planned = plan.plans[name]
            change = planned.change_of(f"--{verdict['flag']}")
            if verdict["accepted"]:
                for notice in verdict["notices"]:
                    planned.say("deprecation", "warning", reason=notice)
            elif change and not change.explicit:
                turned_down[name] = {verdict["flag"]: f"the binary on this host says: {verdict['text']}"}
            else:
                wrong.append(
                    f"{' --'.join(filter(None, (name, verdict['flag'])))}: the binary on this host refuses it: {verdict['text']}; correct "
                    f"{planned.component.role}_flags"
                )
        if wrong:
            raise Refusal(wrong)
        return turned_down

    # --- the window -------------------------------------------------------------------------------------------

    def _follow(self, window_id: str) -> dict[str, Any]:
        events: list[dict[str, Any]] = []
        heard = running = time.monotonic()
        while time.monotonic() - heard < SILENCE:
            try:
                news = self._module(WINDOW, operation="follow", id=window_id, seen=len(events))
            except _Lost as exc:
                display.warning(f"{self._host}: {exc}; the window goes on there, asking again")
                time.sleep(LOST_PAUSE)
                continue
            if news["events"]:
                heard = time.monotonic()
            if news["running"]:
                running = time.monotonic()
            elif not news["result"] and time.monotonic() - running > IDLE:
                raise KubetuneError(
                    f"node window {window_id} ended without a result: see 'journalctl -u kubetune-window' and "
                    "/var/lib/kubetune/window on the host; another run takes it up again"
                )
            for event in news["events"]:
                self._show(event, (events or news["events"])[0]["time"])
            events += news["events"]
            if news["result"]:
                return self._verdict({**news["result"], "id": window_id, "events": events})
        raise KubetuneError(f"node window {window_id} has said nothing for {SILENCE} s: see 'journalctl -u kubetune-window'")

    def _show(self, event: Mapping[str, Any], start: float) -> None:
        text = f" {event['text']}" if event.get("text") else ""
        display.display(f"{self._host}: {event['time'] - start:5.1f} s  {event['step']} {event['state']}{text}", color="bright blue")

    def _verdict(self, window: dict[str, Any]) -> dict[str, Any]:
        outcome = window["outcome"]
        if outcome == "changed":
            return window
        log = "".join(f"\n    {line}" for line in window["log"])
        after = {
            "refused": "nothing was changed",
            "degraded": "this node is changed and healthy, the cluster is not: nothing more is changed",
            "rolled_back": "the old manifests are back and healthy",
            "broken": "THIS NODE NEEDS A PERSON",
        }[outcome]
        failure = _Unchanged if outcome in ("refused", "rolled_back") else KubetuneError
        raise failure(f"{window['message']} ({after})" + (f"\n  last lines of the container:{log}" if log else ""))

    def _module(self, name: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._execute_module(module_name=name, module_args=arguments, task_vars=self._vars)
        except AnsibleConnectionFailure as exc:
            raise _Lost(f"the host cannot be reached: {exc}") from exc
        if not answer.get("failed"):
            return answer
        message = answer.get("msg", f"{name} failed")
        if "module_stdout" in answer:
            # What came back is not the module's own answer: it was cut off in the middle, as by a reboot.
            raise _Lost(f"{message} {answer.get('module_stderr', '')}".strip())
        raise KubetuneError(message)


def _in_range(given: Mapping[str, Any]) -> None:
    for name, least, most, variable in (
        ("watch_seconds", 0, 600, "node_window_watch_seconds"), ("history_keep", 1, 1000, "node_window_history_keep"),
    ):
        if not least <= given[name] <= most:
            raise KubetuneError(f"{name}: {given[name]} is not allowed, {least} to {most} is; correct {variable}")


class _Unchanged(KubetuneError):
    """The window has ended, and the node is healthy with the manifests from before it."""


class _Lost(KubetuneError):
    """The connection has failed, and not what the host does."""
