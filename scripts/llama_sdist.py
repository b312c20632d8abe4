"""The sdist of the llama-cpp-python that pyproject.toml names: getting it, and reading it."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
LLAMA_CPP = PurePosixPath("vendor/llama.cpp")
"""Where llama.cpp lies in it."""


def pinned() -> str:
    """The requirement on llama-cpp-python, as pyproject.toml has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(next(name for name in project["dependencies"] if name.startswith("llama-cpp-python==")))


def download(folder: Path) -> Path:
    """The path of the archive, which is fetched unless it is there. Raises CalledProcessError."""
    # pip asks an sdist for its metadata, even if it's only to be downloaded: without isolation that takes seconds; with
    # it, pip first installs a build system of its own.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    pip += ["--no-build-isolation"] if find_spec("scikit_build_core") else []
    name = f"{pinned().replace('-', '_').replace('==', '-')}.tar.gz"
    if not (folder / name).exists():
        subprocess.run([*pip, "--dest", str(folder), pinned()], check=True)
    return folder / name


def members(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath]]:
    """What is in it, with its path below the folder that holds all."""
    for member in archive:
        yield member, PurePosixPath(*PurePosixPath(member.name).parts[1:])
