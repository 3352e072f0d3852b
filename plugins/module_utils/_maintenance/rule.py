# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rule which says when a member is due for defragmentation: an expression over its sizes.

The names and operators are those of etcd-defrag's ``--defrag-rule``, so that a rule can be taken over from there::

    dbSizeFree > 200*1024*1024 && (dbQuotaUsage > 0.8 || dbSizeFree / dbSize > 0.5)
"""

from __future__ import annotations

import ast
import operator
import re
from dataclasses import dataclass
from typing import Any, Callable, Mapping

from .._errors import KubetuneError

#: Name -> what it is. Sizes in bytes; the quota and its use are 0 where a member's version does not say.
VARIABLES = {
    "dbSize": "the database file",
    "dbSizeInUse": "what of it is in use",
    "dbSizeFree": "what of it is free",
    "dbQuota": "--quota-backend-bytes",
    "dbQuotaUsage": "share of the quota that the file takes, from 0 to 1",
}
ALLOWED = f"numbers, {', '.join(VARIABLES)}, + - * /, == != < <= > >=, && || ! and parentheses"

_ARITHMETIC: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda left, right: left / right if right else 0.0,  # the share of nothing
}
_COMPARISONS: Mapping[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True)
class Size:
    """A member's database file. Bytes; ``quota`` 0 where the version does not say."""

    size: int
    in_use: int
    quota: int

    @property
    def reclaimable(self) -> int:
        return max(0, self.size - self.in_use)

    @property
    def fragmentation(self) -> float:
        """Free share of the file."""
        return self.reclaimable / self.size if self.size else 0.0

    @property
    def quota_share(self) -> float:
        """etcd compares the file with the quota, not what is in use."""
        return self.size / self.quota if self.quota > 0 else 0.0


class Rule:
    """
    Args:
        text: the expression; its value has to be true or false.

    Raises:
        KubetuneError: why it cannot be used, without the rule itself.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        python = re.sub(r"!(?!=)", " not ", text.replace("&&", " and ").replace("||", " or "))
        try:
            self._tree = ast.parse(python.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise _Wrong("it cannot be read") from None
        if _kind(self._tree) is not bool:
            raise _Wrong("it is a number, and neither true nor false")

    def holds(self, size: Size) -> bool:
        return bool(_value(self._tree, {
            "dbSize": size.size,
            "dbSizeInUse": size.in_use,
            "dbSizeFree": size.reclaimable,
            "dbQuota": size.quota,
            "dbQuotaUsage": size.quota_share,
        }))  # fmt: skip


def problem(text: str) -> str:
    """What is wrong with a rule; empty when it can be used."""
    try:
        Rule(text)
    except _Wrong as exc:
        return str(exc)
    return ""


class _Wrong(KubetuneError):
    pass


def _kind(node: ast.expr) -> type:
    """``bool`` or ``float``, and that every part of it is allowed where it stands."""

    def are(kind: type, *parts: ast.expr) -> type:
        for part in parts:
            if _kind(part) is not kind:
                raise _Wrong(f"{ast.unparse(part)} is {'a number' if kind is bool else 'true or false'} in a place for the other")
        return kind

    if isinstance(node, ast.BoolOp):
        return are(bool, *node.values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return are(bool, node.operand)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return are(float, node.operand)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        are(float, node.left, *node.comparators)
        return bool
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return are(float, node.left, node.right)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float
    if isinstance(node, ast.Name) and node.id in VARIABLES:
        return float
    raise _Wrong(f"{ast.unparse(node)} is not known")


def _value(node: ast.expr, names: Mapping[str, float]) -> Any:
    if isinstance(node, ast.BoolOp):
        return (all if isinstance(node.op, ast.And) else any)(_value(each, names) for each in node.values)
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, names)
        return not value if isinstance(node.op, ast.Not) else -value
    if isinstance(node, ast.Compare):
        return _COMPARISONS[type(node.ops[0])](_value(node.left, names), _value(node.comparators[0], names))
    if isinstance(node, ast.BinOp):
        return _ARITHMETIC[type(node.op)](_value(node.left, names), _value(node.right, names))
    return names[node.id] if isinstance(node, ast.Name) else node.value  # type: ignore[attr-defined]
