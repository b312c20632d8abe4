"""hogwild_local: several workers of one GGUF model think at the same time over one shared KV cache."""

from .cache import CacheBlock, SharedCache
from .model import Model

__all__ = ["CacheBlock", "Model", "SharedCache"]
