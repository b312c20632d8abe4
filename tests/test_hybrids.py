"""Models with recurrent layers: however a text is cut into blocks, and whoever else writes, their logits are those of
the uncut text by llama.cpp; blocks are cut where that is exact, and nowhere else."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from hogwild_local import CacheBlock, Hogwild, Model, SharedCache
from hogwild_local.cli.baseline import LlamaBaseline
from hogwild_local.engine.views import Chunk, DecodeView
from hogwild_local.errors import InvalidArgument, UnsupportedModel
from models.tiny import HYBRIDS

Load = Callable[..., Model]
# Of logits up to 10; sums in another order.
TOLERANCE = 1e-3
WRONG = 0.02
"""What a state at a wrong place changes at least."""

pytestmark = pytest.mark.parametrize("name", HYBRIDS)


def text(model: Model, n: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(300) for _ in range(n)]


@contextmanager
def cache_of(
    model: Model, n_ctx: int = 512, n_batch: int = 64, attention: Literal["auto", "composed"] = "auto"
) -> Iterator[SharedCache]:
    with SharedCache(model, n_ctx, "f32", "f32", n_batch, attention) as cache:
        yield cache
        cache.check()


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def uncut(model: Model, tokens: Sequence[int]) -> np.ndarray:
    """The logits of llama_decode after the text."""
    with LlamaBaseline(model, 512, 1, "f32", "f32", flash_attention=False) as llama:
        llama.prefill(tokens[:-1])
        llama.feed([tokens[-1]], len(tokens) - 1)
        return np.array(llama.logits(-1)[: model.n_vocab])


def feed(cache: SharedCache, blocks: Sequence[CacheBlock], tokens: Sequence[int]) -> np.ndarray:
    return cache.decode([(blocks, tokens)])[0]


def test_a_text_cut_into_blocks_has_the_logits_of_the_uncut_text(name: str, single: Load) -> None:
    model = single(name)
    tokens = text(model, 120)
    expected = uncut(model, tokens)
    with cache_of(model) as cache:
        for cuts in ([], [1], [2, 3], [40, 41, 43, 100], [64, 119]):
            blocks: list[CacheBlock] = []
            for begin, end in pairwise([0, *cuts, len(tokens)]):
                blocks.append(cache.block())
                logits = feed(cache, blocks, tokens[begin:end])
            assert difference(logits, expected) < TOLERANCE
            blocks[0].free()


def test_tokens_one_by_one_have_the_logits_of_many_at_once(name: str, single: Load) -> None:
    model = single(name)
    tokens = text(model, 50)
    with cache_of(model) as cache:
        block = cache.block()
        feed(cache, [block], tokens[:20])
        rows = [feed(cache, [block], [token]) for token in tokens[20:]]
    assert difference(rows[-1], uncut(model, tokens)) < TOLERANCE


def test_blocks_in_another_order_have_other_logits(name: str, single: Load) -> None:
    """A test of these tests."""
    model = single(name)
    with cache_of(model) as cache:
        a, b, own = (cache.block() for _ in range(3))
        feed(cache, [a], text(model, 5, 1))
        feed(cache, [b], text(model, 5, 2))
        copy = cache.copy(own)
        assert difference(feed(cache, [a, b, own], [7]), feed(cache, [b, a, copy], [7])) > WRONG


def test_a_worker_sees_what_others_write_in_the_same_pass(name: str, single: Load) -> None:
    """The first does not see the second, so both passes are as if the first had gone before."""
    model = single(name)
    prompt, first, second = text(model, 40, 1), text(model, 3, 2), text(model, 4, 3)
    with cache_of(model) as cache:
        shared, a, b = (cache.block() for _ in range(3))
        feed(cache, [shared], prompt)
        together = cache.decode([([shared, a], first), ([shared, a, b], second)])
    assert difference(together[0], uncut(model, prompt + first)) < TOLERANCE
    assert difference(together[1], uncut(model, prompt + first + second)) < TOLERANCE


def test_a_step_that_joins_the_history_is_as_if_it_had_been_written_there(name: str, single: Load) -> None:
    model = single(name)
    prompt, steps = text(model, 40, 1), [text(model, n, n) for n in (1, 2, 7)]
    tokens = [*prompt]
    with cache_of(model) as cache:
        history, step = cache.block(), cache.block()
        feed(cache, [history], prompt)
        for of_step in steps:
            feed(cache, [history, step], of_step)
            history.append(step)
            tokens += of_step
        assert difference(feed(cache, [history, step], [5]), uncut(model, [*tokens, 5])) < TOLERANCE


def test_copies_and_halves_and_bytes_go_on_as_the_block_would(name: str, single: Load) -> None:
    model = single(name)
    tokens = text(model, 90)
    expected = uncut(model, [*tokens, 5])
    with cache_of(model, n_batch=90) as cache:
        block, own = cache.block(), cache.block()
        feed(cache, [block], tokens)
        others = [cache.copy(block), cache.write(cache.read(block))]
        head = cache.copy(block)
        tail = head.split(64)
        for blocks in ([block], [others[0]], [others[1]], [head, tail]):
            assert difference(feed(cache, [*blocks, own], [5]), expected) < TOLERANCE
            own.clear()
        feed(cache, [block], [1, 2, 3])  # the others are their own
        assert difference(feed(cache, [others[0], own], [5]), expected) < TOLERANCE


@pytest.mark.parametrize("attention", ["auto", "composed"])
def test_anchored_blocks_one_behind_the_other_are_the_uncut_text_whatever_is_done_to_them(
    attention: Literal["auto", "composed"], name: str, single: Load
) -> None:
    model = single(name)
    tokens, step = text(model, 160), text(model, 3, 1)
    expected = uncut(model, [*tokens, *step, 5])
    with cache_of(model, n_batch=30, attention=attention) as cache, cache_of(model) as other:
        first, second, history, own = (cache.block(who, who != "own") for who in ("a", "b", "history", "own"))
        feed(cache, [first], tokens[:70])
        feed(cache, [first, second], tokens[70:150])
        feed(cache, [first, second, history], tokens[150:])
        feed(cache, [first, second, history, own], step)
        history.append(own)
        third = second.split(second.last_cut(60))
        blocks = [first, second, third, history]
        for path in (blocks, [cache.copy(block) for block in blocks]):
            assert difference(feed(cache, [*path, own], [5]), expected) < TOLERANCE
            own.clear()
        elsewhere = [other.write(cache.read(block)) for block in blocks]
        assert difference(feed(other, [*elsewhere, other.block()], [5]), expected) < TOLERANCE
        with pytest.raises(InvalidArgument, match="is anchored"):
            feed(cache, [first, third, own], [5])
        second.truncate(second.last_cut(30))
        with pytest.raises(InvalidArgument, match="is anchored"):
            feed(cache, [*blocks, own], [5])
        kept = [*tokens[:70], *tokens[70 : 70 + len(second)]]
        assert difference(feed(cache, [first, second, own], [5]), uncut(model, [*kept, 5])) < TOLERANCE


def test_the_states_of_prompts_are_the_same_by_operations_of_ggml_as_by_our_kernel(name: str, single: Load) -> None:
    """Also where a pass has other tokens before and behind those of prompts, and a second prompt."""
    model = single(name)
    prompt, more, other = (text(model, n, n) for n in (180, 90, 70))
    rows, counts = [], []
    attention: Literal["auto", "composed"]
    for attention in ("auto", "composed"):
        with cache_of(model, 1024, 192, attention) as cache:
            first, second, third = (cache.block(anchored=True) for _ in range(3))
            alice, bob = cache.block(), cache.block()
            views: list[DecodeView] = [([first], prompt)]
            views_of_pass: list[list[DecodeView]] = [
                views,
                [([first, alice], [5]), ([first, second], more), ([first, alice, bob], [6, 7, 8]), ([third], other)],
                [([first, second, bob], [9]), ([third, alice], [4])],
            ]
            rows.append([row for of_pass in views_of_pass for row in cache.decode(of_pass)])
            counts.append(cache.n_composed)
    assert all(difference(*pair) < TOLERANCE for pair in zip(*rows, strict=True))
    assert counts[0] == 0
    assert counts[1] % 7 == 0  # places where the prompts can be cut, of each recurrence
    assert (counts[1] > 0) == (name != "minimax-01")  # whose recurrence is many operations


def test_a_block_is_cut_where_its_states_are_kept_and_nowhere_else(name: str, single: Load) -> None:
    model = single(name)
    tokens = text(model, 90)
    with cache_of(model, n_batch=90) as cache:
        block = cache.block()
        feed(cache, [block], tokens)
        assert [block.last_cut(n) for n in (0, 63, 64, 88, 89, 90)] == [0, 0, 64, 64, 89, 90]
        for change in (block.split, block.truncate):
            with pytest.raises(
                InvalidArgument, match=r"cannot be cut at token 70: .*recurrent layers.* 0, 64, 89(,| to) 90"
            ):
                change(70)
        assert len(block) == 90
        block.truncate(block.last_cut(70))
        assert difference(feed(cache, [block], tokens[64:80]), uncut(model, tokens[:80])) < TOLERANCE


def test_a_marked_block_can_be_cut_at_its_mark(name: str, single: Load) -> None:
    model = single(name)
    tokens = text(model, 12)
    with cache_of(model) as cache:
        block = cache.block()
        feed(cache, [block], tokens[:5])
        block.mark()
        for token in tokens[5:10]:
            feed(cache, [block], [token])
        block.truncate(5)
        assert difference(feed(cache, [block], tokens[5:]), uncut(model, tokens)) < TOLERANCE


def test_tokens_that_were_fed_one_by_one_can_be_cut_anywhere_while_they_are_few(name: str, single: Load) -> None:
    model = single(name)
    tokens = text(model, 46)
    with cache_of(model) as cache:
        block = cache.block()
        feed(cache, [block], tokens[:40])
        for token in tokens[40:]:
            feed(cache, [block], [token])
        if block.last_cut(45) != 45:
            assert name in ("lfm2", "mamba")  # what they keep of a state is no more than some tokens
            return
        # When three quarters of the rows that there may be are there, they are joined: of so small states it is soon.
        newest = next((n for n in range(45, 41, -1) if block.last_cut(n - 1) != n - 1), 44)
        tail = block.split(newest)
        assert difference(feed(cache, [block, tail, cache.block()], [5]), uncut(model, [*tokens, 5])) < TOLERANCE
        block.truncate(block.last_cut(newest - 1))
        n = len(block)
        assert difference(feed(cache, [block], tokens[n:]), uncut(model, tokens)) < TOLERANCE


def test_no_pass_of_workers_joins_the_states_of_all(name: str, single: Load) -> None:
    """It would take several times as long as others: states are joined ahead, some in each pass."""
    model = single(name)
    rng = random.Random(1)
    with cache_of(model, 1024) as cache:
        prompt, *own = (cache.block(who) for who in ("prompt", "alice", "bob", "carol"))
        feed(cache, [prompt], text(model, 50))
        joined = []
        for _ in range(150):
            before = cache.n_joined
            views = [[prompt, *(other for other in own if other is not one), one] for one in own]
            cache.decode([(view, [rng.randrange(300)]) for view in views])
            joined.append(cache.n_joined - before)
        n = cache._native.number("n_recurrences")
        assert sum(joined) >= n  # some were
        assert max(joined) < len(own) * n


def test_a_prompt_that_is_left_half_way_leaves_the_block_as_it_was(name: str, single: Load) -> None:
    model = single(name)
    tokens = text(model, 100)

    def leave(done: int, total: int) -> None:
        if done > 40:
            raise InterruptedError

    with cache_of(model, n_batch=20) as cache:
        block = cache.block()
        feed(cache, [block], tokens[:7])
        with pytest.raises(InterruptedError):
            cache.decode([([block], tokens[7:])], leave)
        assert len(block) == 7
        assert difference(feed(cache, [block], tokens[7:]), uncut(model, tokens)) < TOLERANCE


def test_a_pass_that_fails_leaves_the_states_as_they_were(name: str, single: Load) -> None:
    model = single(name)
    tokens = text(model, 30)
    with cache_of(model, n_ctx=40) as cache:
        block, other = cache.block(), cache.block()
        feed(cache, [block], tokens[:20])
        for bad in ([([block], text(model, 9)), ([block], [1])], [([block], [10**6])]):
            with pytest.raises(InvalidArgument):
                cache.decode(bad)
        feed(cache, [other], [1])
        assert difference(feed(cache, [block], tokens[20:]), uncut(model, tokens)) < TOLERANCE


@pytest.mark.parametrize("layout", ["combined", "interleaved", "contiguous"])
def test_runs_of_all_layouts_stand_on_prompts_that_are_kept(
    name: str, layout: str, tiny_path: Callable[..., Path]
) -> None:
    options = {"layout": layout, "max_passes": 40, "seed": 1, "stop": ["ee", "se"]}
    with Hogwild(tiny_path(name), n_ctx=2048, n_threads=1) as hogwild:
        first, again = (hogwild.generate("Alice and Bob count.", **options) for _ in range(2))
        assert again.texts == first.texts
        assert again.usage.cached_tokens > 100
        hogwild.generate("Alice and Bob count again.", **options)


def test_prompts_are_not_cut_over_ranks(name: str, single: Load) -> None:
    with cache_of(single(name)) as cache:
        block = cache._native.new_block()
        with pytest.raises(UnsupportedModel, match="recurrent layers: its prompts cannot be cut"):
            cache._native.decode_chunk(DecodeView([block], [1, 2, 3], 0), Chunk([], [], lambda layer: None))
