"""Random GGUF models of real architectures: tiny ones to test, one to embed, large ones to measure."""

from .foreign import FOREIGN, write_foreign
from .large import QWEN3_0_6B, write_large
from .tiny import TINY, write_default, write_tiny
from .transformer import RopeScaling, Shape

__all__ = [
    "FOREIGN",
    "QWEN3_0_6B",
    "TINY",
    "RopeScaling",
    "Shape",
    "write_default",
    "write_foreign",
    "write_large",
    "write_tiny",
]
