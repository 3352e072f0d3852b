# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A static pod's manifest as a parsed object: read and change single settings, leave all the rest alone.

A *setting* is named either by a flag (``--quota-backend-bytes``) or by a resource (``requests.cpu``), and its value
is text. A flag that appears more than once has its values in order.
"""

from __future__ import annotations

import copy
from typing import Any, Iterable, Mapping

from .._errors import KubetuneError

#: Kubernetes' own default of terminationGracePeriodSeconds.
GRACE = 30
RESOURCES = ("requests.cpu", "requests.memory", "limits.cpu", "limits.memory")


class Manifest:
    """One pod with the one container that runs the component.

    Args:
        pod: the parsed YAML; it is not changed, `pod` of this object is a copy.
        component: the name of the container.

    Raises:
        KubetuneError: it is not such a pod; the text says what is there instead.
    """

    def __init__(self, pod: Any, component: str) -> None:
        where = f"the manifest of {component}"
        if not isinstance(pod, Mapping) or pod.get("kind") != "Pod":
            kind = pod.get("kind") if isinstance(pod, Mapping) else type(pod).__name__
            raise KubetuneError(f"{where} is not a Pod but {kind!r}: put kubeadm's manifest back, then run again")
        self.pod: dict[str, Any] = copy.deepcopy(dict(pod))
        self.component = component
        containers = (self.pod.get("spec") or {}).get("containers") or []
        self.container = next((each for each in containers if each.get("name") == component), None)
        if self.container is None:
            names = ", ".join(str(each.get("name")) for each in containers) or "none"
            raise KubetuneError(f"{where} has no container named {component!r} (it has: {names})")
        # kubeadm puts everything into `command`; others split program and flags.
        self._key = "args" if self.container.get("args") else "command"
        words = self.container.get(self._key) or []
        program = (self.container.get("command") or [""])[0]
        if program.rpartition("/")[2] != component or not all(isinstance(word, str) for word in words):
            raise KubetuneError(
                f"{where} starts {program!r}, not {component!r} itself: flags behind a wrapper cannot be merged"
            )

    @property
    def argv(self) -> list[str]:
        """What the process's command line will be."""
        container = self.container or {}
        return [*(container.get("command") or []), *(container.get("args") or [])]

    @property
    def image(self) -> str:
        return str((self.container or {}).get("image", ""))

    @property
    def grace(self) -> int:
        """Seconds that the pod has to leave before it is killed."""
        seconds = self.pod["spec"].get("terminationGracePeriodSeconds")
        return GRACE if seconds is None else int(seconds)

    def flags(self) -> dict[str, list[str]]:
        return flags_of(self.argv[1:])

    def set_flag(self, name: str, values: Iterable[str] | None) -> None:
        """Set, replace or (None) remove a flag. It keeps its place; a new one goes to the end."""
        container = self.container or {}
        words: list[str] = list(container.get(self._key) or [])
        first, rest = (words[:1], words[1:]) if self._key == "command" else ([], words)
        new = [f"--{name}={value}" for value in values] if values is not None else []
        kept: list[str] = []
        placed = False
        for flag, _value, texts in _items(rest):
            if flag != name:
                kept += texts
            elif not placed:
                kept += new
                placed = True
        if not placed:
            kept += new
        container[self._key] = [*first, *kept]

    def resource(self, key: str) -> str | None:
        """The text of ``requests.cpu`` and its like, None where it is not set."""
        kind, _, name = key.partition(".")
        value = (((self.container or {}).get("resources") or {}).get(kind) or {}).get(name)
        return None if value is None else str(value)

    def set_resource(self, key: str, value: str | None) -> None:
        kind, _, name = key.partition(".")
        container = self.container or {}
        resources = container.setdefault("resources", {}) or {}
        container["resources"] = resources
        amounts = resources.setdefault(kind, {}) or {}
        resources[kind] = amounts
        if value is not None:
            amounts[name] = value
        else:
            amounts.pop(name, None)
            if not amounts:
                resources.pop(kind)

    def host_path(self, path: str) -> str | None:
        """Where a path of the container is on the host; None when no hostPath volume carries it."""
        volumes = {each.get("name"): (each.get("hostPath") or {}).get("path") for each in self.pod["spec"].get("volumes") or []}
        best: tuple[int, str] | None = None
        for mount in (self.container or {}).get("volumeMounts") or []:
            inside = str(mount.get("mountPath", "")).rstrip("/")
            outside = volumes.get(mount.get("name"))
            if outside and (path == inside or path.startswith(inside + "/")):
                found = (len(inside), outside.rstrip("/") + path[len(inside):])
                best = max(best, found) if best else found
        return best[1] if best else None


def flags_of(words: Iterable[str]) -> dict[str, list[str]]:
    """Flags of a command line without its program: name -> values in order; a bare flag is ``true``."""
    found: dict[str, list[str]] = {}
    for name, value, _texts in _items(list(words)):
        if name is not None:
            found.setdefault(name, []).append(value)
    return found


def _items(words: list[str]) -> Iterable[tuple[str | None, str, list[str]]]:
    """(flag, value, words that spell it); the flag is None for a word that belongs to no flag."""
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not word.startswith("-"):
            yield None, word, [word]
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if equals:
            yield name, value, [word]
        elif index < len(words) and not words[index].startswith("-"):
            yield name, words[index], [word, words[index]]
            index += 1
        else:
            yield name, "true", [word]
