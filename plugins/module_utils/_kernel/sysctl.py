# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel values below /proc/sys: names, ranges, and our file of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .tree import OWN_HEADER

#: Sorts after the 99-sysctl.conf of kubespray and of Debian: systemd-sysctl(8) and `sysctl --system` order the files of
#: all directories by their base name, and the last one wins (sysctl.d(5)).
OWN_FILE = "/etc/sysctl.d/99-zz-kubetune.conf"

#: One limit with two faces: writing one of them makes the other 0 (mm/page-writeback.c).
PAIRS = (("vm.dirty_ratio", "vm.dirty_bytes"), ("vm.dirty_background_ratio", "vm.dirty_background_bytes"))

_NAME = re.compile(r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_-]+)+")
_INT_MAX = 2**31 - 1


@dataclass(frozen=True)
class Key:
    """What is known of a value.

    Attributes:
        low, high: range of each number, both ends included.
        count: how many numbers there are.
        unit: of each number.
        keep: which live values a profile leaves as they are: ``at_least`` the wanted one, ``at_most`` the wanted one,
            or ``largest``, where the last of the numbers is at least the wanted one.
    """

    low: int
    high: int
    unit: str
    keep: str
    count: int = 1


#: Ranges: net/core/sysctl_net_core.c, net/ipv4/sysctl_net_ipv4.c, kernel/sysctl.c and mm/page-writeback.c of Linux 6.1.
#: The kernel takes 0 for the percentages too, but reads back 0 where the byte value is in force: here it is no value.
KEYS = {
    "net.core.rmem_max": Key(2304, _INT_MAX, "bytes", "at_least"),
    "net.core.wmem_max": Key(4608, _INT_MAX, "bytes", "at_least"),
    "net.ipv4.tcp_rmem": Key(1, _INT_MAX, "bytes", "largest", count=3),
    "net.ipv4.tcp_wmem": Key(1, _INT_MAX, "bytes", "largest", count=3),
    "vm.dirty_background_bytes": Key(4096, 2**63 - 1, "bytes", "at_most"),
    "vm.dirty_background_ratio": Key(1, 100, "percent of available memory", "at_most"),
    "vm.dirty_bytes": Key(8192, 2**63 - 1, "bytes", "at_most"),
    "vm.dirty_ratio": Key(1, 100, "percent of available memory", "at_most"),
    # 200 since Linux 5.8, 100 before: an older kernel refuses what is above.
    "vm.swappiness": Key(0, 200, "", "at_most"),
}


def path_of(name: str) -> str:
    """``vm.swappiness`` -> ``/proc/sys/vm/swappiness``; in a name, ``.`` and ``/`` stand for each other (sysctl.d(5))."""
    return "/proc/sys/" + name.translate(str.maketrans("./", "/."))


def dotted(name: str) -> str:
    """The name with dots. It may be written with slashes: whichever separator comes first tells (sysctl.d(5))."""
    first = re.search(r"[./]", name)
    if not first or first.group() == ".":
        return name
    return re.sub(r"/+", "/", name).strip("/").translate(str.maketrans("./", "/."))


def normalise(text: str) -> str:
    """Several numbers are written with spaces and read back with tabs."""
    return " ".join(text.split())


def other_face(name: str) -> str | None:
    """The value which becomes 0 when this one is written."""
    for first, second in PAIRS:
        if name in (first, second):
            return second if name == first else first
    return None


def check_value(name: str, value: Any) -> tuple[str, str]:
    """The text to write for a value that a person gave, or what is wrong with it.

    Returns:
        (text, problem): one of the two is empty.
    """
    if not _NAME.fullmatch(name):
        return "", f"sysctl {name!r}: no name of a kernel value; one looks like vm.swappiness"
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return "", f"sysctl {name}: {value!r} is neither a number nor text"
    if "\n" in str(value).strip() or not str(value).strip():
        return "", f"sysctl {name}: the value {value!r} has to be one line of text"
    text = normalise(str(value))
    key = KEYS.get(name)
    return (text, "") if key is None else _check_numbers(name, text, key)


def _check_numbers(name: str, text: str, key: Key) -> tuple[str, str]:
    numbers = text.split()
    allowed = f"{key.low} to {key.high}" + (f" ({key.unit})" if key.unit else "")
    if len(numbers) != key.count:
        plural = "one number" if key.count == 1 else f"{key.count} numbers, separated by spaces"
        return "", f"sysctl {name}: {text!r} has to be {plural}, each {allowed}"
    for each in numbers:
        if not re.fullmatch(r"-?[0-9]+", each) or not key.low <= int(each) <= key.high:
            return "", f"sysctl {name}: {each!r} is out of range; allowed is {allowed}"
    values = [int(each) for each in numbers]
    if values != sorted(values):
        return "", f"sysctl {name}: {text!r} has to be minimum, default and maximum, in rising order"
    return " ".join(str(each) for each in values), ""


def check_shape(name: str, text: str, live: str) -> str:
    """What is wrong with a value of unknown range, judged by what the kernel has now; empty when nothing is."""
    numbers = [bool(re.fullmatch(r"-?[0-9]+", each)) for each in live.split()]
    if not numbers or not all(numbers):
        return ""
    given = text.split()
    if len(given) != len(numbers) or not all(re.fullmatch(r"-?[0-9]+", each) for each in given):
        expected = "a number" if len(numbers) == 1 else f"{len(numbers)} numbers"
        return f"sysctl {name}: {text!r} has to be {expected}, as the present value {live!r} is"
    return ""


def keeps(name: str, live: str, wanted: str) -> bool:
    """Whether a profile's value would only weaken what is there.

    Args:
        live, wanted: normalised values of the same name.
    """
    key = KEYS.get(name)
    if key is None:
        return False
    have, want = int(live.split()[-1]), int(wanted.split()[-1])
    return have < want if key.keep == "at_most" else have > want


def render(values: dict[str, str]) -> str:
    """The file's content; the same for the same values."""
    lines = [OWN_HEADER]
    lines += [f"{name} = {values[name]}" for name in sorted(values)]
    return "\n".join(lines) + "\n"
