"""GGUF models: random ones of real architectures, tiny to test and large to measure; and a trained one."""

from .foreign import FOREIGN, write_foreign
from .large import QWEN3_0_6B, write_large
from .tiny import TINY, write_tiny
from .transformer import RopeScaling, Shape

__all__ = [
    "FOREIGN",
    "QWEN3_0_6B",
    "TINY",
    "RopeScaling",
    "Shape",
    "write_foreign",
    "write_large",
    "write_tiny",
]
