# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from tests.lab import go_build

# The shape of k8s.io/kubernetes' own go.mod.
GO_MOD = """\
module k8s.io/kubernetes

go 1.26.0

godebug default=go1.26

require (
\tgithub.com/spf13/cobra v1.10.2
\tk8s.io/api v0.0.0
\tk8s.io/client-go v0.0.0
\tk8s.io/klog/v2 v2.140.0
\tk8s.io/utils v0.0.0-20260210185600-b8788abfbbc2
)

replace (
\tk8s.io/api => ./staging/src/k8s.io/api
)
"""


def test_only_staging_modules_are_replaced() -> None:
    assert go_build.staging_modules(GO_MOD) == ["k8s.io/api", "k8s.io/client-go"]


def test_go_mod_takes_the_published_staging_modules_of_the_same_release() -> None:
    assert go_build.kubernetes_go_mod("1.36.3", GO_MOD).splitlines() == [
        "module lab",
        "go 1.26.0",
        "require k8s.io/kubernetes v1.36.3",
        "replace k8s.io/api => k8s.io/api v0.36.3",
        "replace k8s.io/client-go => k8s.io/client-go v0.36.3",
    ]


def test_linker_flags_carry_the_version() -> None:
    flags = go_build.kubernetes_linker_flags("1.36.3")
    assert "-X k8s.io/component-base/version.gitVersion=v1.36.3" in flags
    assert "-X k8s.io/component-base/version.gitMinor=36" in flags


@pytest.mark.parametrize(
    ("text", "version"),
    [("go version go1.26.8 linux/amd64", (1, 26)), ("go version go1.30rc1 linux/arm64", (1, 30)), ("go: not found", (0, 0)), ("", (0, 0))],
)
def test_go_version(text: str, version: tuple[int, int]) -> None:
    assert go_build.go_version(text) == version
