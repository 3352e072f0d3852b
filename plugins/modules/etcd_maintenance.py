#!/usr/bin/python
# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_maintenance
short_description: Installs the maintenance of etcd as systemd services and timers
version_added: 1.0.0
description:
  - Takes the whole desired state in one call - the program's configuration, C(etcd-maintenance), C(etcd-backup) and
    C(etcd-restore-drill), each a service, and a timer where it has a calendar - and judges it on the host before anything is written.
  - The calendars are judged by the host's own C(systemd-analyze), the configuration by the program's own rules, the certificates
    by loading them.
  - The program itself is installed by M(kubetune.control_plane.program).
author:
  - kubetune contributors (@kubetune)
extends_documentation_fragment:
  - kubetune.control_plane.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  state:
    description:
      - V(absent) stops and removes the units, the configuration and the records in etcd. Backups stay, see O(remove_backups).
    type: str
    choices: [present, absent]
    default: present
  remove_backups:
    description: With O(state=absent), remove the backups of this program in O(backup.directory), too.
    type: bool
    default: false
  program:
    description: The collection's program on the host.
    type: path
    default: /usr/local/lib/kubetune/kubetune.pyz
  calendar:
    description: When a run starts, as a calendar event of systemd.time(7). A time that was missed is made up for.
    type: str
    default: "*-*-* 02:30:00"
  backup_calendar:
    description: When a backup is taken between the runs, such as V(hourly); empty for none.
    type: str
    default: ""
  drill_calendar:
    description: When the newest backup is restored on loopback, compared and thrown away; empty for none.
    type: str
    default: "Sun *-*-* 04:30:00"
  random_delay_seconds:
    description: Each host starts later by a delay of its own, always the same, of at most that many seconds.
    type: int
    default: 1800
  timeout_seconds:
    description: A run that takes longer is ended. At least four times O(lock_wait_seconds) and 600.
    type: int
    default: 7200
  endpoint:
    description: Client URL of the member on this host; the others come from the member list.
    type: str
    default: https://127.0.0.1:2379
  ca_file:
    description: CA of etcd's server certificates.
    type: path
    default: /etc/kubernetes/pki/etcd/ca.crt
  cert_file:
    description: Client certificate.
    type: path
    default: /etc/kubernetes/pki/etcd/healthcheck-client.crt
  key_file:
    description: Key of O(cert_file).
    type: path
    default: /etc/kubernetes/pki/etcd/healthcheck-client.key
  data_directory:
    description: Data directory of the member on this host.
    type: path
    default: /var/lib/etcd
  state_directory:
    description: Where the lock is that keeps two runs on one host apart.
    type: path
    default: /var/lib/kubetune
  tools:
    description:
      - Directory of etcd, etcdctl and etcdutl. V(auto) takes those in the running etcd's image, which needs the capability
        C(CAP_SYS_PTRACE), then those on the host, then the etcdutl that was kept.
    type: str
    default: auto
  tools_directory:
    description: Where the running member's etcdutl is kept for the day when no etcd runs.
    type: path
    default: /usr/local/lib/kubetune/etcd-tools
  metrics_directory:
    description: Directory of node_exporter's textfile collector; empty for no metrics.
    type: str
    default: /var/lib/node_exporter/textfile_collector
  interval_seconds:
    description:
      - Compaction and defragmentation are done once in that time, by one node for the whole cluster (60 to 2678400).
      - A little less than the time between two runs by the calendar, so that a late one does not push the next away.
    type: int
    default: 72000
  lock_wait_seconds:
    description: How long a run waits for another one, on this host or in the cluster (0 to 86400).
    type: int
    default: 900
  settle_seconds:
    description: How long the cluster may take to be whole, at the start and after each member's turn (0 to 600).
    type: int
    default: 60
  compaction:
    description: Step 3.
    type: dict
    default: {}
    suboptions:
      mode:
        description: >-
          V(auto) leaves it to the API server, or to etcd itself, where one of them compacts; V(on) and V(off) do not look.
        type: str
        choices: [auto, "on", "off"]
        default: auto
      retention_seconds:
        description: History that stays, at least (300 to 2678400).
        type: int
        default: 3600
      min_revisions:
        description: Fewer revisions than that are not worth a compaction.
        type: int
        default: 100000
  defragmentation:
    description: Step 4.
    type: dict
    default: {}
    suboptions:
      enabled:
        description: Whether it is done at all.
        type: bool
        default: true
      method:
        description: >-
          Each member serves nothing while it is defragmented, and clients notice neither when it begins nor that there are others: with
          V(online), which one node does for all, those that are connected to it wait, about a second for each 100 MB. With V(window) each node
          defragments its own member in a node window, while it and the node's API server are out: clients go on at another one, and what waits
          is the node. For that a client has to know more than one endpoint, as with a load balancer before the API servers. V(auto) is a
          window where more than O(defragmentation.online_max_bytes) are in use and etcd is a static pod in a cluster of at least three
          voters, and online elsewhere.
        type: str
        choices: [auto, online, window]
        default: auto
      online_max_bytes:
        description: >-
          What of a database is in use, in bytes, for a defragmentation of half a second or so (0 to 1099511627776): a window, which
          restarts etcd and the API server, is not worth it for V(auto), nor is a move of leadership, in which etcd drops what other members
          forward to the leader just then, so that a write may wait 7 s (etcd 3.6, ReqTimeout; etcd issue 8975). V(0) for never.
        type: int
        default: 33554432
      rule:
        description: >-
          When a member is due, where there is anything to gain at all: an expression with the names of etcd-defrag's rules,
          C(dbSize), C(dbSizeInUse), C(dbSizeFree) and C(dbQuota) in bytes and C(dbQuotaUsage) from 0 to 1, with
          C(+ - * / == != < <= > >= && || !) and parentheses.
        type: str
        default: dbSizeFree >= 100*1024*1024 && (dbSizeFree / dbSize >= 0.45 || dbQuotaUsage >= 0.8)
      hours:
        description: >-
          Times of the host's day in which it may be done, each such as V(22:00-05:00); a member's turn that began is finished.
          Empty for any time.
        type: list
        elements: str
        default: []
      timeout_seconds:
        description: For one member (10 to 3600).
        type: int
        default: 300
  nospace:
    description: The way out of etcd's alarm NOSPACE.
    type: dict
    default: {}
    suboptions:
      recover:
        description: >-
          Whether the run by the timer gets the cluster out of the alarm NOSPACE by itself, as the command C(recover-space)
          does; otherwise it only says so.
        type: bool
        default: false
      room:
        description: >-
          Share of the quota (0 to 1) below which every member's file has to be before that alarm is taken away.
        type: float
        default: 0.9
  backup:
    description: Step 5.
    type: dict
    default: {}
    suboptions:
      enabled:
        description: Whether it is done at all.
        type: bool
        default: true
      directory:
        description: Where the dated directories are made.
        type: path
        default: /var/backups/etcd
      keep_hourly:
        description: Of that many of the last hours which have backups, the newest one stays (0 to 1000).
        type: int
        default: 6
      keep_daily:
        description: The same for days (0 to 1000).
        type: int
        default: 7
      keep_weekly:
        description: The same for ISO weeks (0 to 1000).
        type: int
        default: 4
      keep_monthly:
        description: The same for months (0 to 1000).
        type: int
        default: 6
      min_free_bytes:
        description: What has to be free on that disk after the snapshot.
        type: int
        default: 1073741824
      encryption:
        description: By which program on the host backups are encrypted before they get their name.
        type: str
        choices: [none, age, gpg]
        default: none
      recipients_file:
        description: Whom to encrypt for - age's recipients, one a line, or public keys that gpg exported.
        type: str
        default: ""
      identity_file:
        description:
          - Private key, for C(verify) and the drill to read encrypted backups on this host. Without it only their SHA-256 is looked at,
            and the drill fails.
        type: str
        default: ""
      host_paths:
        description: Files and directories of the host that go into each backup, such as V(/etc/kubernetes/pki). Encrypted only.
        type: list
        elements: str
        default: []
      copy_command:
        description: >-
          Command with its arguments that takes a backup elsewhere; the backup's files are added behind them. Its status has to
          be 0.
        type: list
        elements: str
        default: []
      copy_timeout_seconds:
        description: For one call of O(backup.copy_command) (1 to 86400).
        type: int
        default: 1800
  drill:
    description: The restore drill.
    type: dict
    default: {}
    suboptions:
      directory:
        description: The newest backup is restored below it, which takes its size and 128 MB, of an encrypted one twice its size, and thrown away.
        type: path
        default: /var/lib/kubetune/drill
      start_timeout_seconds:
        description: For the restored etcd to serve (10 to 3600).
        type: int
        default: 300
requirements:
  - systemd 247 or newer on the host
  - Python 3.9 or newer on the host
"""

EXAMPLES = r"""
- name: Install the maintenance at four in the morning
  kubetune.control_plane.etcd_maintenance:
    calendar: "*-*-* 04:00:00"
    backup:
      directory: /srv/backups/etcd
      keep_daily: 14
      copy_command: [rclone, copy, /srv/backups/etcd, "offsite:etcd"]

- name: Remove it, and keep the backups
  kubetune.control_plane.etcd_maintenance:
    state: absent
"""

RETURN = r"""
report:
  description: One entry for each file and unit, for the summary of a run.
  returned: success
  type: list
  elements: dict
  sample: [{"role": "etcd_maintenance", "item": "etcd-maintenance.timer", "verdict": "changed", "value": "*-*-* 02:30:00"}]
next_run:
  description: When the timer fires next on this host, as systemd writes it; empty before it is there.
  returned: O(state=present)
  type: str
  sample: Tue 2026-11-24 02:47:31 UTC
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError, Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance import config as configuration
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.install import Installation, schedule_problems
from ansible_collections.kubetune.control_plane.plugins.module_utils._maintenance.units import Schedule

_COMPACTION = {
    "mode": {"type": "str", "choices": ["auto", "on", "off"], "default": "auto"},
    "retention_seconds": {"type": "int", "default": 3600},
    "min_revisions": {"type": "int", "default": 100_000},
}
_DEFRAGMENTATION = {
    "enabled": {"type": "bool", "default": True},
    "method": {"type": "str", "choices": ["auto", "online", "window"], "default": "auto"},
    "online_max_bytes": {"type": "int", "default": configuration.ONLINE_MAX_BYTES},
    "rule": {"type": "str", "default": "dbSizeFree >= 100*1024*1024 && (dbSizeFree / dbSize >= 0.45 || dbQuotaUsage >= 0.8)"},
    "hours": {"type": "list", "elements": "str", "default": []},
    "timeout_seconds": {"type": "int", "default": 300},
}
_NOSPACE = {
    "recover": {"type": "bool", "default": False},
    "room": {"type": "float", "default": 0.9},
}
_BACKUP = {
    "enabled": {"type": "bool", "default": True},
    "directory": {"type": "path", "default": "/var/backups/etcd"},
    "keep_hourly": {"type": "int", "default": 6},
    "keep_daily": {"type": "int", "default": 7},
    "keep_weekly": {"type": "int", "default": 4},
    "keep_monthly": {"type": "int", "default": 6},
    "min_free_bytes": {"type": "int", "default": 1_073_741_824},
    "encryption": {"type": "str", "choices": ["none", "age", "gpg"], "default": "none"},
    "recipients_file": {"type": "str", "default": ""},
    "identity_file": {"type": "str", "default": ""},
    "host_paths": {"type": "list", "elements": "str", "default": []},
    "copy_command": {"type": "list", "elements": "str", "default": []},
    "copy_timeout_seconds": {"type": "int", "default": 1800},
}
_DRILL = {
    "directory": {"type": "path", "default": "/var/lib/kubetune/drill"},
    "start_timeout_seconds": {"type": "int", "default": 300},
}
#: What goes into the configuration file as it is.
_CONFIG = {
    "endpoint": {"type": "str", "default": "https://127.0.0.1:2379"},
    "ca_file": {"type": "path", "default": "/etc/kubernetes/pki/etcd/ca.crt"},
    "cert_file": {"type": "path", "default": "/etc/kubernetes/pki/etcd/healthcheck-client.crt"},
    "key_file": {"type": "path", "default": "/etc/kubernetes/pki/etcd/healthcheck-client.key"},
    "data_directory": {"type": "path", "default": "/var/lib/etcd"},
    "state_directory": {"type": "path", "default": "/var/lib/kubetune"},
    "tools": {"type": "str", "default": "auto"},
    "tools_directory": {"type": "path", "default": "/usr/local/lib/kubetune/etcd-tools"},
    "metrics_directory": {"type": "str", "default": "/var/lib/node_exporter/textfile_collector"},
    "interval_seconds": {"type": "int", "default": 72_000},
    "lock_wait_seconds": {"type": "int", "default": 900},
    "settle_seconds": {"type": "int", "default": 60},
    "compaction": {"type": "dict", "options": _COMPACTION, "default": {}},
    "defragmentation": {"type": "dict", "options": _DEFRAGMENTATION, "default": {}},
    "nospace": {"type": "dict", "options": _NOSPACE, "default": {}},
    "backup": {"type": "dict", "options": _BACKUP, "default": {}},
    "drill": {"type": "dict", "options": _DRILL, "default": {}},
}
_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "remove_backups": {"type": "bool", "default": False},
    "program": {"type": "path", "default": "/usr/local/lib/kubetune/kubetune.pyz"},
    "calendar": {"type": "str", "default": "*-*-* 02:30:00"},
    "backup_calendar": {"type": "str", "default": ""},
    "drill_calendar": {"type": "str", "default": "Sun *-*-* 04:30:00"},
    "random_delay_seconds": {"type": "int", "default": 1800},
    "timeout_seconds": {"type": "int", "default": 7200},
    **_CONFIG,
}


def main() -> None:
    module = AnsibleModule(argument_spec=_SPEC, supports_check_mode=True)
    given = module.params
    wanted = {name: given[name] for name in _CONFIG}
    schedule = Schedule(
        given["calendar"], given["random_delay_seconds"], given["timeout_seconds"], given["backup_calendar"], given["drill_calendar"]
    )
    try:
        if given["state"] == "absent":
            outcome = Installation(configuration.parse(wanted), module.check_mode).remove(given["remove_backups"])
        else:
            problems = configuration.problems(wanted) + schedule_problems(schedule, given["lock_wait_seconds"])
            if problems:
                raise Refusal(problems)
            outcome = Installation(configuration.parse(wanted), module.check_mode).install(schedule, given["program"])
    except Refusal as exc:
        module.fail_json(msg="refused, and nothing was changed: " + "; ".join(exc.problems))
    except (KubetuneError, OSError) as exc:
        module.fail_json(msg=str(exc))
    result = {"changed": outcome.changed, "report": outcome.report, "next_run": outcome.next_run}
    module.exit_json(**result, **({"diff": outcome.diff} if module._diff else {}))


if __name__ == "__main__":
    main()
