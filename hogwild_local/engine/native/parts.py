"""Parts of the library alone, for tests (cpp/include/hogwild-parts.h)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .calls import call, new
from .library import ffi, lib

CHANGES = {
    "add": lib.HW_RECURRENCE_ADD,
    "remove": lib.HW_RECURRENCE_REMOVE,
    "truncate": lib.HW_RECURRENCE_TRUNCATE,
    "split": lib.HW_RECURRENCE_SPLIT,
    "append": lib.HW_RECURRENCE_APPEND,
    "copy": lib.HW_RECURRENCE_COPY,
    "mark": lib.HW_RECURRENCE_MARK,
    "rewrite": lib.HW_RECURRENCE_REWRITE,
}

Floats = npt.NDArray[np.float32]


class Recurrence:
    """One recurrence, and blocks that hold its states. kind: a RecurrenceKind of cpp/kernel/recurrence.h.
    n_rows: -1 for as many as in a model."""

    def __init__(
        self,
        kind: int,
        n_head: int,
        d_k: int,
        d_v: int,
        n_decay: int,
        n_rows: int = -1,
        scale: float = 1.0,
        slope: float = 0.0,
    ) -> None:
        numbers = [kind, n_head, d_k, d_v, n_decay, n_rows, scale, slope]
        params = ffi.new("struct hw_recurrence_params *", numbers)
        self._pointer = new("hw_recurrence", lib.hw_recurrence_free, lib.hw_recurrence_new, params)

    def change(self, what: str, a: int, b: int = 0, c: int = 0) -> None:
        call(lib.hw_recurrence_change, self._pointer, CHANGES[what], a, b, c)

    def last_cut(self, block: int, n: int) -> int:
        return int(lib.hw_recurrence_last_cut(self._pointer, block, n))

    def n_segments(self, block: int) -> int:
        return int(lib.hw_recurrence_n_segments(self._pointer, block))

    def count(self, name: str) -> int:
        """A count of struct hw_recurrence_counts."""
        return int(getattr(lib.hw_recurrence_count(self._pointer), name))

    def run(
        self,
        views: Sequence[tuple[Sequence[int], int]],
        inputs: Sequence[Floats],
        out: Floats,
        n_groups: int = 1,
        n_threads: int = 1,
        fails: bool = False,
    ) -> None:
        """A pass: each view's blocks, its own last, and how many tokens it feeds; out: their outputs, view by view.
        fails: it is as if the pass had failed at its end."""
        data = [ffi.from_buffer("float[]", array) for array in inputs]
        arrays = {
            "blocks": ffi.new("int32_t[]", [block for blocks, _ in views for block in blocks]),
            "n_blocks": ffi.new("int32_t[]", [len(blocks) for blocks, _ in views]),
            "n_tokens": ffi.new("int32_t[]", [n for _, n in views]),
            "out": ffi.from_buffer("float[]", out),
        }
        numbers = {"n_views": len(views), "n_groups": n_groups, "n_threads": n_threads, "fails": fails}
        wanted = ffi.new("struct hw_recurrence_pass *", {**arrays, **numbers})
        for i, pointer in enumerate(data):
            wanted.inputs[i] = pointer
        call(lib.hw_recurrence_run, self._pointer, wanted)


def thread_counts(n_threads: int, passes: Sequence[tuple[float, float, int]]) -> list[int]:
    """How many threads the first of these passes gets, and each that follows. passes: as struct hw_pass_time."""
    counts = ffi.new("int32_t[]", len(passes) + 1)
    call(lib.hw_thread_counts, n_threads, ffi.new("struct hw_pass_time[]", list(passes)), len(passes), counts)
    return list(counts)


def pass_size(n: int) -> int:
    """The rule behind NativeCache.pass_size, without n_batch."""
    return int(lib.hw_pass_size(n))


def product_kernels() -> list[str]:
    """The instruction sets of the kernel for products that this CPU can run, best first; last "plain"."""
    return str(ffi.string(lib.hw_product_kernels()).decode()).split(",")


def product(kind: int, weights: bytes, x: Floats, n_out: int, by: str) -> Floats:
    """x [n_rows, n_in] times weights (n_out rows of n_in numbers, as in a file). kind: a ggml_type. by: a kernel, or
    "ggml"."""
    out: Floats = np.empty((len(x), n_out), np.float32)
    data, rows, result = ffi.from_buffer(weights), ffi.from_buffer("float[]", x), ffi.from_buffer("float[]", out)
    call(lib.hw_product, kind, x.shape[1], n_out, data, rows, len(x), by.encode(), result)
    return out
