# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: real Kubernetes control planes in systemd containers on one Linux machine.

It needs Python 3.11 and its standard library, root, and a Docker engine (it starts one when none answers).
``python -m tests.lab --help`` lists what it can do; ``nodes`` is the part for tests.
"""
