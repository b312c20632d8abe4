"""Random models of a real model's size, to measure speed on; in types that gguf cannot write, by llama.cpp."""

from __future__ import annotations

import ctypes
import math
import os
from functools import cache
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from .hybrid import Hybrid, write_hybrid
from .rwkv import Rwkv, write_rwkv
from .transformer import Shape, write_transformer
from .weights import FILE_TYPES, Encoded, Fill, Tensor, bell, random_bits, seeded

QWEN3_0_6B = Shape("qwen3", 28, 1024, 16, 8, 128, 3072, vocabulary=32000, context=32768, rope_base=1e6, tied=True)
QWEN3_8B = Shape("qwen3", 36, 4096, 32, 8, 128, 12288, vocabulary=151936, context=32768, rope_base=1e6)
QWEN2_32B = Shape("qwen2", 64, 5120, 40, 8, 128, 27648, vocabulary=152064, context=32768, rope_base=1e6)
"""QwQ-32B, the model of the paper's figures."""
GEMMA3 = Shape("gemma3", 24, 1152, 8, 4, 256, 4608, vocabulary=32000, context=32768, tied=True, window=1024)
GPT_OSS = Shape("gemma2", 24, 1152, 32, 8, 64, 4608, vocabulary=32000, context=32768, tied=True, window=128)
"""Small ones: windows and heads as Gemma 3 (4B) and gpt-oss have them; the latter in a graph of Gemma 2."""
QWEN3_5_0_8B = Hybrid("qwen35", 24, 1024, 8, 2, 256, 3584, every=4, inner=2048, state=128, recurrent_heads=16,
                      groups=16, vocabulary=248320, context=32768)  # fmt: skip
RWKV7_0_4B = Rwkv("rwkv7", 24, 1024, 64, 4096, rank=64, vocabulary=65536, context=32768)
SHAPES: dict[str, Shape | Hybrid | Rwkv] = {"0.6b": QWEN3_0_6B, "8b": QWEN3_8B, "32b": QWEN2_32B,
                                            "qwen3.5-0.8b": QWEN3_5_0_8B, "rwkv7-0.4b": RWKV7_0_4B,
                                            "gemma-like": GEMMA3, "gpt-oss-like": GPT_OSS}  # fmt: skip

# What llama_model_quantize makes of an f16 file. The k-quants are mixtures: some matrices take a larger type.
QUANTIZED = {"q4_k_m": "LLAMA_FTYPE_MOSTLY_Q4_K_M", "q6_k": "LLAMA_FTYPE_MOSTLY_Q6_K",
             "iq4_nl": "LLAMA_FTYPE_MOSTLY_IQ4_NL"}  # fmt: skip
LARGE_TYPES = (*FILE_TYPES, *QUANTIZED)

SPAN = 32  # values that are drawn together: a block of every type we write
POOL_SPANS = 1 << 16  # as many as 16 random bits name


def pooled(seed: int) -> Fill:
    """Draws spans of encoded values from a pool: encoding every value takes 50 times as long, and more memory."""
    rest = seeded(seed)

    @cache
    def pool(std: float, kind: GGMLQuantizationType) -> NDArray[np.void]:
        values = bell(POOL_SPANS * SPAN, seed, "pool").reshape(POOL_SPANS, SPAN) * np.float32(std)
        encoded = quants.quantize(values, kind).view(np.uint8)
        return encoded.view(f"V{encoded.shape[1]}").ravel()  # one item a span: copied at once

    def fill(tensor: Tensor, kind: GGMLQuantizationType) -> Encoded:
        if not tensor.is_matrix or tensor.mean or tensor.shape[-1] % SPAN:
            return rest(tensor, kind)
        n_spans = math.prod(tensor.shape) // SPAN
        picks = random_bits(-(-n_spans // 4), seed, tensor.name).view(np.uint16)[:n_spans]
        return pool(tensor.std, kind).take(picks).view(np.uint8).reshape(tensor.shape[0], -1)

    return fill


def write(path: Path, shape: Shape | Hybrid | Rwkv, file_type: str, seed: int) -> None:
    name, fill = f"hogwild large {shape.arch}", pooled(seed)
    if isinstance(shape, Hybrid):
        write_hybrid(path, name, shape, file_type, fill)
    elif isinstance(shape, Rwkv):
        write_rwkv(path, name, shape, file_type, fill)
    else:
        write_transformer(path, name, shape, file_type, fill)


def write_large(
    path: Path, shape: Shape | Hybrid | Rwkv = QWEN3_0_6B, *, seed: int = 0, file_type: str = "q4_0"
) -> None:
    if file_type in FILE_TYPES:
        write(path, shape, file_type, seed)
        return
    source = path.with_name(f"{path.name}.f16")
    try:
        write(source, shape, "f16", seed)
        quantize(source, path, file_type)
    finally:
        source.unlink(missing_ok=True)


def quantize(source: Path, path: Path, file_type: str) -> None:
    """Raises OSError."""
    import llama_cpp  # not needed for the types that gguf writes: scripts/gpu-figures writes models while it compiles

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, QUANTIZED[file_type])
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(path), ctypes.byref(params)) != 0:
        raise OSError(f"llama.cpp cannot quantize {source} to {file_type}")
