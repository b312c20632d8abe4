"""The named tiny models that tests run on. All write nonsense."""

from __future__ import annotations

from pathlib import Path

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


def write_tiny(path: Path, name: str, *, seed: int = 0, file_type: str = "f32") -> None:
    write_transformer(path, f"hogwild tiny {name}", TINY[name], file_type, seeded(seed))
