"""Wheels for another Python than this one: pip finds which, they are downloaded one by one, and stored anew."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

GLIBCS = (39, 35, 34, 31, 28, 27, 24, 17, 12, 5)
"""Minor versions of glibc 2 whose wheels are taken, the newest one last if only older ones are there."""


@dataclass(frozen=True)
class Wheel:
    name: str  # as normal() writes it
    version: str
    file: str

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


def normal(name: str) -> str:
    """A project's name as all spell it, of a requirement too."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", name.strip())[0]).lower()


def pyproject(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def resolve(requirements: Sequence[str], python: str) -> list[Wheel]:
    """All that they need, and they themselves, for a Linux machine (x86-64) with that Python. Raises
    CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*pip, "--report", report, "--target", folder, *_target(python), *requirements], check=True)
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    found = []
    for entry in installed:
        file = unquote(Path(urlsplit(entry["download_info"]["url"]).path).name)
        found.append(Wheel(normal(entry["metadata"]["name"]), entry["metadata"]["version"], file))
    return sorted(found, key=lambda wheel: wheel.name)


def download(wheel: Wheel, python: str, folder: Path) -> None:
    """Unless it is there. pip moves a file to its place when it is whole. Raises CalledProcessError."""
    if not (folder / wheel.file).exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        subprocess.run([*pip, *_target(python), wheel.requirement], check=True)


def _target(python: str) -> list[str]:
    tags = [f"manylinux_2_{glibc}_x86_64" for glibc in GLIBCS] + ["manylinux2014_x86_64", "linux_x86_64"]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    return ["--only-binary", ":all:", "--python-version", python, "--implementation", "cp", *platforms]


def stored(wheel: Path) -> Path:
    """The same wheel without compression, beside it."""
    folder = wheel.parent / "stored"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel) as packed, zipfile.ZipFile(folder / wheel.name, "w", zipfile.ZIP_STORED) as plain:
        for entry in packed.infolist():
            data = packed.read(entry)
            entry.compress_type = zipfile.ZIP_STORED
            plain.writestr(entry, data)
    return folder / wheel.name
