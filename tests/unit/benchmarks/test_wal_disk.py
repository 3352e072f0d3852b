# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of the WAL's benchmark."""

from __future__ import annotations

import pytest

from tests.benchmarks.wal_disk import METRIC, Histogram, apart, spread

#: As etcd 3.6.16 prints it, without the buckets in between.
METRICS = f"""\
# TYPE {METRIC} histogram
{METRIC}_bucket{{le="0.001"}} 0
{METRIC}_bucket{{le="0.002"}} 90
{METRIC}_bucket{{le="0.004"}} 98
{METRIC}_bucket{{le="8.192"}} 100
{METRIC}_bucket{{le="+Inf"}} LAST
{METRIC}_sum 0.25
{METRIC}_count LAST
"""


def histogram(last: int = 100) -> Histogram:
    return Histogram.parse(METRICS.replace("LAST", str(last)), METRIC)


@pytest.mark.parametrize(("part", "seconds"), [(0.45, 0.0015), (0.9, 0.002), (0.94, 0.003), (0.99, 0.004 + (8.192 - 0.004) / 2)])
def test_quantile_is_on_a_straight_line_within_its_bucket(part: float, seconds: float) -> None:
    assert histogram().quantile(part) == pytest.approx(seconds)


def test_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert histogram(last=200).quantile(0.99) == 8.192


def test_only_what_came_since_counts() -> None:
    later = histogram(last=103).since(histogram())
    assert later.total == 3
    assert later.quantile(0.5) == 8.192


def test_overlapping_ranges_show_no_difference() -> None:
    assert apart([3.0, 4.0], [1.0, 2.0])
    assert not apart([1.0, 3.0], [2.0, 4.0])
    assert spread([3.0, 1.0, 2.0]) == "2.0 (1.0 to 3.0)"
