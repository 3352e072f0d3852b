# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of systemd which run the program by the calendar."""

from __future__ import annotations

from dataclasses import dataclass

from .config import Config

SERVICE = "etcd-maintenance.service"
TIMER = "etcd-maintenance.timer"


@dataclass(frozen=True)
class Schedule:
    """
    Attributes:
        calendar: systemd.time(7), such as ``*-*-* 02:30:00``.
        random_delay_seconds: each host starts that much later at most, always by the same delay of its own.
        timeout_seconds: a run that takes longer is ended.
    """

    calendar: str
    random_delay_seconds: int
    timeout_seconds: int


def service(interpreter: str, program: str, config_path: str, config: Config, timeout_seconds: int) -> str:
    """
    Args:
        interpreter: the Python that the collection's modules run with on this host, so that it is new enough.
        program: the collection's program on this host.
    """
    # The only directories that the program writes to.
    writable = [config.state_directory, *([config.backup.directory] if config.backup.enabled else [])]
    # Reaching etcdutl inside the running etcd's container (/proc/PID/root) takes this one capability.
    ptrace = config.backup.enabled and config.backup.etcdutl == "auto"
    return f"""\
# Managed by kubetune.control_plane (role etcd_maintenance): changes by hand are overwritten.
[Unit]
Description=etcd maintenance: health, size, compaction, defragmentation, backup
Wants=network-online.target
After=network-online.target
RequiresMountsFor={' '.join(writable)}

[Service]
Type=oneshot
ExecStart={interpreter} {program} maintenance run --config {config_path}
TimeoutStartSec={timeout_seconds}
UMask=0077

# The control plane comes first.
Nice=10
CPUWeight=20
IOSchedulingClass=idle

NoNewPrivileges=yes
CapabilityBoundingSet={'CAP_SYS_PTRACE' if ptrace else ''}
ProtectSystem=strict
ReadWritePaths={' '.join('-' + path for path in writable)}
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
"""


def timer(schedule: Schedule) -> str:
    return f"""\
# Managed by kubetune.control_plane (role etcd_maintenance): changes by hand are overwritten.
[Unit]
Description=Calendar of {SERVICE}

[Timer]
OnCalendar={schedule.calendar}
RandomizedDelaySec={schedule.random_delay_seconds}
FixedRandomDelay=yes
AccuracySec=1s
Persistent=yes

[Install]
WantedBy=timers.target
"""
