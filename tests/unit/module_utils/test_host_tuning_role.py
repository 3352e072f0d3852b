# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role, the module and its documentation say the same; the module runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.kubetune.control_plane.plugins.module_utils._block.device import KINDS
from ansible_collections.kubetune.control_plane.plugins.modules import host_tuning

from tests.unit.module_utils.fake_host import DEFAULTS

ROLE = Path(__file__).resolve().parents[3] / "roles" / "host_tuning"


def _yaml(name: str) -> Any:
    return yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))


OPTIONS: dict[str, dict[str, Any]] = _yaml("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
MODULE: dict[str, dict[str, Any]] = yaml.safe_load(host_tuning.DOCUMENTATION)["options"]


def test_defaults_are_those_of_the_argument_specs() -> None:
    defaults = _yaml("defaults/main.yml")
    assert defaults.pop("host_tuning_profile") == "{{ kubetune_profile | default('guide') }}"
    assert defaults == {name: each.get("default") for name, each in OPTIONS.items() if name != "host_tuning_profile"}


def test_both_entry_points_take_the_same() -> None:
    specs = _yaml("meta/argument_specs.yml")["argument_specs"]
    assert specs["plan"]["options"] == specs["main"]["options"]


@pytest.mark.parametrize("tasks", ["tasks/main.yml", "tasks/plan.yml"])
def test_every_option_of_the_module_is_a_variable_of_the_role(tasks: str) -> None:
    (task,) = _yaml(tasks)
    assert task["kubetune.control_plane.host_tuning"] == {name: f"{{{{ host_tuning_{name} }}}}" for name in MODULE}
    assert {f"host_tuning_{name}" for name in MODULE} == set(OPTIONS)


def test_documentation_is_that_of_the_arguments() -> None:
    aspects = ("type", "elements", "choices", "default")
    documented = {name: {key: each[key] for key in aspects if key in each} for name, each in MODULE.items()}
    assert documented == host_tuning.ARGUMENT_SPEC


def test_module_in_check_mode_on_this_very_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """Only reads. Without root it says so."""
    arguments = {"profile": "upstream", "sysctls": {"vm.swappiness": 7}, "_ansible_check_mode": True}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        host_tuning.main()
    result = json.loads(capsys.readouterr().out)
    if os.geteuid() != 0:
        assert result["failed"] and "become" in result["msg"]
        return
    (swappiness,) = [each for each in result["report"] if each["item"] == "vm.swappiness"]
    assert swappiness["value"] == "7"
    assert result["changed"] == (swappiness["verdict"] == "changed")


def test_role_and_module_agree_on_types_choices_and_defaults() -> None:
    for name, documented in MODULE.items():
        for aspect in ("type", "elements", "choices", "default"):
            assert OPTIONS[f"host_tuning_{name}"].get(aspect) == documented.get(aspect), (name, aspect)
        assert DEFAULTS[name] == documented.get("default"), name


def test_every_class_of_disks_is_in_the_argument_spec() -> None:
    assert tuple(OPTIONS["host_tuning_scheduler_by_class"]["options"]) == KINDS
