# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program for the hosts: the same bytes everywhere, and it runs with nothing but Python."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _zipapp

MODULE_UTILS = Path(__file__).resolve().parents[3] / "plugins/module_utils"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "kubetune.pyz"
    path.write_bytes(_zipapp.build(MODULE_UTILS))
    path.chmod(0o755)
    return path


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Isolated: no site packages, no environment, not even this checkout can be imported."""
    return subprocess.run([sys.executable, "-I", "-S", *argv], capture_output=True, text=True, check=False, cwd="/")


def test_same_sources_give_the_same_bytes_whatever_their_times_and_order(tmp_path: Path) -> None:
    copies = []
    for name in ("b", "a"):
        copy = tmp_path / name
        copy.mkdir()
        for path in sorted(MODULE_UTILS.rglob("*.py"), reverse=name == "b"):
            target = copy / path.relative_to(MODULE_UTILS)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            os.utime(target, (1_000_000_000, 1_000_000_000 + len(copies)))
            os.chmod(target, 0o600 if name == "b" else 0o644)
        copies.append(_zipapp.build(copy))
    assert copies[0] == copies[1] == _zipapp.build(MODULE_UTILS)


def test_changed_source_gives_other_bytes(tmp_path: Path) -> None:
    (tmp_path / "_x").mkdir()
    source = tmp_path / "_x/__init__.py"
    source.write_text("A = 1\n")
    before = _zipapp.build(tmp_path)
    source.write_text("A = 2\n")
    assert _zipapp.build(tmp_path) != before


def test_only_private_python_files_go_in(tmp_path: Path) -> None:
    for name in ("_a/b.py", "_a/__pycache__/b.cpython-311.pyc", "_a/notes.txt", "public.py", "_errors.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with zipfile.ZipFile(io.BytesIO(_zipapp.build(tmp_path))) as archive:
        assert archive.namelist() == [
            "__main__.py",
            "kubetune_agent/__init__.py",
            "kubetune_agent/_a/b.py",
            "kubetune_agent/_errors.py",
        ]


def test_every_module_can_be_imported_from_the_program_alone(program: Path) -> None:
    """An absolute import of the collection, or one of a package that is not of the standard library, fails here."""
    with zipfile.ZipFile(program) as archive:
        names = [
            name[:-3].replace("/", ".").removesuffix(".__init__")
            for name in archive.namelist()
            if name.startswith("kubetune_agent")
        ]
    assert "kubetune_agent._etcd.client" in names
    code = f"import sys; sys.path.insert(0, {str(program)!r})\nimport importlib\nfor name in {names!r}: importlib.import_module(name)"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def test_program_is_executable_by_itself(program: Path) -> None:
    done = subprocess.run(
        [program, "maintenance", "validate", "--config", "/does/not/exist"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "maintenance: the configuration /does/not/exist cannot be read: No such file or directory\n"


@pytest.mark.parametrize("argv", [(), ("unknown",), ("--help",)])
def test_unknown_command_tells_which_there_are(program: Path, argv: tuple[str, ...]) -> None:
    done = run(program, *argv)
    assert done.returncode == 2
    assert done.stderr == "usage: kubetune.pyz {maintenance,priority,window} ...\n"


def test_too_old_python_is_said_and_not_a_traceback(program: Path, tmp_path: Path) -> None:
    """The first lines have to be read by such a Python, too: they hold nothing newer than 3.0."""
    with zipfile.ZipFile(program) as archive:
        main = archive.read("__main__.py").decode()
    check = main[: main.index("from kubetune_agent")]
    script = tmp_path / "main.py"
    script.write_text("import sys; sys.version_info = (3, 8, 18)\n" + check.replace("import sys\n", "", 1))
    done = run(script)
    assert done.returncode == 1 and "needs Python 3.9 or newer" in done.stderr
