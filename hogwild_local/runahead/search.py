"""The best of many partitions: a grid around the best so far, which is moved to what is better, and made finer where
nothing is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from .partition import Partition

Measure = Callable[[Partition, float], float]
"""Seconds of a partition. Where it takes longer than the seconds that are given, how much longer need not be exact."""


def search(measure: Measure, start: Partition, strides: Sequence[int]) -> Partition:
    """The best partition found from start on. At each stride a rank gives so many tokens to another one, as long as
    that makes it better; no partition is measured twice. strides: tokens, coarse to fine."""
    asked = {start: measure(start, float("inf"))}
    best = start
    moves = list(itertools.permutations(range(len(start)), 2))
    for stride in strides:
        while better := _better(measure, best, stride, moves, asked):
            best = better
    return best


def strides_of(n_tokens: int, finest: int) -> list[int]:
    """From a sixteenth of all tokens on, halved, down to a part of them: finest = 128 is a 128th."""
    halved = itertools.takewhile(lambda part: part <= finest, (16 * 2**i for i in itertools.count()))
    return list(dict.fromkeys(max(1, n_tokens // part) for part in halved))


def _better(
    measure: Measure, best: Partition, stride: int, moves: list[tuple[int, int]], asked: dict[Partition, float]
) -> Partition | None:
    """The first neighbour that is better than the best; the move to it is the first one to be tried the next time."""
    for move, candidate in _neighbours(best, stride, moves):
        if candidate not in asked:
            asked[candidate] = measure(candidate, asked[best])
        if asked[candidate] < asked[best]:
            moves.remove(move)
            moves.insert(0, move)
            return candidate
    return None


def _neighbours(
    partition: Partition, stride: int, moves: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Partition]]:
    for giver, taker in list(moves):
        chunks = list(partition)
        chunks[giver] -= stride
        chunks[taker] += stride
        if chunks[giver] >= 1:
            yield (giver, taker), tuple(chunks)
