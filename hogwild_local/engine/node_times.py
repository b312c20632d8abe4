"""What each kind of node of ggml's graphs takes, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .cache import SharedCache


@dataclass(frozen=True, slots=True)
class NodeTime:
    """kind: the operation, with the type and the rows of what it reads ("MUL_MAT q4_0 [1024, 3072]"); count: how many
    nodes of that kind there were in all passes; microseconds: of all of them."""

    kind: str
    count: int
    microseconds: int


@contextmanager
def timed_nodes(cache: SharedCache) -> Iterator[list[NodeTime]]:
    """Times each node of the passes that are made inside; the list is filled at the end, the longest first. Such a pass
    takes longer: each node is computed alone, and waited for."""
    found: list[NodeTime] = []
    cache._native.time_nodes(True)
    try:
        yield found
        found += [NodeTime(*row) for row in cache._native.node_times()]
    finally:
        cache._native.time_nodes(False)
