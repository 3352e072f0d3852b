# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role, the module and its documentation say the same; the units; what is judged before anything is written."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance import install
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.config import parse
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.install import (
    CONFIG,
    Installation,
    schedule_problems,
)
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.units import Job, Schedule, jobs, service, timer
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
    parser = configparser.ConfigParser(interpolation=None, strict=False)  # systemd merges lines of one name
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


MAINTENANCE, BACKUP, DRILL = jobs(Schedule("daily", 0, 7200, "hourly", "weekly"))


def _service(job: Job, config: dict[str, Any] = GOOD) -> configparser.SectionProxy:
    return _unit(service(job, "/usr/bin/python3", "/p.pyz", CONFIG, parse(config), 7200))["Service"]


@pytest.mark.parametrize(
    ("job", "command", "writable"),
    [
        (MAINTENANCE, "run", "/var/backups/etcd /usr/local/lib/kubetune/etcd-tools"),
        (BACKUP, "backup", "/var/backups/etcd /usr/local/lib/kubetune/etcd-tools"),
        (DRILL, "drill", "/var/lib/kubetune/drill"),
    ],
)
def test_service_may_write_to_its_directories_only(job: Job, command: str, writable: str) -> None:
    unit = _service(job)
    assert unit["ProtectSystem"] == "strict"
    directories = ["/var/lib/kubetune", *writable.split(), "/var/lib/node_exporter/textfile_collector"]
    assert unit["ReadWritePaths"].split() == [f"-{path}" for path in directories]
    assert unit["ExecStart"] == f"/usr/bin/python3 /p.pyz maintenance {command} --config {CONFIG}"


@pytest.mark.parametrize(
    ("tools", "backups", "method", "capabilities"),
    [
        ("auto", True, "online", "CAP_SYS_PTRACE"), ("/opt/etcd", True, "window", ""), ("auto", False, "online", ""),
        ("auto", False, "window", "CAP_SYS_PTRACE"), ("auto", False, "auto", "CAP_SYS_PTRACE"),
    ],
)
def test_service_has_one_capability_and_only_where_it_needs_it(tools: str, backups: bool, method: str, capabilities: str) -> None:
    config = changed("tools", tools)
    config["backup"]["enabled"], config["defragmentation"]["method"] = backups, method
    assert _service(MAINTENANCE, config)["CapabilityBoundingSet"] == capabilities


@pytest.mark.parametrize(("endpoint", "denied"), [("https://127.0.0.1:2379", True), ("https://10.0.0.1:2379", False)])
def test_drill_reaches_nothing_but_this_host(endpoint: str, denied: bool) -> None:
    assert ("IPAddressDeny" in _service(DRILL, changed("endpoint", endpoint))) is denied
    assert "IPAddressDeny" not in _service(BACKUP, changed("endpoint", endpoint))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="the machine has no systemd-analyze, which is the judge")
@pytest.mark.parametrize("job", [MAINTENANCE, BACKUP, DRILL], ids=lambda job: job.name)
def test_exposure_of_each_service_is_at_most_three(job: Job, tmp_path: Path) -> None:
    """As `systemd-analyze security` counts it, from 0 (safe) to 10; systemd before 250 does not judge files."""
    path = tmp_path / job.service
    path.write_text(service(job, "/usr/bin/python3", "/p.pyz", CONFIG, parse(GOOD), 7200))
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)], capture_output=True, text=True, check=False
    )
    if "unrecognized option" in told.stderr:
        pytest.skip("this systemd-analyze does not judge files")
    found = re.search(r"Overall exposure level.*: ([0-9.]+) ", told.stdout)
    assert found and float(found.group(1)) <= 3.0, told.stdout + told.stderr


def test_timer_makes_up_for_what_it_missed_with_a_delay_of_each_host() -> None:
    schedule = Schedule("Mon 04:00", 600, 7200)
    unit = _unit(timer(jobs(schedule)[0], schedule))["Timer"]
    assert dict(unit) == {
        "OnCalendar": "Mon 04:00",
        "RandomizedDelaySec": "600",
        "FixedRandomDelay": "yes",
        "AccuracySec": "1s",
        "Persistent": "yes",
    }


def test_a_service_is_there_also_where_no_timer_starts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a restore, and for a person who wants a backup now."""
    monkeypatch.setattr(install, "client_of", lambda config: SimpleNamespace(status=lambda: None, delete=lambda *_keys: None))
    said: list[str] = []
    (tmp_path / "etc/systemd/system").mkdir(parents=True)

    def run(command: list[str]) -> SimpleNamespace:
        said.append(" ".join(command))
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    def units(backup_calendar: str, **backup: Any) -> set[str]:
        said.clear()
        config = changed("defragmentation.method", "online")
        config["backup"].update(backup)
        Installation(parse(config), check=False, root=tmp_path, run=run).install(Schedule("daily", 0, 7200, backup_calendar), "/p.pyz")
        return {path.name for path in (tmp_path / "etc/systemd/system").iterdir()}

    services = {"etcd-maintenance.service", "etcd-backup.service", "etcd-restore-drill.service"}
    assert units("") == {*services, "etcd-maintenance.timer"}
    assert units("hourly") == {*services, "etcd-maintenance.timer", "etcd-backup.timer"}
    assert "systemctl enable --quiet --now etcd-backup.timer" in said
    assert units("") == {*services, "etcd-maintenance.timer"}
    assert "systemctl disable --quiet --now etcd-backup.timer" in said
    assert units("", enabled=False) == {*services, "etcd-maintenance.timer"} - {"etcd-backup.service"}
    assert "systemctl stop etcd-backup.service" in said


@pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="the machine has no systemd-analyze, which is the judge"
)
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule("*-*-* 02:30:00", 1800, 7200), []),
        (Schedule("Sun 03:00 Europe/Berlin", 0, 4200), []),
        (Schedule("daily", 0, 7200, "hourly", "monthly"), []),
        (Schedule("daily", 0, 7200, "now and then"), ["backup_calendar: 'now and then' is not allowed"]),
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
    arguments = {"calendar": "at night", "backup": {"keep_daily": -1}, "_ansible_check_mode": True}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        etcd_maintenance.main()
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] and "backup.keep_daily: -1" in told["msg"] and "calendar: 'at night'" in told["msg"]
