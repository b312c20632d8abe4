"""The sampler of one worker: a chain of llama.cpp's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .calls import Object, new
from .library import ffi, lib

STEPS = {
    "penalties": lib.HW_STEP_PENALTIES,
    "top_k": lib.HW_STEP_TOP_K,
    "top_p": lib.HW_STEP_TOP_P,
    "min_p": lib.HW_STEP_MIN_P,
    "temperature": lib.HW_STEP_TEMPERATURE,
}


class NativeSampler(Object):
    _what = "sampler"

    def __init__(
        self,
        model: Object,
        settings: dict[str, Any],
        logit_bias: dict[int, float],
        grammar: bytes | None,
        triggers: Sequence[bytes],
    ) -> None:
        texts = [ffi.new("char[]", trigger) for trigger in triggers]
        fields = settings | {
            "n_bias": len(logit_bias),
            "bias_tokens": ffi.new("int32_t[]", list(logit_bias)),
            "bias_values": ffi.new("float[]", list(logit_bias.values())),
            "steps": ffi.new("enum hw_sampler_step[]", [STEPS[name] for name in settings["steps"]]),
            "n_steps": len(settings["steps"]),
            "grammar": ffi.NULL if grammar is None else ffi.new("char[]", grammar),
            "n_triggers": len(texts),
            "triggers": ffi.new("char *[]", texts),
        }
        params = ffi.new("struct hw_sampler_params *", fields)
        with model._lock:
            pointer = new("hw_sampler", lib.hw_sampler_free, lib.hw_sampler_new, model._use(), params)
        super().__init__(pointer, ffi.release)

    def sample(self, logits: Any) -> int:
        """logits: float32 [n_vocab], as bytes or an array."""
        return self._int(lib.hw_sampler_sample, ffi.from_buffer("float[]", logits))

    def reset(self) -> None:
        self._ask(lib.hw_sampler_reset)
