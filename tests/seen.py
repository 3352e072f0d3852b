# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What long tests have seen, as a section at the end of pytest's output."""

from __future__ import annotations

from typing import Callable

import pytest

_SEEN = pytest.StashKey[list[str]]()


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line for the summary."""
    return request.config.stash.setdefault(_SEEN, []).append


def summary(title: str) -> Callable[[pytest.TerminalReporter, pytest.Config], None]:
    """A conftest's ``pytest_terminal_summary``."""

    def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        lines = config.stash.get(_SEEN, [])
        if lines:
            terminalreporter.section(title)
            for line in lines:
                terminalreporter.write_line(line)

    return pytest_terminal_summary
