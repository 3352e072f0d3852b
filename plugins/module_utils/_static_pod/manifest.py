# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A static pod's manifest as a parsed object: read and change single settings, leave all the rest alone.

A *setting* is named by a flag (``--quota-backend-bytes``), a resource (``requests.cpu``) or a time that the pod is given
(``pod.startup_probe_seconds``), and its value is text. A flag that appears more than once has its values in order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Iterable, Mapping

from .._errors import KubetuneError
from .flags import BadValue
from .resources import quantity

#: What the kubelet replaces in a command line and in a variable's value, or takes one $ from.
_REFERENCE = re.compile(r"\$\$|\$\([^)]*\)")
#: The component that reads each of its flags from an environment variable too.
_ETCD = "etcd"
#: Kubernetes' own default of terminationGracePeriodSeconds.
GRACE = 30
RESOURCES = ("requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
#: Seconds to leave before it is killed; seconds to start before it is killed: the startup probe's failureThreshold x periodSeconds.
GRACE_KEY, STARTUP_KEY = "pod.termination_grace_period_seconds", "pod.startup_probe_seconds"
TIMES = (GRACE_KEY, STARTUP_KEY)
#: Kubernetes' own defaults of a probe (pkg/apis/core/v1/defaults.go, SetDefaults_Probe).
PROBE_PERIOD, PROBE_FAILURES = 10, 3


@dataclass(frozen=True)
class Variable:
    """An environment variable; ``value`` None where only the kubelet knows it (valueFrom)."""

    name: str
    value: str | None


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
        self.pod: dict[str, Any] = _unshared(pod)
        self.component = component
        containers = (self.pod.get("spec") or {}).get("containers") or []
        self.container = next((each for each in containers if each.get("name") == component), None)
        if self.container is None:
            names = ", ".join(str(each.get("name")) for each in containers) or "none"
            raise KubetuneError(f"{where} has no container named {component!r} (it has: {names})")
        if not self.container.get("command"):
            raise KubetuneError(
                f"{where} has no command: the image decides what its args mean, and flags cannot be merged; put {component!r} "
                "first in its command"
            )
        program = self.container["command"][0]
        if not all(isinstance(word, str) for word in self.argv) or program.rpartition("/")[2] != component:
            raise KubetuneError(
                f"{where} starts {program!r}, not {component!r} itself: flags behind a wrapper cannot be merged; put the program "
                "and each of its flags into the command as an item of its own, as kubeadm does"
            )

    @property
    def argv(self) -> list[str]:
        """What the process's command line will be."""
        container = self.container or {}
        return [*(container.get("command") or []), *(container.get("args") or [])]

    @property
    def references(self) -> list[str]:
        """Words of the command line that the kubelet fills in, such as --name=$(NODE_NAME): what will run is not known here."""
        return [word for word in self.argv if _REFERENCE.search(word)]

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
        """Set, replace or (None) remove a flag. It keeps its spelling and its last place; a new one goes to the end."""
        container = self.container or {}
        new = list(values or [])
        # kubeadm puts everything into `command`; others split program and flags.
        lists = {key: list(container[key]) for key in ("command", "args") if container.get(key)}
        items = {key: [(word, texts) for word, _value, texts in _items(words)] for key, words in lists.items()}
        there = sum(flag == name for found in items.values() for flag, _texts in found)
        left, seen = list(new), 0
        for key, found in items.items():
            kept: list[str] = []
            for flag, texts in found:
                if flag != name:
                    kept += texts
                    continue
                seen += 1
                if there == len(new) or (seen == there and len(new) == 1):
                    kept += _spelled(texts, left.pop(0))
                elif seen == there:
                    kept += [f"--{name}={value}" for value in left]
                    left = []
            lists[key] = kept
        lists["args" if "args" in lists else "command"] += [f"--{name}={value}" for value in left]
        for key, words in lists.items():
            container[key] = words

    def variable(self, flag: str) -> Variable | None:
        """The environment variable that gives etcd a flag (pkg/flags, FlagToEnv); None where there is none."""
        name = f"ETCD_{flag.upper().replace('-', '_')}"
        if self.component != _ETCD:
            return None
        found = [each for each in (self.container or {}).get("env") or [] if each.get("name") == name]
        if not found:
            return None
        value = str(found[-1].get("value") or "")
        return Variable(name, None if "valueFrom" in found[-1] or _REFERENCE.search(value) else value)

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

    def time(self, key: str) -> str | None:
        """Whole seconds of one of `TIMES`, None where it is not set: there is no startup probe, or nothing but the default of `GRACE`."""
        if key == GRACE_KEY:
            seconds = self.pod["spec"].get("terminationGracePeriodSeconds")
            return None if seconds is None else str(seconds)
        probe = self._startup_probe
        return None if probe is None else str(int(probe.get("failureThreshold") or PROBE_FAILURES) * self.startup_period)

    def set_time(self, key: str, value: str | None) -> None:
        """Of the startup probe only the failures change, in whole periods; without one there is nothing to change."""
        probe = self._startup_probe
        if key == GRACE_KEY and value is None:
            self.pod["spec"].pop("terminationGracePeriodSeconds", None)
        elif key == GRACE_KEY:
            self.pod["spec"]["terminationGracePeriodSeconds"] = int(value or GRACE)
        elif probe is not None and value is not None:
            probe["failureThreshold"] = -(-int(value) // self.startup_period)

    @property
    def startup_period(self) -> int:
        """Seconds between two tries of the startup probe."""
        return int((self._startup_probe or {}).get("periodSeconds") or PROBE_PERIOD)

    @property
    def _startup_probe(self) -> dict[str, Any] | None:
        return (self.container or {}).get("startupProbe") or None

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


def grace_in(text: str) -> int:
    """Seconds that a pod has to leave, from its manifest's text, on hosts, which have no YAML reader."""
    found = re.search(r"^ +[\"']?terminationGracePeriodSeconds[\"']? *: *(\d+)", text, re.MULTILINE)
    return int(found.group(1)) if found else GRACE


def memory_limit_in(text: str) -> int | None:
    """Bytes of the largest memory limit of a container, from a manifest's text like `grace_in`; None where none is seen."""
    below = [lines for _indent, lines in re.findall(r"^( *)[\"']?limits[\"']? *:((?:\n\1 +.*)+)", text, re.MULTILINE)]
    below += re.findall(r"\blimits[\"']?\s*:\s*\{([^}]*)\}", text)
    found = [each for lines in below for each in re.findall(r"\bmemory[\"']?\s*:\s*[\"']?([0-9][0-9.a-zA-Z]*)", lines)]
    try:
        return max((int(quantity(each)) for each in found), default=None)
    except BadValue:
        return None


def _unshared(data: Any) -> Any:
    """A copy in which no two places are one object, as YAML's references make them: what is set here is set here only."""
    if isinstance(data, Mapping):
        return {key: _unshared(value) for key, value in data.items()}
    return [_unshared(each) for each in data] if isinstance(data, list) else data


def flags_of(words: Iterable[str]) -> dict[str, list[str]]:
    """Flags of a command line without its program: name -> values in order; a bare flag is ``true``."""
    found: dict[str, list[str]] = {}
    for name, value, _texts in _items(list(words)):
        if name is not None:
            found.setdefault(name, []).append(value)
    return found


def _items(words: list[str]) -> Iterable[tuple[str | None, str, list[str]]]:
    """(flag, value, words that spell it); the flag is None for a word that belongs to no flag.

    kube-apiserver takes an underscore for a dash, and knows -v4; etcd takes one dash for two.
    """
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not _is_flag(word):
            yield None, word, [word]
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("_", "-")
        if equals:
            yield name, value, [word]
        elif re.fullmatch(r"-v\d+", word):
            yield "v", word[2:], [word]
        elif index < len(words) and not _is_flag(words[index]):
            yield name, words[index], [word, words[index]]
            index += 1
        else:
            yield name, "true", [word]


def _is_flag(word: str) -> bool:
    """A number below zero is a value."""
    return re.match(r"--?[^-\d.=]", word) is not None


def _spelled(words: list[str], value: str) -> list[str]:
    """A flag as it is spelled, with another value."""
    name, equals, _value = words[0].partition("=")
    if len(words) == 2 and not _is_flag(value):
        return [name, value]
    if re.fullmatch(r"-v\d+", name):
        name = "-v"
    if not equals and len(words) == 1 and value == "true" and name == words[0]:
        return words
    return [f"{name}={value}"]
