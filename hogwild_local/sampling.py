"""A worker's sampler: llama.cpp's chain of samplers on our logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._native import NativeSampler
from .checks import whole
from .model import Model
from .params import SamplingParams


class Sampler:
    """Chooses tokens with settings and a random state of its own. Raises InvalidArgument, naming the setting.

    The chain is llama.cpp's default one: logit bias, penalties, grammar, top_k, top_p, min_p, temperature.
    """

    def __init__(self, model: Model, params: SamplingParams | None = None) -> None:
        params = params or SamplingParams()
        self.params = params
        bias = {
            whole(token, "a token of logit_bias", 0, model.n_vocab - 1): float(value)
            for token, value in params.logit_bias.items()
        }
        settings = {
            "temperature": params.temperature,
            "top_k": params.top_k,
            "top_p": params.top_p,
            "min_p": params.min_p,
            "repeat_penalty": params.repeat_penalty,
            "presence_penalty": params.presence_penalty,
            "frequency_penalty": params.frequency_penalty,
            "penalty_last_n": params.penalty_last_n,
            "seed": 0 if params.seed is None else params.seed,
        }
        self._native = NativeSampler(model._native, settings, bias, params.grammar)

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        """A token for logits float32 [n_vocab]; it counts as written (penalties, grammar). Raises
        InvalidArgument if no token can be chosen."""
        return self._native.sample(logits)

    def reset(self) -> None:
        """Back to the state of a new sampler with the same settings."""
        self._native.reset()

    def close(self) -> None:
        self._native.close()
