"""How many rows a pass is given: the cheapest size at or above its own, by the weights and never by the clock."""

from __future__ import annotations

import llama_cpp
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from hogwild_local import SharedCache
from hogwild_local.engine.native import pass_size
from hogwild_local.errors import InvalidArgument

SIZES = range(1, 9)


def weights(kind: Type, n_bytes: float = 1.0, *, repacked: bool = True, routed: bool = False) -> tuple:
    return (int(kind), repacked, routed, n_bytes, n_bytes)


def sizes(*shares: tuple, avx512: bool) -> list[int]:
    return [pass_size(shares, avx512, n) for n in SIZES]


def q4_k_m() -> list[tuple]:
    """A fifth of the numbers of a small tied model is of the larger type."""
    return [weights(Type.Q4_K, 0.8 * 4.5), weights(Type.Q6_K, 0.2 * 6.5625, repacked=False)]


@pytest.mark.parametrize(
    ("shares", "avx512", "expected"),
    [
        ([weights(Type.Q4_0)], True, [1, 4, 4, 4, 5, 6, 8, 8]),
        ([weights(Type.Q4_0)], False, [1, 2, 4, 4, 5, 6, 7, 8]),
        ([weights(Type.Q4_0, 0.9), weights(Type.Q6_K, 0.1, repacked=False)], True, [1, 4, 4, 4, 5, 6, 8, 8]),
        (q4_k_m(), True, [1, 2, 4, 4, 5, 6, 7, 8]),
        (q4_k_m(), False, [1, 2, 4, 4, 5, 6, 7, 8]),
    ],
    ids=["q4_0-avx512", "q4_0-avx2", "q4_0-with-q6_K-output", "q4_K_M-avx512", "q4_K_M-avx2"],
)
def test_a_pass_takes_the_size_that_was_measured_to_be_cheapest(shares, avx512, expected) -> None:
    assert sizes(*shares, avx512=avx512) == expected


@pytest.mark.parametrize("avx512", [True, False])
@pytest.mark.parametrize(
    "share",
    [
        weights(Type.Q4_0, repacked=False),
        weights(Type.Q8_0),
        weights(Type.Q6_K),
        weights(Type.F16, repacked=False),
        weights(Type.Q4_0, routed=True),  # experts: a row more reads experts of its own
    ],
)
def test_without_kernels_of_four_rows_a_pass_is_as_large_as_it_is(share, avx512) -> None:
    assert sizes(share, avx512=avx512) == list(SIZES)


def test_where_no_weight_is_in_this_machines_memory_a_pass_is_as_large_as_it_is() -> None:
    assert pass_size([weights(Type.Q4_0, 0.0)], True, 3) == 3


def test_large_passes_have_few_sizes() -> None:
    share = weights(Type.F16, repacked=False)
    assert [pass_size([share], False, n) for n in (9, 12, 30, 33, 128, 129, 547)] == [12, 12, 32, 64, 128, 160, 576]


def test_a_cache_reads_the_types_of_its_models_weights(single) -> None:
    """The tiny models' matrices have multiples of 8 rows, which ggml repacks where the CPU has AVX2."""
    info = llama_cpp.llama_print_system_info().decode()
    repacks = "AVX2 = 1" in info and "REPACK = 1" in info
    for kind, expected in (("f16", 3), ("q8_0", 3), ("q4_0", 4 if repacks else 3)):
        with SharedCache(single("qwen3", kind), 64, n_batch=8) as cache:
            assert cache.pass_size(3) == expected, kind


def test_a_pass_is_never_larger_than_n_batch(single) -> None:
    with SharedCache(single("qwen3", "q4_0"), 64, n_batch=3) as cache:
        assert cache.pass_size(3) == 3
        with pytest.raises(InvalidArgument):
            cache.pass_size(4)


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
def test_rows_that_nobody_reads_change_no_logits(single, attention: str) -> None:
    """Kernels of one row and of four differ by rounding: 1e-3 of logits of size 10 is far below a wrong row."""
    model = single("qwen3", "q4_0")
    logits = []
    for n_batch in (3, 64):
        with SharedCache(model, 128, n_batch=n_batch, type_k="f32", type_v="f32", attention=attention) as cache:
            prompt = cache.block("prompt")
            for begin in range(0, 30, 3):
                cache.decode([([prompt], range(begin, begin + 3))])
            own = [cache.block(name) for name in "abc"]
            for token in (5, 6, 7):
                last = cache.decode([([prompt, block], [token + i]) for i, block in enumerate(own)])
            logits.append(last)
            assert (len(prompt), [len(block) for block in own]) == (30, [3, 3, 3])
            assert cache.n_free == 128 - 39
    assert np.abs(logits[0] - logits[1]).max() < 1e-3 * np.abs(logits[0]).max()
