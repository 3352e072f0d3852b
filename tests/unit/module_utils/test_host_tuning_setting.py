# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three-way decision, and the options it starts from."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._block.device import Device
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._host_tuning import schedulers
from ansible_collections.kubetune.control_plane.plugins.module_utils._host_tuning.profile import (
    Choice,
    Desired,
    resolve,
)
from ansible_collections.kubetune.control_plane.plugins.module_utils._host_tuning.setting import (
    Record,
    Setting,
    Value,
    decide,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.module_utils.fake_host import DEFAULTS


def _setting(
    live: int | None, wanted: int | None, at_least: bool = False, obstacle: str = "", idle: bool = False
) -> Setting:
    return Setting(
        key="k",
        item="x",
        paths={"x": "/x"},
        live=None if live is None else Value("x", str(live)),
        wanted=None if wanted is None else Value("x", str(wanted)),
        keeps=lambda value: at_least and wanted is not None and int(value.text) > wanted,
        obstacle=obstacle,
        idle=idle,
    )


def _record(original: int, applied: int) -> Record:
    return Record(Value("x", str(original)), Value("x", str(applied)))


@pytest.mark.parametrize(
    ("setting", "record", "verdict", "target", "remembered"),
    [
        pytest.param(_setting(1, 5), None, "changed", 5, _record(1, 5), id="first time"),
        pytest.param(_setting(5, 5), None, "already_right", 5, _record(5, 5), id="right before us"),
        pytest.param(_setting(5, 5), _record(1, 5), "already_right", 5, _record(1, 5), id="second run"),
        pytest.param(_setting(3, 5), _record(1, 5), "changed", 5, _record(1, 5), id="drift"),
        pytest.param(_setting(5, 7), _record(1, 5), "changed", 7, _record(1, 7), id="new value"),
        pytest.param(_setting(9, 5, at_least=True), None, "kept", None, None, id="larger on purpose"),
        pytest.param(_setting(9, 5, at_least=True), _record(1, 5), "kept", None, None, id="enlarged by hand after us"),
        pytest.param(
            _setting(8, 5, at_least=True),
            _record(1, 8),
            "changed",
            5,
            _record(1, 5),
            id="our own larger value is no purpose",
        ),
        pytest.param(
            _setting(8, 5, at_least=True), _record(9, 8), "restored", 9, None, id="original larger than the profile"
        ),
        pytest.param(_setting(5, None), _record(1, 5), "restored", 1, None, id="not wanted any more"),
        pytest.param(_setting(1, None), _record(1, 5), "restored", None, None, id="back by itself"),
        pytest.param(_setting(None, 5, obstacle="no such value"), None, "refused", None, None, id="absent here"),
        pytest.param(_setting(1, 5, obstacle="read-only"), None, "refused", None, None, id="read-only here"),
        pytest.param(
            _setting(5, 5, obstacle="read-only"), None, "already_right", 5, _record(5, 5), id="read-only and right"
        ),
        pytest.param(
            _setting(1, 5, obstacle="read-only"), _record(1, 5), "refused", None, _record(1, 5), id="read-only since"
        ),
        pytest.param(
            _setting(5, None, obstacle="gone"), _record(1, 5), "left_out", None, _record(1, 5), id="cannot be put back"
        ),
        pytest.param(
            _setting(5, 5, idle=True), _record(1, 5), "ignored", 5, _record(1, 5), id="set and without effect"
        ),
    ],
)
def test_decisions(
    setting: Setting, record: Record | None, verdict: str, target: int | None, remembered: Record | None
) -> None:
    decision = decide(setting, record)
    assert decision.verdict == verdict
    assert decision.target == (None if target is None else Value("x", str(target)))
    assert decision.record == remembered


_STEPS = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 9)), st.booleans()), max_size=8)


@settings(deadline=None)
@given(st.integers(0, 9), _STEPS)
def test_whatever_was_wanted_the_original_comes_back(original: int, steps: list[tuple[int | None, bool]]) -> None:
    """Any series of runs is idempotent at each step and ends, by absent, at the value from before the first one."""
    live, record = original, None
    for wanted, at_least in [*steps, (None, False)]:
        for again in (False, True):
            if wanted is None and record is None:
                continue
            decision = decide(_setting(live, wanted, at_least), record)
            assert not (again and decision.writes)
            record = decision.record
            if decision.target is not None:
                live = int(decision.target.text)
    assert (live, record) == (original, None)


def chosen(desired: Desired, kind: str, hardware_queues: int = 1) -> Choice | None:
    device = Device("/sys/x", kind, (), "none", 128, (), hardware_queues)
    choice, _ = schedulers.choose(desired, device) or (None, "")
    return choice


@pytest.mark.parametrize(
    ("kind", "hardware_queues", "guide", "automatic"),
    [
        ("nvme", 8, "none", "none"),
        ("ssd", 1, "mq-deadline", "mq-deadline"),
        ("ssd", 4, "mq-deadline", "none"),
        ("rotational", 1, "mq-deadline", "mq-deadline"),
        ("rotational", 4, "mq-deadline", "mq-deadline"),
        ("virtual", 1, "mq-deadline", "keep"),
        ("virtual", 4, "mq-deadline", "keep"),
        ("loop", 1, "mq-deadline", "keep"),
        ("other", 1, "keep", "keep"),
    ],
)
def test_scheduler_by_class_with_its_reason(kind: str, hardware_queues: int, guide: str, automatic: str) -> None:
    device = Device("/sys/x", kind, (), "none", 128, (), hardware_queues)
    everywhere = {**DEFAULTS, "scheduler": "auto", "scheduler_by_class": {"nvme": "auto"}}
    for options, value in ((DEFAULTS, guide), (everywhere, automatic)):
        found = schedulers.choose(resolve(options), device)
        assert found is not None and found[0] == Choice(value, False)
        assert schedulers.about(device) in found[1] and len(found[1]) > len(schedulers.about(device)) + 2


def test_what_a_person_chose_needs_no_reason() -> None:
    device = Device("/sys/x", "virtual", (), "none", 128, ())
    assert schedulers.choose(resolve({**DEFAULTS, "scheduler": "kyber"}), device) == (Choice("kyber", True), "")


def test_guide_profile() -> None:
    desired = resolve(DEFAULTS)
    assert chosen(desired, "ssd") == Choice("mq-deadline", False)
    assert chosen(desired, "nvme") == Choice("none", False)
    assert desired.read_ahead == Choice("1024", False)
    assert desired.nofile == Choice("65536", False)
    assert {name: choice.value for name, choice in desired.sysctls.items()} == {
        "net.core.rmem_max": "134217728",
        "net.core.wmem_max": "134217728",
        "net.ipv4.tcp_rmem": "4096 65536 134217728",
        "net.ipv4.tcp_wmem": "4096 65536 134217728",
        "vm.dirty_background_ratio": "5",
        "vm.dirty_ratio": "15",
        "vm.swappiness": "1",
    }


def test_upstream_profile_wants_only_what_is_given() -> None:
    desired = resolve({**DEFAULTS, "profile": "upstream", "sysctls": {"vm.swappiness": 10}})
    assert (chosen(desired, "ssd"), desired.read_ahead, desired.nofile) == (None, None, None)
    assert desired.sysctls == {"vm.swappiness": Choice("10", True)}


def test_explicit_scheduler_leaves_nvme_alone_unless_named() -> None:
    desired = resolve({**DEFAULTS, "scheduler": "noop"})
    assert chosen(desired, "ssd") == Choice("none", True)
    assert chosen(desired, "nvme") == Choice("none", False)
    desired = resolve(
        {**DEFAULTS, "scheduler": "bfq", "scheduler_by_class": {"nvme": "kyber", "ssd": "deadline", "loop": None}}
    )
    assert [chosen(desired, kind) for kind in ("nvme", "ssd", "loop")] == [
        Choice("kyber", True),
        Choice("mq-deadline", True),
        Choice("bfq", True),
    ]


def test_bytes_replace_the_profiles_percentage_and_null_removes() -> None:
    desired = resolve({**DEFAULTS, "sysctls": {"vm.dirty_bytes": 1073741824, "vm.swappiness": None, "vm.other": None}})
    assert "vm.dirty_ratio" not in desired.sysctls and "vm.swappiness" not in desired.sysctls
    assert set(desired.left_out) == {"vm.dirty_ratio", "vm.swappiness"}


def test_zero_and_keep_leave_things_alone() -> None:
    desired = resolve({**DEFAULTS, "nofile": 0, "read_ahead_mode": "keep", "scheduler": "keep"})
    assert (desired.nofile, desired.read_ahead, chosen(desired, "ssd")) == (None, None, Choice("keep", True))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"paths": ["var/lib/etcd"]}, "'var/lib/etcd' is not an absolute path"),
        ({"scheduler": "mq deadline"}, "scheduler 'mq deadline': not a scheduler's name"),
        (
            {"scheduler_by_class": {"hdd": "bfq"}},
            "'hdd' is no class of disks; there are nvme, ssd, rotational, virtual, loop",
        ),
        ({"scheduler_by_class": {"ssd": 5}}, "scheduler '5' of class ssd: not a scheduler's name"),
        ({"read_ahead_kb": -4}, "read_ahead_kb -4: allowed is 0 to 65536 KiB"),
        ({"read_ahead_kb": 1023}, "in whole pages"),
        ({"read_ahead_kb": 1024, "read_ahead_mode": "keep"}, "give one of the two"),
        ({"nofile": 12}, "nofile 12: allowed is 1024 up to fs.nr_open"),
        ({"sysctls": {"vm.swappiness": 500}}, "sysctl vm.swappiness: '500' is out of range"),
        ({"sysctls": {"vm.dirty_ratio": 10, "vm.dirty_bytes": 1048576}}, "the kernel knows only one of the two"),
        ({"sysctls": {"vm.dirty_ratio": 5}}, "vm.dirty_background_ratio 5: has to be below vm.dirty_ratio, 5"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal) as caught:
        resolve({**DEFAULTS, **options})
    assert says in str(caught.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(Refusal) as caught:
        resolve({**DEFAULTS, "paths": ["x", "y"], "nofile": 1, "sysctls": {"vm.swappiness": -1}})
    assert len(caught.value.problems) == 4
