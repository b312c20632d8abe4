"""GGUF models: random ones of real architectures, tiny to test and large to measure; and a trained one."""

from .foreign import FOREIGN, write_foreign
from .hybrid import Hybrid
from .large import QWEN3_0_6B, write_large
from .rwkv import Rwkv
from .tiny import HYBRIDS, TINY, write_tiny
from .transformer import RopeScaling, Shape

__all__ = [
    "FOREIGN",
    "HYBRIDS",
    "QWEN3_0_6B",
    "TINY",
    "Hybrid",
    "RopeScaling",
    "Rwkv",
    "Shape",
    "write_foreign",
    "write_large",
    "write_tiny",
]
