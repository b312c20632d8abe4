"""scripts/gpu-figures: what is packed, and what a machine must have to build it."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from kit import kit

LONG = f"vendor/llama.cpp/ggml/src/ggml-cuda/template-instances/{'x' * 100}.cu"  # as tar has it in a header of its own


# -- the pack -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "goes"),
    [
        ("CMakeLists.txt", True),
        ("llama_cpp/llama.py", True),
        ("tests/test_llama.py", False),
        ("vendor/llama.cpp/src/llama.cpp", True),
        ("vendor/llama.cpp/models/ggml-vocab-qwen2.gguf", False),
        ("vendor/llama.cpp/ggml/src/ggml-backend.cpp", True),
        ("vendor/llama.cpp/ggml/src/ggml-cuda/ggml-cuda.cu", True),
        ("vendor/llama.cpp/ggml/src/ggml-vulkan/ggml-vulkan.cpp", True),
        ("vendor/llama.cpp/ggml/src/ggml-hip/CMakeLists.txt", True),
        ("vendor/llama.cpp/ggml/src/ggml-sycl/ggml-sycl.cpp", False),
    ],
)
def test_of_llama_cpp_only_what_is_compiled_is_packed(path: str, goes: bool) -> None:
    assert kit("pack").is_compiled(PurePosixPath(path)) is goes


def test_our_sources_are_those_that_git_knows() -> None:
    found = kit("pack").our_sources()
    assert {"pyproject.toml", "cpp/include/hogwild.h", "tests/test_gpu.py", "scripts/gpu-figures"} <= set(found)
    assert not [path for path in found if path.startswith("build/")]


@pytest.fixture
def small_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """small_pack(**options): a pack of two small wheels and a small sdist, without a network."""
    pack, wheels = kit("pack"), kit("wheels")
    sdist = tmp_path / "llama.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for name, text in (
            ("PKG-INFO", "Requires-Dist: numpy>=1\n"),
            ("CMakeLists.txt", ""),
            ("docs/a.md", ""),
            (LONG, ""),
        ):
            member = tarfile.TarInfo(f"llama-1/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))

    def download(wheel: Any, python: str, folder: Path) -> None:
        fetched.append(wheel.name)
        with zipfile.ZipFile(folder / wheel.file, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(f"{wheel.name}.py", "x = 0\n" * 1000)

    fetched: list[str] = []
    found = [wheels.Wheel("click", "8.0", "click-8.0-py3-none-any.whl"),
             wheels.Wheel("numpy", "2.0", "numpy-2.0-cp312-cp312-linux_x86_64.whl")]  # fmt: skip
    monkeypatch.setattr(pack, "download", lambda folder: sdist)
    monkeypatch.setattr(pack, "our_sources", lambda: ["pyproject.toml", "cpp/include/hogwild.h"])
    monkeypatch.setattr(wheels, "resolve", lambda requirements, python: found)
    monkeypatch.setattr(wheels, "download", download)

    def make(without: tuple[str, ...] = (), models: Path | None = None, limit_mb: float = 40) -> Path:
        fetched.clear()
        pack.pack(tmp_path / "pack", "3.12", without, models, limit_mb, lambda text: None)
        return tmp_path / "pack"

    make.fetched = fetched  # type: ignore[attr-defined]
    return make


def test_a_pack_holds_our_sources_what_is_compiled_and_wheels(small_pack: Callable[..., Path], tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "llama.gguf").write_bytes(b"GGUF")
    folder = small_pack(without=("NumPy",), models=models)
    with tarfile.open(folder / "pack.tar.xz") as archive:
        names = archive.getnames()
        with tarfile.open(fileobj=archive.extractfile("llama-cpp-python.tar")) as sdist:
            assert sorted(sdist.getnames()) == [
                "llama-cpp-python/CMakeLists.txt",
                "llama-cpp-python/PKG-INFO",
                f"llama-cpp-python/{LONG}",
            ]
    assert {"hogwild-local/pyproject.toml", "hogwild-local/cpp/include/hogwild.h"} <= set(names)
    assert [name for name in names if name.startswith("wheels/")] == ["wheels/click-8.0-py3-none-any.whl"]
    assert "architectures/llama.gguf" in names
    about = json.loads((folder / "pack.json").read_text())
    assert (about["wheels"], about["without"], about["models"]) == (["click==8.0"], ["numpy==2.0"], 1)
    assert small_pack.fetched == ["click"]  # type: ignore[attr-defined]
    assert (folder / "scripts" / "gpu-figures").exists()


def test_a_pack_that_is_too_large_says_what_could_be_left_out(small_pack: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(kit("pack").PackError, match=r"more than 0\.01: .*--without.*numpy"):
        small_pack(limit_mb=0.01)
    assert not (tmp_path / "pack" / "pack.json").exists()


def test_a_folder_without_models_is_refused(small_pack: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(kit("pack").PackError, match=r"no \.gguf file"):
        small_pack(models=tmp_path)


def test_a_stored_wheel_holds_the_same_files(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.py", "x = 0\n" * 1000)
    with zipfile.ZipFile(kit("wheels").stored(wheel)) as file:
        assert file.read("a.py") == b"x = 0\n" * 1000
        assert {entry.compress_type for entry in file.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("text", ["Jinja2>=3", "jinja2", "jinja2[i18n] >= 3; python_version > '3'", " JINJA2==3"])
def test_requirements_are_told_by_their_project(text: str) -> None:
    assert kit("wheels").normal(text) == "jinja2"


# -- backends -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toolkit without cuBLAS."""
    toolkit = tmp_path / "cuda"
    for file in ("bin/nvcc", "include/cuda_runtime.h", "lib64/libcudart.so"):
        (toolkit / file).parent.mkdir(parents=True, exist_ok=True)
        (toolkit / file).touch(0o755)
    monkeypatch.setenv("PATH", str(toolkit / "bin"))
    return toolkit


def test_cublas_is_found_in_a_package(cuda: Path, tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "nvidia" / "cu13"
    for file in ("lib/libcublas.so.13", "lib/libcublasLt.so.13", "include/cublas_v2.h", "include/cuda_runtime.h"):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).touch()
    settings = kit("backends").settings("cuda", [tmp_path / "site-packages"], tmp_path / "scratch")
    assert f"-DCUDA_cublas_LIBRARY={package / 'lib/libcublas.so.13'}" in settings.cmake
    assert "-DGGML_CUDA_NO_VMM=ON" in settings.cmake  # no driver to link
    found = settings.environment["LD_LIBRARY_PATH"].split(os.pathsep)
    assert found[:2] == [str(package / "lib"), str(cuda / "lib64")]  # and the runtime's, which no system need know
    (flags,) = [word for word in settings.cmake if word.startswith("-DCMAKE_CUDA_FLAGS=-I")]
    assert [path.name for path in Path(flags.split("-I")[1]).iterdir()] == ["cublas_v2.h"]


@pytest.mark.parametrize(
    ("printed", "wanted"), [("9.0\n9.0\n", "90-real"), ("12.0\n8.9\n", "89-real;120-real"), ("[N/A]\n", "native")]
)
def test_kernels_are_compiled_for_the_cards_that_are_here(
    printed: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{printed.encode('unicode_escape').decode()}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kit("backends")._architectures() == wanted


def test_rocm_is_looked_for_where_hipconfig_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in (("hipcc", ""), ("hipconfig", 'if [ "$1" = -l ]; then echo /rocm/llvm/bin; else echo /rocm; fi')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ROCM_PATH", raising=False)
    settings = kit("backends").settings("hip", [], tmp_path)
    assert settings.cmake == ["-DGGML_HIP=ON"]
    assert settings.environment == {"HIPCXX": "/rocm/llvm/bin/clang", "HIP_PATH": "/rocm", "ROCM_PATH": "/rocm"}


def test_a_toolkit_without_cublas_says_what_is_missing(
    cuda: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backends = kit("backends")
    monkeypatch.setattr(backends, "_library", lambda name, folders: None)
    with pytest.raises(backends.Missing, match=r"cuBLAS is not here .*nvidia-cublas"):
        backends.settings("cuda", [], tmp_path)


def test_a_machine_without_any_compiler_of_a_gpu_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backends = kit("backends")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(backends, "CUDA_FOLDERS", ())
    monkeypatch.setattr(backends, "find_hipcc", lambda: None)
    with pytest.raises(backends.Missing, match="--backend cpu"):
        backends.choose("auto")


@pytest.mark.parametrize(
    ("backend", "found", "is_fault"), [("cuda", "", True), ("cuda", "CUDA0", False), ("cpu", "", False)]
)
def test_a_build_that_finds_no_gpu_is_a_fault(backend: str, found: str, is_fault: bool, tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n[ "$1" != -P ] || echo {found}\n')  # -P: not the sources beside
    python.chmod(0o755)
    place = kit("install").Place(tmp_path, tmp_path)
    with pytest.raises(kit("backends").Missing, match="finds no device") if is_fault else nullcontext():
        kit("install").check_devices(place, backend)
