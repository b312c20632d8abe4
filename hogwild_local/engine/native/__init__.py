"""The only package that touches the compiled library: handles, calls, and statuses turned into exceptions.

It speaks numbers, texts, bytes and lists, so that pipe.py can put another process in its place.
"""

from ..views import Chunk, Decoded, DecodeView
from . import log_lines  # noqa: F401  connects them to the hook
from .cache import NativeCache, WeightShare, float_rows
from .calls import ERROR_OF_STATUS
from .host import devices, free_host_memory, gpus, rpc_load, rpc_server
from .kernel import attention, attention_isas
from .library import ffi, lib
from .model import NativeModel
from .parts import Recurrence, pass_size, product, product_kernels, thread_counts
from .sampler import NativeSampler

__all__ = [
    "ERROR_OF_STATUS",
    "Chunk",
    "DecodeView",
    "Decoded",
    "NativeCache",
    "NativeModel",
    "NativeSampler",
    "Recurrence",
    "WeightShare",
    "attention",
    "attention_isas",
    "devices",
    "ffi",
    "float_rows",
    "free_host_memory",
    "gpus",
    "lib",
    "pass_size",
    "product",
    "product_kernels",
    "rpc_load",
    "rpc_server",
    "thread_counts",
]
