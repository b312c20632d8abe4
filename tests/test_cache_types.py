"""Keys and values of any type: what rounding them costs is what it costs in llama.cpp, also when cells are moved."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from onlooker import begin_elsewhere

from hogwild_local import Model, SharedCache
from hogwild_local.cli.baseline import GGML_TYPES, LlamaBaseline

QUANTIZED = ["q8_0", "q5_0", "q5_1", "q4_0", "q4_1"]
PAIRS = [(name, name) for name in ["f16", "bf16", *QUANTIZED]] + [("q8_0", "q4_0"), ("f16", "q5_1"), ("q4_1", "bf16")]
N_SEQUENCES = 12
HEAD = 64  # the least that llama.cpp multiplies by a Hadamard matrix


def write_outlier_model(path: Path) -> None:
    """Two numbers of each key and value are 8 times as large as the others, as in real models; the matrices that
    read them are that much smaller. Without the Hadamard matrix quantized caches then err 2 to 4 times as much."""
    from models.transformer import Shape, write_transformer
    from models.weights import Encoded, Tensor, seeded

    large = [3, HEAD // 2 + 5]
    random_values = seeded(0)

    def fill(tensor: Tensor, kind: GGMLQuantizationType) -> Encoded:
        values = random_values(tensor, kind)
        if tensor.name.endswith(("attn_k.weight", "attn_v.weight")):
            values.reshape(-1, HEAD, tensor.shape[1])[:, large] *= 8
        elif tensor.name.endswith("attn_q.weight"):
            values.reshape(-1, HEAD, tensor.shape[1])[:, large] /= 8
        elif tensor.name.endswith("attn_output.weight"):
            values.reshape(tensor.shape[0], -1, HEAD)[:, :, large] /= 8
        return values

    write_transformer(path, "outliers", Shape("llama", 2, 256, 4, 2, HEAD, 160), "f32", fill)


@pytest.fixture(scope="module")
def outliers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tmp_path_factory.mktemp("outliers") / "model.gguf"
    write_outlier_model(path)
    with Model(path, n_threads=1) as model:
        yield model


def sequences(model: Model) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(model.n_vocab) for _ in range(120)] for _ in range(N_SEQUENCES)]


def llama_logits(model: Model, tokens: list[int], type_k: str, type_v: str, flash: bool = True) -> np.ndarray:
    with LlamaBaseline(model, 512, 1, type_k, type_v, flash_attention=flash) as llama:
        llama.prefill(tokens)
        return np.array(llama.logits(-1)[: model.n_vocab], dtype=np.float64)


def exact_logits(model: Model, tokens: list[int]) -> np.ndarray:
    return llama_logits(model, tokens, "f32", "f32", flash=False)  # with flash attention it rounds to f16


def in_blocks(cache: SharedCache, tokens: list[int], cuts: list[int]) -> np.ndarray:
    blocks = []
    for begin, end in pairwise([0, *cuts, len(tokens)]):
        blocks.append(cache.block(f"{begin}..{end}"))
        if end - begin > 1:
            begin_elsewhere(cache, blocks, tokens[begin])
        logits = cache.decode([(blocks, tokens[begin + len(blocks[-1]) : end])])
    return logits[0].astype(np.float64)


def appended(cache: SharedCache, tokens: list[int], cuts: list[int]) -> np.ndarray:
    """The same, but each block joins the first one when it is complete."""
    history = cache.block("history")
    for begin, end in pairwise([0, *cuts, len(tokens) - 1]):
        step = cache.block(f"{begin}..{end}")
        if end - begin > 1:
            begin_elsewhere(cache, [history, step], tokens[begin])
        cache.decode([([history, step], tokens[begin + len(step) : end])])
        history.append(step)
    return cache.decode([([history], tokens[-1:])])[0].astype(np.float64)


Route = Callable[[SharedCache, list[int], list[int]], np.ndarray]


def error(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.square(found - exact).sum() / np.square(exact).sum())


def our_error(model: Model, type_k: str, type_v: str, attention: str, route: Route, cuts: list[int]) -> float:
    errors = []
    for tokens in sequences(model):
        with SharedCache(model, n_ctx=256, type_k=type_k, type_v=type_v, attention=attention) as cache:
            errors.append(error(route(cache, tokens, cuts), exact_logits(model, tokens)))
    return float(np.mean(errors))


def llama_error(model: Model, type_k: str, type_v: str) -> float:
    found = [(llama_logits(model, tokens, type_k, type_v), exact_logits(model, tokens)) for tokens in sequences(model)]
    return float(np.mean([error(*pair) for pair in found]))


# The keys of the very same numbers are rounded; fused, queries are not rounded on top of that. (Composed, attention
# weights are rounded to the values' type too, as by llama.cpp without flash attention.)
@pytest.mark.parametrize("attention", ["fused", "ggml"])
@pytest.mark.parametrize(("type_k", "type_v"), PAIRS)
def test_one_block_errs_no_more_than_llama(type_k: str, type_v: str, attention: str, outliers: Model) -> None:
    ours = our_error(outliers, type_k, type_v, attention, in_blocks, [])
    assert 0 < ours <= 1.1 * llama_error(outliers, type_k, type_v)


# Keys are stored as if their block began at 0: other numbers are rounded, and what that gives is a matter of chance.
@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
@pytest.mark.parametrize(("type_k", "type_v"), [(name, name) for name in QUANTIZED] + PAIRS[-3:])
def test_several_blocks_err_as_llama_does(type_k: str, type_v: str, attention: str, outliers: Model) -> None:
    ours = our_error(outliers, type_k, type_v, attention, in_blocks, [30, 31, 80])
    assert 0 < ours <= 1.5 * llama_error(outliers, type_k, type_v)


# Of keys that are moved, two roundings are left: the variance of the keys' part doubles, that of the values does not.
@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
@pytest.mark.parametrize("cache_type", QUANTIZED)
def test_appended_blocks_err_at_most_twice_as_much(cache_type: str, attention: str, outliers: Model) -> None:
    ours = our_error(outliers, cache_type, cache_type, attention, appended, [30, 31, 80])
    assert 0 < ours <= 2 * 1.25 * llama_error(outliers, cache_type, cache_type)


@pytest.mark.parametrize("name", ["llama-mha", "llama-yarn", "qwen3"])
@pytest.mark.parametrize("cache_type", QUANTIZED)
def test_heads_too_small_for_the_hadamard_matrix_err_as_in_llama(
    name: str, cache_type: str, single: Callable[..., Model]
) -> None:
    model = single(name)
    theirs = llama_error(model, cache_type, cache_type)
    for attention in ("fused", "ggml", "composed"):
        assert 0 < our_error(model, cache_type, cache_type, attention, in_blocks, []) <= 1.1 * theirs
        assert 0 < our_error(model, cache_type, cache_type, attention, appended, [50]) <= 2 * 1.25 * theirs


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
@pytest.mark.parametrize("cache_type", QUANTIZED)
def test_relocated_cells_keep_their_bytes(cache_type: str, attention: str, outliers: Model) -> None:
    rows = []
    for n_ctx in (500, 16384):  # in the small one, other blocks make room for the one that grows
        with SharedCache(outliers, n_ctx=n_ctx, type_k=cache_type, type_v=cache_type, attention=attention) as cache:
            blocks = [cache.block(name) for name in "abc"]
            cache.decode([([block], list(range(120 * i, 120 * i + 120))) for i, block in enumerate(blocks)])
            for block in blocks:
                cache.decode([([block], list(range(46)))])
            rows.append(cache.decode([(blocks, [5])])[0])
            assert (cache.n_moved > 0) == (n_ctx == 500)
    # One byte of one key that is wrong changes far more than the order of sums does.
    assert np.abs(rows[0] - rows[1]).max() <= 1e-4


@pytest.mark.parametrize("type_k", GGML_TYPES)
@pytest.mark.parametrize("type_v", GGML_TYPES)
def test_keys_and_values_take_the_room_of_their_own_type(
    type_k: str, type_v: str, single: Callable[..., Model]
) -> None:
    def row(name: str) -> int:
        per_block, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name.upper()]]
        return 32 // per_block * n_bytes

    with SharedCache(single("qwen3"), n_ctx=100, type_k=type_k, type_v=type_v) as cache:
        n_cells, rest = divmod(cache.n_bytes, 3 * 2 * (row(type_k) + row(type_v)))  # 3 layers of 2 heads of 32
        assert rest == 0
        assert n_cells >= 100
