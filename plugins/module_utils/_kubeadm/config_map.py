# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ConfigMap kube-system/kubeadm-config, through the host's own kubectl and with the administrator's credentials."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

from .._errors import KubetuneError
from .._node.state import STATE, make_state_directory, surplus, write_atomically

NAMESPACE, NAME, KEY = "kube-system", "kubeadm-config", "ClusterConfiguration"
#: Where kubectl and kubeadm may be, beyond a PATH which sudo has shortened.
_PLACES = ("/usr/local/bin", "/usr/bin", "/opt/bin")
#: Seconds for one answer of the API, for kubectl as a whole, and between two tries.
_REQUEST, _COMMAND, _PAUSE = 15, 60, 2
_TRIES = 3
#: How many replaced ConfigMaps a host keeps.
KEEP = 20


@dataclass(frozen=True)
class Replaced:
    """
    Attributes:
        kept: where the old object is on the host.
        notice: what is to be said of it; empty for nothing.
    """

    kept: str
    notice: str


class ConfigMap:
    """
    Args:
        kubeconfig: of an administrator.
        directories: where programs are looked for.
    """

    def __init__(self, kubeconfig: str, state: Path = STATE, directories: Sequence[str] = _PLACES) -> None:
        self._kubeconfig = kubeconfig
        self._kept = state / NAME
        self._state = state
        self._path = os.pathsep.join([os.environ.get("PATH", os.defpath), *directories])

    def read(self) -> dict[str, Any] | None:
        """The whole object; None where the cluster has none (it is not kubeadm's).

        Raises:
            KubetuneError: kubectl or the kubeconfig is missing, or the API does not answer.
        """
        get = ("--namespace", NAMESPACE, "get", "configmap", NAME, "--ignore-not-found", "--output=json")
        for attempt in range(_TRIES):
            # Behind a balancer an API server that has just been restarted may not be asked again yet.
            time.sleep(_PAUSE if attempt else 0)
            done = self._kubectl(get)
            if done.returncode == 0:
                return dict(json.loads(done.stdout)) if done.stdout.strip() else None
        raise KubetuneError(f"kubectl cannot read ConfigMap {NAMESPACE}/{NAME} with {self._kubeconfig}: {_said(done)}")

    def replace(self, new: Mapping[str, Any]) -> Replaced | None:
        """Replace the object if nobody else has since it was read; the old one is kept on the host.

        Returns:
            None when somebody else was faster, and nothing was done.

        Raises:
            KubetuneError: kubeadm does not take the new configuration, or the API does not.
        """
        old = self.read()
        if old is None or _version(old) != _version(new):
            return None
        notice = self._judge(old["data"][KEY], new["data"][KEY])
        kept = self._keep(old)
        done = self._kubectl(("replace", "--filename=-"), json.dumps(new))
        # An answer may be lost on its way: then what is there tells.
        if done.returncode == 0 or _content(self.read()) == _content(new):
            return Replaced(str(kept), notice)
        kept.unlink()
        # The API compares once more, by metadata.resourceVersion (HTTP 409).
        if "(Conflict)" in done.stderr:
            return None
        raise KubetuneError(f"kubectl cannot replace ConfigMap {NAMESPACE}/{NAME}: {_said(done)}; it is as it was")

    def _judge(self, old: str, new: str) -> str:
        """Have the host's kubeadm judge the new configuration, where there is one.

        Returns:
            Why it cannot: it does not take the old one either, as a kubeadm two minors away from the cluster does not.
        """
        kubeadm = shutil.which("kubeadm", path=self._path)
        refused = self._refused(kubeadm, new) if kubeadm else ""
        if not refused:
            return ""
        if self._refused(kubeadm, old):
            return f"{kubeadm} on this host could not judge it, as it takes neither the old one nor the new one: {refused}"
        raise KubetuneError(
            f"{kubeadm} on this host does not take the ClusterConfiguration as it would be: {refused}; ConfigMap {NAMESPACE}/{NAME} "
            "is as it was"
        )

    def _refused(self, kubeadm: str, text: str) -> str:
        """What kubeadm has against a configuration; empty when it takes it."""
        make_state_directory(self._state)
        with tempfile.NamedTemporaryFile("w", dir=self._state, prefix=".kubeadm-", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            done = _run([kubeadm, "config", "validate", "--config", file.name])
        return _said(done) if done.returncode != 0 else ""

    def _keep(self, old: Mapping[str, Any]) -> Path:
        """0600: a proxy's password may be in its environment variables."""
        for directory in (self._state, self._kept):
            make_state_directory(directory)
        path = self._kept / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{_version(old)}.json"
        write_atomically(path, json.dumps(old, indent=2).encode() + b"\n")
        for each in surplus(sorted(each for each in self._kept.glob("*.json") if each != path), KEEP):
            each.unlink()
        return path

    def _kubectl(self, arguments: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
        kubectl = shutil.which("kubectl", path=self._path)
        if kubectl is None:
            raise KubetuneError("kubectl is not on this host, and kubeadm's configuration can be kept through it only: install it")
        if not os.path.isfile(self._kubeconfig):
            raise KubetuneError(
                f"{self._kubeconfig} is not on this host: give an administrator's kubeconfig (kubeadm_persistence_kubeconfig), or "
                "make it anew (kubeadm init phase kubeconfig admin)"
            )
        return _run([kubectl, f"--kubeconfig={self._kubeconfig}", f"--request-timeout={_REQUEST}s", *arguments], text)


def _run(command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=_COMMAND)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return subprocess.CompletedProcess(command, 1, "", str(exc))


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """The end of what a program said, as one line."""
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    # kubeadm's own notices (klog) come before, and its advice how to see more after that.
    lines = [line.strip() for line in lines if not re.match(r"[IWE]\d{4} |To see the stack trace", line)]
    return " ".join(lines[-6:]) or f"status {done.returncode}"


def _content(config_map: Mapping[str, Any] | None) -> tuple[Any, Any]:
    found = config_map or {"metadata": {}}
    return found.get("data"), found["metadata"].get("annotations") or {}


def _version(config_map: Mapping[str, Any]) -> str:
    return str(config_map["metadata"]["resourceVersion"])
