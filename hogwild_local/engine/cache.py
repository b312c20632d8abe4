"""One KV cache that several workers share: blocks of tokens, and views of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Literal, Self, overload

import numpy as np
import numpy.typing as npt

from ..checks import whole
from ..errors import CacheFull, HogwildError, InvalidArgument
from .checks import c_text, token_list
from .devices import devices_of
from .holders import Held, Holders
from .model import Model
from .native import ATTENTIONS, INT32_MAX, Decoded, DecodeView, WeightShare, float_rows
from .sampling import Sampler

# Logits that a pass of a single view holds at once (128 MiB), where more than the last are asked for.
MOST_LOGITS = 2**25


class CacheBlock:
    """A run of tokens in a SharedCache, made by SharedCache.block(), copy() or write(). Its keys are stored once, for
    the place where it was first written; where it stands is a matter of each view, and it may stand in any number of
    them. Its cells are given back with its last handle: freed, or dropped."""

    def __init__(self, cache: SharedCache, name: str, held: Held) -> None:
        self.name = name
        self._cache = cache
        self._held: Held | None = held

    def __len__(self) -> int:
        return self._cache._native.len(self._use())

    def __bool__(self) -> bool:
        return True  # an empty block is a block

    @property
    def tokens(self) -> list[int]:
        """The tokens that it was made from."""
        return self._cache._native.tokens(self._use())

    def share(self) -> CacheBlock:
        """Another handle of this very block, for another user: each frees his own, and the last one the cells."""
        return CacheBlock(self._cache, self.name, self._hold())

    def split(self, n: int, name: str = "") -> CacheBlock:
        """Keeps the first n tokens, and returns the others as a block of their own. No cell moves: a view that has
        both, one behind the other, sees what it saw. Raises InvalidArgument unless 0 <= n <= len(self)."""
        return self._cache._made(self._cache._native.split(self._use(), whole(n, "n", 0, INT32_MAX)), name)

    def append(self, other: CacheBlock) -> None:
        """Moves all tokens of other to the end of this block: their keys are rotated once, other is cleared.

        Always fits, also in a full cache. Raises InvalidArgument if other is this block or of another cache;
        OutOfMemory, ComputeError. Nothing is changed then.
        """
        self._cache._native.append(self._use(), self._cache._id_of(other))

    def clear(self) -> None:
        """Forgets all tokens."""
        self.truncate(0)

    def truncate(self, n: int) -> None:
        """Keeps the first n tokens. Raises InvalidArgument unless 0 <= n <= len(self)."""
        self._cache._native.truncate(self._use(), whole(n, "n", 0, INT32_MAX))

    def free(self) -> None:
        """Ends this handle: any later use of it raises InvalidArgument. The last one gives the cells back."""
        self._use()
        self._held = None
        self._cache._free_dropped()

    def _hold(self) -> Held:
        held = self._held
        if held is None:
            raise InvalidArgument(f"block {self.name!r} was freed")
        return held

    def _use(self) -> int:
        return self._hold().id

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
        self._holders = Holders()
        self._native = model._native.cache(
            self.n_ctx,
            self.n_batch,
            c_text(type_k, "type_k"),
            c_text(type_v, "type_v"),
            attention,
        )
        self.devices = devices_of((), self._native.placement())

    def block(self, name: str = "") -> CacheBlock:
        """A new empty block. The name is for people."""
        self._free_dropped()
        return self._made(self._native.new_block(), name)

    def copy(self, block: CacheBlock, name: str = "") -> CacheBlock:
        """A new block that holds what this one holds. Raises CacheFull, OutOfMemory, ComputeError: nothing is changed
        then."""
        self._free_dropped()
        return self._made(self._native.copy(self._id_of(block)), name)

    def read(self, block: CacheBlock) -> bytes:
        """A block as bytes (docs/block-format.md): its tokens, its keys and values, and what they are good for. Raises
        ModelError if the model's file was removed or changed since it was loaded, ComputeError."""
        return bytes(self._native.read(self._id_of(block)))

    def write(self, data: bytes, name: str = "") -> CacheBlock:
        """A new block of what read() returned, here or in another process: it goes on as the old one would have.

        Raises InvalidArgument for data that are damaged, or were made with other weights, adapters, type_k, type_v or
        rotation (it says which); CacheFull, OutOfMemory, ModelError as read(). Nothing is changed then.
        """
        if not isinstance(data, bytes | bytearray):
            raise InvalidArgument(f"data must be the bytes of a block, not {type(data).__name__}")
        self._free_dropped()
        return self._made(self._native.write(data), name)

    def _made(self, block: int, name: str) -> CacheBlock:
        return CacheBlock(self, name, self._holders.hold(block))

    def _free_dropped(self) -> None:
        """Frees the blocks that nobody holds. A second thread that does the same finds some of them freed."""
        for block in self._holders.dropped():
            with contextlib.suppress(InvalidArgument):
                self._native.free_block(block)
            self._holders.forget(block)

    @overload
    def decode(
        self,
        views: Sequence[View],
        progress: Callable[[int, int], object] | None = None,
        all_logits: Literal[False] = False,
    ) -> npt.NDArray[np.float32]: ...
    @overload
    def decode(
        self, views: Sequence[View], progress: Callable[[int, int], object] | None = None, *, all_logits: Literal[True]
    ) -> list[npt.NDArray[np.float32]]: ...
    def decode(
        self, views: Sequence[View], progress: Callable[[int, int], object] | None = None, all_logits: bool = False
    ) -> npt.NDArray[np.float32] | list[npt.NDArray[np.float32]]:
        """Feeds each view its tokens, in one forward pass, and returns the logits after each view's last one:
        float32 [views, n_vocab]. With all_logits: those after every token, float32 [tokens, n_vocab] for each view.

        A view is a list of blocks; the tokens go to its last one, its own. Every query sees all tokens of the
        other blocks of its view, those of this very pass included, and its own block causally (arXiv
        2504.06261, section 3). The tokens of several views together must fit n_batch (BatchTooLarge); a single
        view may feed any number, in chunks of n_batch. progress(done, total) is called between chunks and may
        raise, which cancels the call. Raises InvalidArgument, CacheFull, OutOfMemory, ComputeError; nothing is
        changed then.
        """
        wanted = [
            DecodeView(ids, tokens, len(tokens) if all_logits else 1, wants_logits=True)
            for ids, tokens in self._checked(views)
        ]
        rows = [logits for logits, _, _ in self._feed(wanted, progress) if logits is not None]
        return rows if all_logits else rows[0] if len(rows) == 1 else np.concatenate(rows)

    def logprobs(self, views: Sequence[View], targets: Sequence[Sequence[int]]) -> list[npt.NDArray[np.float32]]:
        """Feeds each view its tokens, as decode(), and returns how likely the model holds its targets: for each view
        float32 [targets], the natural logarithm of the probability of a target after each of its last tokens.

            [scores] = cache.logprobs([([prompt, answer], tokens[:-1])], [tokens[1:]])
        """
        if not (isinstance(views, Sequence) and isinstance(targets, Sequence) and len(views) == len(targets)):
            raise InvalidArgument("views and targets must be lists of one length")
        wanted = []
        for (ids, tokens), given in zip(self._checked(views), targets, strict=True):
            of_view = token_list(given, self._model.n_vocab) if len(given) > 0 else []
            if len(of_view) > len(tokens):
                raise InvalidArgument(
                    f"{len(of_view)} targets for a view of {len(tokens)} tokens: at most one for each"
                )
            wanted.append(DecodeView(ids, tokens, len(of_view), targets=of_view))
        return [logprobs for _, logprobs, _ in self._feed(wanted) if logprobs is not None]

    def next_tokens(self, views: Sequence[View], samplers: Sequence[Sampler | None]) -> list[int | None]:
        """decode(), then a token from the sampler of each view, in their order; None where a view has None.

        Raises what decode() raises, and Closed where a sampler was closed; and InvalidArgument where a sampler can
        choose no token: then the views are fed nevertheless.
        """
        if not (isinstance(views, Sequence) and isinstance(samplers, Sequence) and len(views) == len(samplers)):
            raise InvalidArgument("views and samplers must be lists of one length: a view without a sampler has None")
        for sampler in samplers:
            if not isinstance(sampler, Sampler | None):
                raise InvalidArgument(f"{sampler!r} is not a sampler: make one with Sampler(model)")
        wanted = [
            DecodeView(ids, tokens, *((0,) if sampler is None else (1, False, None, sampler._native)))
            for (ids, tokens), sampler in zip(self._checked(views), samplers, strict=True)
        ]
        chosen = [sampled for _, _, sampled in self._feed(wanted)]
        if -1 in chosen:
            raise InvalidArgument(
                f"no token can be chosen for view {chosen.index(-1)}: none is allowed, or its logits are not finite"
            )
        return chosen

    def _feed(self, views: list[DecodeView], progress: Callable[[int, int], object] | None = None) -> list[Decoded]:
        """One pass, or for a single view as many as its tokens and outputs need."""
        self._free_dropped()
        n_chunk = self.n_batch
        if len(views) == 1 and views[0].n_outputs > 1:
            n_chunk = max(1, min(n_chunk, MOST_LOGITS // self._model.n_vocab))
        if len(views) == 1 and len(views[0].tokens) > n_chunk:
            return [self._feed_in_chunks(views[0], n_chunk, progress)]
        return self._native.decode(views)

    def _feed_in_chunks(self, view: DecodeView, n_chunk: int, progress: Callable[[int, int], object] | None) -> Decoded:
        total, own = len(view.tokens), view.blocks[-1]
        if total > self.n_free:
            raise CacheFull(total, self.n_free)
        before = self._native.len(own)
        whole_view = Decoded(
            float_rows(view.n_outputs, self._model.n_vocab) if view.wants_logits else None,
            None if view.targets is None else np.empty(view.n_outputs, dtype=np.float32),
            None,
        )
        try:
            for begin in range(0, total, n_chunk):
                if progress is not None and begin > 0:
                    progress(begin, total)
                self._feed_chunk(view, begin, min(begin + n_chunk, total), whole_view)
        except BaseException:
            # Where progress(), or another thread, closed, freed or cut it, there is nothing to take back.
            with contextlib.suppress(HogwildError):
                self._native.truncate(own, before)
            raise
        return whole_view

    def _feed_chunk(self, view: DecodeView, begin: int, end: int, into: Decoded) -> None:
        """Feeds the tokens begin to end of a view, and writes their outputs to where they stand in those of it."""
        skipped = len(view.tokens) - view.n_outputs  # tokens before the first output
        rows = slice(max(begin - skipped, 0), max(end - skipped, 0))
        targets = None if view.targets is None else view.targets[rows]
        [got] = self._native.decode(
            [DecodeView(view.blocks, view.tokens[begin:end], rows.stop - rows.start, view.wants_logits, targets)]
        )
        if into.logits is not None and got.logits is not None:
            into.logits[rows] = got.logits
        if into.logprobs is not None and got.logprobs is not None:
            into.logprobs[rows] = got.logprobs

    @property
    def n_free(self) -> int:
        """Cells that no block uses."""
        self._free_dropped()
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

    def weights(self) -> list[WeightShare]:
        """The weights in this machine's memory that each token is multiplied with."""
        return self._native.weights()

    def cell_size(self) -> tuple[float, float]:
        """Bytes and values of one token's keys and values, all layers."""
        return self._native.cell_size()

    def pass_size(self, n: int) -> int:
        """The rows that a pass of n tokens is computed with: more than n where that is cheaper on this CPU."""
        return self._native.pass_size(whole(n, "n", 1, self.n_batch))

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
