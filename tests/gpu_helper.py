"""A local device that is not the CPU, for tests: what llama-cpp-python was built with, or a backend in a library of its
own, which HOGWILD_TEST_BACKEND names (see CONTRIBUTING.md: Mesa's software driver does for a GPU)."""

from __future__ import annotations

import ctypes
import os

import llama_cpp
import pytest

from hogwild_local.engine.native import devices


def load_backend() -> None:
    """Makes ggml load the library that was named, if one was."""
    if name := os.environ.get("HOGWILD_TEST_BACKEND"):
        load = llama_cpp.llama_cpp._lib.ggml_backend_load  # the ggml that is loaded, not a copy beside it
        load.restype = ctypes.c_void_p
        assert load(name.encode()), f"ggml cannot load {name}"


load_backend()
GPUS = [name for name, _ in devices() if not name.startswith(("CPU", "BLAS", "RPC"))]
needs_gpu = pytest.mark.skipif(not GPUS, reason="no device but the CPU")
