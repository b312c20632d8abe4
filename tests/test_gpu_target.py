"""scripts/gpu-figures: what may be wrong with a machine it is taken to, is told before time is spent."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from kit import SCRIPTS, kit

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A folder that says it is a pack for this Python; there is nothing in it."""
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "pack.json").write_text(json.dumps({"python": HERE, "commit": "abc", "models": 0, "wheels": []}))
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Any:
    return kit("install").Place(tmp_path / "pack", tmp_path / "work")


def run(pack: Path, *options: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [python, str(SCRIPTS / "gpu-figures"), "--run", str(pack), "--backend", "cpu", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_folder_that_is_no_pack_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path / "none")
    assert done.returncode == 1
    assert "is no pack: make it with scripts/gpu-figures --pack" in done.stderr


def test_a_pack_for_another_python_says_how_to_run_it(pack: Path, tmp_path: Path) -> None:
    (pack / "pack.json").write_text(json.dumps({"python": "3.99", "commit": "abc", "models": 0, "wheels": []}))
    done = run(pack)
    assert done.returncode == 1
    assert f"run it with python3.99 {pack}/scripts/gpu-figures, or pack with --python {HERE}" in done.stderr
    assert not (tmp_path / "pack.work").exists()


def test_a_python_that_cannot_read_the_kit_is_told_so(tmp_path: Path) -> None:
    code = (SCRIPTS / "gpu-figures").read_text().replace("sys.version_info <", "(3, 10, 13) <")
    (tmp_path / "gpu-figures").write_text(code)  # without its package: nothing of it may be imported before
    done = subprocess.run([sys.executable, tmp_path / "gpu-figures"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("gpu-figures: Python 3.11 or newer is needed")


@pytest.mark.parametrize("option", ["--work", "--out"])
def test_a_folder_that_cannot_be_written_to_is_named_with_its_option(option: str, pack: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # root may write everywhere: but not below a file
    done = run(pack, option, str(tmp_path / "file" / "folder"))
    assert done.returncode == 1
    assert f"cannot be written to: name another with {option}" in done.stderr


def test_a_pack_that_is_only_read_is_run_where_it_says(pack: Path, tmp_path: Path) -> None:
    before = sorted(pack.rglob("*"))
    done = run(pack, "--work", str(tmp_path / "w"), "--out", str(tmp_path / "o"), "--minutes", "0")
    assert done.returncode == 0, done.stderr
    assert sorted(tmp_path.iterdir()) == [tmp_path / "o", pack, tmp_path / "w"]
    assert sorted(pack.rglob("*")) == before
    assert "hogwild-local of commit abc" in (tmp_path / "o" / "figures.md").read_text()


def test_settings_of_the_machines_pip_change_nothing(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As an image may have them: what was packed is of another version than it has.
    (tmp_path / "constraints.txt").write_text("kit-probe==2\n")
    for name, suffix in (("PIP_CONSTRAINT", "constraints.txt"), ("PIP_TARGET", "elsewhere")):
        monkeypatch.setenv(name, str(tmp_path / suffix))
    (tmp_path / "pip.conf").write_text(f"[global]\nconstraint = {tmp_path / 'constraints.txt'}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    wheels = place.work / "wheels"
    wheels.mkdir(parents=True)
    with zipfile.ZipFile(wheels / "kit_probe-1-py3-none-any.whl", "w") as file:
        file.writestr("kit_probe.py", "")
        file.writestr("kit_probe-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: kit-probe\nVersion: 1\n")
        file.writestr("kit_probe-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("kit_probe-1.dist-info/RECORD", "")
    pip = wheels / "pip-0.whl"  # stands for the packed one: a folder that is run as pip's wheel is
    (pip / "pip").mkdir(parents=True)
    (pip / "pip" / "__main__.py").write_text("from pip._internal.cli.main import main; raise SystemExit(main())")
    place.python.parent.mkdir(parents=True)
    place.python.symlink_to(sys.executable)
    folder = tmp_path / "installed"
    kit("install")._pip(place, "install", "--target", str(folder), "kit-probe==1")
    assert (folder / "kit_probe.py").exists()


# -- the build ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["cmake", "c++"])
def test_a_tool_of_the_build_that_is_missing_is_named(
    tool: str, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = kit("install")
    for name in {"cmake", "c++"} - {tool}:
        (tmp_path / name).touch(0o755)
    monkeypatch.setattr(install, "search_path", lambda place: str(tmp_path))
    with pytest.raises(kit("backends").Missing, match=rf"^{tool.replace('+', '.')} is not here"):
        install.check_tools(place)


def test_pythons_headers_are_missed_before_anything_is_compiled(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = kit("install")
    monkeypatch.setattr(install.shutil, "which", lambda tool, path: tool)
    monkeypatch.setattr(install.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(kit("backends").Missing, match=r"Python\.h is not in .*python3-dev"):
        install.check_tools(place)


def test_what_nobody_loads_of_llama_cpp_is_not_compiled(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install, forced = kit("install"), 'set(LLAMA_BUILD_COMMON ON CACHE BOOL "Build llama.cpp common library" FORCE)'
    (tmp_path / "CMakeLists.txt").write_text(f"project(x)\n{forced}\n")  # as llama-cpp-python 0.3.36 has it
    place.work.mkdir()
    with tarfile.open(place.work / kit("pack").SDIST, "w") as archive:
        archive.add(tmp_path / "CMakeLists.txt", "llama-cpp-python/CMakeLists.txt")
    for name in ("check_tools", "check_devices", "_build"):
        monkeypatch.setattr(install, name, lambda *arguments, **options: None)
    install.build(place, "cpu")
    text = (place.work / "llama-cpp-python" / "CMakeLists.txt").read_text()
    assert text == f"project(x)\n{forced.replace(' ON ', ' OFF ')}\n"


def test_tools_beside_a_python_are_found_though_path_does_not_name_them(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cmake").touch(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert shutil.which("cmake", path=kit("install").search_path(place)) is not None


@pytest.mark.parametrize(("cores", "gib", "wanted"), [(16, 128, 14), (2, 24, 2), (64, 31, 15), (4, 1, 1)])
def test_as_many_files_are_compiled_at_a_time_as_cores_and_memory_allow(
    cores: int, gib: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": gib << 18}[name])
    assert kit("install").n_jobs() == wanted
