"""A shared KV cache: its blocks, and forward passes over views of them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import errors
from ..devices import PlacementRow
from ..views import Chunk, Decoded, DecodeView
from .calls import Object, call, keep_for_caller, new
from .host import free_host_memory, placement
from .library import ffi, lib

ATTENTIONS = {
    "auto": lib.HW_ATTENTION_AUTO,
    "fused": lib.HW_ATTENTION_FUSED,
    "ggml": lib.HW_ATTENTION_GGML,
    "composed": lib.HW_ATTENTION_COMPOSED,
}


def float_rows(n_rows: int, n_vocab: int) -> npt.NDArray[np.float32]:
    """Room for logits, not filled. Raises OutOfMemory, also where the system would hand out more than there is."""
    try:
        n_bytes = 4 * n_rows * n_vocab
        if n_bytes < 2**26 or n_bytes <= free_host_memory():  # to ask costs a tenth of a millisecond
            return np.empty((n_rows, n_vocab), dtype=np.float32)
    except MemoryError:
        pass
    raise errors.OutOfMemory(f"no memory for {n_rows} rows of logits, {n_vocab} numbers each: ask for fewer tokens")


class _CView:
    """A view as a struct hw_view, without its sampler, and the arrays that it points to."""

    def __init__(self, view: DecodeView, n_vocab: int) -> None:
        if view.targets is not None and len(view.targets) != view.n_outputs:
            raise errors.InvalidArgument(f"{len(view.targets)} targets for {view.n_outputs} outputs of a view")
        n_rows = max(view.n_outputs, 0)
        self._logits = float_rows(n_rows, n_vocab) if view.wants_logits else None
        self._logprobs = None if view.targets is None else np.empty(n_rows, dtype=np.float32)
        self._sampled = ffi.NULL if view.sampler is None else ffi.new("int32_t *")
        n_top = view.n_top or 0
        self._logprob = ffi.NULL if view.n_top is None else ffi.new("float *")
        self._top_tokens, self._top_logprobs = (ffi.new(kind, n_top) for kind in ("int32_t[]", "float[]"))
        self.fields = {
            "blocks": ffi.new("int32_t[]", view.blocks),
            "n_blocks": len(view.blocks),
            "tokens": ffi.new("int32_t[]", view.tokens),
            "n_tokens": len(view.tokens),
            "n_outputs": view.n_outputs,
            "logits": ffi.NULL if self._logits is None else ffi.from_buffer("float[]", self._logits),
            "targets": ffi.NULL if view.targets is None else ffi.new("int32_t[]", view.targets),
            "logprobs": ffi.NULL if self._logprobs is None else ffi.from_buffer("float[]", self._logprobs),
            "sampled": self._sampled,
            "sampled_logprob": self._logprob,
            "n_top": n_top,
            "top_tokens": self._top_tokens,
            "top_logprobs": self._top_logprobs,
        }

    def result(self) -> Decoded:
        sampled = int(self._sampled[0]) if self._sampled else None
        if not self._logprob:
            return Decoded(self._logits, self._logprobs, sampled)
        n = self.fields["n_top"]
        top = list(zip(ffi.unpack(self._top_tokens, n), ffi.unpack(self._top_logprobs, n), strict=True))
        return Decoded(self._logits, self._logprobs, sampled, float(self._logprob[0]), top)


# A matrix that a token is multiplied with: ggml type, is repacked, is routed, bytes, values
WeightShare = tuple[int, bool, bool, float, float]


@ffi.def_extern(error=False, onerror=keep_for_caller)  # type: ignore[untyped-decorator]
def hogwild_on_exchange(layer: int, user_data: Any) -> bool:
    ffi.from_handle(user_data).exchange(layer)
    return True


def _params(n_ctx: int, n_batch: int, type_k: bytes, type_v: bytes, attention: str, n_windows: int) -> tuple[Any, Any]:
    """A struct hw_cache_params, and the texts that it points to."""
    texts = ffi.new("char[]", type_k), ffi.new("char[]", type_v)
    return ffi.new("struct hw_cache_params *", [n_ctx, n_batch, *texts, ATTENTIONS[attention], n_windows]), texts


def cache_room(model: Object, share: float, *arguments: Any) -> int:
    """The most tokens, up to n_ctx, that a cache of these arguments (see NativeCache) can hold in such a share of the
    memory that is free."""
    params, _alive = _params(*arguments)
    n_ctx = ffi.new("int32_t *")
    with model._lock:
        call(lib.hw_cache_room, model._use(), params, share, n_ctx)
    return int(n_ctx[0])


class NativeCache(Object):
    _what = "cache"

    def __init__(
        self,
        model: Object,
        n_vocab: int,
        n_ctx: int,
        n_batch: int,
        type_k: bytes,
        type_v: bytes,
        attention: str,
        n_windows: int,
    ) -> None:
        params, _alive = _params(n_ctx, n_batch, type_k, type_v, attention, n_windows)
        with model._lock:
            pointer = new("hw_cache", lib.hw_cache_free, lib.hw_cache_new, model._use(), params)
        super().__init__(pointer, ffi.release)
        self._n_vocab = n_vocab

    def number(self, name: str) -> int:
        return int(self._ask(getattr(lib, f"hw_cache_{name}")))

    def count(self, name: str) -> int:
        return int(getattr(self._ask(lib.hw_cache_counts), name))

    def placement(self) -> list[PlacementRow]:
        with self._lock:
            return placement(lib.hw_cache_placement, self._use())

    def weights(self) -> list[WeightShare]:
        with self._lock:
            n = lib.hw_cache_weights(self._use(), ffi.NULL, 0)
            rows = ffi.new("struct hw_weight_share[]", n)
            lib.hw_cache_weights(self._use(), rows, n)
        return [(row.type, row.is_repacked, row.is_routed, row.n_bytes, row.n_values) for row in rows]

    def time_nodes(self, on: bool) -> None:
        with self._lock:
            lib.hw_cache_time_nodes(self._use(), on)

    def node_times(self) -> list[tuple[str, int, int]]:
        """Of each kind of node: what it is, how many were computed, and their microseconds."""
        with self._lock:
            n = lib.hw_cache_node_times(self._use(), ffi.NULL, 0)
            rows = ffi.new("struct hw_node_time[]", n)
            lib.hw_cache_node_times(self._use(), rows, n)
        return [(ffi.string(row.kind).decode(), row.count, row.us) for row in rows]

    def cell_size(self) -> tuple[float, float]:
        """Bytes and values of one token's keys and values, all layers."""
        with self._lock:
            size = lib.hw_cache_cell_size(self._use())
        return float(size.n_bytes), float(size.n_values)

    def pass_size(self, n: int) -> int:
        rows = ffi.new("int32_t *")
        with self._lock:
            call(lib.hw_cache_pass_size, self._use(), n, rows)
        return int(rows[0])

    def check(self) -> None:
        self._do(lib.hw_cache_check)

    def new_block(self, is_anchored: bool = False) -> int:
        return self._int(lib.hw_block_new, is_anchored)

    def free_blocks(self, blocks: Sequence[int]) -> None:
        """Those that were freed already are none any more: it may be called again after an interrupt."""
        for block in blocks:
            with contextlib.suppress(errors.InvalidArgument):
                self._do(lib.hw_block_free, block)

    def truncate(self, block: int, n: int) -> None:
        self._do(lib.hw_block_truncate, block, n)

    def last_cut(self, block: int, n: int) -> int:
        """Where the block can be cut, at n or the last place before."""
        return self._int(lib.hw_block_last_cut, block, n)

    def mark(self, block: int) -> None:
        """Where it ends now it can be cut."""
        self._do(lib.hw_block_mark, block)

    def append(self, dst: int, src: int) -> None:
        self._do(lib.hw_block_append, dst, src)

    def split(self, block: int, n: int) -> int:
        return self._int(lib.hw_block_split, block, n)

    def copy(self, block: int) -> int:
        return self._int(lib.hw_block_copy, block)

    def tokens(self, block: int) -> list[int]:
        n = ffi.new("int32_t *")
        with self._lock:
            call(lib.hw_block_tokens, self._use(), block, ffi.NULL, 0, n)
            tokens = ffi.new("int32_t[]", int(n[0]))
            call(lib.hw_block_tokens, self._use(), block, tokens, len(tokens), n)
        return list(tokens)

    def read(self, block: int) -> bytearray:
        size = ffi.new("size_t *")
        with self._lock:
            call(lib.hw_block_state_size, self._use(), block, size)
            data = bytearray(size[0])
            call(lib.hw_block_read, self._use(), block, ffi.from_buffer(data), len(data))
        return data

    def write(self, data: bytes | bytearray) -> int:
        return self._int(lib.hw_block_write, ffi.from_buffer(data), len(data))

    def blocks(self) -> dict[int, int]:
        """Length by id, of all blocks."""
        with self._lock:
            n = lib.hw_cache_blocks(self._use(), ffi.NULL, ffi.NULL, 0)
            ids, lens = ffi.new("int32_t[]", n), ffi.new("int32_t[]", n)
            lib.hw_cache_blocks(self._use(), ids, lens, n)
        return dict(zip(ids, lens, strict=True))

    def decode(self, views: Sequence[DecodeView]) -> list[Decoded]:
        """One forward pass of all views. Raises the errors of hw_decode, and Closed where a sampler was closed."""
        c_views = [_CView(view, self._n_vocab) for view in views]
        array = ffi.new("struct hw_view[]", [c_view.fields for c_view in c_views])
        samplers = {view.sampler for view in views if view.sampler is not None}
        with contextlib.ExitStack() as locks:
            # In one order everywhere, so that no two calls wait for each other.
            for sampler in sorted(samplers, key=id):
                locks.enter_context(sampler._lock)
            for row, view in zip(array, views, strict=True):
                row.sampler = ffi.NULL if view.sampler is None else view.sampler._use()
            locks.enter_context(self._lock)
            call(lib.hw_decode, self._use(), array, len(views))
        return [c_view.result() for c_view in c_views]

    def n_layers(self) -> int:
        """Layers that store keys and values."""
        return int(self._ask(lib.hw_cache_n_layers))

    def layer_bytes(self, layer: int, n: int) -> int:
        """Bytes of n tokens in a layer, as they are stored."""
        return int(self._ask(lib.hw_cache_layer_bytes, layer, n))

    def is_windowed(self, layer: int) -> bool:
        return bool(self._ask(lib.hw_cache_is_windowed, layer))

    def decode_chunk(self, view: DecodeView, chunk: Chunk) -> Decoded:
        """One forward pass of a view without a sampler, whose first tokens are computed elsewhere. Raises the errors of
        hw_decode_chunk, and what the function of the chunk raises: the cache is as before then."""
        c_view = _CView(view, self._n_vocab)
        c_layers = ffi.new("void *[]", [ffi.from_buffer(layer) for layer in chunk.layers])
        user_data = ffi.new_handle(chunk)
        c_chunk = ffi.new(
            "struct hw_chunk *",
            {
                "runs": (runs := ffi.new("int32_t[]", list(chunk.runs))),
                "n_runs": len(runs),
                "layers": c_layers if chunk.layers else ffi.NULL,
                "wants_own": chunk.wants_own,
                "exchange": lib.hogwild_on_exchange,
                "user_data": user_data,
            },
        )
        with self._lock:
            call(lib.hw_decode_chunk, self._use(), ffi.new("struct hw_view *", c_view.fields), c_chunk)
        return c_view.result()
