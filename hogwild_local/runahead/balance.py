"""The partition that costs promise to be the best."""

from __future__ import annotations

import math

from .costs import Costs, Link
from .partition import Partition, of_shares
from .search import search, strides_of
from .simulation import ttft

FINEST = 256
NEAR = 1.005
LONG = 200
"""Tokens of a chunk: one more or less makes no difference."""
MOST_SEARCHED = 16
"""Ranks. Of so many the search takes a second or two, as it grows with their third power."""
TINY_S = 1e-15


def planned(costs: Costs, n_tokens: int, n_known: int = 0) -> Partition:
    """n_known: tokens before these, whose keys and values the last rank has."""
    start = balanced(costs, n_tokens, n_known)
    if len(costs.ranks) > MOST_SEARCHED or (min(start) >= LONG and _links_are_fast(costs, start, n_known)):
        return start
    return search(lambda partition, _: ttft(costs, partition, n_known), start, strides_of(n_tokens, FINEST))


def _links_are_fast(costs: Costs, partition: Partition, n_known: int) -> bool:
    at_once = costs._replace(links=[Link(0.0, math.inf)] * len(costs.links))
    return ttft(costs, partition, n_known) <= NEAR * ttft(at_once, partition, n_known)


def balanced(costs: Costs, n_tokens: int, n_known: int = 0) -> Partition:
    """All ranks compute equally long. It is the best one where none of them waits for a link; and from elsewhere the
    search may not get far: where two ranks are the slowest, no single move makes it better."""

    def chunks(seconds: float) -> list[float]:
        """As many tokens of each rank as it computes in a layer in this time: n (token_s + pair_s (before + n / 2))."""
        found: list[float] = []
        for of in costs.ranks:
            linear, square = of.token_s + of.pair_s * (n_known + sum(found)) + TINY_S, of.pair_s / 2
            found.append(2 * seconds / (linear + math.sqrt(linear * linear + 4 * square * seconds)))
        return found

    least, most = 0.0, 1.0
    while sum(chunks(most)) < n_tokens:
        most *= 2
    for _ in range(50):
        middle = (least + most) / 2
        least, most = (middle, most) if sum(chunks(middle)) < n_tokens else (least, middle)
    return of_shares(chunks(most), n_tokens)
