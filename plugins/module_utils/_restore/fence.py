# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control plane's static pods are kept out while etcd's data is exchanged, and come back in order."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable, Sequence

from .._errors import KubetuneError
from .._node import processes
from .._node.state import make_state_directory, sync_directory, write_atomically
from .._node_window import patience
from .._node_window.pod import POLL, until
from .._static_pod.catalogue import ETCD, KUBE_APISERVER
from .._static_pod.manifest import grace_in

CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
#: In the order in which they leave: nobody writes any more when etcd goes.
COMPONENTS = (*CONTROLLERS, KUBE_APISERVER, ETCD)
#: Seconds for the kubelet to see a new manifest (it looks each 20 s where no event tells it), and to start its container.
_START = 120
#: Seconds for which no process of a component is seen before it counts as ended.
_SURE = 2.0


class Fence:
    """
    Args:
        manifests: the kubelet's directory.
        kept: where the manifests are meanwhile.
        proc: where the host's processes are seen.
    """

    def __init__(self, manifests: Path, kept: Path, proc: Path = Path("/proc")) -> None:
        self._manifests, self._kept, self._proc = manifests, kept, proc

    def manifest(self, component: str) -> tuple[str, bool]:
        """(its text, whether it is kept out); an empty text where there is none.

        A manifest that somebody has put back meanwhile is the one that counts.
        """
        for path, out in ((self._path(component), False), (self._aside(component), True)):
            try:
                return path.read_bytes().decode(errors="replace"), out
            except FileNotFoundError:
                continue
        return "", False

    def running(self, component: str) -> list[processes.Process]:
        """What runs in a static pod of that name."""
        found = processes.find(component, {}, self._proc)
        return [each for each in found if processes.of_static_pod(each, component, self._proc)]

    def shut(self, components: Sequence[str], say: Callable[[str], None]) -> list[str]:
        """Take manifests away, and wait until their processes have ended; return the components that were still in.

        Raises:
            KubetuneError: one does not end: no kubelet is there to end it.
        """
        make_state_directory(self._kept)
        taken = []
        graces = {component: grace_in(self.manifest(component)[0]) for component in components}
        for component in components:
            path = self._path(component)
            if not path.exists():
                continue
            # A copy first, and then the removal: the two directories may be on different file systems.
            write_atomically(self._aside(component), path.read_bytes())
            path.unlink()
            sync_directory(path.parent)
            taken.append(component)
        for component in components:
            try:
                until(lambda name=component: self._stays_away(name), graces[component] + patience.EXIT, f"{component} has not ended", say)
            except KubetuneError as exc:
                raise KubetuneError(
                    f"{exc}: its manifest is away, and the kubelet does not end it; look at 'systemctl status kubelet', then run again"
                ) from exc
        return taken

    def open(self, component: str, text: str | None = None) -> bool:
        """Put a manifest in, its own or another text; False when it was in already, or there is none.

        Args:
            text: instead of the one that was kept.
        """
        kept, path = self._aside(component), self._path(component)
        if not kept.exists():
            return False
        if not path.exists():
            write_atomically(path, kept.read_bytes() if text is None else text.encode())
        kept.unlink()
        sync_directory(kept.parent)
        return True

    def wait_running(self, component: str, say: Callable[[str], None]) -> None:
        until(lambda: self.running(component), _START, f"{component} was not started", say)

    def _stays_away(self, component: str) -> bool:
        """One that ended by itself may be about to be started once more: the kubelet has not read of it yet."""
        end = time.monotonic() + _SURE
        while not self.running(component):
            if time.monotonic() > end:
                return True
            time.sleep(POLL)
        return False

    def _path(self, component: str) -> Path:
        return self._manifests / f"{component}.yaml"

    def _aside(self, component: str) -> Path:
        return self._kept / f"{component}.yaml"
