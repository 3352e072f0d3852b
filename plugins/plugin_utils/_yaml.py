# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML as the kubelet and kubeadm read and write it. PyYAML differs from Go's library in a few scalars."""

from __future__ import annotations

import re
from typing import Any

import yaml

#: What some YAML reader takes for something else than text, where it stands without quotes: the kubelet's and kubeadm's
#: (Go) know 1e3 and 0o17 as numbers, PyYAML does not. A pod whose text becomes a number is refused by the kubelet.
_AMBIGUOUS = re.compile(
    r"""
    | y | yes | n | no | on | off | true | false | null | ~ | << | =
    | [-+]?0x[0-9a-f_]+ | [-+]?0o[0-7_]+ | [-+]?0b[01_]+
    | [-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9_]+)(e[-+]?[0-9]+)?
    | [-+]?\.inf | \.nan
    | [-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?
    | [0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([t ].*)?
    """,
    re.VERBOSE | re.IGNORECASE,
)

#: Line breaks of YAML 1.1 that a reader turns into plain ones or spaces.
_OTHER_BREAKS = frozenset("\r\x85\u2028\u2029")


class Loader(yaml.SafeLoader):
    """Takes 12:30 and 2026-11-24 for text, as the kubelet does (Go's YAML library), not for a number in base 60 and a date."""


#: PyYAML's tag -> what of it holds for Go too; None: nothing.
_FOR_GO_TOO = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?(([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
    ),
    "tag:yaml.org,2002:timestamp": None,
}
Loader.yaml_implicit_resolvers = {
    first: [(tag, _FOR_GO_TOO.get(tag, pattern)) for tag, pattern in resolvers if _FOR_GO_TOO.get(tag, pattern)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Dumper(yaml.SafeDumper):
    """Writes as kubeadm does (Go's YAML library)."""

    def ignore_aliases(self, data: Any) -> bool:
        """Repeats what is repeated: a manifest with anchors would surprise its readers."""
        return True

    def text(self, text: str) -> yaml.ScalarNode:
        style = None
        if not text or _AMBIGUOUS.fullmatch(text) or _OTHER_BREAKS.intersection(text):
            style = '"'
        elif "\n" in text:
            style = "|"
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


Dumper.add_representer(str, Dumper.text)


def load(text: str) -> Any:
    """YAML as the kubelet and kubeadm read it.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, Loader)


def dump(data: Any) -> str:
    """In kubeadm's own layout, so that a diff shows what changed and nothing else."""
    return yaml.dump(data, Dumper=Dumper, default_flow_style=False, sort_keys=False, allow_unicode=True)
