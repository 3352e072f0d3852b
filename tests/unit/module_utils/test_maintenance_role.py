# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role, the module and its documentation say the same; the units; what is judged before anything is written."""

from __future__ import annotations

import configparser
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.config import parse
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.install import (
    CONFIG,
    Installation,
    schedule_problems,
)
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.units import Schedule, service, timer
from ansible_collections.kubetune.control_plane.plugins.modules import etcd_maintenance

from tests.unit.module_utils.test_maintenance_config import GOOD, changed

ROLE = Path(__file__).resolve().parents[3] / "roles/etcd_maintenance"
MODULE: dict[str, dict[str, Any]] = yaml.safe_load(etcd_maintenance.DOCUMENTATION)["options"]
ASPECTS = ("type", "elements", "choices", "default")


def _yaml(name: str) -> Any:
    return yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))


def _documented(options: dict[str, dict[str, Any]], nested: str) -> dict[str, Any]:
    found = {}
    for name, option in options.items():
        found[name] = {key: option[key] for key in ASPECTS if key in option}
        if nested in option:
            found[name]["options"] = _documented(option[nested], nested)
    return found


def _flat(options: dict[str, dict[str, Any]], prefix: str) -> dict[str, Any]:
    """Names and defaults of the variables that a role needs for these options."""
    found = {}
    for name, option in options.items():
        if "suboptions" in option:
            found.update(_flat(option["suboptions"], f"{prefix}{name}_"))
        else:
            found[prefix + name] = option["default"]
    return found


def test_documentation_is_that_of_the_arguments() -> None:
    assert _documented(MODULE, "suboptions") == _documented(etcd_maintenance._SPEC, "options")


def test_role_defaults_are_those_of_its_specs_and_of_the_module() -> None:
    defaults = _yaml("defaults/main.yml")
    options = _yaml("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert defaults == {name: option["default"] for name, option in options.items()}
    module = _flat(MODULE, "etcd_maintenance_")
    # One place for the program and the state on every host.
    del module["etcd_maintenance_program"], module["etcd_maintenance_state_directory"]
    assert defaults == module


def test_module_defaults_are_a_good_configuration() -> None:
    def defaults(spec: dict[str, Any]) -> dict[str, Any]:
        return {
            name: defaults(option["options"]) if "options" in option else option["default"]
            for name, option in spec.items()
        }

    assert defaults(etcd_maintenance._CONFIG) == GOOD
    parse(GOOD)


def _unit(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def test_service_may_write_to_its_two_directories_only() -> None:
    unit = _unit(service("/usr/bin/python3", "/p.pyz", CONFIG, parse(GOOD), 7200))["Service"]
    assert unit["ProtectSystem"] == "strict"
    assert unit["ReadWritePaths"].split() == ["-/var/lib/kubetune", "-/var/backups/etcd"]
    assert unit["ExecStart"] == f"/usr/bin/python3 /p.pyz maintenance run --config {CONFIG}"


@pytest.mark.parametrize(
    ("path", "value", "capabilities"),
    [("backup.etcdutl", "auto", "CAP_SYS_PTRACE"), ("backup.etcdutl", "none", ""), ("backup.enabled", False, "")],
)
def test_service_has_one_capability_and_only_where_it_needs_it(path: str, value: Any, capabilities: str) -> None:
    unit = _unit(service("/usr/bin/python3", "/p.pyz", CONFIG, parse(changed(path, value)), 7200))["Service"]
    assert unit["CapabilityBoundingSet"] == capabilities


def test_timer_makes_up_for_what_it_missed_with_a_delay_of_each_host() -> None:
    unit = _unit(timer(Schedule("Mon 04:00", 600, 7200)))["Timer"]
    assert dict(unit) == {
        "OnCalendar": "Mon 04:00",
        "RandomizedDelaySec": "600",
        "FixedRandomDelay": "yes",
        "AccuracySec": "1s",
        "Persistent": "yes",
    }


@pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="the machine has no systemd-analyze, which is the judge"
)
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule("*-*-* 02:30:00", 1800, 7200), []),
        (Schedule("Sun 03:00 Europe/Berlin", 0, 4200), []),
        (Schedule("at night", 0, 7200), ["calendar: 'at night' is not allowed; a calendar event of systemd.time"]),
        (
            Schedule("", -1, 4199),
            [
                "calendar: '' is not allowed",
                "random_delay_seconds: -1 is not allowed; 0 to 86400",
                "timeout_seconds: 4199 is not allowed; at least 4200 is needed",
            ],
        ),
    ],
)
def test_every_problem_of_a_schedule_is_named(schedule: Schedule, expected: list[str]) -> None:
    found = schedule_problems(schedule, 900)
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected))


def test_certificates_that_are_not_there_are_named_before_anything_is_written(tmp_path: Path) -> None:
    config = parse(changed("cert_file", "/does/not/exist.crt"))
    with pytest.raises(KubetuneError, match="/does/not/exist.crt"):
        Installation(config, check=False, root=tmp_path).install(Schedule("daily", 0, 7200), "/p.pyz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="the machine has no systemd-analyze, which is the judge"
)
def test_module_names_what_is_wrong_with_configuration_and_schedule_together(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = {"calendar": "at night", "backup": {"keep": 0}, "_ansible_check_mode": True}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        etcd_maintenance.main()
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] and "backup.keep: 0" in told["msg"] and "calendar: 'at night'" in told["msg"]
