"""A block of a SharedCache, as callers hold it."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from ..checks import whole
from ..errors import EngineDied, InvalidArgument
from .holders import Held

if TYPE_CHECKING:
    from .cache import SharedCache


class CacheBlock:
    """A run of tokens in a SharedCache, made by SharedCache.block(), copy() or write(). Its keys are stored once, for
    the place where it was first written; where it stands is a matter of each view, and it may stand in any number of
    them. Its cells are given back with its last handle: freed, or dropped."""

    def __init__(self, cache: SharedCache, name: str, held: Held) -> None:
        self.name = name
        self._cache = cache
        self._held: Held | None = held

    def __len__(self) -> int:
        return self._cache._len(self._use())

    def __bool__(self) -> bool:
        return True  # an empty block is a block

    @property
    def tokens(self) -> list[int]:
        """The tokens that it was made from."""
        self._cache._native.check_open()
        return self._cache._native.tokens(self._use())

    def share(self) -> CacheBlock:
        """Another handle of this very block, for another user: each frees his own, and the last one the cells."""
        return CacheBlock(self._cache, self.name, self._hold())

    def last_cut(self, n: int) -> int:
        """The last place at or before n where split() and truncate() can cut this block: n, but for models with
        recurrent layers. Those keep their states where a block begins and ends, at some places in texts that were fed
        at once (before their last tokens too), and where it was marked; and of models with sliding windows 0, where
        what a window would see there was dropped for lack of room (n_windows). Raises InvalidArgument unless
        0 <= n <= len(self)."""
        own, at = self._use(), whole(n, "n", 0)
        self._cache._native.check_open()
        return at if self._cache.cuts_anywhere else self._cache._native.last_cut(own, at)

    def mark(self) -> None:
        """What is fed from now on can be cut off again, whatever the model. A block keeps its last few marks."""
        if self._cache.is_recurrent:
            self._cache._change(partial(self._cache._native.mark, self._use()))

    def split(self, n: int, name: str = "") -> CacheBlock:
        """Keeps the first n tokens, and returns the others as a block of their own. No cell moves: a view that has
        both, one behind the other, sees what it saw. Raises InvalidArgument unless 0 <= n <= len(self), and the block
        can be cut there (see last_cut)."""
        own, at = self._use(), whole(n, "n", 0)
        return CacheBlock(self._cache, name, self._cache._change(partial(self._cache._ledger.split, own, at)))

    def append(self, other: CacheBlock) -> None:
        """Moves all tokens of other to the end of this block: their keys are rotated once, other is cleared.

        Always fits, also in a full cache. Raises InvalidArgument if other is this block or of another cache;
        OutOfMemory, ComputeError. Nothing is changed then.
        """
        own, theirs = self._use(), self._cache._id_of(other)
        self._cache._change(partial(self._cache._ledger.append, own, theirs))

    def clear(self) -> None:
        """Forgets all tokens."""
        self.truncate(0)

    def truncate(self, n: int) -> None:
        """Keeps the first n tokens. Raises InvalidArgument unless 0 <= n <= len(self), and the block can be cut there
        (see last_cut)."""
        self._cache._change(partial(self._cache._ledger.truncate, self._use(), whole(n, "n", 0)))

    def free(self) -> None:
        """Ends this handle: any later use of it raises InvalidArgument. The last one gives the cells back. Waits for
        nothing: the next call frees what nobody holds."""
        with contextlib.suppress(EngineDied):  # there is nothing left to free
            self._cache._native.check_open()
        self._hold()
        self._held = None

    def _hold(self) -> Held:
        held = self._held
        if held is None:
            raise InvalidArgument(f"block {self.name!r} was freed")
        return held

    def _use(self) -> int:
        return self._hold().id

    def __repr__(self) -> str:
        return f"CacheBlock({self.name!r})"
