"""One KV cache that several workers share: blocks of tokens, and views of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from ..errors import CacheFull, HogwildError, InvalidArgument
from .checks import c_text, token_list, whole
from .devices import devices_of
from .model import Model
from .native import ATTENTIONS, INT32_MAX, NativeCache
from .sampling import Sampler


class CacheBlock:
    """A run of tokens in a SharedCache, made by SharedCache.block(). Its keys are stored once, for
    the place where it was first written; where it stands is a matter of each view."""

    def __init__(self, cache: SharedCache, name: str) -> None:
        self.name = name
        self._cache = cache
        self._id: int | None = cache._native.new_block()

    def __len__(self) -> int:
        return self._cache._native.len(self._use())

    def __bool__(self) -> bool:
        return True  # an empty block is a block

    def append(self, other: CacheBlock) -> None:
        """Moves all tokens of other to the end of this block: their keys are rotated once, other is cleared.

        Always fits, also in a full cache. Raises InvalidArgument if other is this block or of another cache.
        """
        self._cache._native.append(self._use(), self._cache._id_of(other))

    def clear(self) -> None:
        """Forgets all tokens."""
        self.truncate(0)

    def truncate(self, n: int) -> None:
        """Keeps the first n tokens. Raises InvalidArgument unless 0 <= n <= len(self)."""
        self._cache._native.truncate(self._use(), whole(n, "n", 0, INT32_MAX))

    def free(self) -> None:
        """Gives the cells back and ends the block: any later use raises InvalidArgument."""
        self._cache._native.free_block(self._use())
        self._id = None

    def _use(self) -> int:
        if self._id is None:
            raise InvalidArgument(f"block {self.name!r} was freed")
        return self._id

    def __repr__(self) -> str:
        return f"CacheBlock({self.name!r})"


View = tuple[Sequence[CacheBlock], Sequence[int]]


class SharedCache:
    """n_ctx cells that blocks share; a block needs no declared size, and together they can use all cells.

    type_k, type_v: ggml types of stored keys and values: "f32", "f16", "bf16", "q8_0", "q5_0", "q5_1", "q4_0" or
    "q4_1". n_batch: most tokens of one forward pass. attention: "fused" (our CPU kernel), "ggml" (any
    device: its flash attention, or where that is none or slower, composed), "composed" (of plain operations, block by
    block), or "auto" (fused for the layers in CPU memory, ggml for others). Calls from several threads wait for each
    other.
    Raises InvalidArgument, UnsupportedModel (naming what in the graph cannot be re-wired), OutOfMemory.

        cache = SharedCache(model, n_ctx=4096)
        prompt, alice, bob = (cache.block(name) for name in ("prompt", "alice", "bob"))
        cache.decode([([prompt], model.tokenize("Hello"))])
        logits = cache.decode([([prompt, bob, alice], [1]), ([prompt, alice, bob], [2])])
    """

    def __init__(
        self,
        model: Model,
        n_ctx: int = 4096,
        type_k: str = "f16",
        type_v: str = "f16",
        n_batch: int = 512,
        attention: Literal["auto", "fused", "ggml", "composed"] = "auto",
    ) -> None:
        if not isinstance(model, Model):
            raise InvalidArgument(f"model must be a Model, not {model!r}")
        if not isinstance(attention, str) or attention not in ATTENTIONS:
            raise InvalidArgument(f"attention is {attention!r}: it must be one of {', '.join(ATTENTIONS)}")
        self.n_ctx = whole(n_ctx, "n_ctx", 1, INT32_MAX)
        self.n_batch = min(whole(n_batch, "n_batch", 1, 8192), self.n_ctx)
        self._model = model
        self._native = NativeCache(
            model._native,
            self.n_ctx,
            self.n_batch,
            c_text(type_k, "type_k"),
            c_text(type_v, "type_v"),
            attention,
        )
        self.devices = devices_of((), self._native.placement())

    def block(self, name: str = "") -> CacheBlock:
        """A new empty block. The name is for people."""
        return CacheBlock(self, name)

    def decode(
        self, views: Sequence[View], progress: Callable[[int, int], object] | None = None
    ) -> npt.NDArray[np.float32]:
        """Feeds each view its tokens, in one forward pass, and returns the logits after each view's last one:
        float32 [views, n_vocab].

        A view is a list of blocks; the tokens go to its last one, its own. Every query sees all tokens of the
        other blocks of its view, those of this very pass included, and its own block causally (arXiv
        2504.06261, section 3). The tokens of several views together must fit n_batch (BatchTooLarge); a single
        view may feed any number, in chunks of n_batch. progress(done, total) is called between chunks and may
        raise, which cancels the call. Raises InvalidArgument, CacheFull, OutOfMemory, ComputeError; nothing is
        changed then.
        """
        ids = self._checked(views)
        if len(ids) == 1 and len(ids[0][1]) > self.n_batch:
            return self._decode_in_chunks(*ids[0], progress)
        logits = self._native.decode(ids, want_logits=True)
        assert logits is not None
        return logits

    def next_tokens(self, views: Sequence[View], samplers: Sequence[Sampler | None]) -> list[int | None]:
        """decode(), then a token from the sampler of each view, in their order; None where a view has None.

        Raises what decode() raises; and what a sampler raises that can choose no token, or is closed: then the views
        are fed nevertheless.
        """
        if not (isinstance(views, Sequence) and isinstance(samplers, Sequence) and len(views) == len(samplers)):
            raise InvalidArgument("views and samplers must be lists of one length: a view without a sampler has None")
        rows = self.decode(views)
        return [None if sampler is None else sampler.sample(row) for sampler, row in zip(samplers, rows, strict=True)]

    def _decode_in_chunks(
        self, blocks: list[int], tokens: list[int], progress: Callable[[int, int], object] | None
    ) -> npt.NDArray[np.float32]:
        total = len(tokens)
        if total > self.n_free:
            raise CacheFull(total, self.n_free)
        before = self._native.len(blocks[-1])
        try:
            for done in range(0, total, self.n_batch):
                if progress is not None and done > 0:
                    progress(done, total)
                chunk = tokens[done : done + self.n_batch]
                logits = self._native.decode([(blocks, chunk)], want_logits=done + len(chunk) == total)
        except BaseException:
            # Where progress(), or another thread, closed, freed or cut it, there is nothing to take back.
            with contextlib.suppress(HogwildError):
                self._native.truncate(blocks[-1], before)
            raise
        assert logits is not None
        return logits

    @property
    def n_free(self) -> int:
        """Cells that no block uses."""
        return self._native.number("n_free")

    @property
    def n_bytes(self) -> int:
        """Bytes of the stored keys and values of all layers."""
        return self._native.number("n_bytes")

    @property
    def n_moved(self) -> int:
        """Cells that were moved so far to make room for growing blocks."""
        return self._native.number("n_moved")

    @property
    def n_mirrored(self) -> int:
        """Cells copied so far for one flash attention over several blocks (attention "ggml"): those of blocks that a
        view has elsewhere than where they were written."""
        return self._native.number("n_mirrored")

    def check(self) -> None:
        """Raises ComputeError if the table of blocks is inconsistent. For tests."""
        self._native.check()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._native.closed

    def close(self) -> None:
        """Frees the cells, and with them all blocks. Using either afterwards raises Closed."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _checked(self, views: Sequence[View]) -> list[tuple[list[int], list[int]]]:
        """The views as block ids and tokens."""
        result = []
        try:
            pairs = [(list(blocks), tokens) for blocks, tokens in views]
        except (TypeError, ValueError):
            raise InvalidArgument("views must be a list of pairs: (list of blocks, tokens)") from None
        for blocks, tokens in pairs:
            if not blocks:
                raise InvalidArgument("a view has no blocks: its own block is the least it needs")
            ids = [self._id_of(block) for block in blocks]
            result.append((ids, token_list(tokens, self._model.n_vocab)))
        return result

    def _id_of(self, block: CacheBlock) -> int:
        if not isinstance(block, CacheBlock):
            raise InvalidArgument(f"{block!r} is not a block: make one with SharedCache.block()")
        if block._cache is not self:
            raise InvalidArgument(f"block {block.name!r} is of another cache")
        return block._use()
