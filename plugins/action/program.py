# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind the module ``program``: build the program here, install it there when it differs."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.kubetune.control_plane.plugins.module_utils._report import difference, entry
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _zipapp

MODULE_UTILS = Path(__file__).resolve().parent.parent / "module_utils"
MODE = "0755"
ITEM = "program"
ROLE = "program"
#: Where a unit would stand that runs the program.
UNIT_DIRECTORIES = ["/etc/systemd/system", "/run/systemd/system", "/run/systemd/transient"]

_SPEC = {
    "path": {"type": "path", "default": "/usr/local/lib/kubetune/kubetune.pyz"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "leaving": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):
    _requires_connection = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        _checked, given = self.validate_argument_spec(argument_spec=_SPEC)
        path = given["path"]
        found = self._module("ansible.legacy.stat", path=path, checksum_algorithm="sha256")["stat"]
        if found["exists"] and not found["isreg"]:
            raise AnsibleActionFail(f"{path} exists and is not a file: move it away, or choose another path")
        if given["state"] == "absent":
            result.update(self._remove(path, found, given["leaving"]))
        else:
            result.update(self._install(path, found))
        return result

    def _install(self, path: str, found: dict[str, Any]) -> dict[str, Any]:
        data = _zipapp.build(MODULE_UTILS)
        wanted = hashlib.sha256(data).hexdigest()
        present = found["exists"] and found["checksum"] == wanted
        if present and found["mode"] == MODE and found["uid"] == 0:
            return {"changed": False, "checksum": wanted, "report": [entry(ROLE, ITEM, "already_right", path)]}
        if not self._task.check_mode:
            self._module("ansible.legacy.file", path=os.path.dirname(path), state="directory", mode=MODE, owner="root")
            self._put(data, path)
        return {
            "changed": True,
            "checksum": wanted,
            "diff": [_diff(path, found, f"sha256 {wanted}\nmode {MODE}\n")],
            "report": [entry(ROLE, ITEM, "changed", path)],
        }

    def _put(self, data: bytes, path: str) -> None:
        """The copy action writes beside the file and renames, so a program that is running keeps its own."""
        with tempfile.NamedTemporaryFile(prefix="kubetune-") as local:
            local.write(data)
            local.flush()
            task = self._task.copy()
            task.args = {"src": local.name, "dest": path, "mode": MODE, "owner": "root"}
            task.diff = False
            copy = self._shared_loader_obj.action_loader.get(
                "ansible.legacy.copy",
                task=task,
                connection=self._connection,
                play_context=self._play_context,
                loader=self._loader,
                templar=self._templar,
                shared_loader_obj=self._shared_loader_obj,
            )
            outcome = copy.run(task_vars=self._vars)
        if outcome.get("failed"):
            raise AnsibleActionFail(f"{path} cannot be installed: {outcome.get('msg', outcome)}")

    def _remove(self, path: str, found: dict[str, Any], leaving: list[str]) -> dict[str, Any]:
        if not found["exists"]:
            return {"changed": False, "report": [entry(ROLE, ITEM, "already_right", reason="it is not there")]}
        units = self._module(
            "ansible.legacy.find", paths=UNIT_DIRECTORIES, patterns=["*.service"], contains=f".*{path} .*"
        )["files"]
        users = ", ".join(sorted({os.path.basename(each["path"]) for each in units} - set(leaving)))
        if users:
            return {"changed": False, "report": [entry(ROLE, ITEM, "left_out", path, reason=f"{users} runs it")]}
        if not self._task.check_mode:
            self._module("ansible.legacy.file", path=path, state="absent")
            if not self._module("ansible.legacy.find", paths=os.path.dirname(path), file_type="any")["matched"]:
                self._module("ansible.legacy.file", path=os.path.dirname(path), state="absent")
        return {
            "changed": True,
            "diff": [_diff(path, found, "")],
            "report": [entry(ROLE, ITEM, "restored", previous=path)],
        }

    def _module(self, name: str, **arguments: Any) -> dict[str, Any]:
        outcome: dict[str, Any] = self._execute_module(module_name=name, module_args=arguments, task_vars=self._vars)
        if outcome.get("failed"):
            raise AnsibleActionFail(str(outcome.get("msg", outcome)))
        return outcome


def _diff(path: str, found: dict[str, Any], after: str) -> dict[str, str]:
    before = f"sha256 {found['checksum']}\nmode {found['mode']}\n" if found["exists"] else ""
    return difference(path, before, after)
