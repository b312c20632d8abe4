"""Counts and times of one run."""

from __future__ import annotations

from .. import events as ev
from .feeds import Kind


class Meter:
    """Adds up passes, sampled tokens and seconds."""

    def __init__(self) -> None:
        self.passes = self.closing_passes = self.tokens = self.prompt_tokens = self.cached_tokens = 0
        self._prompt_s = self._generate_s = self._decode_s = 0.0

    @property
    def n_pass(self) -> int:
        """The number of the last pass, from 1."""
        return self.passes + self.closing_passes

    def count(self, kind: Kind) -> None:
        """A pass was made; chunks of the prompt have no number."""
        self.passes += kind == "workers"
        self.closing_passes += kind == "closing"

    def add(self, kind: Kind, engine_s: float, all_s: float) -> None:
        """What the pass took in the engine, and with planning and taking."""
        if kind == "prompt":
            self._prompt_s += engine_s
        else:
            self._decode_s += engine_s
            self._generate_s += all_s

    def timings(self) -> ev.Timings:
        return ev.Timings(
            passes=self.passes,
            closing_passes=self.closing_passes,
            prompt_ms=1e3 * self._prompt_s,
            generate_ms=1e3 * self._generate_s,
            decode_ms=1e3 * self._decode_s,
            ms_per_pass=1e3 * self._generate_s / max(1, self.n_pass),
            tokens_per_second=self.tokens / self._generate_s if self._generate_s else 0.0,
        )

    def usage(self, context_left: int) -> ev.Usage:
        return ev.Usage(self.prompt_tokens, self.tokens, context_left, self.cached_tokens)
