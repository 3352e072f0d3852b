# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd unit of the service."""

from __future__ import annotations

from typing import Mapping

from . import cgroup

SERVICE = "kubetune-etcd-priority.service"
PATH = f"/etc/systemd/system/{SERVICE}"


def service(interpreter: str, program: str, checksum: str, wanted: Mapping[str, int]) -> str:
    """
    Args:
        interpreter: the Python that the collection's modules run with on this host, so that it is new enough.
        program: the collection's program on this host.
        checksum: SHA-256 of it: with another one the unit differs, and the service is restarted.
        wanted: controller -> weight.
    """
    arguments = " ".join(f"--{controller}-weight {weight}" for controller, weight in sorted(wanted.items()))
    return f"""\
# Managed by kubetune.control_plane (role etcd_priority): changes by hand are overwritten.
# Program: {checksum}
[Unit]
Description=CPU and I/O weight of etcd's pod, whenever it is made anew

[Service]
Type=notify
ExecStart={interpreter} {program} priority run {arguments}
Restart=on-failure
RestartSec=5
UMask=0077

# Weights are files of root, and it is root: no capability is needed.
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ReadWritePaths={cgroup.ROOT}
# Its record of what was there before.
StateDirectory=kubetune
StateDirectoryMode=0700
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateNetwork=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""
