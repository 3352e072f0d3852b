# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kubeadm's ClusterConfiguration as a parsed object: read and change single flags, leave all the rest alone.

v1beta4 (kubeadm 1.31 and newer) lists them as name and value, and a flag may be there more than once; v1beta3 (up to 1.36)
maps names to values.
"""

from __future__ import annotations

import copy
from typing import Any, Mapping, Sequence

from .._errors import KubetuneError
from .._static_pod.catalogue import ETCD, KUBE_APISERVER

V1BETA3, V1BETA4 = "kubeadm.k8s.io/v1beta3", "kubeadm.k8s.io/v1beta4"
#: Component -> where its section is.
_SECTIONS = {ETCD: ("etcd", "local"), KUBE_APISERVER: ("apiServer",)}
#: kubeadm's default of etcd.local.dataDir.
_DATA_DIRECTORY = "/var/lib/etcd"


class ClusterConfiguration:
    """
    Args:
        data: the parsed YAML; it is not changed, `data` of this object is a copy.

    Raises:
        KubetuneError: it is something else, or of a version that is not known.
    """

    def __init__(self, data: Any) -> None:
        kind = data.get("kind") if isinstance(data, Mapping) else type(data).__name__
        if kind != "ClusterConfiguration":
            raise KubetuneError(f"ConfigMap kubeadm-config holds {kind!r} as its ClusterConfiguration: mend it first (kubeadm config validate)")
        version = data.get("apiVersion")
        if version not in (V1BETA3, V1BETA4):
            raise KubetuneError(
                f"the ClusterConfiguration in kubeadm-config is of {version!r}, and {V1BETA3} and {V1BETA4} are known: "
                "write it anew with a kubeadm that knows both (kubeadm config migrate)"
            )
        self.data: dict[str, Any] = copy.deepcopy(dict(data))
        self.repeats = version == V1BETA4
        """Whether a flag can have several values."""

    @property
    def data_directory(self) -> str:
        """etcd's, as kubeadm mounts it into the pod."""
        return str((self._section(ETCD) or {}).get("dataDir") or _DATA_DIRECTORY).rstrip("/")

    def renders(self, component: str) -> bool:
        """Whether kubeadm writes a manifest of that component: not of etcd where it is an external one."""
        return component != ETCD or not (self.data.get("etcd") or {}).get("external")

    def flag(self, component: str, name: str) -> list[str] | None:
        """The values of a flag (without dashes), None where it is not set."""
        given = (self._section(component) or {}).get("extraArgs") or ([] if self.repeats else {})
        if self.repeats:
            values = [_text(each.get("value")) for each in given if each.get("name") == name]
        else:
            values = [_text(given[name])] if name in given else []
        return values or None

    def set_flag(self, component: str, name: str, values: Sequence[str] | None) -> None:
        """Set, replace or (None) remove a flag. It keeps its place; a new one goes to the end."""
        section = self._section(component, make=True)
        assert section is not None
        if self.repeats:
            given: Any = self._list_with(section.get("extraArgs") or [], name, values or [])
        else:
            given = dict(section.get("extraArgs") or {})
            if values is None:
                given.pop(name, None)
            else:
                (given[name],) = values
        if given:
            section["extraArgs"] = given
        else:
            section.pop("extraArgs", None)

    @staticmethod
    def _list_with(given: Sequence[Mapping[str, Any]], name: str, values: Sequence[str]) -> list[Mapping[str, Any]]:
        new = [{"name": name, "value": value} for value in values]
        places = [index for index, each in enumerate(given) if each.get("name") == name]
        at = places[0] if places else len(given)
        others = [each for each in given[at:] if each.get("name") != name]
        return [*given[:at], *new, *others]

    def _section(self, component: str, make: bool = False) -> dict[str, Any] | None:
        """The component's part; None where there is none and it is not to be made."""
        found: Any = self.data
        for key in _SECTIONS[component]:
            if not isinstance(found.get(key), dict):
                if not make:
                    return None
                found[key] = {}
            found = found[key]
        return found  # type: ignore[no-any-return]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
