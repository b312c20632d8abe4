"""The child that tries a large file: it loads all but the weights, and builds the graph.

This is to be short beside the file's load. So the module stands alone, and imports no more than it needs: Python's
packages took most of the time.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Sequence
from typing import Any

REFUSED = 93  # how the child ends where llama.cpp refuses the file with an error; no signal's number, nor abort()'s
MOST_MEMORY = 4 * 2**30  # of the process, weights that are mapped not counted


def limit_memory() -> None:
    """The system may end any other process when memory is short."""
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if soft == resource.RLIM_INFINITY or soft > MOST_MEMORY:
            resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, hard))
    except (ImportError, OSError, ValueError):
        pass


def c_functions(folder: str) -> Any:
    """Those of llama.cpp, from the package llama_cpp in that folder, without what the package itself imports."""
    package = types.ModuleType("llama_cpp")
    package.__path__ = [folder]
    sys.modules["llama_cpp"] = package
    return importlib.import_module("llama_cpp.llama_cpp")


def build(llama_cpp: Any, path: str, loras: Sequence[str]) -> bool:
    """Whether it can be loaded."""
    model_params = llama_cpp.llama_model_default_params()
    model_params.no_alloc = True
    model_params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
    model_params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), model_params)
    if model is None:
        return False
    for lora in loras:
        llama_cpp.llama_adapter_lora_init(model, os.fsencode(lora))
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_threads = 64, 8, 8, 1
    llama_cpp.llama_init_from_model(model, params)
    return True


def main() -> None:
    """The program's arguments: the folder of llama_cpp, the model, its LoRA adapters."""
    limit_memory()
    folder, path, *loras = sys.argv[1:]
    os._exit(0 if build(c_functions(folder), path, loras) else REFUSED)  # at once: nothing is to be freed
