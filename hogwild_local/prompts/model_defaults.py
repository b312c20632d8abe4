"""What a GGUF file carries for its runs beside weights, tokenizer and chat template: all of it optional.

hogwild.prompts         text: a prompt style, as TOML (docs/prompts.md)
hogwild.examples        text: a JSON list of prompts; one of them runs when none is given
general.sampling.temp, .top_k, .top_p, .min_p, .penalty_repeat, .penalty_last_n
                        numbers: how to sample, by llama.cpp's own names
general.sampling.sequence
                        text: the steps of the sampler, with ; between them, as llama.cpp's --samplers
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidArgument, ModelError
from ..options import SAMPLERS, SamplingParams, options_of, sampler_named
from .patterns import check_pattern
from .style import MOST_TEXT, PromptStyle

MOST_NUMBER = 2**20  # no setting of any use is larger: such a file is damaged
MOST_SEQUENCE = 512  # characters, as in llama.cpp
_SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repeat_penalty",
    "penalty_last_n": "penalty_last_n",
}
_OFF = ("dry", "top_n_sigma", "typ_p", "xtc")
"""Steps that llama.cpp has too, and that do nothing unless more than their name is given."""
_FOREIGN = ("xtc_probability", "mirostat")
"""What switches on what there is not here, above 0."""


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """What goes with a model unless the user says otherwise."""

    prompts: PromptStyle
    sampling: SamplingParams
    examples: tuple[str, ...]
    own_sampling: Mapping[str, Any] = field(default_factory=dict)
    """Those fields of .sampling that the file gives."""
    unused: tuple[str, ...] = ()
    """What it asks for and does not get, in words."""

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> ModelDefaults:
        """Reads them; what is not there is this package's default. Raises ModelError, which names the key."""
        prompts, own, unused = _prompts(metadata), _own_sampling(metadata), _foreign(metadata)
        order, unknown = _order(metadata.get("general.sampling.sequence", ""))
        own |= {"sampler_order": order} if order else {}
        try:
            sampling = SamplingParams(**own)
        except InvalidArgument as error:
            raise ModelError(f"the model's own general.sampling: {error}") from error
        return cls(prompts, sampling, _examples(metadata), own, (*unused, *unknown))


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


def _own_sampling(metadata: Mapping[str, str]) -> dict[str, Any]:
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
    return given


def _order(sequence: str) -> tuple[tuple[str, ...], list[str]]:
    """The steps that a sequence names, and what is said of those that there are not here."""
    if len(sequence) > MOST_SEQUENCE:
        raise ModelError(f"the model's own general.sampling.sequence has more than {MOST_SEQUENCE} characters")
    names = [sampler_named(name) for name in sequence.split(";") if name.strip()]
    unknown = [name for name in names if name not in (*SAMPLERS, *_OFF)]
    known = tuple(name for name in names if name in SAMPLERS)
    return known, [f"general.sampling.sequence has {name[:40]!r}" for name in unknown]


def _foreign(metadata: Mapping[str, str]) -> list[str]:
    keys = [f"general.sampling.{name}" for name in _FOREIGN]
    return [f"{key} is {metadata[key][:40]}" for key in keys if metadata.get(key, "0").strip("0.+-") != ""]


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
