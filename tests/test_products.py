"""Products with weights of 4 and 6 bits: our kernel, its plain form and ggml's own give the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

from hogwild_local import SharedCache
from hogwild_local.engine.native import product, product_kernels
from hogwild_local.engine.node_times import timed_nodes
from hogwild_local.errors import InvalidArgument, UnsupportedModel

FAST = product_kernels()[:-1] or ["none"]
every_kernel = pytest.mark.parametrize("kernel", FAST)
KINDS = [Type.Q4_0, Type.Q4_K, Type.Q6_K]
BLOCK = {Type.Q4_0: 32, Type.Q4_K: 256, Type.Q6_K: 256}
N_BYTES = {Type.Q4_0: 18, Type.Q4_K: 144, Type.Q6_K: 210}
SCALES = {Type.Q4_0: [0], Type.Q4_K: [0, 2], Type.Q6_K: [208]}
"""Where a block has numbers of 16 bits."""


def is_repacked() -> bool:
    try:
        product(Type.Q4_0, bytes(18 * 8), np.zeros((1, 32), np.float32), 8, FAST[0])
    except UnsupportedModel:
        return False
    return True


needs_a_kernel = pytest.mark.skipif(not is_repacked(), reason="no device but the CPU, and ggml repacks nothing on it")


def random_weights(kind: Type, n_in: int, n_out: int, seed: int) -> bytes:
    """Any bits are weights, but for their scales, which are numbers around 0.01 of either sign."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (n_out * n_in // BLOCK[kind], N_BYTES[kind]), np.uint8)
    for at in SCALES[kind]:
        scales = random.normal(0.0, 0.01, len(blocks)).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.tobytes()


def random_rows(n_rows: int, n_in: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n_rows, n_in)).astype(np.float32)
    rows[:, : n_in // 4] *= np.exp(np.linspace(-6, 6, n_in // 4, dtype=np.float32))  # scales differ from block to block
    return rows


@needs_a_kernel
@every_kernel
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("n_rows", [1, 2, 3])
@pytest.mark.parametrize(("blocks", "n_out"), [(1, 8), (3, 40), (16, 1016)])
def test_a_product_has_the_bits_of_ggmls_kernel_of_one_row(kernel, kind, n_rows, blocks, n_out) -> None:
    n_in = blocks * BLOCK[kind]
    weights, x = random_weights(kind, n_in, n_out, 1), random_rows(n_rows, n_in, 2)
    np.testing.assert_array_equal(product(kind, weights, x, n_out, kernel), product(kind, weights, x, n_out, "ggml"))


@needs_a_kernel
@every_kernel
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("n_rows", [2, 3, 4, 5, 6, 8, 31])
@pytest.mark.parametrize("n_in", [1024, 8448])
def test_rows_are_what_they_are_alone(kernel, kind, n_rows, n_in) -> None:
    """ggml's kernel of four rows adds up in another order for q4_K; ours does not know how many rows there are.

    With many inputs, groups of outputs are computed two at a time: here of five.
    """
    n_out = 40
    weights, x = random_weights(kind, n_in, n_out, 3), random_rows(n_rows, n_in, 4)
    together = product(kind, weights, x, n_out, kernel)
    alone = np.concatenate([product(kind, weights, x[i : i + 1], n_out, kernel) for i in range(n_rows)])
    np.testing.assert_array_equal(together, alone)
    others = product(kind, weights, x, n_out, "ggml")
    assert np.abs(together - others).max() <= 1e-5 * np.abs(others).max()


@needs_a_kernel
@every_kernel
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("n_rows", [1, 6])
def test_the_plain_form_gives_the_same(kernel, kind, n_rows) -> None:
    """It adds up in double precision: floats of 24 bits over some blocks differ by less than 1e-5 of the largest."""
    n_in, n_out = 3 * BLOCK[kind], 16
    weights, x = random_weights(kind, n_in, n_out, 5), random_rows(n_rows, n_in, 6)
    plain, fast = (product(kind, weights, x, n_out, by) for by in ("plain", kernel))
    assert np.abs(plain - fast).max() <= 1e-5 * np.abs(plain).max()


@needs_a_kernel
@every_kernel
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_product_is_that_of_the_weights_as_they_are_documented(kernel, kind) -> None:
    """By gguf's own reading of a file. Activations lose half a step of 1/127 of their block's largest, and their scales
    are f16, or floats."""
    n_in, n_out, n_rows = 2 * BLOCK[kind], 16, 5
    weights, x = random_weights(kind, n_in, n_out, 7), random_rows(n_rows, n_in, 8)
    read = dequantize(np.frombuffer(weights, np.uint8).reshape(n_out, -1), kind)
    steps = np.abs(x.reshape(n_rows, -1, BLOCK[kind])).max(-1) / 127
    lost = steps @ np.abs(read).reshape(n_out, -1, BLOCK[kind]).sum(-1).T / 2 + 2**-11 * (np.abs(x) @ np.abs(read).T)
    assert (np.abs(product(kind, weights, x, n_out, kernel) - x @ read.T) <= 1.01 * lost).all()


@needs_a_kernel
@every_kernel
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("value", [127.0, -127.0, 0.0])
def test_the_largest_numbers_do_not_overflow(kernel, kind, value) -> None:
    n_in, n_out = BLOCK[kind], 8
    blocks = np.full((n_out, N_BYTES[kind]), 0xFF, np.uint8)
    for at in SCALES[kind]:
        blocks[:, at : at + 2] = np.array([1.0], np.float16).view(np.uint8)
    x = np.full((4, n_in), value, np.float32)
    x[1] *= 1e-42  # a denormal scale
    x[2] *= 1e3
    results = [product(kind, blocks.tobytes(), x, n_out, by) for by in (kernel, "plain", "ggml")]
    assert np.isfinite(results[0]).all()
    for other in results[1:]:
        np.testing.assert_allclose(results[0], other, rtol=1e-6)


@needs_a_kernel
@every_kernel
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_row_that_is_no_number_leaves_the_others_as_they_are(kernel, kind) -> None:
    n_in, n_out = 2 * BLOCK[kind], 8
    weights, x = random_weights(kind, n_in, n_out, 9), random_rows(4, n_in, 10)
    clean = product(kind, weights, x, n_out, kernel)
    x[1], x[2, 5] = np.nan, np.inf
    for by in (kernel, "plain"):
        result = product(kind, weights, x, n_out, by)
        np.testing.assert_allclose(result[[0, 3]], clean[[0, 3]], rtol=1e-4, atol=1e-5 * np.abs(clean).max())
        assert not np.isfinite(result[[1, 2]]).any()


@needs_a_kernel
@every_kernel
@pytest.mark.parametrize("n_out", [1, 7, 9, 20])
def test_weights_of_6_bits_have_any_number_of_outputs(kernel, n_out) -> None:
    weights, x = random_weights(Type.Q6_K, 512, n_out, 13), random_rows(3, 512, 14)
    ours, ggmls = (product(Type.Q6_K, weights, x, n_out, by) for by in (kernel, "ggml"))
    np.testing.assert_array_equal(ours, ggmls)


def test_other_types_and_sizes_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedModel, match="type"):
        product(Type.Q8_0, bytes(34 * 8), np.zeros((1, 32), np.float32), 8, "plain")
    with pytest.raises(UnsupportedModel, match="no kernel avx9"):
        product(Type.Q4_0, bytes(18 * 8), np.zeros((1, 32), np.float32), 8, "avx9")
    with pytest.raises(InvalidArgument, match="type -1 is no ggml_type"):
        product(-1, bytes(18 * 8), np.zeros((1, 32), np.float32), 8, "plain")
    for n_in, n_out in [(33, 8), (32, 7)]:
        with pytest.raises(InvalidArgument, match="cannot be multiplied"):
            product(Type.Q4_0, bytes(18 * 16), np.zeros((1, n_in), np.float32), n_out, "plain")


def decoded(cache: SharedCache, feeds: Sequence[Sequence[int]]) -> np.ndarray:
    """A prompt of as many rows as are ours on every CPU, then the workers' tokens."""
    prompt = cache.block("prompt")
    cache.decode([([prompt], range(8))])
    own = [cache.block(f"worker {i}") for i in range(len(feeds))]
    for tokens in zip(*feeds, strict=True):
        logits = cache.decode([([prompt, block], [token]) for block, token in zip(own, tokens, strict=True)])
    return logits


@needs_a_kernel
def test_a_graph_has_our_products_where_weights_are_repacked(single) -> None:
    """Every product with weights of 4 bits, and none with others."""
    counts = {}
    for kind in ("q4_0", "q8_0"):
        with SharedCache(single("qwen3", kind), 64) as cache:
            with timed_nodes(cache) as found:
                decoded(cache, [[1], [2]])
            counts[kind] = {row.kind.split()[1] for row in found if row.kind.startswith("MUL_MAT")}
    assert "q4_0" not in counts["q4_0"]
    assert "q8_0" in counts["q8_0"]


@needs_a_kernel
def test_a_worker_computes_the_same_beside_others_as_alone(single) -> None:
    """Nothing in a pass of a model with weights of 4 bits depends on how many rows it has, but for attention's sums.
    Each sees its own token alone here, so that there is nothing to sum."""

    def logits_of(tokens: Sequence[int]) -> np.ndarray:
        with SharedCache(single("qwen3", "q4_0"), 256, type_k="f32", type_v="f32") as cache:
            return cache.decode([([cache.block(f"worker {token}")], [token]) for token in tokens])

    tokens = range(5, 10)
    np.testing.assert_array_equal(logits_of(tokens), np.concatenate([logits_of([token]) for token in tokens]))
