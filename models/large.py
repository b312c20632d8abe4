"""Random models of a real model's size, to measure speed on."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from .transformer import Shape, write_transformer
from .weights import Encoded, Fill, Tensor, bell, random_bits, seeded

QWEN3_0_6B = Shape("qwen3", 28, 1024, 16, 8, 128, 3072, vocabulary=32000, context=32768, rope_base=1e6, tied=True)

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
    write_transformer(path, f"hogwild large {shape.arch}", shape, file_type, pooled(seed))
