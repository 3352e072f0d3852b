#!/usr/bin/env python3
# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the parts of the documentation that repeat the code: variables, flags and verdicts.

    python docs/generate_variables.py            write what is not current
    python docs/generate_variables.py --check    write nothing; status 1 and the names of what is not current

docs/variables.md and docs/flags.md are written as a whole. In README.md and in each role's README.md only the part between
``<!-- NAME: begin -->`` and ``<!-- NAME: end -->`` is.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Iterator, Mapping

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from plugins.module_utils._report import VERDICTS  # noqa: E402  the path above comes first
from plugins.module_utils._static_pod.catalogue import COMPONENTS, UNSAFE_ETCD, Component  # noqa: E402
from plugins.module_utils._static_pod.flags import Flag, dotted  # noqa: E402

HEADER = "<!-- Written by docs/generate_variables.py: change {source} and run it again. -->\n"


class Problem(Exception):
    """A file that cannot be written as it is; the text says what to do."""


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: generate_variables.py [--check]", file=sys.stderr)
        return 2
    try:
        stale = {path: text for path, text in documents() if not path.exists() or path.read_text(encoding="utf-8") != text}
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    for path, text in stale.items():
        print(f"{path.relative_to(ROOT)} {'is not current' if arguments else 'written'}", file=sys.stderr)
        if not arguments:
            path.write_text(text, encoding="utf-8")
    return 1 if stale and arguments else 0


def documents() -> Iterator[tuple[Path, str]]:
    """Each file with the text that it ought to have."""
    roles = [role(path) for path in sorted((ROOT / "roles").iterdir()) if path.is_dir()]
    yield ROOT / "docs" / "variables.md", variables_page(roles)
    yield ROOT / "docs" / "flags.md", flags_page()
    yield ROOT / "README.md", between(ROOT / "README.md", "verdicts", verdicts_table())
    for each in roles:
        path = ROOT / "roles" / each["name"] / "README.md"
        yield path, between(path, "variables", variables_table(each))


def between(path: Path, name: str, text: str) -> str:
    """The file's text with ``text`` between the two markers of that name.

    Raises:
        Problem: there is no such file, or not exactly one pair of markers.
    """
    if not path.exists():
        raise Problem(f"{path.relative_to(ROOT)} is missing: write it, with <!-- {name}: begin --> and <!-- {name}: end -->")
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _old, ended, after = rest.partition(end)
    if not (found and ended) or begin in rest or end in after:
        raise Problem(f"{path.relative_to(ROOT)}: exactly one pair of {begin.strip()} and {end.strip()} is needed, each on a line")
    return before + begin + text + end + after


# --- variables --------------------------------------------------------------------------------------------------------


def role(path: Path) -> dict[str, Any]:
    """A role's ``name``, ``entry_points`` (as in its argument specs) and ``defaults`` (as in its defaults)."""

    def load(name: str) -> dict[str, Any]:
        return dict(yaml.safe_load((path / name).read_text(encoding="utf-8")))

    specs = load("meta/argument_specs.yml")["argument_specs"]
    return {"name": path.name, "entry_points": specs, "defaults": load("defaults/main.yml")}


def prose(text: str) -> str:
    """Ansible's markup as Markdown; see "semantic markup" in Ansible's developer guide."""
    text = re.sub(r"\b(?:RV|[VCOIEB])\(((?:[^)\\]|\\.)*)\)", lambda found: f"`{_unescaped(found[1])}`", text)
    return re.sub(r"\b[MP]\(([^)#]*)(?:#\w+)?\)", r"`\1`", text)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def paragraphs(option: Mapping[str, Any]) -> list[str]:
    described = option["description"]
    return [prose(each.strip()) for each in ([described] if isinstance(described, str) else described)]


def variables_table(of: Mapping[str, Any]) -> str:
    lines = ["| Variable | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
    for name, option in of["entry_points"]["main"]["options"].items():
        cells = [f"`{name}`", type_of(option), default_of(option, of["defaults"].get(name)), paragraphs(option)[0]]
        lines.append(_row(cells))
    return "\n".join([*lines, "", "In full: [docs/variables.md](../../docs/variables.md#" + of["name"] + ").", ""])


def variables_page(roles: list[dict[str, Any]]) -> str:
    parts = [
        HEADER.format(source="roles/*/meta/argument_specs.yml"),
        "# Variables\n",
        "Two variables belong to no role:\n",
        "- `kubetune_hosts`: the hosts of every playbook; `kube_control_plane` without it.",
        "- `kubetune_profile`: the default of each role's profile; `guide` without it.\n",
        "A role's entry points (`tasks_from`) all take the same variables.\n",
    ]
    for each in roles:
        main_entry = each["entry_points"]["main"]
        parts += [f"## {each['name']}\n", f"{main_entry['short_description']}. [README](../roles/{each['name']}/README.md)\n"]
        parts += [f"- entry point `{name}`: {entry['short_description']}." for name, entry in each["entry_points"].items()]
        for name, option in main_entry["options"].items():
            default = default_of(option, each["defaults"].get(name))
            parts += [f"\n### {name}\n", f"{type_of(option)}; {f'default {default}' if default else 'no default'}\n"]
            parts.append("\n\n".join(paragraphs(option)))
            parts += [""] * bool(option.get("options")) + list(_suboptions(option))
        parts.append("")
    return "\n".join(parts)


def _suboptions(option: Mapping[str, Any]) -> Iterator[str]:
    for name, each in option.get("options", {}).items():
        yield f"- `{name}` ({type_of(each)}): {' '.join(paragraphs(each))}"


def type_of(option: Mapping[str, Any]) -> str:
    kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
    choices = ", ".join(f"`{_text(each)}`" for each in option.get("choices", []))
    return f"{kind}: {choices}" if choices else kind


def default_of(option: Mapping[str, Any], default: Any) -> str:
    """Empty where there is none."""
    others = re.findall(r"(\w+) \| default\(", default) if isinstance(default, str) else []
    if others:
        return f"from {' and '.join(f'`{each}`' for each in others)}, else `{option['default']}`"
    return "" if default is None else f"`{_text(default)}`"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


# --- flags and verdicts -----------------------------------------------------------------------------------------------


def verdicts_table() -> str:
    lines = ["| Verdict | Meaning |", "| --- | --- |"]
    return "\n".join([*lines, *(_row([name.replace("_", " "), meaning]) for name, meaning in VERDICTS.items()), ""])


def flags_page() -> str:
    parts = [
        HEADER.format(source="plugins/module_utils/_static_pod/catalogue.py"),
        "# Flags\n",
        "What the profile `guide` sets, and what the version's own default is. The summary of a run says for each flag what became",
        "of it on each host. Flags that are not in this list can be set too: their names and types are left to the binary that runs",
        "on the host.\n",
        "*Default*: of the oldest version that the collection knows, then of the versions from which it differs. *Stays*: a live value",
        "that is larger, or smaller, than the guide's is taken for a decision, and kept. So are both compaction flags where the live",
        "mode is `revision`, and live `--watch-cache-sizes` with a `#0`.\n",
        "Names, defaults, types and versions below are compared with what the binaries of etcd 3.5, 3.6 and 3.7 and of kube-apiserver",
        "1.33 to 1.37 say themselves (`tests/unit/fixtures/record-help.sh`, `tests/unit/module_utils/test_catalogue.py`). For",
        "kube-apiserver 1.29 to 1.32 they are read from its sources, and were not compared with a binary.\n",
    ]
    for component in COMPONENTS.values():
        parts += list(_component(component))
    return "\n".join(parts)


def _component(component: Component) -> Iterator[str]:
    variable = f"{component.role}_flags"
    yield f"## {component.name}\n"
    yield f"Override with `{variable}`.\n"
    yield "| Flag | The guide | Default | Allowed | Stays | Note |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for flag in component.flags:
        if flag.guide is not None:
            stays = " or ".join(
                word for word, kept in (("larger", flag.larger_is_on_purpose), ("smaller", flag.smaller_is_on_purpose)) if kept
            )
            yield _row([f"`--{flag.name}`", f"`{flag.guide}`", defaults_of(flag), allowed(flag), stays, flag.note])
    yield f"\nRequests and limits, over which `{component.role}_resources` wins:\n"
    yield "| Resource | The guide |"
    yield "| --- | --- |"
    for name, value in component.guide_resources.items():
        yield _row([f"`{name}`", f"`{value}`"])
    checked = [f"- `--{flag.name}`: {allowed(flag)}" for flag in component.flags if flag.guide is None and _bounded(flag)]
    yield "\nNot in the guide, and checked where you set them, because the process starts only with an allowed value:\n"
    yield from checked
    yield from _names(component)
    yield "\nIdentity, listeners, certificates and paths, which merge mode never touches:\n"
    yield ", ".join(f"`--{name}`" for name in sorted(component.identity)) + ".\n"
    if component.name == "etcd":
        versions = ", ".join(".".join(map(str, version)) for version in UNSAFE_ETCD)
        yield f"etcd {versions} can corrupt data and are refused without `etcd_static_pod_allow_unsafe_version`.\n"


def _bounded(flag: Flag) -> bool:
    return flag.minimum is not None or flag.maximum is not None or bool(flag.choices)


def _names(component: Component) -> Iterator[str]:
    """What has another name or no place in some version that the collection is made for."""
    oldest, _newest = component.versions
    yield "\nNames that differ between versions. Give a renamed flag by either name: the version that runs gets the one that it knows, and"
    yield "the two are one setting, as are a boolean and the feature gate that it became. What the next minor version does not start with"
    yield "is a warning of each run.\n"
    yield "| Name | Before, or instead |"
    yield "| --- | --- |"
    for flag in component.flags:
        names = [
            f"`--{name}`" + _life(since if since > oldest else (), removed)
            for name, (since, removed) in flag.lives.items() if since > oldest or removed
        ]
        gate = f"feature gate `{flag.gate}` since {dotted(flag.gate_since)}" if flag.gate else flag.instead
        if names:
            yield _row([names[0], ", ".join(names[1:]) or gate])
    if component.gates_gone:
        yield "\nFeature gates that were taken out, after which `--feature-gates` must not name them:\n"
        for gone in sorted(set(component.gates_gone.values())):
            gates = ", ".join(f"`{gate}`" for gate, when in component.gates_gone.items() if when == gone)
            yield f"- {dotted(gone)}: {gates}"


def _life(since: tuple[int, ...], removed: tuple[int, ...]) -> str:
    return f" since {dotted(since)}" * bool(since) + f" until {dotted(removed)}" * bool(removed)


def defaults_of(flag: Flag) -> str:
    """``100000``, then ``10000`` since 3.6."""
    found = []
    for index, (since, value) in enumerate(flag.defaults):
        shown = f"`{value}`" if value else "empty"
        found.append(f"{shown} since {'.'.join(map(str, since))}" if index else shown)
    return ", ".join(found)


#: Type in the catalogue -> in words, where it does not speak for itself.
_TYPES = {
    "bool": "true or false",
    "int": "whole number",
    "bytes": "bytes",
    "gates": "Gate=true or Gate=false, several with commas",
    "retention": "duration, or a whole number of hours",
    "string": "text",
}


def allowed(flag: Flag) -> str:
    """The type, and the range or the choices where there are some."""
    if flag.choices:
        return " or ".join(f"`{each}`" for each in flag.choices)
    kind = _TYPES.get(flag.type, flag.type)
    unit = " s" if flag.type == "duration" else ""
    # A duration has no sign, so it is no news that it is not negative.
    low = None if flag.minimum is None or flag.type in ("duration", "retention") and flag.minimum == 0 else f"{flag.minimum:.12g}"
    high = None if flag.maximum is None else f"{flag.maximum:.12g}"
    if low is not None and high is not None:
        return f"{kind}, {low} to {high}{unit}"
    if low is not None:
        return f"{kind}, at least {low}{unit}"
    return f"{kind}, at most {high}{unit}" if high is not None else kind


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
