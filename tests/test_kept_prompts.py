"""Runs on kept prompts: what is computed once is computed once, whoever asks, also at the same moment, and what workers
see of it is what they see of a prompt of their own."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes import TINY_STYLE, FakeBlock, FakeCache, FakeEngine, FakeModel

from hogwild_local import Hogwild, SamplingParams
from hogwild_local import events as ev
from hogwild_local.workers.layouts import Layout
from hogwild_local.workers.prefixes import Prefixes

GREEDY = SamplingParams(temperature=0.0)


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


def n_fed(fake: FakeEngine, token: str) -> int:
    """How often a token of the prompt was fed."""
    return sum(feed.tokens.count(ord(token)) for feeds in fake.cache.passes for feed in feeds)  # type: ignore[union-attr]


def until_inside(hw: Hogwild, n: int) -> None:
    for _ in range(1000):
        if len(hw._admission._inside) == n:
            return
        time.sleep(0.005)
    raise AssertionError("the other run did not begin")


def test_runs_that_begin_together_compute_a_prompt_once() -> None:
    fake = FakeEngine()
    with hogwild(fake, n_batch=40) as hw, ThreadPoolExecutor(3) as pool:
        begun = threading.Barrier(2)

        def first_pass(cache: object) -> None:
            fake.cache.on_decode = lambda cache: None  # type: ignore[union-attr]
            begun.wait(10)

        fake.cache.on_decode = first_pass  # type: ignore[union-attr]
        prompts = ["#" * 200 + end for end in ("", "Why?", "y" * 70)]
        first = pool.submit(hw.generate, prompts[0], max_passes=2)
        until_inside(hw, 1)
        others = [pool.submit(hw.generate, prompt, max_passes=2) for prompt in prompts[1:]]
        until_inside(hw, 3)
        begun.wait(10)
        usages = [run.result(10).usage for run in (first, *others)]
        assert n_fed(fake, "#") == 200
        assert [usage.cached_tokens >= 200 for usage in usages] == [False, True, True]
        assert hw.n_free == hw.n_ctx


@pytest.mark.parametrize("how", ["idle", "cancel", "close"])
def test_nobody_waits_for_a_prompt_that_nobody_goes_on_with(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hogwild_local.workers.admission.IDLE_S", 0.1 if how == "idle" else 1000.0)
    fake = FakeEngine()
    with hogwild(fake, n_batch=40) as hw, ThreadPoolExecutor(1) as pool:
        first = hw.stream("#" * 200, max_passes=2)
        while not (isinstance(event := next(first), ev.PromptProgress) and event.done):
            pass  # and then no more
        second = hw.stream("#" * 200, max_passes=2)
        ended = pool.submit(list, second)
        until_inside(hw, 2)
        if how != "idle":
            assert not ended.done()
            getattr(second, how)()
        events = ended.result(10)
        if how != "close":
            assert isinstance(events[-1], ev.RunEnded)
            assert events[-1].reason == ("budget" if how == "idle" else "cancelled")
        first.close()
        assert hw.n_free == hw.n_ctx


def test_a_prompt_that_is_left_in_the_middle_is_gone_on_with_by_who_waited() -> None:
    fake = FakeEngine()
    with hogwild(fake, n_batch=40) as hw, ThreadPoolExecutor(1) as pool:
        first = hw.stream("#" * 200, max_passes=2)
        while not (isinstance(event := next(first), ev.PromptProgress) and event.done >= 120):
            pass
        second = pool.submit(hw.generate, "#" * 200, max_passes=2)
        until_inside(hw, 2)
        first.close()
        assert second.result(10).usage.cached_tokens >= 119
        assert n_fed(fake, "#") <= 201


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
