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
from ..options import SamplingParams, options_of
from .patterns import check_pattern
from .style import MOST_TEXT, PromptStyle

MOST_NUMBER = 2**20  # no setting of any use is larger: such a file is damaged
_SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repeat_penalty",
    "penalty_last_n": "penalty_last_n",
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
        style = PromptStyle.parse(text)
        check_pattern("step.sentence_end", style.step.sentence_end)
        check_pattern("answer.pattern", style.answer.pattern)
        return style
    except InvalidArgument as error:
        raise ModelError(f"the model's own hogwild.prompts: {error}") from error


def _sampling(metadata: Mapping[str, str]) -> SamplingParams:
    options, given = options_of(SamplingParams), {}
    for key, name in _SAMPLING.items():
        text = metadata.get(f"general.sampling.{key}")
        if text is not None:
            try:
                value = int(text) if options[name].kind == "whole" else float(text)
                given[name] = options[name].checked(value, f"general.sampling.{key}")
            except InvalidArgument as error:
                raise ModelError(f"the model's own {error}") from error
            except ValueError as error:
                raise ModelError(f"the model's own general.sampling.{key} is no number: {text[:40]!r}") from error
            if abs(value) > MOST_NUMBER:
                raise ModelError(f"the model's own general.sampling.{key} is out of range: {text[:40]}")
    try:
        return SamplingParams(**given)  # type: ignore[arg-type]
    except InvalidArgument as error:
        raise ModelError(f"the model's own general.sampling: {error}") from error


def _examples(metadata: Mapping[str, str]) -> tuple[str, ...]:
    text = metadata.get("hogwild.examples", "[]")
    if len(text) > MOST_TEXT:
        raise ModelError(f"the model's own hogwild.examples has more than {MOST_TEXT} characters")
    try:
        examples = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise ModelError(f"the model's own hogwild.examples is no JSON: {error}") from error
    if not isinstance(examples, list) or not all(map(_is_text, examples)):
        raise ModelError("the model's own hogwild.examples must be a list of texts")
    return tuple(examples)


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(value.encode())
    except UnicodeEncodeError:  # half a character
        return False
