"""Prompts that are kept for later runs: what is computed once is computed once, whoever asks, and nothing of it is
wrong, lost or in the way."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes import TINY_STYLE, FakeBlock, FakeCache, FakeEngine, FakeModel
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_local import Hogwild, SamplingParams
from hogwild_local import events as ev
from hogwild_local.workers.layouts import Layout
from hogwild_local.workers.prefixes import LEAST_DROPPED, Prefix, Prefixes
from hogwild_local.workers.steady import Steady

GREEDY = SamplingParams(temperature=0.0)


class Tree:
    """A tree over a fake cache."""

    def __init__(self) -> None:
        self.cache, self.tree = FakeCache(FakeModel(), n_ctx=1 << 20), Prefixes()

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
@given(st.lists(ACTIONS, max_size=40), st.integers(1, 8))
def test_any_order_of_runs_releases_and_drops_keeps_every_path_right(
    actions: list[tuple[str, object]], least: int
) -> None:
    t = Tree()
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
                    assert n_found >= max(common, default=0)
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


# -- runs --


def hogwild(fake: FakeEngine, **options: object) -> Hogwild:
    return Hogwild("m.gguf", prompts=TINY_STYLE, engine=fake.engine, **options)  # type: ignore[arg-type]


def usage_of(run: object) -> ev.Usage:
    return next(event for event in run if isinstance(event, ev.RunEnded)).usage  # type: ignore[attr-defined]


def test_a_second_run_computes_no_more_of_the_prompt_than_its_last_token() -> None:
    fake = FakeEngine("A.\n\nbc", "de.\n\nf")
    with hogwild(fake) as hw:
        first = hw.generate("What is it?", max_passes=9, seed=1)
        passes = [[(feed.names, feed.before, feed.tokens) for feed in feeds] for feeds in fake.cache.passes]  # type: ignore[union-attr]
        fake.cache.passes.clear()  # type: ignore[union-attr]
        fake.again()
        second = hw.generate("What is it?", max_passes=9, seed=1)
        assert (first.usage.cached_tokens, second.usage.cached_tokens) == (0, first.usage.prompt_tokens - 1)
        assert second.usage.prompt_tokens == first.usage.prompt_tokens
        again = [[(feed.names, feed.before, feed.tokens) for feed in feeds] for feeds in fake.cache.passes]  # type: ignore[union-attr]
    assert again[0][0][2] == passes[0][0][2][-1:]
    assert [feeds[0][2] for feeds in passes[1:3]] == [list(map(ord, "H:")), list(map(ord, "S:"))]
    assert again[1:] == passes[3:]  # what workers see is the same
    assert second.texts == first.texts


def test_progress_begins_where_the_cached_part_ends() -> None:
    with hogwild(FakeEngine()) as hw:
        hw.generate("P", max_passes=1)
        progress = [event for event in hw.stream("P", max_passes=1) if isinstance(event, ev.PromptProgress)]
    assert progress[0].done == progress[0].total - 1
    assert progress[-1].done == progress[-1].total


def test_runs_with_other_prompts_take_copies_of_a_layouts_texts() -> None:
    """A block in common would make them one group of a pass."""
    fake = FakeEngine()
    with hogwild(fake) as hw:
        n = hw.generate("P", max_passes=1).usage.prompt_tokens
        runs = [hw.stream(prompt, max_passes=1) for prompt in ("Q", "R")]
        for run in runs:
            while not isinstance(next(run), ev.PromptProgress):
                pass
        for run in runs:
            assert [len(block) for block in run._loop._run.layout.blocks].count(2) == 2  # H: and S:
        seen = [{id(block) for block in run._loop._run.layout.blocks} for run in runs]
        assert not seen[0] & seen[1]
        for run in runs:
            assert usage_of(run).cached_tokens == n - len("P;|")
        assert hw.n_free == hw.n_ctx
        assert hw._admission.prefixes.n_cells == n - 1 + 2 * len("Q;")


def test_a_prompt_that_was_cancelled_is_gone_on_with() -> None:
    fake = FakeEngine()
    with hogwild(fake, n_batch=8) as hw:
        for event in hw.stream("x" * 100, max_passes=1):
            if isinstance(event, ev.PromptProgress) and event.done >= 48:
                break
        assert fake.n_open == 0
        assert hw.generate("x" * 100, max_passes=1).usage.cached_tokens == 47


def test_without_cache_prompt_nothing_is_kept_or_found() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        for cached in (False, True, False):
            usage = hw.generate("P", max_passes=1, cache_prompt=cached).usage
            assert usage.cached_tokens == 0
        assert hw.generate("P", max_passes=1).usage.cached_tokens > 0


def test_kept_prompts_give_way_to_what_runs_need() -> None:
    fake = FakeEngine()
    with hogwild(fake, n_ctx=200) as hw:
        for letter in "abcdef":
            result = hw.generate(letter * 100, max_passes=20, finisher=False)
            assert result.reason == "budget"
            assert hw.n_free == 200
        assert hw.generate("f" * 100, max_passes=1, finisher=False).usage.cached_tokens > 0
        n_common = len("s=R;u=") + 1 + len("H:S:")
        assert hw.generate("a" * 100, max_passes=1, finisher=False).usage.cached_tokens <= n_common


def test_runs_that_share_a_prompt_fit_where_they_would_not_without() -> None:
    fake = FakeEngine()
    with hogwild(fake, n_ctx=300) as hw:
        runs = [hw.stream("p" * 200, max_passes=4, finisher=False, seed=i) for i in range(3)]
        for run in runs:
            while not isinstance(event := next(run), ev.Token):
                assert not isinstance(event, ev.RunQueued)
        for run in runs:
            run.close()
        assert hw.n_free == 300


def test_a_view_that_lacks_blocks_of_the_prompt_is_refused() -> None:
    from hogwild_local.errors import HogwildError
    from hogwild_local.workers.layouts import Interleaved

    class Forgetful(Interleaved):
        def view(self, worker: int) -> list[object]:
            return [self.shared, self.own[worker]]

    with hogwild(FakeEngine()) as hw:
        hw.generate("P", layout=Forgetful, max_passes=1)
        with pytest.raises(HogwildError, match="lacks blocks of the prompt"):
            hw.generate("P", layout=Forgetful, max_passes=1)


def tokens_of(hw: Hogwild, prompt: str, **options: object) -> list[tuple[str | None, int | None]]:
    with hw.stream(prompt, max_passes=16, sampling=GREEDY, seed=1, reply=False, **options) as run:  # type: ignore[arg-type]
        return [(event.worker, event.token) for event in run if isinstance(event, ev.Token)]


@pytest.mark.parametrize("layout", ["combined", "interleaved", "contiguous"])
@pytest.mark.parametrize("model", ["llama-bos", "gemma2", "qwen3"])
def test_a_run_on_a_kept_prompt_writes_what_it_writes_alone(
    model: str, layout: str, tiny_path: Callable[..., Path]
) -> None:
    begin = "Here is a text of some length that several questions are asked about. " * 3
    prompts = [begin + question for question in ("Why?", "Where?", "Why not?", "When was it?")]
    with Hogwild(tiny_path(model, "f32"), n_ctx=8192, n_threads=1, type_k="f32", type_v="f32") as hw:
        alone = [tokens_of(hw, prompt, layout=layout, cache_prompt=False) for prompt in prompts]
        assert [tokens_of(hw, prompt, layout=layout) for prompt in prompts] == alone
        with ThreadPoolExecutor(4) as pool:
            for _ in range(3):
                hw._admission.prefixes.drop(random.Random(layout).randrange(200))
                assert list(pool.map(lambda prompt: tokens_of(hw, prompt, layout=layout), prompts)) == alone
        assert hw.n_free == hw.n_ctx


def test_a_kept_prompt_changes_no_logits(tiny_path: Callable[..., Path]) -> None:
    """What the first pass of the workers sees is the prompt, cut over blocks: the same numbers within rounding."""
    import numpy as np

    from hogwild_local import Model, SharedCache

    with Model(tiny_path("llama", "f32"), n_threads=1) as model, SharedCache(
        model, n_ctx=512, type_k="f32", type_v="f32"
    ) as cache:  # fmt: skip
        tokens = [token % model.n_vocab for token in range(3, 120)]
        whole = cache.block()
        wanted = cache.decode([([whole], tokens)])
        tree = Prefixes()
        for n in (100, 40, 70):
            prefix = tree.hold(tokens[:n])
            prefix.reach(tokens[:n])
            if (at := prefix.n_tokens) < n:
                block = cache.block("prompt")
                cache.decode([([*prefix.blocks, block], tokens[at:n])])
                prefix.add(block, tokens[:n])
            own = cache.block()
            logits = cache.decode([([*prefix.blocks, own], tokens[n:])])
            assert np.abs(logits - wanted).max() <= 1e-3
            own.free()
            prefix.release()
        assert tree.n_splits == 2
        assert tree.n_cells == 100


def test_every_layout_begins_with_the_history() -> None:
    from hogwild_local.workers.layouts import LAYOUTS

    class Before:
        blocks = [FakeBlock(FakeCache(FakeModel()), "prompt")]  # noqa: RUF012

        def recall(self, *_: object) -> None: ...

        keep = recall

    for kind in LAYOUTS.values():
        layout: Layout = kind()
        layout.open(FakeCache(FakeModel()), 2, b"p", b"h", b"s", Before())
        layout.check()
        for view in (layout.view(0), layout.closing_view(layout.own[0])):
            assert view[:2] == [Before.blocks[0], layout.shared]
