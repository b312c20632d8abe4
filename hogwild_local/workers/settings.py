"""The numbers of one run."""

from __future__ import annotations

from dataclasses import dataclass

from ..options import AnswerAt


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the loop needs to know of a run's options. seed and date are only reported: they are in the samplers
    and the prompt already."""

    names: tuple[str, ...]
    seed: int
    max_passes: int = 1024
    """Budget of the workers' passes after the prompt; what the finisher needs comes on top."""
    redundancy_every: int = 1024
    """Tokens fed, of all workers together, between two redundancy questions; 0: never ask."""
    finisher_tokens: int = 16
    """Length of the answer that the finisher may give; 0: no finisher."""
    stop: tuple[str, ...] = ()
    answer_at: AnswerAt = "token"
    """When an answer counts: with the token that closes it, or when the step that holds it ends."""
    eos_ends_run: bool = False
    """Whether one worker that ends by end of text ends the run."""
    date: str = ""
