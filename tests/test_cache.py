"""Cells: blocks grow, shrink, move and fill the cache to the last cell, and nothing of what they hold changes."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hogwild_local import CacheBlock, Model, SharedCache
from hogwild_local.errors import BatchTooLarge, CacheFull, InvalidArgument

Load = Callable[..., Model]
# Two caches that hold the same do the same arithmetic; where cells lie may change the order of sums.
TOLERANCE = 1e-3
# The composed attention rounds queries to the type of the keys: where the order of sums tips one over to the next
# number, it shows. A cell in the wrong place shows 10 times as much.
TOLERANCE_OF_ROUNDED_QUERIES = 0.02
N_BATCH = 24
MAX_BLOCKS = 6


class Twin:
    """A block in the small cache, where cells are moved, and its twin in the roomy one, where they are not."""

    def __init__(self, small: CacheBlock, roomy: CacheBlock, tokens: Sequence[int] = ()) -> None:
        self.handles = [small]
        self.roomy = roomy
        self.tokens = list(tokens)

    @property
    def small(self) -> CacheBlock:
        return self.handles[-1]

    def __len__(self) -> int:
        return len(self.tokens)

    def truncate(self, n: int) -> None:
        self.small.truncate(n)
        self.roomy.truncate(n)
        del self.tokens[n:]


def let_go(handle: CacheBlock, by_name: bool) -> None:
    """Freed, or forgotten when this function ends."""
    if by_name:
        handle.free()


class CacheMachine(RuleBasedStateMachine):
    """Any sequence of operations on a small cache, compared with the same one on a cache with room to spare."""

    def __init__(self, model: Model, attention: str, cache_type: str, moved: list[int]) -> None:
        super().__init__()
        self.model = model
        self.settings = {"type_k": cache_type, "type_v": cache_type, "n_batch": N_BATCH, "attention": attention}
        self.moved = moved
        rounds_queries = attention != "fused" and cache_type != "f32"
        self.tolerance = TOLERANCE_OF_ROUNDED_QUERIES if rounds_queries else TOLERANCE
        self.twins: list[Twin] = []
        self.may_move = False  # also the roomy cache

    @initialize(n_ctx=st.integers(40, 120))
    def make_caches(self, n_ctx: int) -> None:
        self.small = SharedCache(self.model, n_ctx=n_ctx, **self.settings)
        # Of f32, all forms of attention give the same.
        attention = "fused" if self.settings["type_k"] == "f32" else self.settings["attention"]
        self.roomy = SharedCache(self.model, n_ctx=16384, **{**self.settings, "attention": attention})

    def teardown(self) -> None:
        if hasattr(self, "small"):
            # What was split has no room to grow in, and a copy is moved to what it is read with.
            assert self.may_move or self.roomy.n_moved == 0, "the roomy cache is no reference where it moves cells too"
            self.moved.append(self.small.n_moved)
            self.small.close()
            self.roomy.close()

    @property
    def n_free(self) -> int:
        return self.small.n_ctx - sum(map(len, self.twins))

    @precondition(lambda self: len(self.twins) < MAX_BLOCKS)
    @rule()
    def create(self) -> None:
        self.twins.append(Twin(self.small.block(), self.roomy.block()))

    @precondition(lambda self: len(self.twins) > 2)
    @rule(data=st.data(), by_name=st.booleans())
    def free(self, data: st.DataObject, by_name: bool) -> None:
        twin = self.twins.pop(data.draw(st.integers(0, len(self.twins) - 1)))
        while twin.handles:
            let_go(twin.handles.pop(), by_name)
        twin.roomy.free()

    @precondition(lambda self: self.twins)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        twin = data.draw(st.sampled_from(self.twins))
        twin.handles.append(twin.small.share())

    @precondition(lambda self: any(len(twin.handles) > 1 for twin in self.twins))
    @rule(data=st.data(), by_name=st.booleans())
    def let_one_handle_go(self, data: st.DataObject, by_name: bool) -> None:
        twin = data.draw(st.sampled_from([twin for twin in self.twins if len(twin.handles) > 1]))
        let_go(twin.handles.pop(data.draw(st.integers(0, len(twin.handles) - 1))), by_name)

    @precondition(lambda self: self.twins)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        twin = data.draw(st.sampled_from(self.twins))
        twin.truncate(data.draw(st.integers(0, len(twin))))

    @precondition(lambda self: self.twins and len(self.twins) < MAX_BLOCKS)
    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        twin = data.draw(st.sampled_from(self.twins))
        n = data.draw(st.integers(0, len(twin)))
        n_moved = self.small.n_moved
        self.twins.append(Twin(twin.small.split(n), twin.roomy.split(n), twin.tokens[n:]))
        del twin.tokens[n:]
        self.may_move = True
        assert self.small.n_moved == n_moved

    @precondition(lambda self: self.twins and len(self.twins) < MAX_BLOCKS)
    @rule(data=st.data(), as_bytes=st.booleans())
    def copy(self, data: st.DataObject, as_bytes: bool) -> None:
        twin = data.draw(st.sampled_from(self.twins))
        held = self.small.read(twin.small)
        make = partial(self.small.write, held) if as_bytes else partial(self.small.copy, twin.small)
        if len(twin) > self.n_free:
            with raises_full(len(twin), self.n_free):
                make()
        else:
            self.twins.append(Twin(make(), self.roomy.copy(twin.roomy), twin.tokens))
            self.may_move = True
            assert self.small.read(self.twins[-1].small) == held
        assert self.small.read(twin.small) == held

    @precondition(lambda self: len(self.twins) > 1)
    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        dst, src = data.draw(st.permutations(self.twins))[:2]
        dst.small.append(src.small)
        dst.roomy.append(src.roomy)
        dst.tokens, src.tokens = dst.tokens + src.tokens, []

    @precondition(lambda self: self.twins)
    @rule(data=st.data(), seed=st.integers(0, 2**32))
    def decode(self, data: st.DataObject, seed: int) -> None:
        rng = random.Random(seed)
        own = data.draw(st.lists(st.sampled_from(self.twins), min_size=1, max_size=4, unique_by=id))
        views = []
        for twin in own:
            others = [other for other in self.twins if other is not twin and rng.random() < 0.7]
            rng.shuffle(others)
            n = data.draw(st.integers(1, N_BATCH // len(own)))
            views.append(([*others, twin], [rng.randrange(self.model.n_vocab) for _ in range(n)]))
        self.feed(views)

    @precondition(lambda self: self.twins and self.n_free > 0)
    @rule(data=st.data())
    def fill_to_the_last_cell(self, data: st.DataObject) -> None:
        twin = data.draw(st.sampled_from(self.twins))
        others = [other for other in self.twins if other is not twin]
        self.feed([([*others, twin], [token % self.model.n_vocab for token in range(self.n_free)])])
        assert self.small.n_free == 0

    def feed(self, views: list[tuple[list[Twin], list[int]]]) -> None:
        small_views = [([twin.small for twin in twins], tokens) for twins, tokens in views]
        needed = sum(len(tokens) for _, tokens in views)
        if needed > self.n_free:
            with raises_full(needed, self.n_free):
                self.small.decode(small_views)
            return
        got = self.small.decode(small_views)
        wanted = self.roomy.decode([([twin.roomy for twin in twins], tokens) for twins, tokens in views])
        for twins, tokens in views:
            twins[-1].tokens += tokens
        assert np.isfinite(wanted).all()
        assert np.abs(got - wanted).max() <= self.tolerance

    @precondition(lambda self: self.twins and self.n_free > 0)
    @rule()
    def probe(self) -> None:
        """One more token that sees every cell."""
        last = self.twins[-1]
        self.feed([(self.twins, [7])])
        last.truncate(len(last) - 1)

    @invariant()
    def cells_add_up(self) -> None:
        if hasattr(self, "small"):
            assert self.small.n_free == self.n_free
            self.small.check()
            assert [twin.small.tokens for twin in self.twins] == [twin.tokens for twin in self.twins]
            assert [len(twin.small) for twin in self.twins] == [len(twin) for twin in self.twins]
            assert self.small._native.blocks() == {twin.small._use(): len(twin) for twin in self.twins}


@contextlib.contextmanager
def raises_full(needed: int, free: int) -> Iterator[None]:
    """pytest.raises would keep the frames of the call, and with them all its handles."""
    numbers = None
    try:
        yield
    except CacheFull as full:
        numbers = (full.needed, full.free)
    assert numbers == (needed, free)


@pytest.mark.parametrize(
    ("attention", "cache_type", "examples"),
    [("fused", "f32", 150), ("ggml", "f32", 60), ("composed", "f32", 20), ("fused", "q8_0", 40), ("ggml", "q8_0", 40)],
)
def test_moving_cells_changes_no_logits(attention: str, cache_type: str, examples: int, single: Load) -> None:
    model = single("llama-bos" if cache_type == "f32" else "llama-mha")
    moved: list[int] = []
    for _ in range(5):  # what is drawn at random may move few cells: then more is drawn
        run_state_machine_as_test(
            lambda: CacheMachine(model, attention, cache_type, moved),
            settings=settings(
                max_examples=examples, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
        if sum(moved) > 100:
            break
    assert sum(moved) > 100, "these runs moved too few cells to say anything"


def prompt(model: Model, n: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(model.n_vocab) for _ in range(n)]


@pytest.mark.parametrize("n_ctx", [1, 2, 63, 64, 65, 200])
def test_blocks_together_use_exactly_all_cells(n_ctx: int, single: Load) -> None:
    model = single("llama-bos")
    with SharedCache(model, n_ctx=n_ctx) as cache:
        blocks = [cache.block() for _ in range(3)]
        for i in range(n_ctx):
            cache.decode([([blocks[i % 3]], [i % model.n_vocab])])
        assert cache.n_free == 0
        for block in blocks:
            with pytest.raises(CacheFull) as full:
                cache.decode([([block], [1])])
            assert (full.value.needed, full.value.free) == (1, 0)
        assert sum(map(len, blocks)) == n_ctx
        cache.check()


@pytest.mark.parametrize("lengths", [(1, 299), (150, 150), (299, 1), (100, 200)])
def test_append_in_a_full_cache_is_as_in_an_empty_one(lengths: tuple[int, int], single: Load) -> None:
    model = single("llama-yarn")
    rows = []
    for n_ctx in (300, 4096):
        with SharedCache(model, n_ctx=n_ctx, type_k="f32", type_v="f32") as cache:
            a, b = cache.block("a"), cache.block("b")
            cache.decode([([a], prompt(model, lengths[0]))])
            cache.decode([([a, b], prompt(model, lengths[1], seed=1))])
            assert cache.n_free == n_ctx - 300
            a.append(b)
            cache.check()
            assert (len(a), len(b), cache.n_free) == (300, 0, n_ctx - 300)
            a.truncate(299)
            rows.append(cache.decode([([b, a], [5])])[0])
    assert np.abs(rows[0] - rows[1]).max() <= TOLERANCE


def test_what_does_not_fit_changes_nothing(single: Load) -> None:
    model = single("qwen3")
    rows = []
    for provoke in (False, True):
        with SharedCache(model, n_ctx=60, type_k="f32", type_v="f32", n_batch=40) as cache:
            a, b, c = (cache.block(name) for name in "abc")
            cache.decode([([a], prompt(model, 20))])
            cache.decode([([a, b], prompt(model, 20)), ([a, c], prompt(model, 17))])
            if provoke:
                for views in ([([a, b], [1, 2]), ([a, c], [3, 4])], [([c, a], [1] * 4)], [([b], [1] * 50)]):
                    needed = sum(len(tokens) for _, tokens in views)
                    with pytest.raises(CacheFull) as full:
                        cache.decode(views)
                    assert (full.value.needed, full.value.free) == (needed, 3)
                    assert f"{needed} cells are needed" in str(full.value)
                    assert [len(block) for block in (a, b, c)] == [20, 20, 17]
            rows.append(cache.decode([([a, c, b], [1]), ([a, b, c], [2, 3])]))
            assert cache.n_free == 0
    assert np.array_equal(rows[0], rows[1])


def test_only_what_does_not_fit_is_refused(single: Load) -> None:
    model = single("llama")
    with SharedCache(model, n_ctx=10) as cache:
        a, b = cache.block("a"), cache.block("b")
        cache.decode([([a], prompt(model, 9))])
        with pytest.raises(CacheFull):
            cache.decode([([a], [1]), ([b], [2])])
        cache.decode([([a, b], [2])])
        assert (len(a), len(b)) == (9, 1)


def test_several_views_must_fit_n_batch_and_one_need_not(single: Load) -> None:
    model = single("llama")
    with SharedCache(model, n_ctx=200, n_batch=16) as cache:
        a, b = cache.block("a"), cache.block("b")
        cache.decode([([a], prompt(model, 8)), ([b], prompt(model, 8))])
        with pytest.raises(BatchTooLarge, match=r"17 tokens.*16"):
            cache.decode([([a], prompt(model, 9)), ([b], prompt(model, 8))])
        assert (len(a), len(b)) == (8, 8)
        cache.decode([([a, b], prompt(model, 100))])
        assert (len(a), len(b)) == (8, 108)


@pytest.mark.parametrize("n_batch", [1, 8192])
def test_any_n_batch_serves(n_batch: int, single: Load) -> None:
    model = single("llama-bos")
    with SharedCache(model, n_ctx=700, n_batch=n_batch) as cache:
        assert cache.n_batch == min(n_batch, 700)
        block = cache.block()
        assert np.isfinite(cache.decode([([block], prompt(model, 20 if n_batch == 1 else 700))])).all()


def test_workers_that_grow_together_are_moved_seldom(single: Load) -> None:
    # Packed anew at each pass they would move 4 * 100 * 50 = 20,000 cells.
    model = single("llama-bos")
    with SharedCache(model, n_ctx=512) as cache:
        blocks = [cache.block() for _ in range(4)]
        for _ in range(100):
            cache.decode([([*blocks[:i], *blocks[i + 1 :], block], [1]) for i, block in enumerate(blocks)])
        assert cache.n_moved < 1000


def test_a_block_is_true_also_when_empty(single: Load) -> None:
    with SharedCache(single("llama-bos"), n_ctx=8) as cache:
        block = cache.block("name")
        assert block
        assert len(block) == 0
        assert "name" in repr(block)


def test_truncating_beyond_the_end_is_refused(single: Load) -> None:
    model = single("llama-bos")
    with SharedCache(model, n_ctx=8) as cache:
        block = cache.block()
        cache.decode([([block], [1, 2, 3])])
        for n in (4, -1, 2**31, 2**70, 1.0, "2", None, True):
            with pytest.raises(InvalidArgument):
                block.truncate(n)
            assert len(block) == 3
