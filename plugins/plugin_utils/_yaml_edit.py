# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes a YAML text as little as its new meaning asks for: comments, order, quotes and layout of all the rest stay.

The text's own nodes tell where each value stands. They are compared with what is wanted, and only the spans that differ
are written: values in place, entries and items as whole lines in the layout of their neighbours. What comes out is read
again, and counts only when it means exactly what is wanted.
"""

from __future__ import annotations

import io
import json
import re
import sys
from bisect import bisect_left
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Hashable, Iterator, Mapping, Sequence

import yaml

from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _yaml

_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"


class NotKept(Exception):
    """The text cannot be edited in place; why, as a part of a sentence."""


def edit(text: str, new: Any) -> str:
    """The text, changed to mean ``new``.

    Args:
        text: one YAML document.
        new: plain data, as a YAML reader returns it.

    Raises:
        NotKept: there is no safe way but to write it anew.
    """
    old = _yaml.load(text)
    if _same(old, new):
        return text
    change = _Change(text)
    change.node(change.root, None, old, new)
    result = change.result()
    try:
        meant = _yaml.load(result)
    except yaml.YAMLError as exc:
        raise NotKept(f"it is laid out in a way that is not understood ({getattr(exc, 'problem', exc)})") from exc
    if not _same(meant, new):
        raise NotKept("it is laid out in a way that is not understood")
    return result


@dataclass(frozen=True)
class _Place:
    """Where a value stands.

    Attributes:
        after: offset behind the colon or the dash.
        column: of the key or the dash.
        item: of a sequence, and not of a mapping.
        flow: within brackets or braces.
    """

    after: int
    column: int
    item: bool = False
    flow: bool = False


class _Alias(yaml.Node):
    """A reference, which PyYAML would replace by what it refers to."""

    id = "alias"


class _Composer(_yaml.Loader):
    """Keeps references apart from what they refer to."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.anchor_of: dict[int, str] = {}
        self.used: set[str] = set()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            self.used.add(event.anchor)
            return _Alias("alias", event.anchor, event.start_mark, event.end_mark)
        node = super().compose_node(parent, index)
        if event.anchor:
            self.anchor_of[id(node)] = event.anchor
        return node


class _Dumper(_yaml.Dumper):
    """Sequences stand below their key, or (``indented``) to the right of it."""

    indented = False

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless and not self.indented)


class _IndentedDumper(_Dumper):
    indented = True


class _Change:
    """The spans of a text that are to be replaced."""

    def __init__(self, text: str) -> None:
        self._newline = "\r\n" if "\r\n" in text else "\n"
        # Where the last line does not end, it is ended for the change, and opened again.
        self._open = not text.endswith("\n")
        self._text = text = text + self._newline if self._open else text
        self._composer = _Composer(text)
        root: Any = self._composer.get_single_node()
        self.root = root
        tokens = list(yaml.scan(text, _yaml.Loader))
        self._dashes = [token.start_mark.index for token in tokens if isinstance(token, yaml.BlockEntryToken)]
        self._colons = [token.end_mark.index for token in tokens if isinstance(token, yaml.ValueToken)]
        self._step, self._offset = _layout(self.root)
        self._spans: list[tuple[int, int, str]] = []

    def result(self) -> str:
        found, at = [], 0
        for start, end, new in sorted(self._spans, key=lambda span: span[:2]):
            if start < at:
                raise NotKept("two of its changes touch each other")
            found += [self._text[at:start], new]
            at = end
        result = "".join([*found, self._text[at:]])
        return result.removesuffix(self._newline) if self._open else result

    # --- what differs -----------------------------------------------------------------------------------------

    def node(self, node: yaml.Node, place: _Place | None, old: Any, new: Any) -> None:
        if _same(old, new):
            return
        anchor = self._composer.anchor_of.get(id(node))
        if anchor in self._composer.used:
            raise NotKept(f"&{anchor} is used in several places of it, and one of them changes")
        if isinstance(node, yaml.MappingNode) and isinstance(new, dict) and self._mapping(node, place, old, new):
            return
        if isinstance(node, yaml.SequenceNode) and isinstance(new, list) and self._sequence(node, place, old, new):
            return
        if place is None:
            raise NotKept("nothing of it stays")
        self._replace(node, place, new)

    def _mapping(self, node: yaml.MappingNode, place: _Place | None, old: dict[Any, Any], new: dict[Any, Any]) -> bool:
        """Whether the mapping itself stays."""
        pairs = [(self._key(key), key, value) for key, value in node.value if key.tag != _MERGE]
        keys = [key for key, _node, _value in pairs]
        gone = {key for key in keys if key not in new}
        added = {key: new[key] for key in new if key not in keys and not (key in old and _same(old[key], new[key]))}
        if not set(keys) - gone:
            return False
        if any(key not in keys and key not in new for key in old):
            raise NotKept("it takes entries from another mapping (<<), and one of them goes")
        for key, where, value in pairs:
            if key in new and not _same(old[key], new[key]):
                if keys.count(key) > 1:
                    raise NotKept(f"{key!r} stands there twice, and changes")
                self.node(value, _Place(self._colon(where), where.start_mark.column, flow=bool(node.flow_style)), old[key], new[key])
        if node.flow_style:
            spans = [(where.start_mark.index, _end(value)) for _key, where, value in pairs]
            quotes = self._chosen_quotes(node)
            items = [_inline({key: value}, quotes, True)[1:-1] for key, value in added.items()]
            self._in_brackets(node, spans, [index for index, key in enumerate(keys) if key in gone], {len(spans): items})
            return True
        self._drop_entries([(where, value, key in gone) for key, where, value in pairs])
        if added:
            lines = _lines(added, self._dumper(), self._step)
            self._insert(self._behind(node.value[-1][1]), lines, node.value[0][0].start_mark.column)
        return True

    def _sequence(self, node: yaml.SequenceNode, place: _Place | None, old: list[Any], new: list[Any]) -> bool:
        """Whether the sequence itself stays."""
        if not new or not old:
            return False
        if node.flow_style:
            gone: list[int] = []
            added: dict[int, list[str]] = {}
            for start, stop, kept, items in _steps(old, new):
                for index, item in kept:
                    self.node(node.value[index], _Place(0, 0, item=True, flow=True), old[index], item)
                gone += range(start, stop)
                added.setdefault(start, []).extend(_inline(item, self._chosen_quotes(node), True) for item in items)
            self._in_brackets(node, [(each.start_mark.index, _end(each)) for each in node.value], gone, added)
            return len(gone) < len(old)
        dashes = [self._dashes[bisect_left(self._dashes, each.start_mark.index) - 1] for each in node.value]
        column = dashes[0] - self._line(dashes[0])
        for start, stop, kept, items in _steps(old, new):
            for index, item in kept:
                self.node(node.value[index], _Place(dashes[index] + 1, column, item=True), old[index], item)
            for index in range(start, stop):
                self._cut_lines(dashes[index], self._behind(node.value[index]))
            if items:
                at = self._behind(node.value[start - 1]) if start else self._line(dashes[0])
                quotes = self._chosen_quotes(node.value[max(0, start - 1)])
                self._insert(at, [line for item in items for line in self._item(item, quotes)], column)
        return True

    # --- what is written --------------------------------------------------------------------------------------

    def _replace(self, node: yaml.Node, place: _Place, new: Any) -> None:
        """Another value in the place of a node."""
        start, end, behind = node.start_mark.index, _end(node), self._behind(node)
        block = isinstance(node, yaml.CollectionNode) and not node.flow_style
        brackets = isinstance(node, yaml.CollectionNode) and bool(node.flow_style)
        flow = place.flow or (brackets and bool(node.value) and bool(new))
        inline = flow or not (isinstance(new, (dict, list)) and new)
        own_lines = "\n" in self._text[place.after : start]
        if brackets:
            self._no_comment(start, end)
        if inline:
            text = _inline(new, self._chosen_quotes(node), flow)
            if block and own_lines:
                self._spans.append((place.after, place.after, f" {text}"))
                self._spans.append((self._line(start), behind, ""))
            else:
                space = " " if start == place.after else ""
                self._spans.append((start, end, space + text + (self._newline if self._ends_line(node) else "")))
            return
        column = place.column + (0 if isinstance(new, list) and not place.item and not self._offset else self._step)
        if place.item:
            self._item_in_place(node, place, new)
        elif own_lines:
            self._spans.append((self._line(start), behind, ""))
            self._insert(behind, _lines(new, self._dumper(), self._step), column)
        else:
            self._spans.append((place.after, end, self._newline if self._ends_line(node) else ""))
            self._insert(behind, _lines(new, self._dumper(), self._step), column)

    def _item_in_place(self, node: yaml.Node, place: _Place, new: Any) -> None:
        behind = self._behind(node)
        rest = self._text[_end(node) : behind]
        if rest.strip():
            raise NotKept("a comment stands beside an item that becomes something else")
        first, *others = self._item(new, None)
        text = [first[1:], *(f"{' ' * place.column}{line}" if line else "" for line in others)]
        self._spans.append((place.after, behind, "".join(line + self._newline for line in text)))

    def _in_brackets(
        self, node: yaml.Node, spans: Sequence[tuple[int, int]], gone: Sequence[int], added: Mapping[int, Sequence[str]]
    ) -> None:
        """Items or entries within brackets: ``spans`` of all, the indexes that go, index -> texts that come before it."""
        if not gone and not any(added.values()):
            return
        if len(gone) == len(spans):
            return
        self._no_comment(node.start_mark.index, _end(node))
        between = self._text[spans[0][1] : spans[1][0]] if len(spans) > 1 else ""
        comma = between if re.fullmatch(r"\s*,\s*", between) else ", "
        stays = next(index for index in range(len(spans)) if index not in gone)
        if stays:
            self._spans.append((spans[0][0], spans[stays][0], ""))
        for index in gone:
            if index > stays:
                self._spans.append((spans[index - 1][1], spans[index][1], ""))
        for index, texts in added.items():
            if index <= stays:
                self._spans.append((spans[stays][0], spans[stays][0], "".join(text + comma for text in texts)))
            else:
                self._spans.append((spans[index - 1][1], spans[index - 1][1], "".join(comma + text for text in texts)))

    def _no_comment(self, start: int, end: int) -> None:
        if "\n" in self._text[start:end] and "#" in self._text[start:end]:
            raise NotKept("a comment stands inside brackets, and something beside it changes")

    def _chosen_quotes(self, node: yaml.Node) -> str | None:
        """The quotes around a scalar, or the first one within, that it would not need."""
        while isinstance(node, yaml.CollectionNode) and node.value:
            node = node.value[0][0] if isinstance(node, yaml.MappingNode) else node.value[-1]
        quotes: str | None = getattr(node, "style", None)
        return quotes if quotes in ("'", '"') and _inline(node.value, None, False)[:1] not in ("'", '"') else None

    def _drop_entries(self, entries: Sequence[tuple[yaml.Node, yaml.Node, bool]]) -> None:
        """Take the entries out that are marked as gone; at least one stays."""
        stays = [gone for _key, _value, gone in entries].index(False)
        first = entries[0][0].start_mark.index
        if stays and self._text[self._line(first) : first].strip():
            # Behind a dash: the first one that stays comes up there.
            upto = entries[stays][0].start_mark.index
            if any(line.strip().startswith("#") for line in self._text[first:upto].splitlines()):
                raise NotKept("a comment stands between a dash and an entry that comes up to it")
            self._spans.append((first, upto, ""))
            entries = entries[stays:]
        for key, value, gone in entries:
            if gone:
                self._cut_lines(key.start_mark.index, self._behind(value))

    def _cut_lines(self, start: int, behind: int) -> None:
        """Take out the lines from the one of an offset to the start of another line."""
        line = self._line(start)
        if self._text[line:start].strip():
            raise NotKept("something that goes shares its line with something that stays")
        self._spans.append((line, behind, ""))

    def _insert(self, at: int, lines: Sequence[str], column: int) -> None:
        """Lines before the one that starts at an offset."""
        text = [f"{' ' * column}{line}" if line else "" for line in lines]
        self._spans.append((at, at, "".join(line + self._newline for line in text)))

    def _item(self, value: Any, quotes: str | None) -> list[str]:
        if isinstance(value, str) and quotes in ("'", '"'):
            return [f"- {_inline(value, quotes, False)}"]
        return _lines([value], self._dumper(), self._step)

    def _dumper(self) -> type[_Dumper]:
        return _IndentedDumper if self._offset else _Dumper

    # --- where it stands --------------------------------------------------------------------------------------

    def _key(self, node: yaml.Node) -> Any:
        if isinstance(node, _Alias):
            raise NotKept("a key of it is a reference")
        return self._composer.construct_object(node, deep=True)

    def _colon(self, key: yaml.Node) -> int:
        """Offset behind the colon of a key."""
        found = bisect_left(self._colons, _end(key))
        if found == len(self._colons):
            raise NotKept("a key of it has no colon, and what it stands for changes")
        return self._colons[found]

    def _line(self, offset: int) -> int:
        """Where the line of an offset starts."""
        return self._text.rfind("\n", 0, offset) + 1

    def _ends_line(self, node: yaml.Node) -> bool:
        """Whether a node takes its line's end with it, as a block of text does."""
        end = _end(node)
        return getattr(node, "style", None) in ("|", ">") and self._text[end - 1 : end] == "\n"

    def _behind(self, node: yaml.Node) -> int:
        """Where the line after a node starts."""
        last = _last(node)
        if self._ends_line(last):
            return _end(last)
        return self._text.find("\n", _end(last)) + 1


def _last(node: yaml.Node) -> yaml.Node:
    """The last leaf: a block collection's own end mark is where the next thing begins."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    return node


def _end(node: yaml.Node) -> int:
    return int(_last(node).end_mark.index)


def _layout(root: yaml.Node) -> tuple[int, int]:
    """(columns that a mapping stands to the right of its key, columns of a sequence), by the first of each; kubeadm's 2 and 0."""
    step = offset = None
    for key, value in _entries(root):
        moved = value.start_mark.column - key.start_mark.column
        if isinstance(value, yaml.CollectionNode) and not value.flow_style and value.start_mark.line > key.start_mark.line:
            if isinstance(value, yaml.MappingNode):
                step = step or moved
            elif offset is None:
                offset = moved
    return max(step or 2, 2), offset or 0


def _entries(node: yaml.Node) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key, value
            yield from _entries(value)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _entries(each)


def _steps(old: list[Any], new: list[Any]) -> Iterator[tuple[int, int, list[tuple[int, Any]], list[Any]]]:
    """What makes one list of another: (first and last+1 index that go, [(index, new item) that stay], new items in their place).

    Items that differ stay where they are the same thing with another value.
    """
    exactly = SequenceMatcher(None, [_canonical(each) for each in old], [_canonical(each) for each in new], autojunk=False)
    for tag, i, i_end, j, j_end in exactly.get_opcodes():
        if tag == "equal":
            continue
        alike = SequenceMatcher(None, [_kind(each) for each in old[i:i_end]], [_kind(each) for each in new[j:j_end]], autojunk=False)
        for what, k, k_end, m, m_end in alike.get_opcodes():
            if what == "equal":
                yield i + k, i + k, [(i + k + n, new[j + m + n]) for n in range(k_end - k)], []
            else:
                yield i + k, i + k_end, [], new[j + m : j + m_end]


def _kind(item: Any) -> Hashable:
    """What an item is, whatever its value: a flag's name, a container's or a volume's."""
    if isinstance(item, str):
        return item.partition("=")[0]
    return (type(item).__name__, str(item.get("name")) if isinstance(item, dict) else "")


def _canonical(data: Any) -> Hashable:
    """Equal for equal data: 1, 1.0 and true are not."""
    if isinstance(data, dict):
        return ("{}", frozenset((_canonical(key), _canonical(value)) for key, value in data.items()))
    if isinstance(data, list):
        return ("[]", tuple(_canonical(each) for each in data))
    return (type(data).__name__, repr(data))


def _same(one: Any, other: Any) -> bool:
    return _canonical(one) == _canonical(other)


def _lines(data: Any, dumper: type[_Dumper], step: int) -> list[str]:
    text: str = yaml.dump(
        data, Dumper=dumper, default_flow_style=False, sort_keys=False, allow_unicode=True, width=sys.maxsize, indent=step
    )
    return text[:-1].split("\n")


def _inline(data: Any, style: str | None, flow: bool) -> str:
    """On one line, with these quotes or what it needs; double quotes within brackets make JSON."""
    in_json = json.dumps(data, ensure_ascii=False, default=repr) if flow and style == '"' else ""
    if in_json and in_json.isprintable():
        return in_json
    stream = io.StringIO()
    dumper = _Dumper(stream, default_flow_style=flow, sort_keys=False, allow_unicode=True, width=sys.maxsize)
    node: Any = dumper.represent_data(data)
    if isinstance(data, str):
        node.style = '"' if "\n" in data or style == '"' else style if style == "'" else node.style
    around: yaml.Node = yaml.MappingNode("tag:yaml.org,2002:map", [(yaml.ScalarNode(_TEXT, "k"), node)], flow_style=False)
    if flow:
        around = yaml.SequenceNode("tag:yaml.org,2002:seq", [node], flow_style=True)
    dumper.open()
    dumper.serialize(around)
    dumper.close()
    text = stream.getvalue().rstrip("\n")
    return text[1:-1] if flow else text.partition(":")[2].lstrip(" ")
