# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation says what the code does: generated parts are current, and what the prose names exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any, Iterator

import jinja2
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
PAGES = sorted(path for pattern in ("*.md", "docs/*.md", "roles/*/README.md", "tests/lab/*.md") for path in ROOT.glob(pattern))


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_variables", ROOT / "docs" / "generate_variables.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generator = _generator()


def _yaml(role: str, name: str) -> Any:
    return yaml.safe_load((ROOT / "roles" / role / name).read_text(encoding="utf-8"))


def _specs(role: str) -> dict[str, Any]:
    return dict(_yaml(role, "meta/argument_specs.yml")["argument_specs"])


def _options(options: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, option in options.items():
        yield prefix + name, option
        yield from _options(option.get("options", {}), f"{prefix}{name}.")


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


# --- generated parts --------------------------------------------------------------------------------------------------


def test_generated_parts_are_current() -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in generator.documents() if path.read_text(encoding="utf-8") != text]
    assert not stale, f"run python docs/generate_variables.py: {stale}"


@pytest.mark.parametrize(
    ("markup", "markdown"),
    [
        ("V(absent) and C(x)", "`absent` and `x`"),
        ("With O(a=b), RV(c)", "With `a=b`, `c`"),
        (r"V(a\)b)", "`a)b`"),
        ("M(ns.col.name), P(ns.col.name#role)", "`ns.col.name`, `ns.col.name`"),
        ("an API(x) is no markup", "an API(x) is no markup"),
    ],
)
def test_markup_becomes_markdown(markup: str, markdown: str) -> None:
    assert generator.prose(markup) == markdown


@pytest.mark.parametrize("text", ["nothing", "<!-- x: begin -->\n", "<!-- x: end -->\n<!-- x: begin -->\n"])
def test_a_page_without_markers_is_said_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(generator.Problem, match="page.md: exactly one pair"):
        generator.between(page, "x", "new\n")


def test_only_what_is_between_the_markers_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- x: begin -->\nold\n<!-- x: end -->\nafter\n")
    assert generator.between(page, "x", "new\n") == "before\n<!-- x: begin -->\nnew\n<!-- x: end -->\nafter\n"


# --- roles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_those_of_the_argument_specs(role: str) -> None:
    defaults, options = _yaml(role, "defaults/main.yml"), _specs(role)["main"]["options"]
    templates = jinja2.Environment(autoescape=False)
    templates.filters["ternary"] = lambda value, yes, no: yes if value else no
    for name, default in defaults.items():
        if isinstance(default, str) and "{{" in default:  # from a variable of the whole collection, which is not set here
            defaults[name] = templates.from_string(default).render()
    assert defaults == {name: option.get("default") for name, option in options.items()}


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_is_there_and_takes_the_same_variables(role: str) -> None:
    for name, entry_point in _specs(role).items():
        assert (ROOT / "roles" / role / "tasks" / f"{name}.yml").is_file()
        assert entry_point["short_description"]
        assert entry_point["options"] == _specs(role)["main"]["options"]


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_described(role: str) -> None:
    """A list item with a colon in it is a mapping to YAML, and ansible-doc stops there."""
    for name, option in _options(_specs(role)["main"]["options"]):
        texts = option["description"] if isinstance(option["description"], list) else [option["description"]]
        assert texts and all(isinstance(text, str) and text.strip() for text in texts), name
        assert "." in name or name.startswith(f"{role}_"), name


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_used(role: str) -> None:
    tasks = "".join(path.read_text(encoding="utf-8") for folder in ("tasks", "vars") for path in (ROOT / "roles" / role / folder).glob("*"))
    assert not [name for name in _specs(role)["main"]["options"] if not re.search(rf"\b{name}\b", tasks)]


# --- what the prose names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
class TestPage:
    def test_links_lead_somewhere(self, page: Path) -> None:
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            file, _, heading = target.partition("#")
            if "://" in file:
                continue
            found = (page.parent / file) if file else page
            assert found.exists(), target
            if heading:
                headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
                assert heading in [re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings], target

    def test_make_targets_exist(self, page: Path) -> None:
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"`make ([a-z-]+)", text)
        named += [line.split()[1] for block in _blocks(page, "sh") for line in block.splitlines() if line.startswith("make ")]
        assert set(named) <= set(targets)

    def test_names_of_the_collection_exist(self, page: Path) -> None:
        folders = ("roles/{}", "playbooks/{}.yml", "plugins/modules/{}.py", "plugins/filter/{}.py")
        for name in re.findall(r"kubetune\.control_plane\.(\w+)", page.read_text(encoding="utf-8")):
            assert any((ROOT / folder.format(name)).exists() for folder in folders), name

    def test_variables_exist(self, page: Path) -> None:
        known = {name for role in ROLES for name in _specs(role)["main"]["options"]}
        known |= {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")}  # a module's name may begin as a role's
        named = re.findall(rf"(?<![\w/.-])(?:{'|'.join(ROLES)})_[a-z_]+", page.read_text(encoding="utf-8"))
        assert set(named) <= known

    def test_yaml_can_be_read(self, page: Path) -> None:
        for block in _blocks(page, "yaml"):
            assert yaml.safe_load(block)


def test_pages_were_found() -> None:
    assert len(PAGES) > len(ROLES)
