# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab and the playbooks of tests/faults, and what was seen as a summary at the end."""

from tests.faults.conftest import lab, playbook, whole_cluster  # noqa: F401  fixtures
from tests.persistence.conftest import pytest_terminal_summary, seen  # noqa: F401
