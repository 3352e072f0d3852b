# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node window: what changes on a node's static pods is changed in one go, as a transaction that survives.

API server out, etcd changed and proved, API server in and proved (about 20 s for both; one after the other takes
90 s, because the kubelet waits for the local API server, and that for the etcd which just left).
It runs as a systemd unit of its own, so that a lost controller, a killed process or a reboot leave a host that
finishes or undoes by itself.
"""
