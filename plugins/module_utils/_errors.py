# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to kubetune.control_plane: it may change in any release.
"""The one exception type of the collection."""

from __future__ import annotations

from typing import Iterable


class KubetuneError(Exception):
    """Something that a person has to read: what, which value, what is allowed, what to do next."""


class Refusal(KubetuneError):
    """A desired state that is not applied, with every reason found, not only the first.

    Raised before anything on the host has changed.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))
