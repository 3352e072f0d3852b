# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A text is changed as little as its new meaning asks for, or not at all."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import yaml
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _yaml
from ansible_collections.kubetune.control_plane.plugins.plugin_utils._yaml_edit import NotKept, edit
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.plugin_utils.test_yaml import FILES


# --- one by one -----------------------------------------------------------------------------------------------

#: What it is about, the text, what it shall mean, the text then.
CASES = [
    ("a value", "a: 1 # one\nb: 2\n", "{a: 3, b: 2}", "a: 3 # one\nb: 2\n"),
    ("double quotes", 'a: "1"\n', '{a: "2"}', 'a: "2"\n'),
    ("single quotes", "a: 'x'\n", "{a: it's}", "a: 'it''s'\n"),
    ("quotes that text needs", "a: x\n", '{a: "1"}', 'a: "1"\n'),
    ("quotes that a number does not need", 'a: "1"\n', "{a: 1}", "a: 1\n"),
    ("text with a break", "a: x\n", '{a: "q\\nz"}', 'a: "q\\nz"\n'),
    ("text over lines", "a: one\n  two\nb: 1\n", "{a: x, b: 1}", "a: x\nb: 1\n"),
    ("a block of text", "a: |\n  one\n  two\nb: 1\n", "{a: x, b: 1}", "a: x\nb: 1\n"),
    ("a folded block at the end", "b: 1\na: >-\n  one\n  two", "{b: 1, a: x}", "b: 1\na: x"),
    ("beside a block of text", "a: |\n  # no comment\n\nb: 1\n", '{a: "# no comment\\n", b: 2}', "a: |\n  # no comment\n\nb: 2\n"),
    ("nothing becomes something", "a:\nb: # none\n", "{a: 1, b: 2}", "a: 1\nb: 2 # none\n"),
    ("spaces at the end", "a: 1  \nb: 2 \n", "{a: 3, b: 4}", "a: 3  \nb: 4 \n"),
    ("a document's marks", "%YAML 1.1\n--- # first\na: 1\n...\n", "{a: 2, b: 3}", "%YAML 1.1\n--- # first\na: 2\nb: 3\n...\n"),
    ("a tag", "a: !!str 1\nb: 1\n", "{a: x, b: 1}", "a: x\nb: 1\n"),
    ("a key in quotes", "'a b': 1\n", "{a b: 2}", "'a b': 2\n"),
    ("a new entry", "a:\n  b: 1\n# end\n", "{a: {b: 1, c: [2]}}", "a:\n  b: 1\n  c:\n  - 2\n# end\n"),
    ("new entries in two depths", "a:\n  b: 1\n", "{a: {b: 1, c: 2}, d: 3}", "a:\n  b: 1\n  c: 2\nd: 3\n"),
    ("a new entry without a line end", "a: 1", "{a: 1, b: 2}", "a: 1\nb: 2"),
    ("an entry goes", "# top\na: 1 # one\n# mid\nb: 2\n", "{b: 2}", "# top\n# mid\nb: 2\n"),
    ("the last entry goes", "a: 1\nb:\n  c: 1\n\n# end\n", "{a: 1}", "a: 1\n\n# end\n"),
    ("the last entry goes without a line end", "a: 1\r\nb: 2", "{a: 1}", "a: 1"),
    ("one entry goes and one comes", "a: 1\nb: 2", "{a: 1, c: 3}", "a: 1\nc: 3"),
    ("the entry behind a dash goes", "- a: 1\n  b: 2\n  c: 3\n", "[{c: 3}]", "- c: 3\n"),
    ("an entry after the one behind a dash goes", "- a: 1\n  b: 2\n", "[{a: 1}]", "- a: 1\n"),
    ("all entries go", "a: # why\n  b: 1\nc: 2\n", "{a: {}, c: 2}", "a: {} # why\nc: 2\n"),
    ("all entries are others", "a:\n  b: 1\nc: 2\n", "{a: {d: 2}, c: 2}", "a:\n  d: 2\nc: 2\n"),
    ("braces become lines", "a: {} # why\nc: 2\n", "{a: {b: {d: 1}}, c: 2}", "a: # why\n  b:\n    d: 1\nc: 2\n"),
    ("a value becomes a mapping", "a:\n    b: 1\n", "{a: {b: {c: 1}}}", "a:\n    b:\n        c: 1\n"),
    ("a value on the next line becomes a mapping", "a:\n  # why\n  b\nc: 1\n", "{a: {d: 1}, c: 1}", "a:\n  # why\n  d: 1\nc: 1\n"),
    ("a mapping becomes a list", "a:\n  b: 1\n", "{a: [1]}", "a:\n- 1\n"),
    ("a mapping becomes a list to the right", "a:\n  b: 1\nc:\n  - 1\n", "{a: [2], c: [1]}", "a:\n  - 2\nc:\n  - 1\n"),
    ("an item", "a:\n- x # one\n- q\n", "{a: [z, q]}", "a:\n- z\n- q\n"),
    ("an item that is a flag", "a:\n- -x=1 # one\n- q\n", "{a: [-x=2, q]}", "a:\n- -x=2 # one\n- q\n"),
    ("items", "a:\n  - x\n  # about q\n  - q\n  - z\n", "{a: [w, x, z, u]}", "a:\n  - w\n  - x\n  # about q\n  - z\n  - u\n"),
    ("items in quotes", 'a:\n- "x"\n', "{a: [x, q]}", 'a:\n- "x"\n- "q"\n'),
    ("an item of several lines", "a:\n- b: 1\n  c: 2\n- d\n", "{a: [d]}", "a:\n- d\n"),
    ("an item of several words", "a:\n- b: 1\n", "{a: [{b: 1}, {c: 1, d: [2]}]}", "a:\n- b: 1\n- c: 1\n  d:\n  - 2\n"),
    ("items without a line end", "a:\n- x\n- q", "{a: [x, z, u]}", "a:\n- x\n- z\n- u"),
    ("the last item goes without a line end", "a:\n- x\n- q", "{a: [x]}", "a:\n- x"),
    ("all items go", "a:\n- x\n- q\nb: 1\n", "{a: [], b: 1}", "a: []\nb: 1\n"),
    ("the first items", "a: []\nb:\n", "{a: [x], b: [q]}", "a:\n- x\nb:\n- q\n"),
    ("a dash on its own line", "a:\n-\n  x: 1\n- # why\n  q: 1\n", "{a: [{x: 2}]}", "a:\n-\n  x: 2\n"),
    ("an item becomes a mapping", "a:\n- 1\n- 2\n", "{a: [{b: 1, c: 2}, 2]}", "a:\n- b: 1\n  c: 2\n- 2\n"),
    ("a list in a list", "- - 1\n  - 2\n- 3\n", "[[1, 4], 3]", "- - 1\n  - 4\n- 3\n"),
    ("in brackets", "a: [1, 'x=1', {b: 2}]  # why\n", "{a: [3, x=2, {b: 4}]}", "a: [3, 'x=2', {b: 4}]  # why\n"),
    ("brackets that grow", "a: [x=1,  q]  # why\n", "{a: [x=1, q, 'z, u']}", "a: [x=1,  q,  'z, u']  # why\n"),
    ("brackets over lines that grow", "a: [\n  1,\n  2\n]\n", "{a: [3, 1, 2, 4, 5]}", "a: [\n  3,\n  1,\n  2,\n  4,\n  5\n]\n"),
    ("brackets that shrink", "a: [1, 2,  3, 4, ]\n", "{a: [2, 4, 5]}", "a: [2, 4, 5, ]\n"),
    ("brackets with one item", "a: [1]\n", "{a: [2, 3]}", "a: [2, 3]\n"),
    ("JSON", '{"a": [\n "-x=1",\n "b"\n],\n "c": {"d": 1}}', '{a: [-x=2, b, c], c: {d: 2, e: {f: [g]}}}',
     '{"a": [\n "-x=2",\n "b",\n "c"\n],\n "c": {"d": 2, "e": {"f": ["g"]}}}'),
    ("quotes that the old text needed", 'a: "1"\nb: "x"\n', "{a: 2m, b: z}", 'a: 2m\nb: "z"\n'),
    ("braces that grow", "a: {b: 1}\n", "{a: {b: 1, c: {d: 2}}}", "a: {b: 1, c: {d: 2}}\n"),
    ("brackets over lines", "a: [1,\n  2]\nb: 1\n", "{a: [1, 3], b: 1}", "a: [1,\n  3]\nb: 1\n"),
    ("Windows' line ends", "a: 1\r\nb:\r\n- x\r\n", "{a: 2, b: [x, q], c: {d: 1}}", "a: 2\r\nb:\r\n- x\r\n- q\r\nc:\r\n  d: 1\r\n"),
    ("an anchor that nothing uses", "a: &x\n  b: 1\n", "{a: {b: 2}}", "a: &x\n  b: 2\n"),
    ("beside an anchor", "a: &x {b: 1}\nc: *x\nd: 1\n", "{a: {b: 1}, c: {b: 1}, d: 2}", "a: &x {b: 1}\nc: *x\nd: 2\n"),
    ("a reference that becomes its own", "a: &x {b: 1}\nc: *x # why\n", "{a: {b: 1}, c: {b: 2}}", "a: &x {b: 1}\nc: # why\n  b: 2\n"),
    ("what overrides a merge", "a: &x {b: 1}\nc:\n  <<: *x\n  d: 1\n", "{a: {b: 1}, c: {b: 2, d: 1}}",
     "a: &x {b: 1}\nc:\n  <<: *x\n  d: 1\n  b: 2\n"),
    ("a byte order mark", "\ufeffa: 1\n", "{a: 2}", "\ufeffa: 2\n"),
    ("other letters", "a: ä # ü\nb: 1\n", "{a: ö, b: 1}", "a: ö # ü\nb: 1\n"),
]


@pytest.mark.parametrize(("text", "new", "after"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_only_what_differs_is_changed(text: str, new: str, after: str) -> None:
    assert edit(text, _yaml.load(new)) == after


@pytest.mark.parametrize(
    ("text", "new", "why"),
    [
        ("a: &x {b: 1}\nc: *x\n", "{a: {b: 2}, c: {b: 1}}", "&x is used in several places"),
        ("a: &x 1\nc: *x\n", "{a: 2, c: 2}", "&x is used in several places"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n  d: 1\n", "{a: {b: 1}, c: {d: 1}}", "one of them goes"),
        ("a: 1\na: 2\n", "{a: 3}", "'a' stands there twice"),
        ("a: [1, # one\n  2]\n", "{a: [1]}", "a comment stands inside brackets"),
        ("- a: 1\n  # about b\n  b: 2\n", "[{b: 2}]", "between a dash and an entry"),
        ("- - 1\n  - 2\n- 3\n", "[[2], 3]", "shares its line"),
        ("? a\n: 1\n? b\n: 2\n", "{a: 1}", "shares its line"),
        ("a: &x k\n*x : 1\nb: 1\n", "{a: k, k: 1, b: 2}", "a key of it is a reference"),
        ("- {} # one\n", "[{b: 1}]", "beside an item"),
        ("a: {b}\n", "{a: {b: 1}}", "a key of it has no colon"),
        ("a: 1\n", "[1]", "nothing of it stays"),
        ("a: 1\n", "{b: 1}", "nothing of it stays"),
        ("a: |+\n  x\n\nb: |\n  y", '{a: "x\\n\\n", b: "y", c: 1}', "not understood"),
    ],
)
def test_what_cannot_be_edited_is_left_to_others(text: str, new: str, why: str) -> None:
    with pytest.raises(NotKept, match=why):
        edit(text, _yaml.load(new))


def test_equal_numbers_of_other_kinds_are_a_change() -> None:
    assert edit("a: 1\n", {"a": True}) == "a: true\n"
    assert edit("a: 1\n", {"a": 1.0}) == "a: 1.0\n"
    assert edit("a: .nan\n", {"a": float("nan")}) == "a: .nan\n"


def test_the_order_of_keys_is_no_change() -> None:
    assert edit("a: 1\nb: 2\n", {"b": 2, "a": 1}) == "a: 1\nb: 2\n"


# --- whatever comes -------------------------------------------------------------------------------------------

#: Each line is one of its own: no text over several.
PLAIN = [path for path in FILES if "extras" not in path.parent.name]
WORDS = st.from_regex(r"--[a-z]{1,6}(=[ -~]{0,12})?", fullmatch=True)
FLAGS = st.lists(WORDS, max_size=4, unique_by=lambda flag: flag.partition("=")[0])


@given(st.sampled_from(FILES), FLAGS, st.data())
def test_there_and_back_brings_every_byte_back(path: Any, flags: list[str], data: Any) -> None:
    """Where only flags were added: what `state: absent` does when the first text is no longer known."""
    text = data.draw(st.sampled_from([path.read_text(), path.read_text().replace("\n", "\r\n"), path.read_text().rstrip("\n")]))
    before = _yaml.load(text)
    after = copy.deepcopy(before)
    words = after["spec"]["containers"][0]["command"]
    for flag in flags:
        words.insert(data.draw(st.integers(1, len(words))), flag)
    changed = edit(text, after)
    assert _yaml.load(changed) == after
    assert Counter(text.splitlines()) - Counter(changed.splitlines()) == Counter()
    assert len(changed.splitlines()) == len(text.splitlines()) + len(flags)
    assert edit(changed, before) == text


@settings(max_examples=25)
@given(st.sampled_from(PLAIN), FLAGS, st.sets(st.integers(1, 12), max_size=3), st.data())
def test_each_comment_stays_but_beside_what_goes(path: Any, flags: list[str], gone: set[int], data: Any) -> None:
    """Comments above each line and beside it, each another one; flags come, change and go, and so do amounts."""
    lines = []
    for number, line in enumerate(path.read_text().splitlines()):
        indent = " " * (data.draw(st.integers(0, 9)) if number % 7 == 0 else len(line) - len(line.lstrip()))
        lines += [f"{indent}# above {number}", f"{line}  # beside {number}"]
    text = "\n".join(lines) + "\n"
    after = _yaml.load(text)
    container = after["spec"]["containers"][0]
    words = container["command"]
    before = list(words)
    container["command"] = [word for index, word in enumerate(words) if index not in gone] + flags
    container["resources"]["limits"] = {"cpu": "2"}
    container["resources"]["requests"]["cpu"] = "3"
    changed = edit(text, after)
    assert _yaml.load(changed) == after
    lost = Counter(text.splitlines()) - Counter(changed.splitlines())
    removed = {word for index, word in enumerate(before) if index in gone} - set(flags)
    assert len(lost) <= len(gone) + 1
    assert all("# beside" in line and ("cpu:" in line or any(word in line for word in removed)) for line in lost), lost
    assert sum("# above" in line for line in changed.splitlines()) == len(path.read_text().splitlines())


ODD = ["a: b", "# x", "1e3", "*x", "- y"]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.text(max_size=12), st.sampled_from(ODD))
KEYS = st.sampled_from(["name", "env", "a b", "x", "args", "<", "7"])
DATA = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)), max_leaves=12)
DOCUMENTS = st.dictionaries(KEYS, DATA, min_size=1, max_size=4)


def written(data: Any, column: int, draw: Any) -> list[str]:
    """A mapping or a list as somebody might write it: comments, quotes, brackets, other columns."""
    lines: list[str] = []
    pairs = list(data.items()) if isinstance(data, dict) else [(None, each) for each in data]
    for key, value in pairs:
        if draw(st.integers(0, 3)) == 0:
            lines.append(" " * draw(st.integers(0, 6)) + "# comment")
        head = " " * column + ("-" if key is None else f"{_yaml.dump({key: 0}).partition(': ')[0]}:")
        tail = draw(st.sampled_from(["", "", "  # beside", " "]))
        if isinstance(value, (dict, list)) and value and draw(st.integers(0, 3)):
            indent = draw(st.integers(0 if isinstance(value, list) and key is not None else 1, 4))
            lines += [head + tail, *written(value, column + indent, draw)]
        else:
            style = draw(st.sampled_from([None, None, '"', "'"])) if isinstance(value, str) else None
            text = _yaml_inline(value, style)
            lines.append(f"{head} {text}{tail}")
    return lines


def _yaml_inline(value: Any, style: str | None) -> str:
    text: str = yaml.dump([value], Dumper=_yaml.Dumper, default_flow_style=True, default_style=style, width=10**6, allow_unicode=True)
    if isinstance(value, str) and "\n" in text.rstrip("\n"):
        text = yaml.dump([value], Dumper=_yaml.Dumper, default_flow_style=True, default_style='"', width=10**6, allow_unicode=True)
    return text.strip()[1:-1]


def mutated(data: Any, draw: Any) -> Any:
    """The same with a few changes anywhere."""
    if isinstance(data, dict) and data:
        found = {}
        for key, value in data.items():
            what = draw(st.integers(0, 9))
            if what != 0:
                found[key] = draw(DATA) if what == 1 else mutated(value, draw)
        return {**found, **(draw(st.dictionaries(KEYS, DATA, max_size=1)) if draw(st.integers(0, 2)) == 0 else {})}
    if isinstance(data, list) and data:
        items: list[Any] = []
        for value in data:
            what = draw(st.integers(0, 9))
            items += [] if what == 0 else [draw(DATA), value] if what == 1 else [mutated(value, draw)]
        return items
    return draw(SCALARS) if draw(st.integers(0, 5)) == 0 else data


STRANGE = [
    "a: {b, c: 1, 'd' : 2}\n",
    "a: [b: 1, c, ? d : 2]\n",
    "? a\n: b\n? c\n",
    "a: !!set {b, c}\nd: 1\n",
    "- - - 1\n    - 2\n  - - 3\n- 4\n",
    "a: &x [1, 2]\nb: [*x, *x]\nc: {d: *x}\n",
    "a: &x\n  b: 1\nc:\n- <<: *x\n  d: 2\n- *x\n",
    "{a: 1,\n b: [\n1\n,2]}\n",
    "a:\n-\n-\n- \nb:\n",
    "a: |2-\n    x\n   y\nb: >+\n  z\n\n\n",
    "--- {a: 1}\n...\n",
    "a: 'x\n\n  y'\nb: \"u\\\n  v\"\n",
    "# only\n",
    "",
    "a: 1\rb: 2\r",
    "a:  # one\n  # two\n  - b:  # three\n\n      # four\n      c: 1\n    # five\n",
    "&x a: 1\n*x : 2\n",
    "a: !!str\nb: !!null\n",
    "-   a:   1\n    b:\n     -  2\n",
]


@given(st.sampled_from(STRANGE), st.data())
def test_no_layout_leads_to_another_meaning(text: str, data: Any) -> None:
    before = _yaml.load(text)
    wanted = data.draw(st.sampled_from([mutated(before, data.draw), {"a": 1, "b": 2}, ["a"], {}, None]))
    try:
        changed = edit(text, wanted)
    except NotKept:
        assert wanted != before
    else:
        assert _yaml.load(changed) == wanted


@given(DOCUMENTS, st.data(), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_whatever_changes_in_whatever_layout(document: dict[str, Any], data: Any, newline: str, ends: bool) -> None:
    text = newline.join(written(document, 0, data.draw)) + (newline if ends else "")
    assert _yaml.load(text) == document
    wanted = mutated(document, data.draw)
    try:
        changed = edit(text, wanted)
    except NotKept as exc:
        assert str(exc) in ("nothing of it stays", "a comment stands beside an item that becomes something else")
        return
    assert _yaml.load(changed) == wanted
    if wanted == document:
        assert changed == text
    if "\r\n" in text:  # a single line without an end tells nothing
        assert changed.count("\n") == changed.count("\r\n")
