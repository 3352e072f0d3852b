# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The udev rules which set the queues again at boot and when a disk comes back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable

from .._kernel.tree import OWN_HEADER
from .device import Identity

#: After 60-persistent-storage.rules, which finds the identities, and after the distributions' 60-*scheduler.rules.
OWN_FILE = "/etc/udev/rules.d/99-kubetune-block.rules"
#: There while udevd runs (systemd-udevd(8)).
CONTROL = "/run/udev/control"


@dataclass(frozen=True)
class Rule:
    """Attributes of one device's queue: name -> value, in the order in which they have to be written.

    They apply at every event but the last: device mapper and md compute the read-ahead anew with each table or array that
    they load, and say so with a ``change``.
    """

    identity: Identity
    attributes: dict[str, str]


def render(rules: Iterable[Rule]) -> str:
    """The file's content; the same for the same rules, and without kernel names, which change from boot to boot."""
    lines = [OWN_HEADER]
    lines += sorted(_line(rule) for rule in rules)
    return "\n".join(lines) + "\n"


def _line(rule: Rule) -> str:
    match = ['ACTION!="remove"', 'SUBSYSTEM=="block"', 'ENV{DEVTYPE}=="disk"']
    if rule.identity.match == "ENV{DM_UUID}":
        # Device mapper's way of saying that the device is not ready to be looked at (10-dm.rules).
        match.append('ENV{DM_UDEV_DISABLE_OTHER_RULES_FLAG}!="1"')
    if rule.identity.match == "ENV{MD_UUID}":
        # Members of the array may have it too.
        match.append('TEST=="md"')
    match.append(f'{rule.identity.match}=="{_literal(rule.identity.value)}"')
    # Scheduler first: a change of scheduler resets other attributes of the queue. There is no match on the list of those
    # on offer: one in a module is on it only after it was asked for once.
    assign = [f'ATTR{{queue/{name}}}="{value}"' for name, value in rule.attributes.items()]
    return ", ".join(match + assign)


def _literal(value: str) -> str:
    """udev's matches are patterns without an escape: what would be special matches as any one character."""
    return re.sub(r'[*?\[\]|"\\]', "?", value)
