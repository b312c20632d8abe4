"""Whether the llama.cpp that is installed is the one that our library was compiled against."""

from __future__ import annotations

import ctypes
import importlib.metadata
from collections.abc import Mapping
from types import ModuleType

HOW = (
    "Install that version: python -m pip install llama-cpp-python=={wanted}. If yours was built for a GPU, build it "
    "again for that version with the same CMAKE_ARGS (and --no-binary llama-cpp-python --no-cache-dir): the ready-made "
    "package computes on the CPU alone"
)
REBUILD = (
    "Build hogwild-local again, against the llama-cpp-python that is installed: python -m pip install "
    "--force-reinstall --no-deps --no-cache-dir --no-binary hogwild-local hogwild-local"
)

GGML_OBJECT_BYTES = 32


def wanted_version() -> str:
    """Of llama-cpp-python, as our package pins it."""
    return next(
        requirement.split("==")[1].split(";")[0].strip()
        for requirement in importlib.metadata.requires("hogwild-local") or []
        if requirement.startswith("llama-cpp-python==")
    )


def load_llama_cpp() -> ModuleType:
    """Raises ImportError, which says what to do, where it is not there or of another version."""
    wanted = wanted_version()
    how = HOW.format(wanted=wanted)
    try:
        import llama_cpp
    except ImportError as error:
        raise ImportError(
            f"hogwild-local needs llama-cpp-python {wanted}, which cannot be loaded ({error}). {how}"
        ) from error
    if llama_cpp.__version__ != wanted:
        raise ImportError(
            f"hogwild-local needs llama-cpp-python {wanted}, but {llama_cpp.__version__} is installed. {how}"
        )
    return llama_cpp


def _size_of(llama_cpp: ModuleType, struct: str) -> int:
    """As the loaded libraries have it."""
    if struct != "ggml_tensor":
        return ctypes.sizeof(getattr(llama_cpp, struct))
    from llama_cpp._ggml import libggml

    overhead = libggml.ggml_tensor_overhead  # with the ggml_object before each tensor
    overhead.argtypes, overhead.restype = [], ctypes.c_size_t
    return int(overhead()) - GGML_OBJECT_BYTES


def check_sizes(llama_cpp: ModuleType, ours: Mapping[str, int]) -> None:
    """llama.cpp's sonames guard nothing: sizes of its structs must be those we were compiled for. Raises ImportError.

    ours: bytes by the name of the struct."""
    for name, size in ours.items():
        theirs = _size_of(llama_cpp, name)
        if size != theirs:
            raise ImportError(
                f"hogwild-local was compiled against another build of llama.cpp: {name} has {size} bytes here "
                f"and {theirs} in llama-cpp-python {llama_cpp.__version__}. {REBUILD}"
            )
