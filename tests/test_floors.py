"""Rooms on floors: a folder knows only those below it, in Python (pyproject.toml has the order) and in C++."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CPP_FLOORS = ["base", "kernel", "model", "cache", "graph", "attention", "recurrence", "products", "engine", "api"]
"""From the ground up. cpp/include, the public headers, is known to all."""
SOURCES = sorted((ROOT / "cpp").glob("*/*.h")) + sorted((ROOT / "cpp").glob("*/*.cpp"))


def lint_imports(config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    return subprocess.run([*command, "--config", str(config)], capture_output=True, text=True, cwd=ROOT, check=False)


def test_python_modules_know_only_floors_below() -> None:
    done = lint_imports(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_import_from_below_to_above_would_be_found(tmp_path: Path) -> None:
    floors = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    upside_down = ", ".join(f'"{floor}"' for floor in reversed(floors))
    text = (ROOT / "pyproject.toml").read_text()
    config = tmp_path / "pyproject.toml"
    config.write_text(re.sub(r"layers = \[.*?\]", f"layers = [{upside_down}]", text, flags=re.DOTALL))
    assert lint_imports(config).returncode != 0


def includes(path: Path) -> list[str]:
    """The rooms of what a C++ file includes."""
    return re.findall(r'^#include "(\w+)/[\w.-]+"', path.read_text(), flags=re.MULTILINE)


def test_every_cpp_folder_is_a_floor() -> None:
    folders = {path.name for path in (ROOT / "cpp").iterdir() if path.is_dir()}
    assert folders == {*CPP_FLOORS, "include"}
    assert not list((ROOT / "cpp").glob("*.*"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_cpp_file_includes_only_its_floor_and_those_below(path: Path) -> None:
    if path.parent.name == "include":
        assert not includes(path)
        return
    floor = CPP_FLOORS.index(path.parent.name)
    assert [room for room in includes(path) if CPP_FLOORS.index(room) > floor] == []


def test_cpp_headers_do_not_include_each_other_in_a_circle() -> None:
    graph = {
        f"{path.parent.name}/{path.name}": re.findall(r'^#include "(\w+/[\w.-]+\.h)"', path.read_text(), re.MULTILINE)
        for path in SOURCES
        if path.suffix == ".h"
    }

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        for other in graph.get(name, []):
            visit(other, (*above, name))

    for name in graph:
        visit(name, ())


def named_parts() -> list[str]:
    """C++ files by their stems, and modules by their names."""
    modules = [path for path in (ROOT / "hogwild_local").rglob("*.py") if path.name != "__init__.py"]
    names = {path.stem for path in SOURCES} | {path.stem for path in modules if path.parent.name != "native"}
    return sorted(names | {f"native/{path.stem}" for path in modules if path.parent.name == "native"})


@pytest.mark.parametrize("name", named_parts())
def test_the_architecture_names_every_file(name: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("|"))
    assert re.search(rf"`{re.escape(name)}(\.h|\.py)?`", rows)


def test_the_table_of_tests_names_every_file_of_tests() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", (ROOT / "CONTRIBUTING.md").read_text()))
    assert named == {path.name for path in (ROOT / "tests").glob("test_*.py")}


def test_no_file_is_longer_than_400_lines() -> None:
    files = [*(ROOT / "cpp").rglob("*.*"), *(ROOT / "hogwild_local").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    assert len(files) > 200
    assert [path.name for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 400] == []
