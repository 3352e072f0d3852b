# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kubeadm's configuration cannot say, as patches on the host: ``kubeadm upgrade --patches DIRECTORY`` takes them.

kubeadm reads files named TARGET+TYPE.yaml there; a strategic merge patch finds the container by its name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping, Sequence

from .. import _report
from .._errors import KubetuneError
from .._node.state import write_atomically
from .._static_pod.catalogue import COMPONENTS, Component
from .._static_pod.manifest import GRACE_KEY, RESOURCES, STARTUP_KEY, TIMES
from .._static_pod.resources import quantity
from .hosts import APPLIED
from .plan import ROLE

#: Seconds between two tries of the startup probe that kubeadm renders (cmd/kubeadm/app/util/staticpod/utils.go, 1.29 to 1.37).
STARTUP_PERIOD = 10
#: The first line of each file; one without it is not this collection's.
HEADER = "# Written by kubetune.control_plane for kubeadm upgrade --patches; changes are overwritten.\n"


def settings(component: Component, memory: Mapping[str, Any] | None, report: Sequence[Mapping[str, Any]] = ()) -> dict[str, str]:
    """``requests.cpu``, `TIMES` and their like which this collection has applied; none where the whole manifest is ours, not kubeadm's.

    Args:
        memory: what was applied last.
        report: of a plan which is to be looked at as if it were done; empty for what is.
    """
    if (memory or {}).get("rendered"):
        return {}
    known = (memory or {}).get("settings") or {}
    applied = {key: str(known[key]["applied"][0]) for key in (*RESOURCES, *TIMES) if (known.get(key) or {}).get("applied")}
    lines = [line for line in report if line["role"] == component.role]
    if not lines:
        return applied
    # An item may have a warning, too.
    planned = {line["item"]: line["value"] for line in lines if line["verdict"] in APPLIED and line["value"]}
    found = {key: planned.get(f"{component.name} {key}") for key in (*RESOURCES, *TIMES)}
    # The report has the live text, and kubeadm writes 4000m as 4.
    return {key: _same_text(str(value), applied.get(key)) for key, value in found.items() if value}


def _same_text(value: str, known: str | None) -> str:
    """The known text of an amount where it means the same."""
    return known if known is not None and quantity(known) == quantity(value) else value


def render(component: Component, amounts: Mapping[str, str]) -> str | None:
    """The patch's text; None where there is nothing to patch."""
    if not amounts:
        return None
    lines = ["spec:"]
    if GRACE_KEY in amounts:
        lines.append(f"  terminationGracePeriodSeconds: {int(amounts[GRACE_KEY])}")
    if set(amounts) - {GRACE_KEY}:
        lines += ["  containers:", f"  - name: {component.name}"]
    if STARTUP_KEY in amounts:
        lines += ["    startupProbe:", f"      failureThreshold: {-(-int(amounts[STARTUP_KEY]) // STARTUP_PERIOD)}"]
    lines += ["    resources:"] * any(key in amounts for key in RESOURCES)
    for kind in ("limits", "requests"):
        found = {key.partition(".")[2]: value for key, value in amounts.items() if key.startswith(f"{kind}.")}
        lines += [f"      {kind}:"] * bool(found) + [f"        {name}: {json.dumps(value)}" for name, value in sorted(found.items())]
    return HEADER + "\n".join(lines) + "\n"


def path_of(component: Component, directory: Path) -> Path:
    return directory / f"{component.name}+strategic.yaml"


def apply(directory: Path, wanted: Mapping[str, Mapping[str, str]], check: bool = False) -> _report.Outcome:
    """Make the files say what is wanted; a component without anything has no file.

    Args:
        wanted: component -> its settings, as `settings` tells them.

    Raises:
        KubetuneError: a file of that name is somebody else's. Nothing is changed then.
    """
    result = _report.Outcome()
    plans = []
    for component in COMPONENTS.values():
        path = path_of(component, directory)
        before = path.read_text() if path.is_file() else None
        if before is not None and not before.startswith(HEADER):
            raise KubetuneError(
                f"{path} is there and not this collection's: rename it ({component.name}-other+strategic.yaml is read as well), or give "
                "another kubeadm_persistence_patches_directory"
            )
        plans.append((component, path, before, render(component, wanted.get(component.name, {}))))
    for component, path, before, after in plans:
        _say(result, path, before, after, wanted.get(component.name, {}))
        if before == after:
            continue
        result.changed = True
        result.diff.append(_report.difference(path, before or "", after or ""))
        if not check:
            _write(path, after)
    return result


def _write(path: Path, text: str | None) -> None:
    if text is not None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomically(path, text.encode(), 0o644)
        return
    path.unlink()
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


def _say(result: _report.Outcome, path: Path, before: str | None, after: str | None, amounts: Mapping[str, str]) -> None:
    if before is None and after is None:
        return
    value = ", ".join(f"{key} {amount}" for key, amount in amounts.items()) or None
    verdict = "already_right" if before == after else "changed" if after is not None else "restored"
    reason = f"for kubeadm upgrade --patches {path.parent}" if after is not None else "it was not there before"
    result.report.append(_report.entry(ROLE, f"kubeadm patch {path.name}", verdict, value, None, reason))
