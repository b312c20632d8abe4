"""The engine whose models live in processes of their own: see engine_types for what it stands for."""

from __future__ import annotations

from ..default_model import default_model_path
from ..protocols import Engine
from .cache import RemoteCache
from .model import RemoteModel
from .sampler import RemoteSampler

__all__ = ["RemoteCache", "RemoteModel", "RemoteSampler", "isolated_engine"]


def isolated_engine() -> Engine:
    """An engine that loads each model in a process of its own, together with its caches and samplers."""
    return Engine(RemoteModel, RemoteCache, RemoteSampler, default_model_path)
