# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import sys
import time

import pytest

from tests.lab import console
from tests.lab.errors import LabError


def test_a_failure_carries_the_command_its_status_and_its_last_lines() -> None:
    program = "import sys; [print(n) for n in range(100)]; sys.exit(3)"
    with pytest.raises(LabError) as error:
        console.run([sys.executable, "-c", program])
    lines = str(error.value).splitlines()
    assert "status 3" in lines[0]
    assert lines[-1] == "99"
    assert len(lines) < 20


def test_a_missing_program_is_named() -> None:
    with pytest.raises(LabError, match=r"no-such-program is not installed; .*bootstrap\.sh"):
        console.run(["no-such-program"])


def test_a_command_does_not_run_for_ever() -> None:
    with pytest.raises(LabError, match="no end after 0 s"):
        console.run([sys.executable, "-c", "import time; time.sleep(30)"], timeout=0.2)


def test_waiting_ends_with_what_did_not_come() -> None:
    with pytest.raises(LabError, match="the moon is full: not so after 0 s"):
        console.until("the moon is full", lambda: False, seconds=0.05, every=0.01)


def test_waiting_speaks_up_meanwhile(capsys: pytest.CaptureFixture[str]) -> None:
    with console.waiting("building", every=0.02):
        time.sleep(0.1)
    said = capsys.readouterr().err.splitlines()
    assert "so far" in said[1]
    assert said[-1].endswith("s") and "building: " in said[-1]
