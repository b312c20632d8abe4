"""Layers with a sliding window hold what their windows can still see, and nothing of what a model says changes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from hogwild_local import CacheBlock, Hogwild, Model, SamplingParams, SharedCache, events
from hogwild_local.engine.cache import MOST_AT_ONCE
from hogwild_local.errors import CacheFull, InvalidArgument
from hogwild_local.options import MOST_WINDOWS

Load = Callable[..., Model]
# Where cells lie may change the order of sums. Of f32, all forms of attention give the same; but gemma2 reads its GELU
# from a table of f16, and a sum that tips over to the next number shows. A token too few in a window shows far more.
TOLERANCE = 5e-3
WINDOW = 24  # of the tiny gemma2, in every other layer
N_BATCH = 20
N_WINDOWS = 3
N_CTX = 20000
MOST_BLOCKS = 6
F32 = {"type_k": "f32", "type_v": "f32"}


def small_cache(model: Model, attention: Any = "fused", n_windows: int = N_WINDOWS) -> SharedCache:
    return SharedCache(model, N_CTX, n_batch=N_BATCH, attention=attention, n_windows=n_windows, **F32)


def whole_cache(model: Model) -> SharedCache:
    """That drops nothing."""
    return SharedCache(model, N_CTX, n_batch=N_BATCH, n_windows=MOST_WINDOWS, **F32)


def some(model: Model, n: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(model.n_vocab) for _ in range(n)]


class Pair:
    """A block of the cache that drops, and its twin in the one that does not."""

    def __init__(self, small: CacheBlock, whole: CacheBlock) -> None:
        self.small, self.whole = small, whole

    def __len__(self) -> int:
        return len(self.whole)


class WindowMachine(RuleBasedStateMachine):
    """Any sequence of operations, on a cache whose windowed layers have few cells, and on one that drops nothing."""

    def __init__(self, model: Model, attention: str, refused: list[str]) -> None:
        super().__init__()
        self.model, self.refused = model, refused
        self.small, self.whole = small_cache(model, attention), whole_cache(model)
        self.pairs: list[Pair] = []
        assert self.small.n_windowed == N_WINDOWS * WINDOW + N_BATCH

    def teardown(self) -> None:
        self.small.close()
        self.whole.close()

    @property
    def n_free(self) -> int:
        """In layers with a window, of what no block needs."""
        return self.small.n_windowed - sum(min(len(pair), WINDOW) for pair in self.pairs)

    @precondition(lambda self: len(self.pairs) < MOST_BLOCKS)
    @rule()
    def create(self) -> None:
        self.pairs.append(Pair(self.small.block(), self.whole.block()))

    @precondition(lambda self: len(self.pairs) > 2)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        pair = self.pairs.pop(data.draw(st.integers(0, len(self.pairs) - 1)))
        pair.small.free()
        pair.whole.free()

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), is_split=st.booleans())
    def cut(self, data: st.DataObject, is_split: bool) -> None:
        pair = data.draw(st.sampled_from(self.pairs))
        n = data.draw(st.integers(0, len(pair)))
        at = pair.small.last_cut(n)
        if at < n:
            assert at == 0
            self.refused.append("cut")
            for change in (pair.small.truncate, pair.small.split):
                with pytest.raises(InvalidArgument, match="sliding windows"):
                    change(n)
        if is_split and len(self.pairs) < MOST_BLOCKS:
            self.pairs.append(Pair(pair.small.split(at), pair.whole.split(at)))
        else:
            pair.small.truncate(at)
            pair.whole.truncate(at)

    @precondition(lambda self: self.pairs and len(self.pairs) < MOST_BLOCKS)
    @rule(data=st.data(), as_bytes=st.booleans())
    def copy(self, data: st.DataObject, as_bytes: bool) -> None:
        pair = data.draw(st.sampled_from(self.pairs))
        if min(len(pair), WINDOW) > self.n_free:
            with pytest.raises(CacheFull):
                self.small.copy(pair.small)
        else:
            made = self.small.write(self.small.read(pair.small)) if as_bytes else self.small.copy(pair.small)
            self.pairs.append(Pair(made, self.whole.copy(pair.whole)))

    @precondition(lambda self: len(self.pairs) > 1)
    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        dst, src = data.draw(st.permutations(self.pairs))[:2]
        dst.small.append(src.small)
        dst.whole.append(src.whole)

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), seed=st.integers(0, 2**32))
    def decode(self, data: st.DataObject, seed: int) -> None:
        rng = random.Random(seed)
        own = data.draw(st.lists(st.sampled_from(self.pairs), min_size=1, max_size=4, unique_by=id))
        views = []
        for pair in own:
            others = [other for other in self.pairs if other is not pair and rng.random() < 0.7]
            rng.shuffle(others)
            n = data.draw(st.integers(1, MOST_AT_ONCE // len(own)))  # more might be fed in parts, which need less
            views.append(([*others, pair], [rng.randrange(self.model.n_vocab) for _ in range(n)]))
        self.feed(views)

    @precondition(lambda self: self.pairs)
    @rule(data=st.data(), n=st.integers(30, 150), seed=st.integers(0, 2**32))
    def slide(self, data: st.DataObject, n: int, seed: int) -> None:
        """A long text in parts: it needs no more than its window, and room for a token."""
        pair = data.draw(st.sampled_from(self.pairs))
        if self.n_free + min(len(pair), WINDOW) > WINDOW:
            others = [other for other in self.pairs if other is not pair]
            tokens = some(self.model, n, seed)
            got = self.small.decode([([*(other.small for other in others), pair.small], tokens)])
            wanted = self.whole.decode([([*(other.whole for other in others), pair.whole], tokens)])
            assert np.abs(got - wanted).max() <= TOLERANCE

    def feed(self, views: Sequence[tuple[Sequence[Pair], list[int]]]) -> None:
        small_views = [([pair.small for pair in pairs], tokens) for pairs, tokens in views]
        if sum(len(tokens) for _, tokens in views) > self.n_free:
            self.refused.append("full")
            with pytest.raises(CacheFull, match="n_windows"):
                self.small.decode(small_views)
            return
        got = self.small.decode(small_views)
        wanted = self.whole.decode([([pair.whole for pair in pairs], tokens) for pairs, tokens in views])
        assert np.isfinite(wanted).all()
        assert np.abs(got - wanted).max() <= TOLERANCE

    @invariant()
    def tokens_are_the_same(self) -> None:
        self.small.check()
        for pair in self.pairs:
            assert pair.small.tokens == pair.whole.tokens
            assert pair.small.last_cut(len(pair)) == len(pair)


@pytest.mark.parametrize(("attention", "examples"), [("fused", 40), ("ggml", 20), ("composed", 10)])
def test_dropping_what_no_window_sees_changes_no_logits(attention: str, examples: int, single: Load) -> None:
    model = single("gemma2")
    refused: list[str] = []
    for _ in range(8):  # what is drawn at random may never be short of cells: then more is drawn
        run_state_machine_as_test(
            lambda: WindowMachine(model, attention, refused),
            settings=settings(
                max_examples=examples, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
        if {"cut", "full"} <= set(refused):
            break
    assert {"cut", "full"} <= set(refused), "these runs were never short of cells"


def fed(cache: SharedCache, tokens: Sequence[int]) -> CacheBlock:
    block = cache.block()
    cache.decode([([block], tokens)])
    return block


@pytest.fixture(params=["fused", "ggml", "composed"])
def caches(request: pytest.FixtureRequest, single: Load) -> Iterator[tuple[SharedCache, SharedCache]]:
    """One that drops, and one that does not."""
    model = single("gemma2")
    with ExitStack() as stack:
        yield stack.enter_context(small_cache(model, request.param)), stack.enter_context(whole_cache(model))


def close(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    return bool(np.isfinite(b).all() and np.abs(a - b).max() <= TOLERANCE)


def test_a_prompt_slides_through_fewer_cells_than_it_has_tokens(caches: tuple[SharedCache, ...], single: Load) -> None:
    tokens = some(single("gemma2"), 10 * caches[0].n_windowed)
    rows = []
    for cache in caches:
        block = cache.block()
        rows.append(cache.decode([([block], tokens)], all_logits=True)[0])
        assert (len(block), block.tokens, cache.n_free) == (len(tokens), tokens, N_CTX - len(tokens))
    assert close(*rows)


def test_workers_go_on_far_beyond_their_windows_as_in_a_cache_that_holds_all(caches: tuple[SharedCache, ...]) -> None:
    rng = random.Random(3)
    words = [rng.randrange(200) for _ in range(700)]
    rows: list[list[npt.NDArray[np.float32]]] = [[], []]
    for cache, seen in zip(caches, rows, strict=True):
        prompt, history = fed(cache, words[:150]), cache.block("history")
        own = [cache.block(name) for name in ("alice", "bob", "carol")]
        fresh = iter(words[150:])
        for step in range(9):
            for _ in range(step % 4 + 5):
                views = [[prompt, history, *(b for b in own if b is not mine), mine] for mine in own]
                seen.append(cache.decode([(view, [next(fresh)]) for view in views]))
            history.append(own[step % 3])
        cache.check()
    assert all(close(*pair) for pair in zip(*rows, strict=True))


def test_forks_and_what_is_behind_a_cut_see_what_they_saw(caches: tuple[SharedCache, ...], single: Load) -> None:
    tokens = some(single("gemma2"), 160)
    rows = []
    for cache in caches:
        block = fed(cache, tokens)
        tail = block.split(150)
        branch = cache.block()
        rows.append(cache.decode([([block, tail], [5]), ([block, branch], [6, 7])]))
        assert [len(block), len(tail), len(branch)] == [150, 11, 2]
    assert close(*rows)


def test_a_block_cannot_be_cut_where_its_window_was_dropped(single: Load) -> None:
    model = single("gemma2")
    with small_cache(model) as cache:
        block = fed(cache, some(model, 400))
        assert cache.n_windowed < 400
        at = min(n for n in range(1, 401) if block.last_cut(n) == n)
        assert 400 - cache.n_windowed <= at - WINDOW < 400 - WINDOW
        assert block.last_cut(at - 1) == 0
        before = cache.decode([([block], [1])])
        block.truncate(400)
        for change in (block.truncate, block.split):
            with pytest.raises(InvalidArgument, match=f"cut at {at - 1}: what its sliding windows"):
                change(at - 1)
        assert len(block) == 400
        assert close(cache.decode([([block], [1])]), before)
        block.truncate(at)
        with whole_cache(model) as whole:
            wanted = whole.decode([([whole.block()], [*some(model, 400)[:at], 1])])
        assert close(cache.decode([([block], [1])]), wanted)
        block.clear()
        assert len(block) == 0


def test_a_cache_without_the_room_keeps_whole_what_fits(single: Load) -> None:
    model = single("gemma2")
    with small_cache(model) as cache:
        block = fed(cache, some(model, cache.n_windowed))
        assert all(block.last_cut(n) == n for n in range(len(block) + 1))


def test_a_saved_block_goes_on_in_another_cache(single: Load) -> None:
    model = single("gemma2")
    tokens = some(model, 300)
    with small_cache(model) as cache, small_cache(model) as other, whole_cache(model) as whole:
        block, all_of_it = fed(cache, tokens), fed(whole, tokens)
        data = cache.read(block)
        assert len(data) < len(whole.read(all_of_it))
        others = [fed(other, some(model, 30, seed)) for seed in (1, 2)]
        wanted = whole.decode([([all_of_it], [3])])
        all_of_it.truncate(300)
        for saved in (data, whole.read(all_of_it)):  # the latter is more than there is room for
            back = other.write(saved)
            assert close(other.decode([([back], [3])]), wanted)
            other.check()
            back.free()
        assert [len(each) for each in others] == [30, 30]


def test_more_blocks_than_windows_are_refused_before_anything_has_changed(single: Load) -> None:
    model = single("gemma2")
    with SharedCache(model, N_CTX, n_batch=24, n_windows=2) as cache:
        blocks = [fed(cache, some(model, 100, seed)) for seed in range(2)]
        third = fed(cache, some(model, 10))
        with pytest.raises(
            CacheFull, match=r"15 cells are needed, 14 of 72 are free in layers with a sliding.*n_windows"
        ):
            cache.decode([([blocks[1], third], [1] * 9), ([third, blocks[0]], [1] * 6)])
        assert [len(block) for block in (*blocks, third)] == [100, 100, 10]


def test_windows_take_less_memory_and_many_of_them_as_much_as_before(single: Load) -> None:
    model = single("gemma2")
    with small_cache(model) as small, whole_cache(model) as whole:
        assert (whole.n_windowed, small.n_windowed) == (N_CTX, N_WINDOWS * WINDOW + N_BATCH)
        assert small.n_bytes < 0.6 * whole.n_bytes  # every other layer
    with small_cache(single("llama")) as cache:
        assert cache.n_windowed == cache.n_ctx


def test_prompts_that_no_run_stands_on_give_way_where_windows_are_short(tiny_path: Callable[..., Path]) -> None:
    """Eight prompts, each with a window of its own; a run and a few of them have room."""
    options: dict[str, Any] = {"n_threads": 1, "n_batch": 64, **F32}
    with Hogwild(tiny_path("gemma2"), n_ctx=8192, n_windows=5, **options) as hw:
        for i in range(8):
            hw.generate(f"{i} is where this prompt begins, which is longer than a window. " * 2, max_passes=9, seed=i)
            assert hw._admission.prefixes.n_cells > WINDOW


def test_runs_for_which_there_are_no_windows_wait(tiny_path: Callable[..., Path]) -> None:
    def first_events(**how: int) -> list[str]:
        with (
            Hogwild(tiny_path("gemma2"), n_ctx=8192, n_threads=1, n_batch=64, **how) as hw,
            hw.stream("One.", seed=1) as one,
            hw.stream("Two.", seed=1) as two,
        ):
            return [type(next(one)).__name__, type(next(two)).__name__]

    assert first_events() == ["RunStarted", "RunQueued"]
    assert first_events(max_runs=2) == ["RunStarted", "RunStarted"]
    assert first_events(n_windows=16) == ["RunStarted", "RunStarted"]


def test_a_run_writes_far_beyond_its_windows_what_it_writes_where_all_is_held(tiny_path: Callable[..., Path]) -> None:
    def tokens(n_windows: int) -> list[int | None]:
        how: dict[str, Any] = {"n_threads": 1, "n_batch": 64, "n_windows": n_windows, **F32}
        with (
            Hogwild(tiny_path("gemma2"), n_ctx=8192, **how) as hw,
            hw.stream(
                "A prompt that is longer than a window of a few tokens. " * 3,
                workers=3,
                max_passes=90,
                sampling=SamplingParams(temperature=0.0),
                seed=1,
            ) as run,
        ):
            return [event.token for event in run if isinstance(event, events.Token)]

    written = tokens(5)
    assert len(written) > 200
    assert written == tokens(MOST_WINDOWS)


def test_flash_attention_reads_a_windows_run_only(single: Load) -> None:
    model = single("gemma2")
    n_scores = []
    for n_tokens in (700, 3000):
        with SharedCache(model, 4096, attention="ggml", n_windows=MOST_WINDOWS, **F32) as cache:
            block = fed(cache, some(model, n_tokens))
            before = cache.n_scores
            cache.decode([([block], [1])])
            n_scores.append(cache.n_scores - before)
    of_all = [n + 256 - n % 256 for n in (700, 3000)]
    windowed = [n - whole for n, whole in zip(n_scores, of_all, strict=True)]
    assert all(0 < n <= 512 for n in windowed)  # a window, which may lie on both sides of a multiple of 256


def test_a_long_text_that_is_given_up_leaves_a_block_that_is_whole(single: Load) -> None:
    model = single("gemma2")

    class GaveUpError(Exception):
        pass

    def progress(done: int, total: int) -> None:
        if done > 200:
            raise GaveUpError

    with small_cache(model) as cache, whole_cache(model) as whole:
        for before in (0, 50):
            block = cache.block()
            if before:
                cache.decode([([block], some(model, before))])
            with pytest.raises(GaveUpError):
                cache.decode([([block], some(model, 300, seed=1))], progress)
            assert len(block) == 0 if not before else len(block) > 200
            cache.check()
            wanted = whole.decode([([whole.block()], [*block.tokens, 5])])
            assert close(cache.decode([([block], [5])]), wanted)
            block.free()
