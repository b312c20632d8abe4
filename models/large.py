"""Random models of a real model's size, to measure speed on; in types that gguf cannot write, by llama.cpp."""

from __future__ import annotations

import ctypes
import math
import os
from functools import cache
from pathlib import Path

import llama_cpp
import numpy as np
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from .transformer import Shape, write_transformer
from .weights import FILE_TYPES, Encoded, Fill, Tensor, bell, random_bits, seeded

QWEN3_0_6B = Shape("qwen3", 28, 1024, 16, 8, 128, 3072, vocabulary=32000, context=32768, rope_base=1e6, tied=True)
QWEN3_8B = Shape("qwen3", 36, 4096, 32, 8, 128, 12288, vocabulary=151936, context=32768, rope_base=1e6)
SHAPES = {"0.6b": QWEN3_0_6B, "8b": QWEN3_8B}

# What llama_model_quantize makes of an f16 file. The k-quants are mixtures: some matrices take a larger type.
QUANTIZED = {"q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, "q6_k": llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
             "iq4_nl": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_NL}  # fmt: skip
LARGE_TYPES = (*FILE_TYPES, *QUANTIZED)

SPAN = 32  # values that are drawn together: a block of every type we write
POOL_SPANS = 1 << 15


def pooled(seed: int) -> Fill:
    """Draws spans of encoded values from a pool: encoding every value takes ten times as long, and more memory."""
    rest = seeded(seed)

    @cache
    def pool(std: float, kind: GGMLQuantizationType) -> NDArray[np.uint8]:
        values = bell(POOL_SPANS * SPAN, seed, "pool").reshape(POOL_SPANS, SPAN) * np.float32(std)
        return quants.quantize(values, kind).view(np.uint8)

    def fill(tensor: Tensor, kind: GGMLQuantizationType) -> Encoded:
        if not tensor.is_matrix or tensor.shape[-1] % SPAN:
            return rest(tensor, kind)
        picks = random_bits(math.prod(tensor.shape) // SPAN, seed, tensor.name) % np.uint64(POOL_SPANS)
        drawn: Encoded = pool(tensor.std, kind)[picks].reshape(tensor.shape[0], -1)
        return drawn

    return fill


def write_large(path: Path, shape: Shape = QWEN3_0_6B, *, seed: int = 0, file_type: str = "q4_0") -> None:
    name = f"hogwild large {shape.arch}"
    if file_type in FILE_TYPES:
        write_transformer(path, name, shape, file_type, pooled(seed))
        return
    source = path.with_name(f"{path.name}.f16")
    try:
        write_transformer(source, name, shape, "f16", pooled(seed))
        quantize(source, path, file_type)
    finally:
        source.unlink(missing_ok=True)


def quantize(source: Path, path: Path, file_type: str) -> None:
    """Raises OSError."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = QUANTIZED[file_type]
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(path), ctypes.byref(params)) != 0:
        raise OSError(f"llama.cpp cannot quantize {source} to {file_type}")
