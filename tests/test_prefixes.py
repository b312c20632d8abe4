"""Prompts that are kept for later runs: what is computed once is computed once, whoever asks, and nothing of it is
wrong, lost or in the way."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import FakeBlock, FakeCache, FakeModel
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_local import SamplingParams
from hogwild_local.workers.prefixes import LEAST_DROPPED, Prefix, Prefixes
from hogwild_local.workers.steady import Steady

GREEDY = SamplingParams(temperature=0.0)


class Tree:
    """A tree over a fake cache."""

    def __init__(self, cuts: int | None = None) -> None:
        self.cache, self.tree = FakeCache(FakeModel(), n_ctx=1 << 20, cuts=cuts), Prefixes()

    def run(self, tokens: list[int]) -> tuple[Prefix, int]:
        """What a run does: it holds, reaches, computes the rest and gives it. Returns how many it found."""
        prefix = self.tree.hold(tokens)
        prefix.reach(tokens)
        n_found = prefix.n_tokens
        if n_found < len(tokens):
            block = self.cache.block("prompt")
            block.tokens = tokens[n_found:]
            prefix.add(block, tokens)
        assert contents(prefix.blocks) == tokens
        return prefix, n_found

    @property
    def n_cells(self) -> int:
        return sum(len(block) for block in self.cache.blocks)


def contents(blocks: list[FakeBlock]) -> list[int]:
    assert not any(block.freed for block in blocks)
    return [token for block in blocks for token in block.tokens]


def test_a_prompt_is_found_again_as_far_as_an_earlier_one_goes() -> None:
    t = Tree()
    for tokens, n_found in [
        ([1, 2, 3, 4], 0),
        ([1, 2, 3, 4], 4),
        ([1, 2, 9], 2),
        ([1, 2, 3, 4, 5], 4),
        ([7], 0),
        ([1], 1),
    ]:
        prefix, n = t.run(tokens)
        assert n == n_found
        prefix.release()
    assert t.n_cells == t.tree.n_cells == len([1, 2, 3, 4, 9, 5, 7])


def test_a_split_below_a_run_changes_none_of_what_it_sees() -> None:
    t = Tree()
    first, _ = t.run([1, 2, 3, 4])
    before = t.tree.n_splits
    second, n_found = t.run([1, 2, 8])
    assert n_found == 2
    assert contents(first.blocks) == [1, 2, 3, 4]
    assert first.blocks[0] is second.blocks[0]
    assert t.tree.n_splits > before


def test_a_block_that_a_pass_relies_on_is_not_split_until_the_pass_has_ended() -> None:
    t = Tree()
    first, _ = t.run([1, 2, 3, 4])
    blocks = first.blocks
    with ThreadPoolExecutor(1) as pool:
        with t.tree.passes.kept():
            second = pool.submit(t.run, [1, 2, 8])
            with pytest.raises(TimeoutError):
                second.result(0.1)
            assert contents(blocks) == [1, 2, 3, 4]
        assert second.result(10)[1] == 2


def test_where_passes_do_not_end_whole_blocks_are_shared_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hogwild_local.workers.prefixes.SPLIT_WAIT_S", 0.01)
    t = Tree()
    held, _ = t.run([1, 2, 3, 4])
    with t.tree.passes.kept():
        other, n_found = t.run([1, 2, 8])
        assert n_found == 0
    other.release()
    assert contents(held.blocks) == [1, 2, 3, 4]
    assert t.n_cells == t.tree.n_cells  # what it computed for itself is gone


def test_where_a_block_cannot_be_cut_a_prompt_leaves_it_earlier_and_is_kept_beside_it() -> None:
    t = Tree(cuts=4)
    for tokens, n_found in [
        ([1, 2, 3, 4, 5, 6, 7], 0),
        ([1, 2, 3, 4, 5, 6, 8], 4),
        ([1, 2, 3, 4, 5, 6, 8, 9], 7),
        ([1, 2, 3, 4, 5, 6, 7, 9], 7),
        ([1, 2, 3, 9], 0),
        ([1, 2, 3, 9, 9], 4),
    ]:
        prefix, n = t.run(tokens)
        assert (tokens, n) == (tokens, n_found)
        prefix.release()


def test_the_same_prompt_computed_twice_at_once_is_kept_once() -> None:
    t = Tree()
    prefixes = [t.tree.hold([1, 2, 3]) for _ in range(2)]
    for prefix in prefixes:
        block = t.cache.block("prompt")
        block.tokens = [1, 2, 3]
        assert prefix.add(block, [1, 2, 3])
    assert prefixes[0].blocks == prefixes[1].blocks
    assert t.n_cells == 3


def test_the_least_recently_used_goes_first_and_what_a_run_stands_on_never() -> None:
    t = Tree()
    n = 2 * LEAST_DROPPED
    held, _ = t.run([1] * n)
    old, recent = [2] * n, [3] * n
    for tokens in (old, recent, old):
        t.run(tokens)[0].release()
    t.tree.drop(1)
    assert t.tree.found(recent)[0] == n - LEAST_DROPPED
    assert t.tree.found(old)[0] == n
    t.tree.drop_all()
    assert (t.n_cells, t.tree.n_cells, t.tree.n_held) == (n, n, n)
    held.release()
    assert t.tree.n_held == 0
    t.tree.drop_all()
    assert t.cache.blocks == []


TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=12)
ACTIONS = st.one_of(
    st.tuples(st.just("run"), TOKENS), st.tuples(st.just("release"), st.integers(0, 9)),
    st.tuples(st.just("drop"), st.integers(1, 20)),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=40), st.integers(1, 8), st.sampled_from([None, 3]))
def test_any_order_of_runs_releases_and_drops_keeps_every_path_right(
    actions: list[tuple[str, object]], least: int, cuts: int | None
) -> None:
    t = Tree(cuts)
    held: list[tuple[Prefix, list[int]]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hogwild_local.workers.prefixes.LEAST_DROPPED", least)
        for name, value in actions:
            match name, value:
                case "run", list(tokens):
                    prefix, n_found = t.run(tokens)
                    # Whatever was dropped: what others hold of it is found.
                    common = [next((i for i, (a, b) in enumerate(zip(tokens, theirs, strict=False)) if a != b),
                                   min(len(tokens), len(theirs))) for _, theirs in held]  # fmt: skip
                    whole = [n for n, (_, theirs) in zip(common, held, strict=True) if cuts is None or n == len(theirs)]
                    assert n_found >= max(whole, default=0)
                    held.append((prefix, tokens))
                case "release", int(index) if held:
                    held.pop(index % len(held))[0].release()
                case "drop", int(n):
                    t.tree.drop(n)
            for prefix, tokens in held:
                assert contents(prefix.blocks) == tokens
            assert t.n_cells == t.tree.n_cells
            standing = {id(block): len(block) for prefix, _ in held for block in prefix.blocks}
            assert t.tree.n_held == sum(standing.values())
    for prefix, _ in held:
        prefix.release()
    t.tree.drop_all()
    assert t.cache.blocks == []


def test_who_wants_to_change_goes_before_those_who_come_later() -> None:
    steady, order = Steady(), []
    inside, go_on = threading.Event(), threading.Event()

    def keep(name: str) -> None:
        with steady.kept():
            inside.set()
            go_on.wait(10)
            order.append(name)

    def change() -> None:
        with steady.changed(10) as may:
            assert may
            order.append("change")

    first = threading.Thread(target=keep, args=("first",))
    first.start()
    inside.wait(10)
    changer = threading.Thread(target=change)
    changer.start()
    while not steady._n_waiting:
        pass
    later = threading.Thread(target=keep, args=("later",))
    later.start()
    go_on.set()
    for thread in (first, changer, later):
        thread.join(10)
        assert not thread.is_alive()
    assert order == ["first", "change", "later"]
