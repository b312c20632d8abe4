"""Runs in coroutines: the event loop waits for nothing, a cancelled task ends its run, and nobody else notices."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import TINY_STYLE, FakeCache, FakeEngine, FakeModel

from hogwild_local import Hogwild, Result, SamplingParams
from hogwild_local import events as ev
from hogwild_local.errors import Closed, InvalidArgument
from hogwild_local.workers import asynchronous

GREEDY = SamplingParams(temperature=0.0)
WAIT_S = 20.0


def hogwild(fake: FakeEngine, **options: object) -> Hogwild:
    return Hogwild("m.gguf", prompts=TINY_STYLE, engine=fake.engine, **options)  # type: ignore[arg-type]


def within_time(coroutine: object) -> object:
    return asyncio.run(asyncio.wait_for(coroutine, WAIT_S))  # type: ignore[arg-type]


def test_a_coroutine_gets_the_events_of_a_loop() -> None:
    async def events(hw: Hogwild) -> list[ev.Event]:
        return [event async for event in hw.stream("P", max_passes=9, seed=1, date="2026-01-01")]

    fake = FakeEngine("A.\n\nb", "cd \\boxed{4}")
    with hogwild(fake) as hw:
        wanted = list(hw.stream("P", max_passes=9, seed=1, date="2026-01-01", cache_prompt=False))
        fake.again()
        given = within_time(events(hw))
        assert fake.n_open == 0
    assert [event for event in given if not isinstance(event, ev.PassEnded | ev.RunEnded)] == [  # type: ignore[attr-defined]
        event for event in wanted if not isinstance(event, ev.PassEnded | ev.RunEnded)
    ]


def test_agenerate_is_generate() -> None:
    fake = FakeEngine("A.\n\nb", "cd")
    with hogwild(fake) as hw:
        wanted = hw.generate("P", max_passes=5, seed=1)
        fake.again()
        given = within_time(hw.agenerate("P", max_passes=5, seed=1))
    assert isinstance(given, Result)
    assert (given.texts, given.history, given.answer) == (wanted.texts, wanted.history, wanted.answer)


def test_the_event_loop_goes_on_while_a_pass_runs() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def stop(cache: FakeCache) -> None:
        inside.set()
        assert go_on.wait(WAIT_S)

    async def both(hw: Hogwild) -> Result:
        task = asyncio.create_task(hw.agenerate("P", max_passes=2))
        while not inside.is_set():
            await asyncio.sleep(0.001)
        for _ in range(100):  # it would stand still here
            await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        return await task

    fake = FakeEngine()
    fake.on_decode = stop
    with hogwild(fake) as hw:
        assert isinstance(within_time(both(hw)), Result)


def test_the_event_loop_computes_nothing() -> None:
    class Model(FakeModel):
        def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            return super().tokenize(text, add_special, parse_special)

    with hogwild(FakeEngine(model=Model())) as hw:
        assert isinstance(within_time(hw.agenerate("P", max_passes=2)), Result)


@pytest.mark.parametrize("at", [0, 1, 5, 12])
@pytest.mark.parametrize("how", ["break", "cancel", "error"])
def test_whatever_ends_the_loop_ends_the_run(how: str, at: int) -> None:
    async def leave(hw: Hogwild) -> None:
        n = 0
        async for _ in hw.stream("P", max_passes=10**6):
            if n == at:
                if how == "break":
                    return
                if how == "error":
                    raise ZeroDivisionError
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                await asyncio.sleep(WAIT_S)
            n += 1

    async def main(hw: Hogwild, fake: FakeEngine) -> None:
        task = asyncio.create_task(leave(hw))
        await asyncio.wait([task])
        assert task.cancelled() == (how == "cancel")
        if how == "error":
            assert isinstance(task.exception(), ZeroDivisionError)
        while fake.n_open:  # a generator that is left ends in a task of the event loop's
            await asyncio.sleep(0.01)

    fake = FakeEngine()
    with hogwild(fake) as hw:
        within_time(main(hw, fake))
        assert hw.n_free == hw.n_ctx


def test_a_run_that_waits_in_the_queue_is_cancelled_at_once() -> None:
    async def main(hw: Hogwild) -> None:
        first = hw.stream("P", max_passes=10**6).__aiter__()
        while not isinstance(await anext(first), ev.Token):
            pass
        second = asyncio.create_task(hw.agenerate("Q", max_passes=1))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.wait([second])
        assert second.cancelled()
        assert isinstance(await anext(first), ev.Event)
        await first.aclose()  # type: ignore[attr-defined]

    with hogwild(FakeEngine(), max_runs=1) as hw:
        within_time(main(hw))
        assert hw.n_free == hw.n_ctx


def test_what_a_run_raises_the_coroutine_raises() -> None:
    class Deaf(FakeModel):
        def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
            return super().tokenize(text.replace("W", ""), add_special, parse_special)

    with hogwild(FakeEngine(model=Deaf())) as hw:
        with pytest.raises(InvalidArgument, match="cannot read"):
            within_time(hw.agenerate("What?"))
        with pytest.raises(InvalidArgument, match="max_passes"):
            within_time(hw.agenerate("P", max_passes=0))


def test_close_ends_runs_of_coroutines() -> None:
    async def main(hw: Hogwild) -> None:
        task = asyncio.create_task(hw.agenerate("P", max_passes=10**6))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(hw.close)
        with pytest.raises(Closed):
            await task

    within_time(main(hogwild(FakeEngine())))


def test_nobody_runs_far_ahead_of_who_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asynchronous, "MOST_AHEAD", 4)

    async def main(hw: Hogwild, fake: FakeEngine) -> int:
        run = hw.stream("P", max_passes=10**6).__aiter__()
        while not isinstance(await anext(run), ev.Token):
            pass
        await asyncio.sleep(0.1)
        assert fake.cache
        n = len(fake.cache.passes)
        await run.aclose()  # type: ignore[attr-defined]
        return n

    fake = FakeEngine()
    with hogwild(fake) as hw:
        assert within_time(main(hw, fake)) < 12  # type: ignore[operator]


@pytest.fixture(scope="module")
def real(tiny_path: Callable[..., Path]) -> Iterator[Hogwild]:
    # q8_0: ggml's products of it give the same bits whatever the number of rows, so whoever shares a pass.
    options = {"n_ctx": 8192, "n_threads": 1, "type_k": "f32", "type_v": "f32", "prompts": TINY_STYLE}
    with Hogwild(tiny_path("llama", "q8_0"), **options) as made:  # type: ignore[arg-type]
        yield made


def test_fifty_tasks_half_of_them_cancelled_leave_the_others_what_they_write_alone(real: Hogwild) -> None:
    options: dict[str, Any] = {"sampling": GREEDY, "seed": 1, "cache_prompt": False}
    prompts = [f"Count from {i} on." for i in range(50)]
    alone = [real.generate(prompt, max_passes=12, **options).texts for prompt in prompts[::2]]

    async def main() -> list[object]:
        """Those that are to be cancelled would go on for ever."""
        passes = [12, 10**6] * 25
        runs = [real.agenerate(prompt, max_passes=n, **options) for prompt, n in zip(prompts, passes, strict=True)]
        tasks = [asyncio.create_task(run) for run in runs]
        chance = random.Random(1)
        for task in chance.sample(tasks[1::2], 25):
            await asyncio.sleep(chance.random() * 0.01)
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(asyncio.wait_for(main(), 120))
    assert [result.texts for result in results[::2]] == alone  # type: ignore[attr-defined]
    assert all(isinstance(result, asyncio.CancelledError) for result in results[1::2])
    assert real.n_free == real.n_ctx
