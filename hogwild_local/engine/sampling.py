"""A worker's sampler: llama.cpp's chain of samplers on our logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..checks import whole
from ..errors import InvalidArgument
from ..options import SamplingParams
from .arguments import c_text
from .model import Model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def _bias(logit_bias: Mapping[int, float], n_vocab: int) -> dict[int, float]:
    if not isinstance(logit_bias, Mapping):
        raise InvalidArgument(f"logit_bias must map tokens to numbers, not {logit_bias!r}")
    bias = {}
    for token, value in logit_bias.items():
        token = whole(token, "a token of logit_bias", 0, n_vocab - 1)
        try:
            bias[token] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise InvalidArgument(f"logit_bias of token {token} must be a number, not {value!r}") from None
    return bias


class Sampler:
    """Chooses tokens with settings and a random state of its own. Raises InvalidArgument, naming the setting.

    The chain is logit bias, the steps of sampler_order (llama.cpp's default: penalties, top_k, top_p, min_p,
    temperature), and the draw, which a grammar may refuse. At temperature 0 the best one is taken, after penalties.
    """

    def __init__(self, model: Model, params: SamplingParams | None = None) -> None:
        if not isinstance(model, Model):
            raise InvalidArgument(f"model must be a Model, not {model!r}")
        if params is not None and not isinstance(params, SamplingParams):
            raise InvalidArgument(f"params must be SamplingParams, not {params!r}")
        params = params or SamplingParams()
        self.params = params
        settings = {
            "temperature": params.temperature,
            "top_k": params.top_k,
            "top_p": params.top_p,
            "min_p": params.min_p,
            "repeat_penalty": params.repeat_penalty,
            "presence_penalty": params.presence_penalty,
            "frequency_penalty": params.frequency_penalty,
            "penalty_last_n": params.penalty_last_n,
            "steps": list(params.sampler_order),
            "seed": 0 if params.seed is None else params.seed,
        }
        grammar = None if params.grammar is None else c_text(params.grammar, "grammar")
        bias = _bias(params.logit_bias, model.n_vocab)
        self._n_vocab = model.n_vocab
        triggers = [c_text(trigger, "grammar_triggers") for trigger in params.grammar_triggers]
        self._native = model._native.sampler(settings, bias, grammar, triggers)

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        """A token for logits float32 [n_vocab]; it counts as written (penalties, grammar). Raises
        InvalidArgument if no token can be chosen."""
        import numpy as np

        if not isinstance(logits, np.ndarray):
            raise InvalidArgument(f"logits must be a numpy array, not {type(logits).__name__}")
        if logits.dtype != np.float32 or logits.shape != (self._n_vocab,) or not logits.flags.c_contiguous:
            raise InvalidArgument(
                f"logits must be float32 [{self._n_vocab}], contiguous, not {logits.dtype} {list(logits.shape)} "
                f"with strides {list(logits.strides)}"
            )
        return self._native.sample(logits)

    def reset(self) -> None:
        """Back to the state of a new sampler with the same settings."""
        self._native.reset()

    def close(self) -> None:
        self._native.close()
