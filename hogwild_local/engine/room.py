"""How many tokens a cache holds where nobody says so."""

from __future__ import annotations

from collections.abc import Callable

from ..options import MOST_N_CTX

SHARE = 0.5
"""Of the free memory that keys and values may take: buffers of passes, and other programs, need some too."""
STEP = 256
"""Fewer tokens than all are a multiple of this."""
LEAST = 512
"""With fewer nothing can be done. Where memory has no room for these, it is an error to have none."""


def usual_n_ctx(trained: int, room: Callable[[float, int], int]) -> int:
    """As many tokens as the model was trained for (0: unknown), at most MOST_N_CTX, and no more than half of the free
    memory holds. room(share, n_ctx): how many of n_ctx tokens a share of the free memory holds."""
    wanted = min(MOST_N_CTX, trained or MOST_N_CTX)
    fits = room(SHARE, wanted)
    return wanted if fits >= wanted else min(wanted, max(LEAST, fits // STEP * STEP))
