"""The engine whose models live in processes of their own: see engine_types for what it stands for."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from ..default import default_model_path
from ..engine_types import Engine
from ..errors import Closed, EngineDied, InvalidArgument
from ..params import SamplingParams
from .cache import RemoteCache, RemoteRow
from .model import RemoteModel

__all__ = ["RemoteCache", "RemoteModel", "RemoteSampler", "isolated_engine"]


def isolated_engine() -> Engine:
    """An engine that loads each model in a process of its own, together with its caches and samplers."""
    return Engine(RemoteModel, RemoteCache, RemoteSampler, default_model_path)


class RemoteSampler:
    """A Sampler of a RemoteModel: logits that never left its process are sampled there."""

    def __init__(self, model: RemoteModel, params: SamplingParams | None = None) -> None:
        if not isinstance(model, RemoteModel):
            raise InvalidArgument(f"model must be a RemoteModel, not {model!r}")
        self.params = params or SamplingParams()
        self._process = model._process
        self._id = model._call("sampler", {**asdict(self.params), "logit_bias": dict(self.params.logit_bias)})
        self._closed = False

    def sample(self, logits: RemoteRow | npt.NDArray[np.float32]) -> int:
        if isinstance(logits, RemoteRow):
            return int(self._call("sample", logits.cache._id, logits.number, logits.row))
        return int(self._call("sample_from", np.asarray(logits, dtype=np.float32).tobytes()))

    def reset(self) -> None:
        self._call("reset")

    def close(self) -> None:
        if not self._closed and not self._process.closed:
            self._closed = True
            with contextlib.suppress(EngineDied, Closed):
                self._process.call("sampler", "close", self._id)

    def _call(self, name: str, *arguments: Any) -> Any:
        if self._closed:
            raise Closed("this sampler was closed")
        return self._process.call("sampler", name, self._id, *arguments)
