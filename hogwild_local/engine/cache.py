"""One KV cache that several workers share: blocks of tokens, and views of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Self, TypeVar, get_args, overload

from ..checks import INT32_MAX, one_of, whole
from ..errors import BatchTooLarge, HogwildError, InvalidArgument, OutOfMemory
from ..options import MOST_BATCH, MOST_WINDOWS, AttentionForm, EngineOptions, windows_for
from .arguments import c_text, token_list
from .block import CacheBlock
from .counters import Counters
from .devices import MIB, devices_of
from .ledger import Ledger
from .log import INFO, tell
from .merging import Merger, Request
from .model import Model
from .room import usual_n_ctx
from .sampling import Sampler
from .views import Decoded, DecodeView, Sampled

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .native import WeightShare

# A view with more tokens is a prompt: where others decode at the same time it is fed in parts that let them go on.
MOST_AT_ONCE = 16

# Logits that a pass of a single view holds at once (128 MiB), where more than the last are asked for.
MOST_LOGITS = 2**25


View = tuple[Sequence[CacheBlock], Sequence[int]]
T = TypeVar("T")


class SharedCache(Counters):
    """n_ctx cells that blocks share; a block needs no declared size, and together they can use all cells. n_ctx None:
    as many as the model was trained for, at most 32768, and no more than half of the free memory holds.

    type_k, type_v: ggml types of stored keys and values: "f32", "f16", "bf16", "q8_0", "q5_0", "q5_1", "q4_0" or
    "q4_1". n_batch: most tokens of one forward pass. attention: "fused" (our CPU kernel), "ggml" (any
    device: its flash attention, or where that is none or slower, composed), "composed" (of plain operations, block by
    block), or "auto" (fused for the layers in CPU memory, ggml for others). n_windows: layers with a sliding window
    hold so many windows and n_batch tokens (n_ctx at most); a block needs a window of its own, or as much as it has.
    None: 8.

    Calls of decode(), next_tokens() and logprobs() from several threads are merged: what is asked for while a pass runs
    goes into the next one together. Each has its own errors. A prompt that is long is fed in parts, so that the passes
    of others take at most twice their time; len(block) and n_free wait for no pass.
    Raises InvalidArgument, UnsupportedModel (naming what in the graph cannot be re-wired), OutOfMemory.

        cache = SharedCache(model, n_ctx=4096)
        prompt, alice, bob = (cache.block(name) for name in ("prompt", "alice", "bob"))
        cache.decode([([prompt], model.tokenize("Hello"))])
        logits = cache.decode([([prompt, bob, alice], [1]), ([prompt, alice, bob], [2])])
    """

    def __init__(
        self,
        model: Model,
        n_ctx: int | None = 4096,
        type_k: str = EngineOptions.type_k,
        type_v: str = EngineOptions.type_v,
        n_batch: int = EngineOptions.n_batch,
        attention: AttentionForm = EngineOptions.attention,
        n_windows: int | None = EngineOptions.n_windows,
    ) -> None:
        if not isinstance(model, Model):
            raise InvalidArgument(f"model must be a Model, not {model!r}")
        n_batch = whole(n_batch, "n_batch", 1, MOST_BATCH)
        form = one_of(attention, "attention", get_args(AttentionForm))
        n_windows = whole(windows_for(1, n_windows), "n_windows", 1, MOST_WINDOWS)
        how = (c_text(type_k, "type_k"), c_text(type_v, "type_v"), form, n_windows)
        self.n_ctx = (
            usual_n_ctx(model.n_ctx_train, lambda share, n: model._native.room(share, n, min(n_batch, n), *how))
            if n_ctx is None
            else whole(n_ctx, "n_ctx", 1, INT32_MAX)
        )
        self.n_batch = min(n_batch, self.n_ctx)
        self._model = model
        self._native = model._native.cache(self.n_ctx, self.n_batch, *how)
        self.is_recurrent = self._native.number("n_recurrences") > 0
        """Whether the model has recurrent layers: its blocks can be cut at some places only."""
        self.n_windowed = self._native.number("n_windowed")
        """Cells of layers with a sliding window; n_ctx where the model has none, or those hold all."""
        self._ledger = Ledger(self._native, self.n_ctx)
        self._merger = Merger(self._native.decode, self._ledger, self.n_batch)
        self.devices = devices_of((), self._native.placement())
        if n_ctx is None:
            n_bytes = sum(device.cache_bytes for device in self.devices)
            tell(INFO, f"hogwild: n_ctx is {self.n_ctx}, which takes {n_bytes / MIB:.1f} MiB\n")

    def block(self, name: str = "", anchored: bool = False) -> CacheBlock:
        """A new empty block. The name is for people. anchored: in every view that has it the same tokens stand before
        it, or none, as before a prompt. Models with recurrent layers then keep less of it, and compute it in less time;
        of these a view that has it elsewhere raises InvalidArgument, and so does append(it)."""
        return CacheBlock(self, name, self._change(partial(self._ledger.open, anchored)))

    def copy(self, block: CacheBlock, name: str = "") -> CacheBlock:
        """A new block that holds what this one holds. Raises CacheFull, OutOfMemory, ComputeError: nothing is changed
        then."""
        return CacheBlock(self, name, self._change(partial(self._ledger.copy, self._id_of(block))))

    def read(self, block: CacheBlock) -> bytes:
        """A block as bytes (docs/block-format.md): its tokens, its keys and values, and what they are good for. Raises
        ModelError if the model's file was removed or changed since it was loaded, ComputeError."""
        own = self._id_of(block)
        return bytes(self._change(lambda: self._native.read(own)))

    def write(self, data: bytes, name: str = "") -> CacheBlock:
        """A new block of what read() returned, here or in another process: it goes on as the old one would have.

        Raises InvalidArgument for data that are damaged, hold an infinity or a NaN, or were made with other weights,
        adapters, type_k, type_v or rotation (it says which); CacheFull, OutOfMemory, ModelError as read(). Nothing is
        changed then.
        """
        if not isinstance(data, bytes | bytearray):
            raise InvalidArgument(f"data must be the bytes of a block, not {type(data).__name__}")
        return CacheBlock(self, name, self._change(partial(self._ledger.write, bytes(data))))

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
        changed then. (One exception: chunks that were fed stay, as len(block) says, where they have pushed what was
        before them out of a sliding window; the block is whole.)
        """
        wanted = [
            DecodeView(ids, tokens, len(tokens) if all_logits else 1, wants_logits=True)
            for ids, tokens in self._checked(views)
        ]
        rows = [decoded.logits for decoded in self._feed(wanted, progress) if decoded.logits is not None]
        return rows if all_logits else rows[0] if len(rows) == 1 else _one_behind_the_other(rows)

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
        return [decoded.logprobs for decoded in self._feed(wanted) if decoded.logprobs is not None]

    def next_tokens(self, views: Sequence[View], samplers: Sequence[Sampler | None]) -> list[int | None]:
        """decode(), then a token from the sampler of each view, in their order; None where a view has None.

        Raises what decode() raises, and Closed where a sampler was closed; and InvalidArgument where a sampler can
        choose no token: then the views are fed nevertheless.
        """
        return [None if chosen is None else chosen.token for chosen in self.sampled(views, samplers)]

    def sampled(
        self, views: Sequence[View], samplers: Sequence[Sampler | None], n_top: int | None = None
    ) -> list[Sampled | None]:
        """next_tokens(), and how likely each token was. n_top: 0 or more gives each its .logprob, the natural logarithm
        of its probability in the model's own distribution, before any sampler, and so many of the likeliest tokens
        there in .top, as (token, logprob), the likeliest first; None: neither, and nothing is computed for it."""
        if not (isinstance(views, Sequence) and isinstance(samplers, Sequence) and len(views) == len(samplers)):
            raise InvalidArgument("views and samplers must be lists of one length: a view without a sampler has None")
        for sampler in samplers:
            if not isinstance(sampler, Sampler | None):
                raise InvalidArgument(f"{sampler!r} is not a sampler: make one with Sampler(model)")
            if sampler is not None and sampler._native.place is not self._native.place:
                raise InvalidArgument("this sampler is of another model, in another process")
        if n_top is not None:
            n_top = whole(n_top, "n_top", 0, self._model.n_vocab)
        wanted = [
            DecodeView(ids, tokens, *((0,) if sampler is None else (1, False, None, sampler._native, n_top)))
            for (ids, tokens), sampler in zip(self._checked(views), samplers, strict=True)
        ]
        chosen = [
            None if decoded.sampled is None else Sampled(decoded.sampled, decoded.logprob, decoded.top)
            for decoded in self._feed(wanted)
        ]
        for index, each in enumerate(chosen):
            if each is not None and each.token < 0:
                raise InvalidArgument(
                    f"no token can be chosen for view {index}: none is allowed, or its logits are not finite"
                )
        return chosen

    def prefill(self, views: Sequence[View], n_later: int = 0) -> None:
        """Feeds each view its tokens, one view after the other, and samples nothing. Together they may be of any
        number: they are fed in parts, which let others go on who decode at the same time, and a view reads of another
        one's block what was fed before it. Of prompts that wait, the one goes first that would have ended first if each
        had been fed from when it came; n_later: so many tokens of the same prompt are to be fed behind these. Raises
        what decode() raises; nothing is changed then, but as it says.
        """
        wanted = [DecodeView(ids, tokens, 0) for ids, tokens in self._checked(views)]
        self._feed_in_parts(wanted, self.n_batch, None, whole(n_later, "n_later", 0))

    def _feed(self, views: list[DecodeView], progress: Callable[[int, int], object] | None = None) -> list[Decoded]:
        """One pass, or for a single view as many as its tokens and outputs need."""
        self._native.check_open()
        n_most = self.n_batch
        if len(views) == 1 and views[0].n_outputs > 1:
            n_most = max(1, min(n_most, MOST_LOGITS // self._model.n_vocab))
        if len(views) == 1 and len(views[0].tokens) > min(MOST_AT_ONCE, n_most):
            parts = self._feed_in_parts(views, n_most, progress)
            return parts if len(parts) == 1 else [_joined(parts)]
        request = Request(views)
        if request.n_left > self.n_batch:
            raise BatchTooLarge(f"{request.n_left} tokens in one call do not fit n_batch ({self.n_batch})")
        try:
            return self._merger.feed(request)
        finally:
            self._merger.release(request)

    def _feed_in_parts(
        self, views: list[DecodeView], n_part: int, progress: Callable[[int, int], object] | None, n_later: int = 0
    ) -> list[Decoded]:
        """What each part gave."""
        request = Request(views, n_part, n_later)
        total = request.n_left
        before = {view.blocks[-1]: self._len(view.blocks[-1]) for view in views}
        if self.is_recurrent:
            for own in before:
                self._change(partial(self._native.mark, own))  # what is taken back ends here
        parts: list[Decoded] = []
        try:
            while request.n_left:
                if progress is not None and parts:
                    progress(total - request.n_left, total)
                parts += self._merger.feed(request)
        except BaseException:
            with contextlib.suppress(HogwildError):
                for own, n in before.items():
                    self._change(partial(self._ledger.take_back, own, n))
            raise
        finally:
            self._merger.release(request)
        return parts

    def _len(self, block: int) -> int:
        self._settled()
        return self._ledger.len(block)

    def _settled(self) -> None:
        """Raises Closed."""
        self._native.check_open()
        if not self._ledger.is_known:
            self._change(lambda: None)

    def _change(self, change: Callable[[], T]) -> T:
        """What is no pass, while none runs."""
        self._native.check_open()
        return self._merger.alone(change)

    @property
    def cuts_anywhere(self) -> bool:
        """Whether blocks can be split and truncated at any token."""
        return not self.is_recurrent and self.n_windowed == self.n_ctx

    @property
    def n_free(self) -> int:
        """Cells that no block uses, and that no pass or prompt which is under way will use."""
        self._settled()
        return self._ledger.n_free

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
        self._change(self._native.check)

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


def _one_behind_the_other(arrays: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    import numpy as np

    return np.concatenate(arrays)


def _joined(parts: Sequence[Decoded]) -> Decoded:
    """The outputs of a view that was fed in parts. Raises OutOfMemory."""

    def rows(arrays: list[npt.NDArray[np.float32] | None]) -> npt.NDArray[np.float32] | None:
        given = [array for array in arrays if array is not None]
        return _one_behind_the_other(given) if given else None

    try:
        return Decoded(rows([part.logits for part in parts]), rows([part.logprobs for part in parts]), *parts[-1][2:])
    except MemoryError:
        raise OutOfMemory("no memory for the logits of all tokens: ask for fewer") from None
