"""What a machine without a network needs, in one folder: our sources, those of llama.cpp that are compiled, and wheels.

    DIR/scripts/        what --run needs before anything is unpacked
    DIR/pack.tar.xz     hogwild-local/, our sources; wheels/; llama-cpp-python's sdist; architectures/, if asked for
    DIR/pack.json       what is in it; written last: a folder without it is no pack

What is downloaded is kept beside it (DIR.parts): a pack that was interrupted, or is made with other options, takes it
from there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from llama_sdist import LLAMA_CPP, ROOT, download, members

from . import wheels

ARCHITECTURES = "architectures"
SDIST = "llama-cpp-python.tar"
SCRIPTS = ("gpu-figures", "llama_sdist.py", "gpu_figures")
TOP = ("CMakeLists.txt", "pyproject.toml", "PKG-INFO", "README.md", "LICENSE.md", "llama_cpp")
PARTS = ("CMakeLists.txt", "LICENSE", "licenses", "cmake", "include", "src", "common", "vendor", "ggml")
BACKENDS = ("cpu", "cuda", "hip", "vulkan")
"""ROCm's is made of the sources of CUDA's."""
LIMIT_MB = 40


class PackError(Exception):
    """Something that whoever packs can mend."""


def pack(
    to: Path, python: str, without: Sequence[str], models: Path | None, limit_mb: float, say: Callable[[str], object]
) -> None:
    """Raises PackError, CalledProcessError."""
    gguf = sorted(models.glob("*.gguf")) if models is not None else []
    if models is not None and not gguf:
        raise PackError(f"--models: there is no .gguf file in {models}")
    parts = to.with_name(f"{to.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    to.mkdir(exist_ok=True)
    (to / "pack.json").unlink(missing_ok=True)
    sdist = download(parts)
    say(f"sources of {sdist.name.removesuffix('.tar.gz')}")
    found = wheels.resolve(requirements(sdist), python)
    chosen = [wheel for wheel in found if wheel.name not in {wheels.normal(name) for name in without}]
    for wheel in chosen:
        say(f"{wheel.requirement}")
        wheels.download(wheel, python, parts)
    whole, archive = to / "pack.tar.xz", to / "pack.tar.xz.part"
    with tarfile.open(archive, "w:xz") as tar:
        for name in our_sources():
            tar.add(ROOT / name, f"hogwild-local/{name}", recursive=False)
        add_sdist(tar, sdist, parts / SDIST)
        for wheel in chosen:  # not compressed in itself: together they are a third smaller
            tar.add(wheels.stored(parts / wheel.file), f"wheels/{wheel.file}")
        for path in gguf:
            tar.add(path, f"{ARCHITECTURES}/{path.name}")
    archive.replace(whole)
    copy_scripts(to / "scripts")
    size = sum(path.stat().st_size for path in to.rglob("*") if path.is_file()) / 1e6
    if size > limit_mb and not gguf:
        most = sorted(chosen, key=lambda wheel: -(parts / wheel.file).stat().st_size)[:4]
        raise PackError(
            f"the pack has {size:.1f} MB, more than {limit_mb:g}: leave out what the target has, with --without. The "
            f"largest: {', '.join(wheel.name for wheel in most)}"
        )
    write_json(to / "pack.json", {
        "packed": time.strftime("%Y-%m-%d %H:%M:%S"), "commit": commit(), "python": python, "models": len(gguf),
        "wheels": [wheel.requirement for wheel in chosen],
        "without": [wheel.requirement for wheel in found if wheel not in chosen], "mb": round(size, 2),
    })  # fmt: skip
    say(f"{to}: {size:.2f} MB")


def requirements(sdist: Path) -> list[str]:
    """Of the build, the run and the tests of the kit: but for the pip that installs it all, what pyproject.toml and the
    sdist name."""
    project = wheels.pyproject(ROOT / "pyproject.toml")
    extras = project["project"]["optional-dependencies"]
    named = [*project["build-system"]["requires"], *project["project"]["dependencies"], *extras["runahead"]]
    named += [name for name in extras["test"] if wheels.normal(name) in ("pytest", "gguf")]
    with tarfile.open(sdist) as archive:
        info = next(member for member, path in members(archive) if str(path) == "PKG-INFO")
        file = archive.extractfile(info)
        assert file is not None
        text = file.read().decode()
    lines = [line.removeprefix("Requires-Dist: ") for line in text.splitlines() if line.startswith("Requires-Dist: ")]
    named += [line for line in lines if "extra ==" not in line]
    return [*(name for name in named if not name.startswith("llama-cpp-python")), "pip", "cmake", "ninja"]


def our_sources() -> list[str]:
    """What git knows or would take; pictures of the docs are left out."""
    git = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, check=True, capture_output=True, text=True).stdout.splitlines()
    return [path for path in listed if (ROOT / path).is_file() and not path.endswith(".png")]


def commit() -> str:
    """With a + where files differ from it."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
    return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()


def is_compiled(path: PurePosixPath) -> bool:
    """Whether a file of the sdist is, or is needed for it."""
    if not path.is_relative_to(LLAMA_CPP):
        return path.parts[:1] != () and path.parts[0] in TOP
    inside = path.relative_to(LLAMA_CPP).parts
    if not inside or inside[0] not in PARTS:
        return False
    is_backend = inside[:2] == ("ggml", "src") and len(inside) > 3 and inside[2].startswith("ggml-")
    return not is_backend or inside[2].removeprefix("ggml-") in BACKENDS


def add_sdist(tar: tarfile.TarFile, sdist: Path, trimmed: Path) -> None:
    """Packs what is compiled of the sdist, again as an sdist, which is not compressed in itself."""
    with tarfile.open(sdist) as whole, tarfile.open(trimmed, "w") as part:
        for member, path in compiled(whole):
            member.name, member.pax_headers = f"llama-cpp-python/{path}", {}  # where a long name stands once more
            part.addfile(member, whole.extractfile(member))
    tar.add(trimmed, SDIST)


def compiled(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath]]:
    return ((member, path) for member, path in members(archive) if member.isfile() and is_compiled(path))


def copy_scripts(to: Path) -> None:
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    for name in SCRIPTS:
        source = ROOT / "scripts" / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, to / name)


def write_json(path: Path, value: Any) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
