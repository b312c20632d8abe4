"""A Sampler as it looks from outside of the process that holds it."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import Closed, EngineDied, InvalidArgument
from ...options import SamplingParams
from .logits import RemoteRow
from .model import RemoteModel
from .process import EngineProcess


class RemoteSampler:
    """A Sampler of a RemoteModel: logits that never left its process are sampled there."""

    def __init__(self, model: RemoteModel, params: SamplingParams | None = None) -> None:
        if not isinstance(model, RemoteModel):
            raise InvalidArgument(f"model must be a RemoteModel, not {model!r}")
        self.params = params or SamplingParams()
        self._process = model._process
        settings = {**asdict(self.params), "logit_bias": dict(self.params.logit_bias)}
        self._id: int = model._call("sampler", settings)
        self._closed = False

    def id_in(self, process: EngineProcess) -> int:
        """Raises InvalidArgument where it lives in another process, Closed."""
        if self._process is not process:
            raise InvalidArgument("this sampler is of another model, in a process of its own")
        self._check()
        return self._id

    def sample(self, logits: RemoteRow | npt.NDArray[np.float32]) -> int:
        if isinstance(logits, RemoteRow) and logits.process is self._process:
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
        self._check()
        return self._process.call("sampler", name, self._id, *arguments)

    def _check(self) -> None:
        if self._closed:
            raise Closed("this sampler was closed")
