"""How likely tokens were to the model: told of each that is sampled, where it is asked for, and not otherwise."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fakes import TINY_STYLE, FakeEngine
from test_reply import STYLE

from hogwild_local import Hogwild, Model, Sampler, SamplingParams, SharedCache
from hogwild_local import events as ev
from hogwild_local.engine.views import Sampled
from hogwild_local.errors import InvalidArgument

Rows = npt.NDArray[np.float32]
TOLERANCE = 1e-5  # of float32, which both are rounded to

# All of these choose by other probabilities than the model's.
SETTINGS = [
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=2.0, seed=1),
    SamplingParams(temperature=1.0, logit_bias={5: 100.0}, seed=1),
    SamplingParams(temperature=1.0, repeat_penalty=3.0, top_k=3, seed=1),
]


def log_softmax(row: Rows) -> npt.NDArray[np.float64]:
    shifted = row.astype(np.float64) - row.max()
    wanted: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return wanted


def check(sampled: Sampled | None, row: Rows, n_top: int) -> None:
    """Against the logits of the same pass."""
    assert sampled is not None
    wanted = log_softmax(row)
    assert sampled.logprob == pytest.approx(wanted[sampled.token], abs=TOLERANCE)
    best = sorted(range(len(row)), key=lambda token: (-row[token], token))[:n_top]
    assert [token for token, _ in sampled.top] == best
    assert [logprob for _, logprob in sampled.top] == pytest.approx(wanted[best], abs=TOLERANCE)


@pytest.mark.parametrize("isolate", [False, True], ids=["here", "isolated"])
@pytest.mark.parametrize("n_top", [0, 1, 5, 20])
def test_they_are_those_of_the_models_own_distribution(
    n_top: int, isolate: bool, tiny_path: Callable[..., Path]
) -> None:
    with (
        Model(tiny_path("llama"), n_threads=1, isolate=isolate) as model,
        SharedCache(model, n_ctx=256, type_k="f32", type_v="f32") as cache,
    ):
        prompt = [3, 1, 4, 1, 5, 9]
        samplers = [Sampler(model, params) for params in SETTINGS]
        rows = cache.decode([([cache.block()], prompt) for _ in samplers])
        # Of one view among several, and of a prompt that is fed in parts.
        for sampled, row in zip(
            cache.sampled([([cache.block()], prompt) for _ in samplers], samplers, n_top), rows, strict=True
        ):
            check(sampled, row, n_top)
        long = prompt * 9
        [row] = cache.decode([([cache.block()], long)])
        [sampled] = cache.sampled([([cache.block()], long)], samplers[:1], n_top)
        check(sampled, row, n_top)


def test_each_of_several_callers_gets_its_own(tiny_path: Callable[..., Path]) -> None:
    """Their passes are merged; one of them asks for nothing."""
    wants = [3, None, 0, 7]
    with Model(tiny_path("llama"), n_threads=1) as model, SharedCache(model, n_ctx=2048) as cache:
        prompts = [[caller + 3, 7, 11] for caller in range(len(wants))]
        rows = [cache.decode([([cache.block()], prompt)])[0] for prompt in prompts]
        got: dict[int, list[Sampled | None]] = {}
        start = threading.Barrier(len(wants))

        def ask(caller: int) -> None:
            sampler = Sampler(model, SamplingParams(temperature=1.0, seed=caller))
            start.wait()
            got[caller] = [
                cache.sampled([([cache.block()], prompts[caller])], [sampler], wants[caller])[0] for _ in range(20)
            ]

        threads = [threading.Thread(target=ask, args=(caller,)) for caller in range(len(wants))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for caller, n_top in enumerate(wants):
        for sampled in got[caller]:
            if n_top is None:
                assert sampled is not None
                assert (sampled.logprob, sampled.top) == (None, ())
            else:
                assert sampled is not None
                wanted = log_softmax(rows[caller])
                # In passes of another size sums come in another order, over a cache of f16.
                assert sampled.logprob == pytest.approx(wanted[sampled.token], abs=2e-3)
                assert [logprob for _, logprob in sampled.top] == pytest.approx(np.sort(wanted)[::-1][:n_top], abs=2e-3)


def test_asking_for_more_than_there_is_changes_nothing(tiny_path: Callable[..., Path]) -> None:
    with Model(tiny_path("llama"), n_threads=1) as model, SharedCache(model, n_ctx=64) as cache:
        block, sampler = cache.block(), Sampler(model)
        for n_top in (-1, model.n_vocab + 1, 1.5):
            with pytest.raises(InvalidArgument, match="n_top"):
                cache.sampled([([block], [1])], [sampler], n_top)  # type: ignore[arg-type]
        assert len(block) == 0
        [all_of_them] = cache.sampled([([block], [1])], [sampler], model.n_vocab)
        assert all_of_them is not None
        assert sum(np.exp([logprob for _, logprob in all_of_them.top])) == pytest.approx(1.0)


def events(path: Path, **options: Any) -> list[ev.Event]:
    with Hogwild(path, n_ctx=4096, n_threads=1) as hw:
        return list(hw.stream("Go.", workers=2, max_passes=6, reply_tokens=4, seed=1, **options))


def test_a_run_tells_them_of_each_token_of_workers_and_reply_and_is_the_same_run(
    tiny_path: Callable[..., Path],
) -> None:
    told, untold = events(tiny_path("llama"), logprobs=2), events(tiny_path("llama"))

    def tokens(of: list[ev.Event]) -> list[ev.Token | ev.ReplyToken]:
        return [event for event in of if isinstance(event, ev.Token | ev.ReplyToken)]

    assert [event.token for event in tokens(told)] == [event.token for event in tokens(untold)]
    assert {type(event) for event in tokens(told)} == {ev.Token, ev.ReplyToken}
    for event in tokens(told):
        if event.token is not None:
            assert event.logprob is not None
            assert event.logprob <= event.top_logprobs[0][1] <= 0
            assert len(event.top_logprobs) == 2
            assert json.loads(event.to_json())["top_logprobs"][0] == list(event.top_logprobs[0])
    assert all(event.logprob is None and not event.top_logprobs for event in tokens(untold))
    assert not any("logprob" in event.to_json() for event in untold)


def test_where_nobody_asks_for_them_the_engine_is_not_asked() -> None:
    fake = FakeEngine("abc", "def", "so")
    with Hogwild("m.gguf", prompts=STYLE, engine=fake.engine) as hw:
        hw.generate("P", max_passes=1)
        assert fake.cache
        fake.cache.sampled = None  # type: ignore[assignment, method-assign]
        fake.again()
        hw.generate("P", max_passes=1)
        fake.again()
        with pytest.raises(TypeError):
            hw.generate("P", max_passes=1, logprobs=0)


def test_the_finishers_tokens_have_them_too() -> None:
    fake = FakeEngine("abc", "def", finisher="7}")
    with Hogwild("m.gguf", prompts=TINY_STYLE, engine=fake.engine) as hw:
        told = list(hw.stream("P", max_passes=2, logprobs=1))
    said = [event for event in told if isinstance(event, ev.Token) and event.worker is None]
    assert [(event.logprob, list(event.top_logprobs)) for event in said] == [(-55.0, [(0, 0.0)]), (-125.0, [(0, 0.0)])]


@pytest.mark.parametrize("logprobs", [-1, 21, "2"])
def test_only_0_to_20_can_be_asked_for(logprobs: object) -> None:
    with (
        Hogwild("m.gguf", prompts=STYLE, engine=FakeEngine().engine) as hw,
        pytest.raises(InvalidArgument, match="logprobs"),
    ):
        hw.stream("P", logprobs=logprobs)  # type: ignore[arg-type]
