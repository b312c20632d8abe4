"""The environment on the target: unpacked sources, a Python environment with the wheels, and what is compiled there.

The environment sees the packages of the Python that made it (a .pth file: a plain "with system packages" would not see
those of another environment), and prefers its own. pip is the pack's: the target's may be none, or old.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import backends
from .pack import ARCHITECTURES, SDIST

HOSTS = ("CPU", "BLAS")  # devices of ggml that are this machine's processor


@dataclass(frozen=True)
class Place:
    """Where all of it lies. work: a folder that may become large; models are written there too."""

    pack: Path
    work: Path

    @property
    def source(self) -> Path:
        return self.work / "hogwild-local"

    @property
    def python(self) -> Path:
        return self.work / "venv" / "bin" / "python"


def check(place: Place) -> None:
    """Raises Missing where there is no pack, or one for another Python."""
    packed = identity(place)
    if packed is None:
        raise backends.Missing(f"{place.pack} is no pack: make it with scripts/gpu-figures --pack {place.pack}")
    wanted = packed["python"]
    have = f"{sys.version_info.major}.{sys.version_info.minor}"
    if wanted != have:
        raise backends.Missing(
            f"the pack is for Python {wanted}, and this is {have}: run it with python{wanted} {place.pack}/scripts/"
            f"gpu-figures, or pack with --python {have}"
        )


def unpack(place: Place) -> None:
    place.work.mkdir(parents=True, exist_ok=True)
    with tarfile.open(place.pack / "pack.tar.xz") as archive:
        archive.extractall(place.work)  # it is ours


def identity(place: Place) -> Any:
    """What tells one pack from another; None where there is none."""
    file = place.pack / "pack.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def packed_models(place: Place) -> Path | None:
    """Where the models will lie that were packed."""
    return place.work / ARCHITECTURES if (identity(place) or {}).get("models") else None


def make_environment(place: Place) -> None:
    """Python and the wheels, in some seconds. Raises Missing, CalledProcessError."""
    check(place)
    unpack(place)
    venv = place.work / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(venv)], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "of_the_machine.pth").write_text("".join(f"{folder}\n" for folder in packages()), encoding="utf-8")
    _pip(place, "install", *identity(place)["wheels"])


def packages() -> list[Path]:
    """Folders of packages that this Python sees."""
    return [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]


def build(place: Place, backend: str) -> None:
    """llama-cpp-python with that backend, and hogwild-local against it. Raises Missing, CalledProcessError."""
    chosen = backends.settings(backend, packages(), place.work)
    check_tools(place)
    options = [*map(shlex.quote, [*chosen.cmake, "-DLLAVA_BUILD=OFF"]), os.environ.get("CMAKE_ARGS", "")]
    environment = {
        "CMAKE_ARGS": " ".join(options), "CMAKE_BUILD_PARALLEL_LEVEL": str(n_jobs()), **chosen.environment,
    }  # fmt: skip
    sdist = place.work / "llama-cpp-python"
    with tarfile.open(place.work / SDIST) as archive:
        archive.extractall(place.work)
    without_common(sdist / "CMakeLists.txt")
    # Not in a temporary folder: a build that was cut off goes on where it was.
    settings = ["--config-settings", f"build-dir={place.work / 'build-llama'}"]
    _build(place, *settings, str(sdist), environment=environment)
    settings = ["--config-settings", f"build-dir={place.work / 'build-hogwild'}"]
    _build(place, *settings, str(place.source))
    check_devices(place, backend)


def without_common(file: Path) -> None:
    """llama-cpp-python forces the library of llama.cpp's tools into its build, 60 of 140 objects on the CPU's
    side, which neither it nor we load. Where the file has no such line any more, all is built."""
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("set(LLAMA_BUILD_COMMON ON ", "set(LLAMA_BUILD_COMMON OFF "), encoding="utf-8")


def check_tools(place: Place) -> None:
    """What would be missed only after llama.cpp was compiled, or with other words. Raises Missing."""
    for tool, package in (("cmake", "cmake"), ("c++", "g++")):
        if not shutil.which(tool, path=search_path(place)):
            raise backends.Missing(f"{tool} is not here: install {package}, or pack it (--without '')")
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        raise backends.Missing(f"Python.h is not in {headers}: install this Python's headers (Debian: python3-dev)")


def n_jobs() -> int:
    """How many files are compiled at a time: all cores but two, which write models, and 2 GiB for each."""
    cores = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores - 2 if cores > 4 else cores, memory >> 31))


def search_path(place: Place) -> str:
    """PATH, with what the environment has, and what the Python has that made it: it may be run by its path alone."""
    return os.pathsep.join([str(place.python.parent), os.environ.get("PATH", ""), str(Path(sys.executable).parent)])


def check_devices(place: Place, backend: str) -> None:
    """Without a device all of it would run on the CPU, and look well. Raises Missing."""
    code = f"from hogwild_local.engine.native import devices; print(*(d for d in devices() if d[0] not in {HOSTS}))"
    # -P: what is installed, not the sources beside.
    done = subprocess.run([str(place.python), "-P", "-c", code], capture_output=True, text=True, check=False)
    if backend != backends.CPU_ONLY and not done.stdout.strip():
        hint = ": a software driver is used if GGML_VK_VISIBLE_DEVICES=0 is set" if backend == "vulkan" else ""
        raise backends.Missing(
            f"llama.cpp was built with {backend}, but finds no device{hint}. {done.stderr.strip()[-300:]}"
        )
    print(done.stdout.strip() or "CPU", flush=True)


def _build(place: Place, *arguments: str, environment: dict[str, str] | None = None) -> None:
    """Verbose: what a compiler says is seen as it says it, also where the build is cut off."""
    _pip(place, "install", "--verbose", "--no-deps", "--no-build-isolation", *arguments, environment=environment)


def _pip(place: Place, *arguments: str, environment: dict[str, str] | None = None) -> None:
    """Settings of the machine's pip are not ours: its constraints may forbid what was packed."""
    (pip,) = (place.work / "wheels").glob("pip-*.whl")
    command = [str(place.python), str(pip / "pip"), arguments[0], "--no-index", "--find-links", str(pip.parent)]
    command += ["--disable-pip-version-check", "--no-warn-script-location", *arguments[1:]]
    machine = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    own = {"PIP_CONFIG_FILE": os.devnull, "PATH": search_path(place)}
    subprocess.run(command, check=True, env={**machine, **own, **(environment or {})})
