# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab and the playbooks of tests/faults, and what was seen as a summary at the end."""

from __future__ import annotations

from typing import Callable

import pytest

from tests.faults.conftest import lab, playbook  # noqa: F401  fixtures

_SEEN = pytest.StashKey[list[str]]()


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line for the summary."""
    return request.config.stash.setdefault(_SEEN, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_SEEN, [])
    if lines:
        terminalreporter.section("what the maintenance did")
        for line in lines:
            terminalreporter.write_line(line)
