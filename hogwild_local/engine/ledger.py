"""What the blocks of a cache hold, counted on this side: asking for it waits for no pass and sends no message."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import TYPE_CHECKING

from ..errors import CacheFull, HogwildError
from .holders import Held, Holders

if TYPE_CHECKING:
    from .native import NativeCache


class Ledger:
    """Lengths of blocks, cells that are promised to passes that are asked for, and blocks to be freed.

    All that changes a block is booked here after the native call, by the one who holds the lead (see merging). Where
    an interrupt came between the two, lengths are not known until settle() has asked for them. Freeing is the other
    way round: that nobody holds a block is noted first (see Holders), which nothing can interrupt, and the next
    settle() frees it.
    """

    def __init__(self, native: NativeCache, n_ctx: int) -> None:
        self._native, self._n_ctx = native, n_ctx
        self._lens: dict[int, int] = {}
        self._holders = Holders()
        self._promised: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()  # of the promises
        self.is_known = True

    # -- asked by anybody --

    @property
    def n_free(self) -> int:
        """Cells that no block uses, and that are promised to nobody."""
        with self._lock:
            return self._n_free()

    def _n_free(self) -> int:
        dropped = set(self._holders.dropped())
        used = sum(n for block, n in list(self._lens.items()) if block not in dropped)
        return self._n_ctx - used - sum(self._promised.values())

    def len(self, block: int) -> int:
        return self._lens.get(block, 0)

    def promise(self, whom: object, n: int) -> None:
        """Keeps n cells for somebody until they are booked or released, once. Raises CacheFull."""
        with self._lock:
            if whom not in self._promised:
                free = self._n_free()
                if n > free:
                    raise CacheFull(n, free)
                self._promised[whom] = n

    def release(self, whom: object) -> None:
        """What was promised and is not booked. May be called twice."""
        with self._lock:
            self._promised.pop(whom, None)

    # -- booked by whoever holds the lead --

    def settle(self) -> None:
        """Frees what nobody holds, and asks for lengths that are not known. Raises Closed, EngineDied."""
        dropped = self._holders.dropped()
        if not self.is_known:
            held = self._native.blocks()
            # A block that was being made when the interrupt came is nobody's.
            dropped = list({*dropped, *(held.keys() - self._lens.keys())})
            self._lens.update({block: held.get(block, 0) for block in self._lens})
        if dropped:
            self._native.free_blocks(dropped)
            for block in dropped:
                self._lens.pop(block, None)
                self._holders.forget(block)
        self.is_known = True

    def open(self, is_anchored: bool) -> Held:
        return self._made(self._native.new_block(is_anchored), 0)

    def split(self, block: int, n: int) -> Held:
        """The tail is a block of its own."""
        tail = self._native.split(block, n)
        self._lens[block], n_tail = n, self._lens[block] - n
        return self._made(tail, n_tail)

    def copy(self, block: int) -> Held:
        n, free = self.len(block), self.n_free
        if n > free:  # some of what the library has may be promised
            raise CacheFull(n, free)
        return self._made(self._native.copy(block), n)

    def write(self, data: bytes) -> Held:
        free = self.n_free
        block = self._native.write(data)
        n = self._native.blocks()[block]
        if n > free:  # some of what the library has is promised
            self._native.free_blocks([block])
            raise CacheFull(n, free)
        return self._made(block, n)

    def _made(self, block: int, n: int) -> Held:
        held = self._holders.hold(block)  # first: dropped by an interrupt, it is freed
        self._lens[block] = n
        return held

    def truncate(self, block: int, n: int) -> None:
        self._native.truncate(block, n)
        self._lens[block] = n

    def append(self, dst: int, src: int) -> None:
        self._native.append(dst, src)
        self._lens[dst], self._lens[src] = self._lens[dst] + self._lens[src], 0

    def fed(self, whom: object, block: int, n: int) -> None:
        """n of the cells that were promised are this block's now."""
        with self._lock:
            if whom in self._promised:
                self._promised[whom] -= n
            self._lens[block] = self._lens.get(block, 0) + n

    def take_back(self, block: int, n: int) -> None:
        """Cuts a block back to n tokens. Where another thread closed, freed or cut it, there is nothing to take."""
        with contextlib.suppress(HogwildError):
            self.truncate(block, n)
