# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark of the leases makes of what it saw."""

from __future__ import annotations

import pytest

from tests.benchmarks.leases import Account, Renewal, account, restarts

RENEWALS = [Renewal(0.0, "cp1"), Renewal(2.0, "cp1"), Renewal(4.5, "cp1"), Renewal(20.5, "cp2"), Renewal(22.5, "cp2")]


def test_a_lease_that_moves() -> None:
    assert account(RENEWALS, 1.0, 25.0) == Account(16.0, (("cp1", "cp2", 16.0),))


@pytest.mark.parametrize(("since", "until", "silence"), [(0.0, 4.6, 2.5), (5.0, 30.0, 16.0), (5.0, 10.0, 0.0), (21.0, 30.0, 2.0)])
def test_a_silence_belongs_to_the_span_in_which_it_ends(since: float, until: float, silence: float) -> None:
    assert account(RENEWALS, since, until).silence == silence


def test_restarts_are_other_processes() -> None:
    samples = [(0.0, None), (1.0, 7), (2.0, 7), (3.0, None), (4.0, 9), (5.0, 9), (9.0, 11)]
    assert restarts(samples, 0.0, 8.0) == [4.0]
    assert restarts(samples, 8.5, 10.0) == [9.0]
    assert restarts([], 0.0, 1.0) == []
