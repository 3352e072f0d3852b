# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.errors import LabError
from tests.lab.settings import from_environment


def test_defaults() -> None:
    settings = from_environment({"HOME": "/home/somebody"})
    assert (settings.name, settings.kubernetes, settings.etcd) == ("kubetune", "1.36.3", "3.6.16")
    assert settings.node_names == ["cp1", "cp2", "cp3"]
    assert settings.assets == Path("/home/somebody/.cache/kubetune")
    assert settings.state.parts[-2:] == (".work", "lab")


def test_labs_with_different_names_share_nothing_but_the_cache() -> None:
    first, second = from_environment({"HOME": "/h"}), from_environment({"HOME": "/h", "KUBETUNE_LAB_NAME": "other"})
    assert first.assets == second.assets
    assert first.state != second.state
    assert (first.container("cp1"), second.container("cp1")) == ("kubetune-cp1", "other-cp1")


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("KUBETUNE_LAB_NAME", "Upper", "lower-case"),
        ("KUBETUNE_LAB_NAME", "-x", "lower-case"),
        ("KUBETUNE_LAB_NAME", "x" * 25, "at most 24"),
        ("KUBETUNE_LAB_NODES", "0", "1 to 9"),
        ("KUBETUNE_LAB_NODES", "10", "1 to 9"),
        ("KUBETUNE_LAB_NODES", "three", "1 to 9"),
        ("KUBETUNE_LAB_KUBERNETES", "v1.36.3", "X.Y.Z"),
        ("KUBETUNE_LAB_ETCD", "3.6", "X.Y.Z"),
    ],
)
def test_bad_values_are_named_with_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    with pytest.raises(LabError) as error:
        from_environment({"HOME": "/h", variable: value})
    assert variable in str(error.value)
    assert repr(value) in str(error.value)
    assert allowed in str(error.value)
