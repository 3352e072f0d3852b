# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the active profile of tuned sets, read as tuned itself reads it (tuned/profiles/loader.py and merger.py of 2.27)."""

from __future__ import annotations

import os
import re
from configparser import ConfigParser, Error
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch

from . import services
from .sysctl import dotted
from .tree import Tree

MAIN_FILE = "/etc/tuned/tuned-main.conf"
ACTIVE_FILE = "/etc/tuned/active_profile"
MODE_FILE = "/etc/tuned/profile_mode"
#: Where profiles are, the first one wins: those of 2.23 and later, and those of before.
DIRECTORIES = ("/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned")

_NO = ("0", "false", "no", "off", "n", "f")


@dataclass(frozen=True)
class Option:
    """``name = value`` in a section of a profile."""

    name: str
    value: str
    file: str


@dataclass(frozen=True)
class Unit:
    """A section after all included profiles are merged.

    Attributes:
        kind: the plug-in that does it, such as ``sysctl``, ``vm`` or ``disk``.
        devices: patterns of kernel names.
        conditional: it holds only on some machines or devices.
    """

    kind: str
    enabled: bool = True
    devices: str = "*"
    conditional: bool = False
    priority: int = 0
    options: tuple[Option, ...] = ()

    def covers(self, device: str) -> bool:
        """Whether a device is one of its own (tuned/hardware/device_matcher.py)."""
        patterns = re.split(r"[\s,]+", self.devices.strip())
        wanted = [each for each in patterns if each and not each.startswith("!")] or ["*"]
        unwanted = [each[1:] for each in patterns if each.startswith("!")]
        return any(fnmatch(device, each) for each in wanted) and not any(fnmatch(device, each) for each in unwanted)


@dataclass(frozen=True)
class Active:
    """A tuned that is at work on this host, or will be at the next boot.

    Attributes:
        profile: the names of its profiles, separated by spaces; empty where it decides when it starts.
        automatic: tuned chose the profile itself.
        units: in the order in which they are applied.
        unread: what cannot be known of the profile from its files.
        reapplies_sysctls: after its own kernel values it sets those of /etc/sysctl.d once more.
        excluded: patterns of values to which that does not apply.
        power_profiles: tuned-ppd switches the profile with the power profile.
    """

    profile: str
    automatic: bool
    units: tuple[Unit, ...] = ()
    unread: tuple[str, ...] = ()
    reapplies_sysctls: bool = True
    excluded: tuple[str, ...] = ()
    power_profiles: bool = False

    def reapplies(self, name: str, after: int) -> bool:
        """Whether it sets a value of /etc/sysctl.d again at its unit of this number or a later one."""
        return (
            self.reapplies_sysctls
            and not any(fnmatch(name, each) for each in self.excluded)
            and any(unit.kind == "sysctl" for unit in self.units[after:])
        )


def active(tree: Tree) -> Active | None:
    """The tuned of this host; None where it neither runs nor is started at boot."""
    if not services.at_work(tree, "tuned"):
        return None
    settings = _global(tree)
    profile = (tree.read(ACTIVE_FILE) or "").split()
    loader = _Loader(tree, settings.get("profile_dirs", ""))
    loader.load(profile)
    units = [each for each in loader.expanded() if each.enabled]
    return Active(
        profile=" ".join(profile),
        automatic=(tree.read(MODE_FILE) or "").strip() == "auto",
        units=tuple(sorted(units, key=lambda each: each.priority)),
        unread=tuple(loader.unread),
        reapplies_sysctls=settings.get("reapply_sysctl", "1").lower() not in _NO,
        excluded=tuple(re.split(r"[,;\s]+", settings.get("reapply_sysctl_exclude", ""))),
        power_profiles=services.at_work(tree, "tuned-ppd"),
    )


def assigned(value: str, present: str) -> str | None:
    """What an option makes of a value; None where it leaves it (``>5`` sets 5 where there is less, ``<5`` where there is more)."""
    text = value.strip().strip("\"'")
    if text[:1] not in ("<", ">") or len(text) < 2:
        return text
    try:
        new, now = int(text[1:]), int(present)
    except ValueError:
        return text[1:].strip()
    return str(new) if (new > now if text[0] == ">" else new < now) else None


def kernel_value(unit: Unit, option: Option) -> tuple[str, str] | None:
    """The name and the text of the kernel value that an option sets; None where it is about something else."""
    if unit.kind == "sysctl":
        return dotted(option.name), option.value
    if unit.kind == "vm" and option.name in (
        "dirty_bytes",
        "dirty_ratio",
        "dirty_background_bytes",
        "dirty_background_ratio",
    ):
        if option.value.endswith("%"):
            return f"vm.{option.name.replace('bytes', 'ratio')}", option.value.rstrip("%").strip()
        return f"vm.{option.name}", option.value
    return None


def queue_value(unit: Unit, option: Option, path: str) -> str | None:
    """What an option sets an attribute of a queue to; None where it is about something else.

    Args:
        path: such as ``/sys/block/sda/queue/read_ahead_kb``.
    """
    device, attribute = path.split("/")[-3], path.split("/")[-1]
    if unit.kind == "sysfs":
        return option.value if fnmatch(path, os.path.normpath(option.name)) else None
    if unit.kind != "disk" or not unit.covers(device):
        return None
    if attribute == "scheduler" and option.name == "elevator":
        return option.value
    if attribute == "read_ahead_kb" and option.name == "readahead":
        return _kib(option.value)
    return None


def _kib(value: str) -> str:
    """``8192 s`` are sectors of 512 bytes."""
    match = re.fullmatch(r"([<>]?)\s*(\d+)\s*s\S*", value.strip())
    return f"{match.group(1)}{int(match.group(2)) // 2}" if match else value


def _global(tree: Tree) -> dict[str, str]:
    """tuned-main.conf, which has no sections."""
    return _sections(f"[main]\n{tree.read(MAIN_FILE) or ''}").get("main", {})


def _sections(text: str) -> dict[str, dict[str, str]]:
    parser = ConfigParser(delimiters=("=",), inline_comment_prefixes=("#",), strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return {name: dict(parser.items(name)) for name in parser.sections()}


@dataclass
class _Loader:
    """Follows profiles through their includes, and merges their sections in the order of tuned."""

    tree: Tree
    directories: str
    units: dict[str, Unit] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def load(self, names: list[str]) -> None:
        for name in names:
            file = self._find(name.lstrip("-"))
            if file is None:
                if not name.startswith("-") and not self._known(name):
                    self.unread.append(f"there is no profile {name}")
                continue
            self.seen.append(file)
            try:
                sections = _sections(self.tree.read(file) or "")
            except Error as exc:
                self.unread.append(f"{file} cannot be parsed: {str(exc).splitlines()[0]}")
                continue
            self._take_variables(sections.pop("variables", {}), file)
            include = self._expand(sections.pop("main", {}).get("include", ""))
            if "${" in include:
                self.unread.append(f"{file} decides when it is loaded what it includes: {include}")
            elif include.strip():
                self.load(re.split(r"\s*[,;]\s*", include.strip()))
            for section, options in sections.items():
                self._merge(section, options, file)

    def expanded(self) -> list[Unit]:
        """The sections, with the variables as they are when everything is loaded."""
        return [
            replace(
                unit,
                devices=self._expand(unit.devices),
                options=tuple(replace(each, value=self._expand(each.value)) for each in unit.options),
            )
            for unit in self.units.values()
        ]

    def _find(self, name: str) -> str | None:
        own = [each for each in re.split(r"[,;\s]+", self.directories) if each]
        paths = (f"{each.rstrip('/')}/{os.path.basename(name)}/tuned.conf" for each in own[::-1] or DIRECTORIES)
        return next((each for each in paths if self.tree.exists(each) and each not in self.seen), None)

    def _known(self, name: str) -> bool:
        return any(each.endswith(f"/{name}/tuned.conf") for each in self.seen)

    def _take_variables(self, options: dict[str, str], file: str) -> None:
        for name, value in options.items():
            if name == "include":
                text = self.tree.read(self._expand(value)) or ""
                first = "" if text.lstrip().startswith("[") else "[variables]\n"
                try:
                    self.variables.update(_sections(first + text).get("variables", {}))
                except Error:
                    self.unread.append(f"{value}, which {file} includes, cannot be parsed")
            else:
                self.variables[name] = value

    def _expand(self, text: str) -> str:
        """Put in variables; calls of functions (``${f:...}``) stay as they are."""
        for _ in range(len(self.variables) + 1):
            new = re.sub(r"\$\{(\w+)\}", lambda match: self.variables.get(match.group(1), match.group()), text)
            if new == text:
                break
            text = new
        return text

    def _merge(self, section: str, options: dict[str, str], file: str) -> None:
        own = dict(options)
        kind = own.pop("type", section)
        priority = own.pop("priority", "")
        enabled = own.pop("enabled", "1").lower() not in _NO
        devices = own.pop("devices", "*")
        conditional = any([own.pop(f"{name}_regex", "") for name in ("uname", "cpuinfo", "devices_udev")])
        dropped = re.split(r"[\s,;]+", own.pop("drop", ""))
        alone = own.pop("replace", "0").lower() not in _NO
        before = Unit(kind) if alone else self.units.get(section, Unit(kind))
        kept = tuple(each for each in before.options if each.name not in dropped and each.name not in own)
        self.units[section] = replace(
            before,
            kind=kind,
            enabled=enabled,
            devices=devices,
            conditional=before.conditional or conditional,
            priority=int(priority) if re.fullmatch(r"-?\d+", priority) else before.priority,
            options=kept + tuple(Option(name, value, file) for name, value in own.items()),
        )
