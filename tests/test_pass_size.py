"""How many rows a pass is given: as many as it has tokens where they are few, few sizes beyond."""

from __future__ import annotations

import numpy as np
import pytest

from hogwild_local import SharedCache
from hogwild_local.engine.native import pass_size
from hogwild_local.errors import InvalidArgument


def test_small_passes_are_as_large_as_they_are() -> None:
    assert [pass_size(n) for n in range(1, 9)] == list(range(1, 9))


def test_large_passes_have_few_sizes() -> None:
    assert [pass_size(n) for n in (9, 12, 30, 33, 128, 129, 547)] == [12, 12, 32, 64, 128, 160, 576]


def test_a_pass_is_never_larger_than_n_batch(single) -> None:
    with SharedCache(single("qwen3", "q4_0"), 64, n_batch=10) as cache:
        assert [cache.pass_size(n) for n in (3, 9, 10)] == [3, 10, 10]
        with pytest.raises(InvalidArgument):
            cache.pass_size(11)


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
def test_rows_that_nobody_reads_change_no_logits(single, attention: str) -> None:
    """Kernels of one row and of four differ by rounding: 1e-3 of logits of size 10 is far below a wrong row."""
    model = single("qwen3", "q4_0")
    logits = []
    for n_batch in (9, 64):
        with SharedCache(model, 128, n_batch=n_batch, type_k="f32", type_v="f32", attention=attention) as cache:
            prompt = cache.block("prompt")
            for begin in range(0, 36, 9):
                cache.decode([([prompt], range(begin, begin + 9))])
            own = [cache.block(f"worker {i}") for i in range(9)]
            for token in (5, 6, 7):
                last = cache.decode([([prompt, block], [token + i]) for i, block in enumerate(own)])
            logits.append(last)
            assert cache.pass_size(9) == min(n_batch, 12)
            assert (len(prompt), [len(block) for block in own]) == (36, [3] * 9)
            assert cache.n_free == 128 - 63
    assert np.abs(logits[0] - logits[1]).max() < 1e-3 * np.abs(logits[0]).max()
