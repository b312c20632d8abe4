"""The named tiny models that tests run on. All write nonsense."""

from __future__ import annotations

from pathlib import Path

from .hybrid import Hybrid, write_hybrid
from .rwkv import Rwkv, write_rwkv
from .transformer import RopeScaling, Shape, write_transformer
from .weights import seeded

# Sizes are odd on purpose, few are powers of two. Only the matrices of llama-mha, llama-yarn and qwen3 divide
# into blocks of 32: in quantised files of the others some stay f16. A scaled RoPE starts at 256 tokens, so
# that it differs from a plain one after a few tokens.
TINY = {
    "llama": Shape("llama", 3, 120, 6, 3, 20, 168),
    "llama-bos": Shape("llama", 2, 100, 5, 1, 20, 136, bos=True),
    "llama-mha": Shape("llama", 2, 96, 3, 3, 32, 160, tied=True),
    "llama-rope3": Shape("llama", 3, 144, 6, 2, 24, 200, rope_base=500000.0, tied=True,
                         rope_scaling=RopeScaling("llama3", 256, 32)),
    "llama-yarn": Shape("llama", 3, 128, 6, 2, 32, 224, rope_scaling=RopeScaling("yarn", 256, 32)),
    "qwen2": Shape("qwen2", 3, 144, 6, 2, 24, 200, rope_base=1e6, tied=True),
    "qwen3": Shape("qwen3", 3, 96, 6, 2, 32, 160, rope_base=1e6, tied=True),
    "gemma2": Shape("gemma2", 4, 120, 6, 3, 24, 168, tied=True, window=24),
    "maincoder": Shape("maincoder", 3, 128, 4, 2, 32, 160, rope_base=1e6),
    "qwen3-yarn": Shape("qwen3", 3, 136, 6, 3, 24, 184, rope_scaling=RopeScaling("yarn", 256, 32)),
    "grok": Shape("grok", 3, 120, 6, 3, 20, 88, experts=4),
}  # fmt: skip

# With recurrent layers.
HYBRIDS: dict[str, Hybrid | Rwkv] = {
    "lfm2": Hybrid("lfm2", 4, 96, 6, 3, 16, 136, every=2, convolution=3),
    "granitehybrid": Hybrid("granitehybrid", 4, 72, 6, 3, 12, 104, every=2, inner=144, state=20,
                            recurrent_heads=6, groups=2),
    "mamba": Hybrid("mamba", 2, 64, inner=128, state=16, recurrent_heads=4, groups=1),
    "qwen35": Hybrid("qwen35", 4, 96, 6, 3, 24, 144, every=2, inner=120, state=20, recurrent_heads=6, groups=3),
    "minimax-01": Hybrid("minimax-01", 4, 96, 6, 3, 16, 88, every=2, experts=4),
    "rwkv6": Rwkv("rwkv6", 3, 96, 32, 112),
    "rwkv6qwen2": Rwkv("rwkv6qwen2", 3, 96, 32, 112, kv_heads=1),
    "rwkv7": Rwkv("rwkv7", 3, 128, 64, 144),
    "arwkv7": Rwkv("arwkv7", 3, 128, 64, 144),
}  # fmt: skip


def write_tiny(path: Path, name: str, *, seed: int = 0, file_type: str = "f32") -> None:
    title = f"hogwild tiny {name}"
    shape = HYBRIDS.get(name)
    if isinstance(shape, Rwkv):
        write_rwkv(path, title, shape, file_type, seeded(seed))
    elif shape is not None:
        write_hybrid(path, title, shape, file_type, seeded(seed))
    else:
        write_transformer(path, title, TINY[name], file_type, seeded(seed))
