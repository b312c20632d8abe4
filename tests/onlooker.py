"""Blocks that are not stored where they stand: their keys must be turned, or the queries that look at them."""

from __future__ import annotations

from collections.abc import Sequence

from hogwild_local import CacheBlock, SharedCache


def begin_elsewhere(cache: SharedCache, view: Sequence[CacheBlock], token: int) -> None:
    """Feeds the first token of the view's own block, while somebody has that block at the begin of a view: its keys
    are stored as if it began at 0, wherever it stands in the view."""
    onlooker = cache.block("onlooker")
    cache.decode([(view, [token]), ([view[-1], onlooker], [0])])
    onlooker.free()
