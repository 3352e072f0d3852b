# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of systemd which run the program by the calendar."""

from __future__ import annotations

from dataclasses import dataclass

from .config import Config

TIMER = "etcd-maintenance.timer"
BACKUP = "etcd-backup"
#: The first line of each.
MARK = "# Managed by kubetune.control_plane (role etcd_maintenance): changes by hand are overwritten."
#: Of the units that an administrator adds.
DIRECTORY = "/etc/systemd/system"


@dataclass(frozen=True)
class Schedule:
    """
    Attributes:
        calendar: systemd.time(7), such as ``*-*-* 02:30:00``.
        random_delay_seconds: each host starts that much later at most, always by the same delay of its own.
        timeout_seconds: a run that takes longer is ended.
        backup_calendar: of backups between the runs; empty for none.
        drill_calendar: of the restore drill; empty for none.
    """

    calendar: str
    random_delay_seconds: int
    timeout_seconds: int
    backup_calendar: str = ""
    drill_calendar: str = ""


@dataclass(frozen=True)
class Job:
    """A service and its timer.

    Attributes:
        command: of the program.
        calendar: empty where this job is not wanted.
    """

    name: str
    command: str
    description: str
    calendar: str

    @property
    def service(self) -> str:
        return f"{self.name}.service"

    @property
    def timer(self) -> str:
        return f"{self.name}.timer"


def jobs(schedule: Schedule) -> list[Job]:
    """All that there can be, the wanted and the others."""
    return [
        Job("etcd-maintenance", "run", "etcd maintenance: health, size, compaction, defragmentation, backup", schedule.calendar),
        Job(BACKUP, "backup", "Backup of this node's etcd member between the maintenance runs", schedule.backup_calendar),
        Job("etcd-restore-drill", "drill", "Restore drill: the newest etcd backup, on loopback", schedule.drill_calendar),
    ]


def service(job: Job, interpreter: str, program: str, config_path: str, config: Config, timeout_seconds: int) -> str:
    """
    Args:
        interpreter: the Python that the collection's modules run with on this host, so that it is new enough.
        program: the collection's program on this host.
    """
    writable = _writable(job, config)
    return f"""\
{MARK}
[Unit]
Description={job.description}
Wants=network-online.target
After=network-online.target
RequiresMountsFor={' '.join(writable)}

[Service]
Type=oneshot
ExecStart={interpreter} {program} maintenance {job.command} --config {config_path}
TimeoutStartSec={timeout_seconds}
UMask=0077

# The control plane comes first.
Nice=10
CPUWeight=20
IOWeight=20
IOSchedulingClass=idle
OOMScoreAdjust=500
TasksMax=256
LimitCORE=0

NoNewPrivileges=yes
CapabilityBoundingSet={'CAP_SYS_PTRACE' if _reaches_into_etcd(job, config) else ''}
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
RemoveIPC=yes
{_network(job, config)}SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
"""


def _writable(job: Job, config: Config) -> list[str]:
    """The only directories that the program writes to."""
    found = [config.state_directory]
    if job.command == "drill":
        found.append(config.drill.directory)
    elif config.backup.enabled:
        found += [config.backup.directory, config.tools_directory]
    elif _opens_windows(job, config):
        found.append(config.tools_directory)
    return [*found, *([config.metrics_directory] if config.metrics_directory else [])]


def _reaches_into_etcd(job: Job, config: Config) -> bool:
    """etcd's programs inside the running etcd's container (/proc/PID/root) take one capability."""
    return config.tools == "auto" and (config.backup.enabled or job.command == "drill" or _opens_windows(job, config))


def _opens_windows(job: Job, config: Config) -> bool:
    return job.command == "run" and config.defragmentation.may_open_windows


def _network(job: Job, config: Config) -> str:
    """A drill talks to this host's member and to its own scratch etcd, and to nobody else."""
    loopback = config.endpoint.startswith(("https://127.", "https://localhost:", "https://[::1]:"))
    return "IPAddressDeny=any\nIPAddressAllow=localhost\n" if job.command == "drill" and loopback else ""


def timer(job: Job, schedule: Schedule) -> str:
    return f"""\
{MARK}
[Unit]
Description=Calendar of {job.service}

[Timer]
OnCalendar={job.calendar}
RandomizedDelaySec={schedule.random_delay_seconds}
FixedRandomDelay=yes
AccuracySec=1s
Persistent=yes

[Install]
WantedBy=timers.target
"""
