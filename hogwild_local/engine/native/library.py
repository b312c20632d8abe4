"""Loads the compiled library and checks that it fits the llama.cpp that is installed.

llama_cpp is imported first: it loads libllama, and our library must use that very copy.
"""

from __future__ import annotations

from ..build import REBUILD, check_sizes, load_llama_cpp

_llama_cpp = load_llama_cpp()
try:
    from .._hogwild import ffi, lib
except ImportError as error:
    raise ImportError(f"the compiled part of hogwild-local cannot be loaded ({error}). {REBUILD}") from error


def check_build() -> None:
    """Raises ImportError where llama.cpp's structs have other sizes than those we were compiled for."""
    sizes = {
        "llama_model_params": lib.hw_sizeof_model_params(),
        "llama_context_params": lib.hw_sizeof_context_params(),
        "ggml_tensor": lib.hw_sizeof_tensor(),
    }
    check_sizes(_llama_cpp, sizes)


check_build()

__all__ = ["check_build", "ffi", "lib"]
