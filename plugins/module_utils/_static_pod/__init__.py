# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Static pods of the control plane: what they are, what they shall be, and the plan from one to the other.

Pure functions on parsed manifests; nothing here reads or writes a host. Standard library only.
"""
