# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's one kind of error."""

from __future__ import annotations


class LabError(Exception):
    """Something that the person at the keyboard has to know: what failed, on what, and what to do."""
