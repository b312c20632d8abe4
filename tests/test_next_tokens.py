"""A pass and its sampling as one call: what decode() and each sampler's sample() give, in this process and in one of
its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hogwild_local import Hogwild, Model, Sampler, SamplingParams, SharedCache
from hogwild_local.engine.process import EngineProcess
from hogwild_local.errors import Closed, InvalidArgument
from hogwild_local.events import PromptProgress, RunEnded

PathOf = Callable[..., Path]


@dataclass
class Made:
    """A model with a cache of 64 cells and two of its blocks, and how its samplers are made."""

    model: Any
    cache: Any
    a: Any
    b: Any

    def sampler(self, **params: Any) -> Any:
        return Sampler(self.model, SamplingParams(**params))

    @property
    def lengths(self) -> tuple[int, int, int]:
        return len(self.a), len(self.b), self.cache.n_free


@pytest.fixture(params=["this process", "a process of its own"])
def made(request: pytest.FixtureRequest, tiny_path: PathOf) -> Iterator[Made]:
    isolate = request.param != "this process"
    with Model(tiny_path("llama"), n_threads=1, isolate=isolate) as model, SharedCache(model, n_ctx=64) as cache:
        yield Made(model, cache, cache.block("a"), cache.block("b"))


def test_the_tokens_are_those_of_decode_and_sample(made: Made) -> None:
    a, b = made.a, made.b
    firsts, seconds = ([made.sampler(seed=seed, repeat_penalty=1.3) for seed in (3, 4)] for _ in range(2))
    wanted, got = [], []
    for token in range(6):
        rows = made.cache.decode([([b, a], [token]), ([a, b], [7, token])])
        wanted.append([sampler.sample(rows[i]) for i, sampler in enumerate(firsts)])
    assert made.lengths == (6, 12, 46)
    a.clear()
    b.clear()
    for token in range(6):
        got.append(made.cache.next_tokens([([b, a], [token]), ([a, b], [7, token])], seconds))
        assert made.lengths == (token + 1, 2 * (token + 1), 64 - 3 * (token + 1))
    assert got == wanted


def test_a_view_without_a_sampler_is_fed_and_has_no_token(made: Made) -> None:
    greedy = made.sampler(temperature=0)
    none, token = made.cache.next_tokens([([made.a], [1, 2]), ([made.a, made.b], [3])], [None, greedy])
    assert none is None
    made.a.clear()
    made.b.clear()
    assert token == made.cache.decode([([made.a], [1, 2]), ([made.a, made.b], [3])])[1].argmax()


def test_a_wrong_sampler_is_refused_before_anything_is_fed(made: Made) -> None:
    views = [([made.a], [1]), ([made.a, made.b], [2])]
    for samplers in ([], [None], [None] * 3):
        with pytest.raises(InvalidArgument, match="of one length"):
            made.cache.next_tokens(views, samplers)
    with pytest.raises(InvalidArgument, match="no tokens"):
        made.cache.next_tokens([([made.a], [])], [None])
    assert made.lengths == (0, 0, 64)


def test_a_closed_sampler_is_named(made: Made) -> None:
    sampler = made.sampler()
    sampler.close()
    with pytest.raises(Closed, match="sampler was closed"):
        made.cache.next_tokens([([made.a], [1])], [sampler])


def test_where_a_sampler_can_choose_nothing_the_views_are_fed(made: Made) -> None:
    nothing = made.sampler(logit_bias=dict.fromkeys(range(made.model.n_vocab), float("-inf")))
    with pytest.raises(InvalidArgument, match="none is allowed"):
        made.cache.next_tokens([([made.a], [1, 2]), ([made.a, made.b], [3])], [made.sampler(), nothing])
    assert made.lengths == (2, 1, 61)
    assert made.cache.next_tokens([([made.a], [1])], [made.sampler()])[0] is not None


def test_a_run_in_a_process_of_its_own_is_one_message_a_pass(
    tiny_path: PathOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: Counter[str] = Counter()
    call = EngineProcess.call

    def count(self: EngineProcess, what: str, number: int, method: str, *arguments: Any, **options: Any) -> Any:
        sent[method] += 1
        return call(self, what, number, method, *arguments, **options)

    with Hogwild(tiny_path("qwen3"), n_ctx=4096, n_threads=1, isolate=True) as hogwild:
        monkeypatch.setattr(EngineProcess, "call", count)
        run = hogwild.stream("Count.", workers=4, seed=5, max_passes=20, reply=False, finisher=False)
        seen = list(run)
    n_chunks = sum(isinstance(event, PromptProgress) for event in seen) - 1  # the first one is before any
    last = seen[-1]
    assert isinstance(last, RunEnded)
    assert last.timings.passes == 20
    assert sent["decode"] == n_chunks + 20
    assert last.usage.completion_tokens == 80
    assert {"sample", "blocks", "number"}.isdisjoint(sent)


def test_a_sampler_of_another_process_is_refused(tiny_path: PathOf) -> None:
    path = tiny_path("llama")
    with (
        Model(path, n_threads=1, isolate=True) as one,
        Model(path, n_threads=1, isolate=True) as other,
        Model(path, n_threads=1) as here,
        SharedCache(one, n_ctx=64) as cache,
    ):
        block = cache.block()
        for sampler, fault in (
            (Sampler(other), "another model"),
            (Sampler(here), "another model"),
            (3, "no.* sampler"),
        ):
            with pytest.raises(InvalidArgument, match=fault):
                cache.next_tokens([([block], [1, 2])], [sampler])  # type: ignore[list-item]
        assert len(block) == 0
