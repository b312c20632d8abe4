"""Blocks that are split, shared, copied and dropped."""

from __future__ import annotations

import gc
import itertools
import random
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from hogwild_local import CacheBlock, Model, SharedCache
from hogwild_local.errors import CacheFull, InvalidArgument

Load = Callable[..., Model]
Paths = Callable[..., Path]
# Where cells lie, and how many blocks there are, changes the order of sums alone: logits up to 10, 24 bits.
ORDER_OF_SUMS = 1e-4


def tokens_of(model: Model, n: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(model.n_vocab) for _ in range(n)]


def probe(cache: SharedCache, *blocks: CacheBlock) -> np.ndarray:
    """Logits of a token behind these blocks."""
    own = cache.block("probe")
    try:
        return cache.decode([([*blocks, own], [5])])[0]
    finally:
        own.free()


# -- split -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
@pytest.mark.parametrize("name", ["llama-yarn", "gemma2"])
@pytest.mark.parametrize("n", [0, 1, 37, 99, 100])
def test_a_view_of_both_parts_sees_what_a_view_of_the_whole_saw(
    n: int, name: str, attention: str, single: Load
) -> None:
    model = single(name)
    with SharedCache(model, n_ctx=300, type_k="f32", type_v="f32", attention=attention) as cache:
        head, tokens = cache.block(), tokens_of(model, 100)
        cache.decode([([head], tokens)])
        whole = probe(cache, head)
        tail = head.split(n, "tail")
        assert (head.tokens, tail.tokens, tail.name) == (tokens[:n], tokens[n:], "tail")
        assert (cache.n_free, cache.n_moved) == (200, 0)
        assert np.array_equal(probe(cache, head, tail), whole)
        cache.check()


def test_both_parts_of_a_split_block_grow_and_are_branches(single: Load) -> None:
    model = single("qwen3")
    tokens, other = tokens_of(model, 60), tokens_of(model, 20, seed=1)
    with SharedCache(model, n_ctx=200, type_k="f32", type_v="f32") as cache:
        head = cache.block()
        cache.decode([([head], tokens)])
        tail, branch = head.split(40), cache.block("branch")
        cache.decode([([head, branch], other), ([head, tail], other)])
        both = [probe(cache, head, branch), probe(cache, head, tail)]
        wanted = []
        for text in (tokens[:40] + other, tokens + other):
            whole = cache.block()
            cache.decode([([whole], text)])
            wanted.append(probe(cache, whole))
            whole.free()
        assert np.abs(np.array(both) - np.array(wanted)).max() <= ORDER_OF_SUMS
        head.append(tail)
        assert np.abs(probe(cache, head) - wanted[1]).max() <= ORDER_OF_SUMS
        assert head.tokens == tokens + other


def test_a_block_is_split_within_its_tokens_only(single: Load) -> None:
    model = single("llama-bos")
    with SharedCache(model, n_ctx=20) as cache:
        block = cache.block()
        cache.decode([([block], [1, 2, 3])])
        for n in (4, -1, 2**31, 2**70, 1.0, "2", None, True):
            with pytest.raises(InvalidArgument):
                block.split(n)
        assert cache._native.blocks() == {block._use(): 3}


# -- handles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_block_is_freed_with_its_last_handle(order: Sequence[int], single: Load) -> None:
    model = single("llama-bos")
    with SharedCache(model, n_ctx=20) as cache:
        block = cache.block("b")
        cache.decode([([block], [1, 2, 3])])
        handles = [block, block.share(), block.share()]
        del block
        assert [(handle.tokens, handle.name) for handle in handles] == [([1, 2, 3], "b")] * 3
        first, second, last = (handles[i] for i in order)
        handles.clear()
        first.free()
        with pytest.raises(InvalidArgument, match="was freed"):
            first.share()
        del second
        cache.decode([([last], [4])])
        assert (len(last), cache.n_free) == (4, 16)
        last.free()
        assert cache.n_free == 20


def test_a_block_does_not_stand_twice_in_a_view_by_two_handles(single: Load) -> None:
    model = single("llama-bos")
    with SharedCache(model, n_ctx=20) as cache:
        block = cache.block()
        with pytest.raises(InvalidArgument, match="twice"):
            cache.decode([([block, block.share()], [1])])


def test_a_dropped_block_gives_its_cells_back(single: Load) -> None:
    model = single("llama-bos")
    with SharedCache(model, n_ctx=20) as cache:
        block = cache.block()
        cache.decode([([block], [1] * 20)])
        del block
        assert cache.n_free == 20
        block = cache.block()
        cache.decode([([block], [1] * 20)])
        block = cache.block()  # the other is dropped now, and its cells are needed for this one
        cache.decode([([block], [1] * 20)])
        cache.check()


def test_a_block_that_a_garbage_collection_drops_gives_its_cells_back(single: Load) -> None:
    model = single("llama-bos")
    with SharedCache(model, n_ctx=20) as cache:
        block = cache.block()
        cache.decode([([block], [1] * 20)])
        circle: list[object] = [block]
        circle.append(circle)
        del block, circle
        assert cache.n_free == 0
        gc.collect()
        assert cache.n_free == 20


def test_dropping_a_block_waits_for_no_call_and_calls_nothing(single: Load) -> None:
    model = single("llama-bos")
    with SharedCache(model, n_ctx=20) as cache:
        block = cache.block()
        calls: list[object] = []

        def drop() -> None:
            nonlocal block
            sys.setprofile(lambda frame, event, arg: calls.append((event, arg or frame.f_code.co_name)))
            del block
            sys.setprofile(None)

        with cache._native._lock:  # as if a pass went on
            thread = threading.Thread(target=drop)
            thread.start()
            thread.join(20)
            assert not thread.is_alive()
        assert [call for call in calls if "setprofile" not in repr(call)] == []
        assert cache._native.blocks() != {}
        assert cache.n_free == 20
        cache.check()  # the next call frees it
        assert cache._native.blocks() == {}


# -- copy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache_type", ["f32", "q8_0"])
@pytest.mark.parametrize("attention", ["fused", "ggml"])
def test_a_copy_goes_its_own_way(attention: str, cache_type: str, single: Load) -> None:
    model = single("llama-mha")
    with SharedCache(model, n_ctx=400, type_k=cache_type, type_v=cache_type, attention=attention) as cache:
        block = cache.block()
        cache.decode([([block], tokens_of(model, 100))])
        before = probe(cache, block)
        copy = cache.copy(block, "copy")
        assert (copy.name, copy.tokens) == ("copy", block.tokens)
        assert np.abs(probe(cache, copy) - before).max() <= ORDER_OF_SUMS
        cache.decode([([copy], tokens_of(model, 50, seed=1))])
        block.truncate(10)
        again = cache.block()
        cache.decode([([again], tokens_of(model, 100) + tokens_of(model, 50, seed=1))])
        tolerance = (
            ORDER_OF_SUMS if cache_type == "f32" else 0.02 * np.abs(before).max()
        )  # other passes, other rounding
        assert np.abs(probe(cache, copy) - probe(cache, again)).max() <= tolerance


def test_a_copy_or_a_written_block_that_does_not_fit_changes_nothing(single: Load) -> None:
    model = single("llama-bos")
    with SharedCache(model, n_ctx=30) as cache:
        block = cache.block()
        cache.decode([([block], tokens_of(model, 16))])
        data = cache.read(block)
        for make in (lambda: cache.copy(block), lambda: cache.write(data)):
            with pytest.raises(CacheFull) as full:
                make()
            assert (full.value.needed, full.value.free) == (16, 14)
            assert cache._native.blocks() == {block._use(): 16}
            assert cache.read(block) == data


def test_an_empty_block_is_split_copied_and_read(single: Load) -> None:
    with SharedCache(single("llama-bos"), n_ctx=8) as cache:
        block = cache.block()
        made = [block.split(0), cache.copy(block), cache.write(cache.read(block))]
        assert [len(other) for other in made] == [0, 0, 0]
        assert len(cache._native.blocks()) == 4


# -- tokens ----------------------------------------------------------------------------------------------------


def test_tokens_of_a_pass_that_failed_are_not_kept(single: Load) -> None:
    model = single("llama-bos")
    with SharedCache(model, n_ctx=20) as cache:
        block = cache.block()
        cache.decode([([block], [1, 2, 3])])
        with pytest.raises(CacheFull):
            cache.decode([([block], [4] * 18)])
        with pytest.raises(InvalidArgument):
            cache.decode([([block], [model.n_vocab])])
        assert block.tokens == [1, 2, 3]
