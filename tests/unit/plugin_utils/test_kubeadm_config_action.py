# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action's loop against an API in which somebody else writes at the worst moment. tests/persistence has the real one."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.kubetune.control_plane.plugins.action.kubeadm_config import TRIES, ActionModule
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._kubeadm.hosts import Host

from tests.unit.hosts import FIXTURES

TUNED = {"etcd": {"max-wals": ["7"]}, "kube-apiserver": {}}
ON_DISK = {"etcd": {"wal-dir": ["/var/lib/etcd/wal-disk/wal"]}}


def host(**changes: Any) -> Host:
    given = {"name": "cp1", "member": "cp1", "members": ["cp1"], "components": ["etcd", "kube-apiserver"], "tuned": TUNED, "running": TUNED}
    return Host(**{**given, **changes})


class Api(ActionModule):
    """The action, and the host's side of it: replaced only with the resourceVersion that is current.

    Args:
        others: how many times somebody else sets the API server's ``v`` between a read and the replacement.
    """

    def __init__(self, others: int = 0, check_mode: bool = False, there: bool = True) -> None:
        self._task = SimpleNamespace(check_mode=check_mode)
        self.others, self.calls, self.notice = others, [], ""
        text = (FIXTURES / "cluster-configuration" / "v1beta4.yaml").read_text()
        self.found = {"metadata": {"resourceVersion": "1"}, "data": {"ClusterConfiguration": text}} if there else None

    @property
    def args(self) -> dict[str, str]:
        data = yaml.safe_load(self.found["data"]["ClusterConfiguration"])
        given = [*(data["apiServer"].get("extraArgs") or []), *(data["etcd"]["local"].get("extraArgs") or [])]
        return {each["name"]: each["value"] for each in given}

    def _module(self, **arguments: Any) -> dict[str, Any]:
        self.calls.append(arguments["operation"])
        if arguments["operation"] == "read":
            return {"object": json.dumps(self.found) if self.found else ""}
        if self.others:
            self.others -= 1
            data = yaml.safe_load(self.found["data"]["ClusterConfiguration"])
            data["apiServer"]["extraArgs"] = [{"name": "v", "value": str(self.others)}]
            self.write({**self.found, "data": {"ClusterConfiguration": yaml.safe_dump(data)}})
        new = json.loads(arguments["object"])
        if new["metadata"]["resourceVersion"] != self.found["metadata"]["resourceVersion"]:
            return {"kept": "", "notice": ""}
        self.write(new)
        return {"kept": "/old.json", "notice": self.notice}

    def write(self, new: dict[str, Any]) -> None:
        version = str(int(self.found["metadata"]["resourceVersion"]) + 1)
        self.found = {**new, "metadata": {**new["metadata"], "resourceVersion": version}}

    def keep(self, *hosts: Host, state: str = "present", withdraw: bool = False) -> dict[str, Any]:
        return self._keep(list(hosts), {"state": state, "withdraw": withdraw, "kubeconfig": "/k"})


def test_it_is_written_once_and_then_never_again() -> None:
    api = Api()
    first = api.keep(host())
    assert first["changed"] and first["kept"] == "/old.json" and api.args == {"max-wals": "7"}
    version = api.found["metadata"]["resourceVersion"]
    second = api.keep(host())
    assert not second["changed"] and not second["diff"] and api.found["metadata"]["resourceVersion"] == version
    assert api.calls == ["read", "replace", "read"]


@pytest.mark.parametrize("others", [1, TRIES - 1])
def test_what_somebody_else_writes_in_between_stays(others: int) -> None:
    api = Api(others)
    assert api.keep(host())["changed"]
    assert api.args == {"v": "0", "max-wals": "7"}


def test_it_ends_when_somebody_else_is_always_faster() -> None:
    api = Api(others=TRIES)
    with pytest.raises(KubetuneError, match=f"each of the {TRIES} times.*show-managed-fields"):
        api.keep(host())
    assert api.args == {"v": "0"} and api.calls.count("replace") == TRIES


def test_check_mode_shows_and_writes_nothing() -> None:
    api = Api(check_mode=True)
    done = api.keep(host())
    assert done["changed"] and "max-wals" in done["diff"][0]["after"] and api.calls == ["read"]


def test_a_kubeadm_that_could_not_judge_is_said() -> None:
    api = Api()
    api.notice = "kubeadm could not"
    assert api.keep(host())["report"][-1] == {
        "role": "kubeadm_persistence", "item": "kubeadm-config", "verdict": "warning", "value": None, "previous": None,
        "reason": "kubeadm could not",
    }


@pytest.mark.parametrize(
    ("api", "hosts", "text"),
    [
        (Api(there=False), [host()], "this cluster has none"),
        (Api(), [host(components=[])], "no host of this play runs an API server"),
        (Api(), [], "no host of this play runs an API server"),
    ],
)
def test_without_kubeadm_it_is_left_out(api: Api, hosts: list[Host], text: str) -> None:
    done = api.keep(*hosts)
    assert not done["changed"] and [line["verdict"] for line in done["report"]] == ["left_out"] and text in done["report"][0]["reason"]


def test_an_unknown_member_list_is_an_error() -> None:
    api = Api()
    with pytest.raises(KubetuneError, match="cp1: no member answers"):
        api.keep(host(members=[], problem="no member answers"))
    assert api.calls == []


def test_withdrawing_asks_the_api_only_where_a_wal_leaves_its_disk() -> None:
    api = Api()
    api.keep(host(tuned=ON_DISK, running=ON_DISK))
    assert "wal-dir" in api.args
    api.calls.clear()
    assert not api.keep(host(tuned=ON_DISK, running=ON_DISK), withdraw=True)["changed"] and api.calls == []
    assert api.keep(host(tuned={"etcd": {}}, running=ON_DISK), withdraw=True)["changed"] and "wal-dir" not in api.args
