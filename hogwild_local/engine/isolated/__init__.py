"""The engine in a process of its own: what ends that process, such as ggml when an RPC server dies, ends no other."""

from .engine import isolated_engine

__all__ = ["isolated_engine"]
