# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab and the playbooks of tests/faults, and what was seen as a summary at the end."""

from __future__ import annotations

from tests.faults.conftest import lab, playbook, whole_cluster  # noqa: F401  fixtures
from tests.seen import seen, summary  # noqa: F401  fixture

pytest_terminal_summary = summary("what kubeadm keeps")
