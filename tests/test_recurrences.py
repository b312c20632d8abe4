"""Recurrent layers in blocks: the kernel against float64, token by token, whatever is done to blocks between passes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from recurrence_helper import KINDS, Diagonal, Pair

from hogwild_local.engine import native
from hogwild_local.errors import InvalidArgument

# Of outputs; sums of f32 in another order. A token at a wrong place is wrong by a tenth or more.
TOLERANCE = 2e-5
MAX_BLOCKS = 6
MOST_SEGMENTS = 12 + 11
"""Of a block: what it keeps, and what one pass adds."""


class BlocksMachine(RuleBasedStateMachine):
    """Any sequence of passes and changes of blocks. Some are anchored, one behind the other: of a view that has one,
    those before it come first, and only the last of them changes."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.next = 1
        self.anchored: list[int] = []

    @initialize(seed=st.integers(0, 1000))
    def make(self, seed: int) -> None:
        self.pair = Pair(KINDS[self.kind], np.random.default_rng(seed))

    @property
    def blocks(self) -> dict[int, list]:
        return self.pair.blocks

    def new(self, tokens: list) -> int:
        number, self.next = self.next, self.next + 1
        self.blocks[number] = tokens
        return number

    @property
    def free(self) -> list[int]:
        """Those that stand anywhere."""
        return sorted(self.blocks.keys() - set(self.anchored))

    def drawn(self, data: st.DataObject) -> int:
        """One that may be changed."""
        return data.draw(st.sampled_from([*self.free, *self.anchored[-1:]]))

    @precondition(lambda self: len(self.blocks) < MAX_BLOCKS)
    @rule(is_anchored=st.booleans())
    def add(self, is_anchored: bool) -> None:
        number = self.new([])
        self.pair.ours.change("add", number, int(is_anchored))
        self.anchored += [number] if is_anchored else []

    @precondition(lambda self: len(self.blocks) > 2)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        block = self.drawn(data)
        self.anchored = [other for other in self.anchored if other != block]
        self.forget(block)

    def forget(self, block: int) -> None:
        self.pair.ours.change("remove", block)
        del self.blocks[block]

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), n_threads=st.integers(1, 3), fails=st.booleans())
    def feed(self, data: st.DataObject, n_threads: int, fails: bool) -> None:
        known = [*self.free, *self.anchored[-1:]]
        own = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=4, unique=True))
        views = []
        for block in own:
            before = data.draw(st.lists(st.sampled_from(self.free), max_size=4, unique=True)) if self.free else []
            first = self.anchored[: data.draw(st.integers(0, len(self.anchored)))]
            if block in self.anchored:
                before, first = [], self.anchored[:-1]
            n = data.draw(st.sampled_from([1, 1, 1, 2, 5, 15, 16, 17, 40, 130]))
            views.append(([*first, *(other for other in before if other != block), block], n))
        assert self.pair.feed(views, n_threads, fails and data.draw(st.booleans())) < TOLERANCE

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        block = self.drawn(data)
        n = data.draw(st.integers(0, len(self.blocks[block])))
        cut = self.pair.ours.last_cut(block, n)
        assert 0 <= cut <= n
        if cut < n:
            with pytest.raises(InvalidArgument, match=f"cannot be cut at token {n}: .* recurrent layers"):
                self.pair.ours.change("truncate", block, n)
        self.pair.ours.change("truncate", block, cut)
        del self.blocks[block][cut:]

    @precondition(lambda self: self.blocks and len(self.blocks) < MAX_BLOCKS)
    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(sorted(self.blocks)))
        cut = self.pair.ours.last_cut(block, data.draw(st.integers(0, len(self.blocks[block]))))
        tail = self.new(self.blocks[block][cut:])
        self.pair.ours.change("split", block, cut, tail)
        del self.blocks[block][cut:]
        if block in self.anchored:
            self.anchored.insert(self.anchored.index(block) + 1, tail)

    @precondition(lambda self: len([*self.free, *self.anchored[-1:]]) > 1)
    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        src = data.draw(st.sampled_from(self.free))
        dst = data.draw(st.sampled_from([*(other for other in self.free if other != src), *self.anchored[-1:]]))
        self.pair.ours.change("append", dst, src)
        self.blocks[dst] += self.blocks[src]
        self.blocks[src] = []

    @precondition(lambda self: self.blocks and len(self.blocks) < MAX_BLOCKS)
    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        block = self.drawn(data)
        copy = self.new(list(self.blocks[block]))
        self.pair.ours.change("copy", block, copy)
        if block in self.anchored:  # which stands there alone from now on
            self.anchored[-1] = copy
            self.forget(block)

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def mark(self, data: st.DataObject) -> None:
        block = self.drawn(data)
        n = len(self.blocks[block])
        self.pair.ours.change("mark", block)
        before = self.anchored[:-1] if block in self.anchored else []
        assert self.pair.feed([([*before, block], 3)]) < TOLERANCE
        assert self.pair.ours.last_cut(block, n) == n

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def write_what_was_read(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(sorted(self.blocks)))
        self.pair.ours.change("rewrite", block, len(self.blocks[block]))

    @invariant()
    def segments_are_few_and_end_where_the_block_ends(self) -> None:
        for block, tokens in self.blocks.items() if hasattr(self, "pair") else ():
            assert self.pair.ours.last_cut(block, len(tokens)) == len(tokens)
            assert self.pair.ours.n_segments(block) <= MOST_SEGMENTS


@pytest.mark.parametrize("kind", KINDS)
def test_after_any_operations_a_token_reads_what_its_view_says(kind: str) -> None:
    many = settings(max_examples=25, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(lambda: BlocksMachine(kind), settings=many)


def pair_of(kind: str, *blocks: int) -> Pair:
    """Blocks 1, 2, .. of so many tokens, each fed alone."""
    pair = Pair(KINDS[kind], np.random.default_rng(1))
    for number, n in enumerate(blocks, 1):
        pair.ours.change("add", number)
        pair.blocks[number] = []
        if n:
            pair.feed([([number], n)])
    return pair


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_order_of_blocks_is_seen(kind: str) -> None:
    """A test of these tests."""
    pair = pair_of(kind, 2, 2, 0)
    exchanged = pair_of(kind, 2, 2, 0)
    exchanged.blocks[1], exchanged.blocks[2] = exchanged.blocks[2], exchanged.blocks[1]
    assert pair.feed([([1, 2, 3], 1)]) < TOLERANCE
    assert exchanged.feed([([1, 2, 3], 1)]) > 100 * TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_workers_see_the_tokens_of_the_same_pass(kind: str) -> None:
    pair = pair_of(kind, 30, 3, 3, 3)
    views = [([1, 3, 4, 2], 2), ([1, 2, 4, 3], 1), ([1, 2, 3, 4], 4)]
    assert pair.feed(views) < TOLERANCE
    after = dict(pair.blocks)
    pair.blocks = {block: tokens[: len(tokens) - 1] for block, tokens in after.items()}
    assert pair.feed(views, fails=True) > 100 * TOLERANCE  # tokens that are not counted are missed


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_was_fed_at_once_can_be_cut_before_its_last_token_and_evenly(kind: str) -> None:
    pair = pair_of(kind, 1000)
    assert pair.ours.last_cut(1, 999) == 999
    cuts = sorted({pair.ours.last_cut(1, n) for n in range(1001)})
    assert len(cuts) <= 12
    assert max(b - a for a, b in pairwise(cuts)) <= 128


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_are_fed_one_by_one_are_a_map_and_the_newest_of_them_rows(kind: str) -> None:
    """A pass costs what its segments cost: not more for more tokens."""
    pair = pair_of(kind, 0)
    for _ in range(200):
        pair.feed([([1], 1)], fails=False)
        assert pair.ours.n_segments(1) <= (1 if KINDS[kind].n_rows == 0 else 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_joins_the_history_adds_no_segment_that_stays(kind: str) -> None:
    pair = pair_of(kind, 20, 0)
    before = pair.ours.n_segments(1)
    for _ in range(5):
        pair.feed([([1, 2], 3)])
        pair.ours.change("append", 1, 2)
        pair.blocks[1], pair.blocks[2] = pair.blocks[1] + pair.blocks[2], []
        assert pair.ours.n_segments(1) <= before + 1
    for _ in range(2):
        assert pair.feed([([1, 2], 1)]) < TOLERANCE
    assert pair.ours.n_segments(1) <= before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].n_rows >= 9])
def test_rows_are_joined_before_there_is_no_room_for_more(kind: str) -> None:
    """Then a pass would wait for it."""
    pair = pair_of(kind, 0)
    n_rows = KINDS[kind].n_rows
    most = 0
    for n in range(1, 4 * n_rows):
        assert pair.feed([([1], 1)]) < TOLERANCE
        rows = next((back for back in range(1, n) if pair.ours.last_cut(1, n - back) != n - back), n)
        most = max(most, rows)
    assert n_rows // 2 < most < n_rows


def test_large_states_are_kept_at_fewer_places() -> None:
    """So many as take 256 MiB, and four whatever they take."""
    rng = np.random.default_rng(1)
    for d, most in ((64, 12), (3000, 7), (4500, 4)):
        net = native.Recurrence(Diagonal.number, 1, d, d, 1)
        net.change("add", 1)
        shapes = [(1, d), (1,), (1, d), (1, d)]
        for _ in range(14):
            rows = [rng.normal(size=(16, *shape)).astype(np.float32) for shape in shapes]
            net.run([([1], 16)], [*rows[:2], -np.ones((1, 1), np.float32), *rows[2:]], np.empty((16, d), np.float32))
        assert most <= net.n_segments(1) <= most + 2  # what the last pass added


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_that_passes_go_on_reading_stays_what_it_is_also_when_it_changes(kind: str) -> None:
    """Its segments are joined for them; of what it was before a change nothing may be left."""
    pair = pair_of(kind, 130, 0)
    cut = pair.ours.last_cut(1, 128)
    for change in ("nothing", "truncate", "append", "nothing"):
        if change == "truncate":
            pair.ours.change("truncate", 1, cut)
            pair.blocks[1] = pair.blocks[1][:cut]
        elif change == "append":
            pair.ours.change("append", 1, 2)
            pair.blocks[1], pair.blocks[2] = pair.blocks[1] + pair.blocks[2], []
        for _ in range(6):
            assert pair.feed([([1, 2], 1)]) < TOLERANCE
    assert pair.feed([([1], 1)]) < TOLERANCE
    assert pair.feed([([1, 2], 1)]) < TOLERANCE


def anchored_pair(kind: str, *sizes: int) -> Pair:
    """Blocks 1, 2, .. of so many tokens, all anchored, one behind the other."""
    pair = Pair(KINDS[kind], np.random.default_rng(1))
    for number, n in enumerate(sizes, 1):
        pair.ours.change("add", number, 1)
        pair.blocks[number] = []
        if n:
            pair.feed([(list(range(1, number + 1)), n)])
    return pair


@pytest.mark.parametrize("kind", KINDS)
def test_of_what_is_anchored_a_view_reads_one_state_and_no_map(kind: str) -> None:
    """So its cost does not grow with the places where a prompt can be cut, and nothing is joined for it."""
    pair = anchored_pair(kind, 600)
    pair.ours.change("truncate", 1, 599)
    pair.blocks[1] = pair.blocks[1][:599]
    pair.ours.change("add", 2, 1)
    pair.blocks[2] = []
    pair.feed([([1, 2], 300)])
    pair.ours.change("split", 2, 299, 3)  # a run goes on behind the last token
    pair.blocks[2], pair.blocks[3] = pair.blocks[2][:299], pair.blocks[2][299:]
    pair.ours.change("add", 4)
    pair.blocks[4] = []
    assert pair.ours.n_segments(1) > 4
    for _ in range(5):
        assert pair.feed([([1, 2, 3, 4], 1)]) < TOLERANCE
    assert pair.ours.count("n_links") == 2  # the last state of block 2, and block 3
    assert pair.ours.count("n_joined") == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_that_is_anchored_stands_nowhere_else(kind: str) -> None:
    pair = anchored_pair(kind, 20, 40)
    for number in (3, 4):
        pair.ours.change("add", number)
        pair.blocks[number] = []
        pair.feed([([number], 20)])
    for view in ([2, 3], [3, 2, 4], [1, 3, 2, 4], [3, 1, 4], [2], [2, 1]):
        with pytest.raises(InvalidArgument, match=r"block \d is anchored: .* behind the same \d+ tokens"):
            pair.feed([(view, 20)])
    with pytest.raises(InvalidArgument, match=r"block 2 is anchored: .* than block 3 ends with"):
        pair.ours.change("append", 3, 2)
    assert pair.feed([([1, 2, 3, 4], 5)]) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_anchored_behind_a_block_that_was_written_anew_is_refused(kind: str) -> None:
    """As many tokens as before stand there, but they are others."""
    pair = anchored_pair(kind, 40, 40)
    pair.ours.change("truncate", 1, 0)
    pair.blocks[1] = []
    assert pair.feed([([1], 40)]) < TOLERANCE
    with pytest.raises(InvalidArgument, match="block 2 is anchored"):
        pair.feed([([1, 2], 1)])


def test_what_is_anchored_takes_half_as_much_where_maps_have_matrices() -> None:
    kinds = {"delta net, wide": 0.55, "rwkv-7, as models are": 0.55, "kimi, wide": 0.55, "mamba-2": 1.1, "gated": 1.1}
    for kind, most in kinds.items():
        anchored, other = anchored_pair(kind, 600), pair_of(kind, 600)
        assert anchored.ours.count("n_bytes") < most * other.ours.count("n_bytes")
