# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CPU and memory of a node's static pods, added up against what the node can give (G11).

A request that does not fit makes the kubelet turn the pod away and leaves the node without its API server, so
it is found before anything is written.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, Iterable, Mapping

from .flags import BadValue

#: Bounded: 1e999999999 would take all memory to hold.
_QUANTITY = re.compile(
    r"([0-9]{1,19}(?:\.[0-9]{0,19})?|\.[0-9]{1,19})(?:[eE]([+-]?[0-9]{1,2}))?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?"
)
_FACTOR = {
    None: Fraction(1), "m": Fraction(1, 1000),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12), "P": Fraction(10**15),
    "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30), "Ti": Fraction(2**40), "Pi": Fraction(2**50),
}


def quantity(text: Any) -> Fraction:
    """Cores or bytes of a Kubernetes quantity such as 250m, 2, 4Gi or 1e3; raises `BadValue`."""
    found = _QUANTITY.fullmatch(str(text))
    if not found:
        raise BadValue("a Kubernetes quantity is needed, such as 250m, 2 or 4Gi")
    number, exponent, suffix = found.groups()
    return Fraction(number) * Fraction(10) ** int(exponent or 0) * _FACTOR[suffix]


def pod_request(pod: Mapping[str, Any], resource: str) -> Fraction:
    """What the scheduler counts for a pod: the containers' sum, or the largest init container if that is more.

    A container with a limit and no request requests its limit (Kubernetes' defaulting, applied by the kubelet too).
    """
    spec = pod.get("spec") or {}
    running = sum((_container_request(each, resource) for each in spec.get("containers") or []), Fraction(0))
    starting = max((_container_request(each, resource) for each in spec.get("initContainers") or []), default=Fraction(0))
    overhead = quantity((spec.get("overhead") or {}).get(resource, 0))
    return max(running, starting) + overhead


def excess(pods: Iterable[Mapping[str, Any]], allocatable: Mapping[str, str], resource: str) -> Fraction:
    """By how much the pods' requests exceed the node's allocatable; zero or less means that they fit."""
    return sum((pod_request(pod, resource) for pod in pods), Fraction(0)) - quantity(allocatable[resource])


def human(amount: Fraction, resource: str) -> str:
    if resource == "cpu":
        return f"{int(amount * 1000)}m"
    return f"{float(amount) / 2**20:.0f}Mi"


def _container_request(container: Mapping[str, Any], resource: str) -> Fraction:
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    return quantity(requests.get(resource, limits.get(resource, 0)))
