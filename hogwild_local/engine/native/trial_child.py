"""The child that tries a large file: it loads all but the weights, and builds the graph.

This is to be short beside the file's load. So the module stands alone, and needs the compiled library and nothing else:
Python's packages took most of the time that is not llama.cpp's.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Sequence
from typing import Any


def limit_memory(most: int) -> None:
    """The system may end any other process when memory is short. most: bytes of this one, weights that are mapped not
    counted."""
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if soft == resource.RLIM_INFINITY or soft > most:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    except (ImportError, OSError, ValueError):
        pass


def library(folder: str) -> Any:
    """Ours, without the package around it; folder: that of the package llama_cpp."""
    try:
        return importlib.import_module("_hogwild")
    except ImportError:  # llama.cpp's libraries lie elsewhere: then that package loads them, without what it imports
        package = types.ModuleType("llama_cpp")
        package.__path__ = [folder]
        sys.modules["llama_cpp"] = package
        importlib.import_module("llama_cpp.llama_cpp")
        return importlib.import_module("_hogwild")


def can_load(hogwild: Any, path: str, loras: Sequence[str]) -> bool:
    """Whether llama.cpp loads it, where the process does not end over it."""
    new, nothing = hogwild.ffi.new, hogwild.ffi.NULL
    paths = [new("char[]", os.fsencode(lora)) for lora in loras]
    status = hogwild.lib.hw_try_model(os.fsencode(path), new("char *[]", paths), len(paths), nothing, 0)
    return bool(status == hogwild.lib.HW_OK)


def main() -> None:
    """The program's arguments: how it ends where the file is refused, bytes of memory that it may have, the folder of
    llama_cpp, the model, its LoRA adapters."""
    refused, most, folder, path, *loras = sys.argv[1:]
    limit_memory(int(most))
    os._exit(0 if can_load(library(folder), path, loras) else int(refused))  # at once: nothing is to be freed
