"""ggml's backends for a GPU: which one this machine can build, what CMake is told, and what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CPU_ONLY = "cpu"
CUDA_FOLDERS = ("/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda")


class Missing(Exception):
    """What the machine lacks."""


@dataclass
class Settings:
    """cmake: options; environment: of the build and of all that runs later."""

    cmake: list[str]
    environment: dict[str, str] = field(default_factory=dict)


def choose(name: str) -> str:
    """The backend that "auto" means: of the compiler that is here. Raises Missing."""
    if name != "auto":
        return name
    if sys.platform == "darwin":
        return "metal"
    for backend, found in (("cuda", find_nvcc()), ("hip", find_hipcc()), ("vulkan", shutil.which("glslc"))):
        if found:
            return backend
    raise Missing("there is no compiler of a GPU here: nvcc (CUDA), hipcc (ROCm) or glslc (Vulkan); or --backend cpu")


def settings(name: str, packages: Sequence[Path], scratch: Path) -> Settings:
    """packages: folders of Python packages, some of which bring cuBLAS; scratch: a folder to write to. Raises
    Missing."""
    of: dict[str, Callable[[], Settings]] = {
        "cuda": lambda: _cuda(packages, scratch),
        "hip": _hip,
        "vulkan": lambda: Settings(["-DGGML_VULKAN=ON"]),
        "metal": _metal,
        CPU_ONLY: lambda: Settings([]),
    }
    return of[name]()


def card(name: str) -> str:
    """What the vendor's tool says of the GPU."""
    tools = {
        "cuda": ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
        "hip": ["rocm-smi", "--showproductname", "--csv"],
        "vulkan": ["vulkaninfo", "--summary"],
        "metal": ["sysctl", "-n", "machdep.cpu.brand_string"],
    }
    lines = _lines(tools[name]) if name in tools else []
    if name == "vulkan":
        lines = [line.split("=", 1)[1].strip() for line in lines if line.startswith("deviceName")]
    return "; ".join(lines)


def _lines(command: list[str]) -> list[str]:
    """What it prints, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


# -- CUDA ---------------------------------------------------------------------------------------------------------


def find_nvcc() -> Path | None:
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), *CUDA_FOLDERS]
    places = [Path(home) / "bin" / "nvcc" for home in homes if home]
    found = shutil.which("nvcc")
    return Path(found) if found else next((path for path in places if path.exists()), None)


def toolkit_of(nvcc: Path) -> Path:
    """Its folder: nvcc may be a link to it, or a script elsewhere that calls it."""
    for root in (nvcc.resolve().parent.parent, *map(Path, CUDA_FOLDERS)):
        if (root / "include" / "cuda_runtime.h").exists() or (root / "nvvm").exists():
            return root
    raise Missing(f"the toolkit of {nvcc} was not found: set CUDA_HOME, and put its bin into PATH")


def _cuda(packages: Sequence[Path], scratch: Path) -> Settings:
    nvcc = find_nvcc()
    if nvcc is None:
        raise Missing("nvcc is not here: NVIDIA's CUDA toolkit is needed (set CUDA_HOME if it lies elsewhere)")
    toolkit = toolkit_of(nvcc)
    of_packages = [folder / "nvidia" for folder in packages]
    libraries = [toolkit / "lib64", toolkit / "lib", *toolkit.glob("targets/*/lib")]
    libraries += [Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64")]
    libraries += [lib for folder in of_packages for lib in sorted(folder.glob("*/lib"))]
    headers = [toolkit / "include", Path("/usr/include")]
    headers += [include for folder in of_packages for include in sorted(folder.glob("*/include"))]
    cublas, cublas_lt = (_library(name, libraries) for name in ("libcublas", "libcublasLt"))
    include = next((folder for folder in headers if (folder / "cublas_v2.h").exists()), None)
    if cublas is None or cublas_lt is None or include is None:
        raise Missing(
            f"cuBLAS is not here (libcublas.so, libcublasLt.so, cublas_v2.h): neither in {toolkit} nor in a Python "
            "package nvidia-cublas; install one of these"
        )
    has_driver = any((folder / "libcuda.so").exists() for lib in libraries for folder in (lib, lib / "stubs"))
    cmake = [
        "-DGGML_CUDA=ON",
        f"-DCMAKE_CUDA_COMPILER={nvcc}",
        f"-DCUDAToolkit_ROOT={toolkit}",
        f"-DCMAKE_CUDA_ARCHITECTURES={_architectures()}",
        "-DGGML_CUDA_NCCL=OFF",
        f"-DCUDA_cublas_LIBRARY={cublas}",
        f"-DCUDA_cublasLt_LIBRARY={cublas_lt}",
        *([] if has_driver else ["-DGGML_CUDA_NO_VMM=ON"]),  # which links the driver
    ]
    if include != toolkit / "include":
        flags = f"-I{_only_cublas(include, scratch / 'cublas')}"
        cmake += [f"-DCMAKE_CUDA_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={flags}"]
    runtime = next((folder for folder in libraries if any(folder.glob("libcudart.so*"))), None)
    found = [str(folder) for folder in (cublas.parent, runtime) if folder is not None]
    path = os.pathsep.join(filter(None, [*dict.fromkeys(found), os.environ.get("LD_LIBRARY_PATH")]))
    return Settings(cmake, {"LD_LIBRARY_PATH": path})


def _architectures() -> str:
    """Of the cards that are here. CMake knows "native" from 3.24 on only."""
    found = _lines(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
    numbers = sorted({line.replace(".", "") for line in found if re.fullmatch(r"\d+\.\d+", line)}, key=int)
    return ";".join(f"{number}-real" for number in numbers) or "native"


def _library(name: str, folders: Sequence[Path]) -> Path | None:
    """libNAME.so, or with a number: a package for running has no other."""
    for folder in folders:
        for path in [folder / f"{name}.so", *sorted(folder.glob(f"{name}.so.*"))]:
            if path.exists():
                return path
    return None


def _only_cublas(include: Path, to: Path) -> Path:
    """A folder of cuBLAS's headers alone: all others are to be the compiler's own."""
    to.mkdir(parents=True, exist_ok=True)
    for header in include.glob("cublas*.h"):
        shutil.copy(header, to)
    return to


# -- ROCm ---------------------------------------------------------------------------------------------------------


def find_hipcc() -> Path | None:
    found = shutil.which("hipcc") or "/opt/rocm/bin/hipcc"
    return Path(found) if Path(found).exists() else None


def _hip() -> Settings:
    """As llama.cpp's docs/build.md has it; the card is the one that is here, by CMake's default. ggml itself looks for
    ROCm's other packages (hipBLAS, rocBLAS) in /opt/rocm only, if ROCM_PATH does not say where."""
    hipcc = find_hipcc()
    if hipcc is None:
        raise Missing("hipcc is not here: ROCm is needed")
    asked = [_asked([str(hipcc.with_name("hipconfig")), flag]) for flag in ("-l", "-R")]
    rocm = os.environ.get("ROCM_PATH") or asked[1]
    return Settings(["-DGGML_HIP=ON"], {"HIPCXX": f"{asked[0]}/clang", "HIP_PATH": asked[1], "ROCM_PATH": rocm})


def _asked(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise Missing(f"{command[0]} cannot be asked where ROCm lies: {error}") from None


# -- Metal --------------------------------------------------------------------------------------------------------


def _metal() -> Settings:
    raise Missing("a pack is for Linux: on a Mac install hogwild-local (docs/machines.md), and add --installed")
