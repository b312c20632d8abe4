"""What a pass is given and what it gives, as plain data: it reads the same in this process and through a pipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class DecodeView(NamedTuple):
    """What a view feeds, and what it wants of the pass: struct hw_view. sampler: a NativeSampler, or what stands for
    one of the engine's process. n_top: tell how likely the sampled token was, and so many of the likeliest ones; None:
    neither."""

    blocks: Sequence[int]
    tokens: Sequence[int]
    n_outputs: int = 1
    wants_logits: bool = False
    targets: Sequence[int] | None = None
    sampler: Any = None
    n_top: int | None = None

    def first(self, n: int) -> DecodeView:
        """The view that feeds the first n tokens, with the outputs that are of these."""
        if n == len(self.tokens):
            return self
        n_outputs = max(0, n - (len(self.tokens) - self.n_outputs))
        targets = None if self.targets is None else self.targets[:n_outputs]
        return DecodeView(self.blocks, self.tokens[:n], n_outputs, self.wants_logits and n_outputs > 0, targets)

    def rest(self, n: int) -> DecodeView:
        """The view that feeds what first(n) leaves."""
        n_done = self.first(n).n_outputs
        targets = None if self.targets is None else self.targets[n_done:]
        return self._replace(tokens=self.tokens[n:], n_outputs=self.n_outputs - n_done, targets=targets)


class Chunk(NamedTuple):
    """What is computed elsewhere of a view: struct hw_chunk. layers: memory of each layer, uint8. exchange is called
    with the number of a layer, on the computing thread; what it raises ends the pass. wants_own: the layer's memory has
    the chunk's own cells then."""

    runs: Sequence[int]
    layers: Sequence[npt.NDArray[np.uint8]]
    exchange: Callable[[int], object]
    wants_own: bool = False


class Decoded(NamedTuple):
    """What a view got: float32 [n_outputs, n_vocab]; float32 [n_outputs]; the token, -1 where the sampler could choose
    none; its natural log-probability before any sampler, and n_top of (token, log-probability), the likeliest first.
    None: not asked for."""

    logits: npt.NDArray[np.float32] | None
    logprobs: npt.NDArray[np.float32] | None
    sampled: int | None
    logprob: float | None = None
    top: Sequence[tuple[int, float]] = ()


class Sampled(NamedTuple):
    """A token that a sampler chose, and where it was asked for how likely it and others were: as in Decoded."""

    token: int
    logprob: float | None = None
    top: Sequence[tuple[int, float]] = ()
