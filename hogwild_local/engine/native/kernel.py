"""The attention kernel alone, for tests and benchmarks."""

from __future__ import annotations

from typing import Any

from .library import ffi, lib


def attention_isas() -> list[str]:
    """The instruction sets of the fused kernel that this CPU can run, best first."""
    return str(ffi.string(lib.hw_attention_isas()).decode()).replace(",", " ").split()


def attention(args: Any, isa: str, n_threads: int) -> int:
    """hw_attention on a struct hw_attention_args * (see cpp/include/hogwild-attention.h). Returns its status."""
    return int(lib.hw_attention(args, isa.encode(), n_threads))
