"""What a GGUF file carries for its runs beside weights, tokenizer and chat template: all of it optional.

hogwild.prompts         text: a prompt style, as TOML (docs/prompts.md)
hogwild.examples        text: a JSON list of prompts; one of them runs when none is given
general.sampling.temp, .top_k, .top_p, .min_p, .penalty_repeat, .penalty_last_n
                        numbers: how to sample, by llama.cpp's own names
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InvalidArgument, ModelError
from ..options import SamplingParams
from .style import PromptStyle

_SAMPLING = {
    "temp": ("temperature", float),
    "top_k": ("top_k", int),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "penalty_repeat": ("repeat_penalty", float),
    "penalty_last_n": ("penalty_last_n", int),
}


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """What goes with a model unless the user says otherwise."""

    prompts: PromptStyle
    sampling: SamplingParams
    examples: tuple[str, ...]

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> ModelDefaults:
        """Reads them; what is not there is this package's default. Raises ModelError, which names the key."""
        return cls(_prompts(metadata), _sampling(metadata), _examples(metadata))


def _prompts(metadata: Mapping[str, str]) -> PromptStyle:
    text = metadata.get("hogwild.prompts")
    if text is None:
        return PromptStyle.default()
    try:
        return PromptStyle.parse(text)
    except InvalidArgument as error:
        raise ModelError(f"the model's own hogwild.prompts: {error}") from error


def _sampling(metadata: Mapping[str, str]) -> SamplingParams:
    given: dict[str, float] = {}
    for key, (name, number) in _SAMPLING.items():
        text = metadata.get(f"general.sampling.{key}")
        if text is not None:
            try:
                given[name] = number(text)
            except ValueError as error:
                raise ModelError(f"the model's own general.sampling.{key} is no number: {text!r}") from error
    try:
        return SamplingParams(**given)  # type: ignore[arg-type]
    except InvalidArgument as error:
        raise ModelError(f"the model's own general.sampling: {error}") from error


def _examples(metadata: Mapping[str, str]) -> tuple[str, ...]:
    text = metadata.get("hogwild.examples", "[]")
    try:
        examples = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError(f"the model's own hogwild.examples is no JSON: {error}") from error
    if not isinstance(examples, list) or not all(isinstance(example, str) and example for example in examples):
        raise ModelError("the model's own hogwild.examples must be a list of texts")
    return tuple(examples)
