# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Udev rules of others which set what ours set, and come after them (udev(7))."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Iterator

from .._kernel.tree import Tree
from .device import parse_udev_data
from .udev import OWN_FILE

#: In order of precedence: of two files with the same name, the one in the earlier directory counts.
DIRECTORIES = (
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
)

_TOKEN = re.compile(r'([A-Z_]+)(?:\{([^}]*)\})?\s*(==|!=|\+=|-=|:=|=)\s*[ei]?"((?:[^"\\]|\\.)*)"')
#: ATTR{...} -> the attribute as we call it. A disk's own bdi has the same read-ahead as its queue.
_ATTRIBUTES = {
    "queue/scheduler": "scheduler",
    "queue/read_ahead_kb": "read_ahead_kb",
    "bdi/read_ahead_kb": "read_ahead_kb",
}
_IN_PROGRAMS = {
    "scheduler": re.compile(r"queue/scheduler"),
    "read_ahead_kb": re.compile(r"read_ahead_kb|--setra\b|\bhdparm\b.*\s-a"),
}


@dataclass(frozen=True)
class Token:
    """One expression of a rule, such as ``ATTR{queue/scheduler}="none"``."""

    key: str
    attribute: str
    operator: str
    value: str


@dataclass(frozen=True)
class Rule:
    """A rule and its place."""

    file: str
    line: int
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Setter:
    """A rule of somebody else that sets an attribute of a device.

    Attributes:
        value: None where a program does it.
        certain: whether the rule matches the device for sure.
    """

    file: str
    line: int
    value: str | None
    certain: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def parse(text: str, file: str) -> list[Rule]:
    """The rules of a file; one goes on in the next line after a backslash."""
    rules, begun, start = [], "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not begun:
            start = number
        stripped = line.strip()
        if stripped.startswith("#") or not stripped:
            continue
        if stripped.endswith("\\"):
            begun += stripped[:-1]
            continue
        tokens = tuple(
            Token(key, attribute or "", operator, value)
            for key, attribute, operator, value in _TOKEN.findall(begun + stripped)
        )
        begun = ""
        if tokens:
            rules.append(Rule(file, start, tokens))
    return rules


def setters(tree: Tree, directory: str, attribute: str) -> list[Setter]:
    """The rules of others that set an attribute after ours do, in their order.

    Those of later files do, and so does whatever a rule of any file runs, for programs run after all rules.

    Args:
        directory: of the device, in sysfs.
        attribute: ``scheduler`` or ``read_ahead_kb``.
    """
    number = (tree.read(f"{directory}/dev") or "").strip()
    data = tree.read(f"/run/udev/data/b{number}")
    properties = None if data is None else parse_udev_data(data)
    assigned, run = [], []
    for file in _files(tree):
        rules, assigns = parse(tree.read(file) or "", file), os.path.basename(file) > os.path.basename(OWN_FILE)
        for rule, certain in _at_any_event(rules, _Device(tree, directory, properties)):
            for token in rule.tokens:
                if token.key == "RUN" and _IN_PROGRAMS[attribute].search(token.value):
                    run.append(Setter(rule.file, rule.line, None, certain))
                elif assigns and _assigns(token, attribute):
                    assigned.append(Setter(rule.file, rule.line, token.value, certain))
    return assigned + run


def _files(tree: Tree) -> list[str]:
    files: dict[str, str] = {}
    for directory in DIRECTORIES:
        for name in tree.names(directory):
            if name.endswith(".rules"):
                files.setdefault(name, f"{directory}/{name}")
    return [files[name] for name in sorted(files) if files[name] != OWN_FILE]


def _assigns(token: Token, attribute: str) -> bool:
    written = token.operator in ("=", ":=", "+=")
    return token.key == "ATTR" and written and _ATTRIBUTES.get(token.attribute) == attribute


def _at_any_event(rules: list[Rule], device: _Device) -> list[tuple[Rule, bool]]:
    """The rules of a file that reach a device when it comes or when it changes, each with whether that is certain."""
    found: dict[Rule, bool] = {}
    for action in ("add", "change"):
        for rule, certain in _matching(rules, replace(device, action=action)):
            found[rule] = certain or found.get(rule, False)
    return sorted(found.items(), key=lambda each: each[0].line)


def _matching(rules: list[Rule], device: _Device) -> Iterator[tuple[Rule, bool]]:
    """The same for one event; jumps are followed."""
    skip_to, maybe_to = "", ""
    for rule in rules:
        label = next((each.value for each in rule.tokens if each.key == "LABEL"), "")
        if skip_to and label != skip_to:
            continue
        skip_to, maybe_to = "", "" if label == maybe_to else maybe_to
        matches = device.matches(rule)
        if matches is False:
            continue
        yield rule, matches is True and not maybe_to
        target = next((each.value for each in rule.tokens if each.key == "GOTO"), "")
        if target and matches and not maybe_to:
            skip_to = target
        elif target:
            maybe_to = target


@dataclass(frozen=True)
class _Device:
    """What rules can ask of a device.

    Attributes:
        properties: as udev knows them; None where it does not run.
    """

    tree: Tree
    directory: str
    properties: dict[str, str] | None
    action: str = "add"

    def matches(self, rule: Rule) -> bool | None:
        """Whether a rule is for this device; None where that cannot be told from here."""
        results = [self._matches(each) for each in rule.tokens]
        return False if False in results else None if None in results else True

    def _matches(self, token: Token) -> bool | None:
        if token.operator not in ("==", "!="):
            # What is looked up or run on the way may fail, and the rule with it.
            return None if token.key in ("IMPORT", "PROGRAM") else True
        found = self._value(token)
        if found is None:
            return None
        return _equal(found, token.value) == (token.operator == "==")

    def _value(self, token: Token) -> str | None:
        if token.key == "ACTION":
            return self.action
        if token.key == "SUBSYSTEM":
            return "block"
        if token.key == "KERNEL":
            return os.path.basename(self.directory)
        if token.key == "ENV" and token.attribute == "DEVTYPE":
            return "disk"
        # A name with a dot in front is not in udev's database.
        if token.key == "ENV" and self.properties is not None and not token.attribute.startswith("."):
            return self.properties.get(token.attribute, "")
        if token.key == "ATTR" and "[" not in token.attribute:
            return (self.tree.read(f"{self.directory}/{token.attribute}") or "").rstrip()
        return None


def _equal(value: str, pattern: str) -> bool:
    return any(fnmatchcase(value, each) for each in pattern.split("|"))
