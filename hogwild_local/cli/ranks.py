"""How far the ranks of a prompt are (--runahead), as lines on stderr."""

from __future__ import annotations

import time

from .terminal import note

EVERY_S = 1.0


class RanksProgress:
    """A line a second, and none where a prompt takes less."""

    def __init__(self) -> None:
        self._told_s = time.monotonic()

    def __call__(self, progress: tuple[list[int], int]) -> None:
        layers, n_layers = progress
        now = time.monotonic()
        if now - self._told_s >= EVERY_S:
            self._told_s = now
            ranks = ", ".join(f"rank {rank} at {layer + 1}" for rank, layer in enumerate(layers))
            note(f"hogwild: prompt: {ranks} of {n_layers} layers")
