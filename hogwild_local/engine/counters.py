"""What a cache takes, and what it has counted since it was made: costs that show without a clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .native import NativeCache


class Counters:
    """Of a SharedCache."""

    _native: NativeCache

    @property
    def n_bytes(self) -> int:
        """Bytes of the stored keys and values of all layers."""
        return self._native.number("n_bytes")

    @property
    def n_moved(self) -> int:
        """Cells that were moved: to make room for growing blocks, or to bring one near those that it is read with."""
        return self._native.count("n_moved")

    @property
    def n_mirrored(self) -> int:
        """Cells whose keys were copied and turned on for one flash attention over several blocks (attention "ggml"):
        those of blocks that a view has elsewhere than where they were written."""
        return self._native.count("n_mirrored")

    @property
    def n_mirrored_values(self) -> int:
        """Cells whose values were copied for that: they do not depend on the place, and so are kept from pass to
        pass."""
        return self._native.count("n_mirrored_values")

    @property
    def n_scores(self) -> int:
        """Scores of attention in a layer: one for each query and cell, masked ones too. Where forms differ by layer (a
        model on several devices), the sum of one layer of each."""
        return self._native.count("n_scores")

    @property
    def n_joined(self) -> int:
        """States of recurrent layers that were joined, one for each block and recurrence: passes do a few each, of what
        was fed in earlier ones."""
        return self._native.count("n_joined")

    @property
    def n_composed(self) -> int:
        """States of recurrent layers that prompts left and ggml's own operations made, as on devices, one for each
        place where a prompt can be cut and recurrence. Else our kernel makes them on the CPU."""
        return self._native.count("n_composed")

    @property
    def n_graphs(self) -> int:
        """Graphs that were built: one for each size of a pass, and of what its attention reads."""
        return self._native.count("n_graphs")

    @property
    def n_source_graphs(self) -> int:
        """Graphs that llama.cpp was asked for, to build those of: one for each number of tokens and outputs."""
        return self._native.count("n_source_graphs")
