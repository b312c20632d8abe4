"""One sequence has the same logits by every route: llama_decode, one block, many blocks, one pass, many passes."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onlooker import begin_elsewhere

from hogwild_local import Model, SharedCache
from hogwild_local.cli.baseline import LlamaBaseline

Load = Callable[..., Model]
NAMES = [
    "llama",
    "llama-bos",
    "llama-mha",
    "llama-rope3",
    "llama-yarn",
    "qwen2",
    "qwen3",
    "qwen3-yarn",
    "gemma2",
    "maincoder",
    "grok",
]
# f32 model and cache: what is left is the order of sums in products and softmax, and ggml's f16 tables for exp.
TOLERANCE = 1e-3
# Their GELU is read from a table of f16: a rounding that flips an entry shows as some 1e-3.
TOLERANCES = {"gemma2": 5e-3, "grok": 5e-3}


def f32_cache(model: Model, n_ctx: int = 512, **settings: object) -> SharedCache:
    return SharedCache(model, n_ctx=n_ctx, type_k="f32", type_v="f32", **settings)


def tokens_of(model: Model, n: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(model.n_vocab) for _ in range(n)]


def llama_logits(model: Model, tokens: list[int]) -> np.ndarray:
    with LlamaBaseline(model, 512, 1, "f32", "f32", flash_attention=False) as llama:
        llama.prefill(tokens)
        return np.array(llama.logits(-1)[: model.n_vocab], dtype=np.float32)


def in_blocks(cache: SharedCache, tokens: list[int], cuts: list[int], elsewhere: bool = False) -> np.ndarray:
    """Feeds a sequence block after block: each one sees those before it. elsewhere: every second one is stored as if it
    stood elsewhere."""
    blocks = []
    bounds = sorted({0, *cuts, len(tokens)})
    for begin, end in pairwise(bounds):
        blocks.append(cache.block(f"{begin}..{end}"))
        if elsewhere and len(blocks) % 2 == 0 and end - begin > 1:
            begin_elsewhere(cache, blocks, tokens[begin])
            begin += 1
        logits = cache.decode([(blocks, tokens[begin:end])])
    return logits[0]


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
@pytest.mark.parametrize("name", NAMES)
def test_one_block_gives_the_logits_of_llama_decode(name: str, attention: str, tiny: Load) -> None:
    model = tiny(name)
    tokens = tokens_of(model, 77)
    with f32_cache(model, attention=attention) as cache:
        ours = in_blocks(cache, tokens, [])
    assert np.abs(ours - llama_logits(model, tokens)).max() <= TOLERANCES.get(name, TOLERANCE)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
@pytest.mark.parametrize("name", NAMES)
def test_five_blocks_give_the_logits_of_llama_decode(name: str, attention: str, elsewhere: bool, tiny: Load) -> None:
    model = tiny(name)
    tokens = tokens_of(model, 90, seed=1)
    with f32_cache(model, attention=attention) as cache:
        ours = in_blocks(cache, tokens, [1, 30, 31, 70], elsewhere)
        assert (cache.n_mirrored > 0) == (elsewhere and attention == "ggml")
    assert np.abs(ours - llama_logits(model, tokens)).max() <= TOLERANCES.get(name, TOLERANCE)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 150),
    cuts=st.lists(st.integers(1, 149), max_size=12),
    name=st.sampled_from(["llama", "qwen3", "llama-yarn", "gemma2", "maincoder", "grok"]),
    attention=st.sampled_from(["fused", "ggml", "composed"]),
    elsewhere=st.booleans(),
)
def test_any_cut_gives_the_logits_of_the_uncut_sequence(
    tiny: Load, n: int, cuts: list[int], name: str, attention: str, elsewhere: bool
) -> None:
    model = tiny(name)
    tokens = tokens_of(model, n, seed=n)
    with f32_cache(model, attention=attention) as cache:
        uncut = in_blocks(cache, tokens, [])
    with f32_cache(model, attention=attention) as cache:
        cut = in_blocks(cache, tokens, [at for at in cuts if at < n], elsewhere)
    assert np.isfinite(cut).all()
    assert np.abs(cut - uncut).max() <= TOLERANCES.get(name, TOLERANCE)


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
def test_chunks_of_a_long_prompt_give_the_logits_of_one_pass(attention: str, tiny: Load) -> None:
    model = tiny("qwen3")
    tokens = tokens_of(model, 201)
    with f32_cache(model, attention=attention) as cache:
        whole = in_blocks(cache, tokens, [])
    for n_batch in (1, 7, 64, 200):
        with f32_cache(model, attention=attention, n_batch=n_batch) as cache:
            assert np.abs(in_blocks(cache, tokens, []) - whole).max() <= TOLERANCE, f"n_batch {n_batch}"


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
def test_token_after_token_gives_the_logits_of_one_pass(attention: str, tiny: Load) -> None:
    model = tiny("llama")
    tokens = tokens_of(model, 40)
    with f32_cache(model, attention=attention) as cache:
        whole = in_blocks(cache, tokens, [])
        block = cache.block("token after token")
        for token in tokens:
            logits = cache.decode([([block], [token])])
    assert np.abs(logits[0] - whole).max() <= TOLERANCE


def rows_of_workers(model: Model, n_workers: int, attention: str) -> tuple[np.ndarray, int]:
    """Six passes of workers that all see each other: their logits, and how many cells were mirrored."""
    rng = random.Random(n_workers)
    rows = []
    with f32_cache(model, 4096, attention=attention) as cache:
        prompt, header = cache.block("prompt"), cache.block("header")
        workers = [cache.block(f"worker {i}") for i in range(n_workers)]
        cache.decode([([prompt], tokens_of(model, 37))])
        cache.decode([([header], tokens_of(model, 5, seed=2))])
        for _ in range(6):
            views = [
                (
                    [prompt, header, *(other for other in workers if other is not own), own],
                    [rng.randrange(model.n_vocab) for _ in range(rng.randrange(1, 4))],
                )
                for own in workers
            ]
            rows.append(cache.decode(views))
        return np.concatenate(rows), cache.n_mirrored


@pytest.mark.parametrize("name", ["llama", "qwen3", "llama-yarn", "gemma2", "maincoder", "grok"])
@pytest.mark.parametrize("n_workers", [1, 2, 3, 5, 8, 16])
def test_fused_flash_and_composed_attention_agree_for_workers(name: str, n_workers: int, tiny: Load) -> None:
    model = tiny(name)
    fused, none = rows_of_workers(model, n_workers, "fused")
    flash, n_mirrored = rows_of_workers(model, n_workers, "ggml")
    composed, none_either = rows_of_workers(model, n_workers, "composed")
    assert (none, none_either) == (0, 0)
    assert n_mirrored > 0 or n_workers == 16  # so many small blocks cost less composed
    assert np.isfinite(fused).all()
    assert np.abs(flash - fused).max() <= TOLERANCES.get(name, TOLERANCE)
    assert np.abs(composed - fused).max() <= TOLERANCES.get(name, TOLERANCE)


def test_flash_attention_copies_no_block_that_every_view_has_where_it_was_written(tiny: Load) -> None:
    model = tiny("llama")
    with f32_cache(model, attention="ggml") as cache:
        prompt, header, own = (cache.block(name) for name in ("prompt", "header", "own"))
        cache.decode([([prompt], tokens_of(model, 20))])
        cache.decode([([prompt, header], tokens_of(model, 4))])
        for token in tokens_of(model, 5):
            cache.decode([([prompt, header, own], [token])])
        assert cache.n_mirrored == 0
        cache.decode([([prompt, own, header], [1])])  # both stand elsewhere: 6 tokens before the 5 of the header
        assert cache.n_mirrored == 5 + 5


def test_long_blocks_that_each_worker_sees_elsewhere_are_not_copied(tiny: Load) -> None:
    # A copy of each for each worker would cost more than attention block by block.
    model = tiny("llama")
    n, n_workers = 700, 5
    with SharedCache(model, n_ctx=16384, attention="ggml") as cache:
        workers = [cache.block(f"worker {i}") for i in range(n_workers)]
        for seed, own in enumerate(workers):
            cache.decode([([own], tokens_of(model, n, seed))])
        before = cache.n_mirrored
        views = [([*(other for other in workers if other is not own), own], [1]) for own in workers]
        assert np.isfinite(cache.decode(views)).all()
        assert cache.n_mirrored == before


def test_workers_that_do_not_see_each_other_are_as_if_alone(tiny: Load) -> None:
    model = tiny("qwen2")
    prompt_tokens, own_tokens = tokens_of(model, 20), [tokens_of(model, 9, seed=s) for s in range(4)]
    with f32_cache(model) as cache:
        prompt = cache.block("prompt")
        cache.decode([([prompt], prompt_tokens)])
        blocks = [cache.block(str(i)) for i in range(4)]
        together = cache.decode([([prompt, block], t) for block, t in zip(blocks, own_tokens, strict=True)])
        for row, own in zip(together, own_tokens, strict=True):
            alone = cache.block("alone")
            assert np.abs(row - cache.decode([([prompt, alone], own)])[0]).max() <= TOLERANCE
            alone.free()


def test_a_worker_sees_what_another_writes_in_the_same_pass(tiny: Load) -> None:
    model = tiny("llama")
    rows = []
    for other_token in (11, 12):
        with f32_cache(model) as cache:
            prompt, a, b = (cache.block(name) for name in ("prompt", "a", "b"))
            cache.decode([([prompt], tokens_of(model, 10))])
            rows.append(cache.decode([([prompt, b, a], [5]), ([prompt, a, b], [other_token])])[0])
    assert np.abs(rows[0] - rows[1]).max() > 1e-2


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
@pytest.mark.parametrize("name", NAMES)
def test_an_appended_block_is_as_if_decoded_there(name: str, attention: str, elsewhere: bool, tiny: Load) -> None:
    # What b's keys and values are depends on what b saw: it saw a, so that only the rotation is left to differ.
    model = tiny(name)
    first, second, last = tokens_of(model, 33), tokens_of(model, 18, seed=1), [7]
    with f32_cache(model, attention=attention) as cache:
        a, b = cache.block("a"), cache.block("b")
        cache.decode([([a], first)])
        if elsewhere:  # then it has to be rotated on its way
            begin_elsewhere(cache, [a, b], second[0])
        cache.decode([([a, b], second[len(b) :])])
        a.append(b)
        assert (len(a), len(b)) == (51, 0)
        appended = cache.decode([([a], last)])[0]
        whole = in_blocks(cache, first + second + last, [])
    assert np.abs(appended - whole).max() <= TOLERANCES.get(name, TOLERANCE)


@pytest.mark.parametrize("file_type", ["q8_0", "q4_0", "f16"])
def test_quantized_weights_give_the_logits_of_llama_decode(file_type: str, tiny: Load) -> None:
    # The very same kernels run on both sides; with more tokens than one they may sum in another order.
    model = tiny("qwen3", file_type)
    tokens = tokens_of(model, 50)
    with SharedCache(model, n_ctx=512) as cache:
        ours = in_blocks(cache, tokens, [])
    with LlamaBaseline(model, 512, 1) as llama:
        llama.prefill(tokens)
        theirs = np.array(llama.logits(-1)[: model.n_vocab], dtype=np.float32)
    assert np.abs(ours - theirs).max() <= 0.05 * np.abs(theirs).max()


def test_truncated_tokens_leave_no_trace(tiny: Load) -> None:
    model = tiny("qwen3")
    tokens = tokens_of(model, 30)
    with f32_cache(model) as cache:
        wanted = in_blocks(cache, tokens, [])
        block = cache.block("block")
        cache.decode([([block], tokens[:20])])
        cache.decode([([block], tokens_of(model, 40, seed=9))])
        block.truncate(20)
        got = cache.decode([([block], tokens[20:])])[0]
    assert np.abs(got - wanted).max() <= TOLERANCE
