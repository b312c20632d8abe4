"""Several runs of one Hogwild: each writes what it writes alone, counts its own cells, and waits its turn."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from fakes import TINY_STYLE, FakeEngine
from guessing import GuessingEngine
from runs import finished, hogwild, of, seen_by_finisher, texts

from hogwild_local import events as ev
from hogwild_local.errors import Busy, CacheFull, Closed, HogwildError
from hogwild_local.hogwild import Hogwild
from hogwild_local.prompts.tables import Reply
from hogwild_local.workers.run import Run

PROMPT_CELLS = 14 + 14  # of "P" in TINY_STYLE's combined layout, and of two introductions


@contextmanager
def elsewhere(work: Callable[[], object]) -> Iterator[list[BaseException]]:
    """Does work in another thread, which has ended when the block is left. Yields what it raised."""
    raised: list[BaseException] = []

    def do() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=do)
    thread.start()
    yield raised
    thread.join(10)
    assert not thread.is_alive()


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def start(hw: Hogwild, prompt: str = "P", **options: object) -> Run:
    return hw.stream(prompt, **{"max_passes": 12, "finisher": False, "seed": 1, **options})  # type: ignore[arg-type]


def until_token(run: Run) -> None:
    while not isinstance(next(run), ev.Token):
        pass


# -- at the same time --


def test_runs_in_turn_in_one_thread_write_what_they_write_alone() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        alone = [texts(list(start(hw, workers=n, seed=n))) for n in (2, 3)]
        runs = [start(hw, workers=n, seed=n) for n in (2, 3)]
        events: list[list[ev.Event]] = [[], []]
        while not all(run.done for run in runs):
            for run, told in zip(runs, events, strict=True):
                told += [event for event in [next(run, None)] if event]
        assert [texts(told) for told in events] == alone
        assert fake.n_open == 0


def test_runs_in_threads_of_their_own_write_what_they_write_alone() -> None:
    fake = GuessingEngine()
    with hogwild(fake, n_ctx=8192) as hw:
        options = {"max_passes": 60, "finisher": False}
        alone = [hw.generate("P", seed=seed, workers=1 + seed % 4, **options) for seed in range(16)]
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(hw.generate, "P", seed=seed, workers=1 + seed % 4, **options) for seed in range(16)]
            together = [future.result(30) for future in futures]
        for one, same in zip(alone, together, strict=True):
            assert (same.texts, same.answer, same.history, same.reason) == (
                one.texts,
                one.answer,
                one.history,
                one.reason,
            )
        assert fake.n_open == 0


# -- cells --


def test_context_left_is_what_a_run_can_have_beside_the_others_and_their_finishers() -> None:
    fake = FakeEngine()
    n_closing = len("=\\boxed{") + 16 + 2
    with hogwild(fake, n_ctx=200) as hw:
        other = start(hw, finisher=True, cache_prompt=False)
        until_token(other)
        run = start(hw, cache_prompt=False)
        lefts = [event.usage.context_left for event in of(list(run), ev.PassEnded)]
        assert lefts[0] == 200 - PROMPT_CELLS - n_closing - PROMPT_CELLS
        assert lefts == list(range(lefts[0], lefts[0] - 2 * 12, -2))


def test_a_full_cache_stops_a_worker_of_the_run_that_grew() -> None:
    fake = FakeEngine(finisher="5}")
    with hogwild(fake, n_ctx=150) as hw:
        patient = start(hw, finisher=True, max_passes=3)
        until_token(patient)
        greedy = list(start(hw, max_passes=500))
        assert set(finished(greedy).values()) == {"cache_full"}
        rest = list(patient)
        assert finished(rest) == {"Alice": "budget", "Bob": "budget"}
        assert of(rest, ev.Answer) == [ev.Answer("5", None)]
        assert len(seen_by_finisher(fake)) > 0


def test_where_so_many_runs_may_go_on_each_has_its_share_whatever_the_others_take() -> None:
    with hogwild(FakeEngine(), n_ctx=200, max_runs=2) as hw:
        alone = texts(list(start(hw, max_passes=30)))
        patient = start(hw, max_passes=30)
        events = [next(patient), next(patient)]
        greedy = start(hw, "another", max_passes=500)
        while not (isinstance(event := next(greedy), ev.PassEnded) and event.usage.context_left < 10):
            pass
        events += list(patient)
        assert set(finished(events).values()) == {"budget"}
        assert texts(events) == alone


def test_room_for_a_reply_is_a_part_of_a_runs_share_and_not_of_all() -> None:
    style = replace(TINY_STYLE, reply=Reply("{{ closing or '~' }}"))
    with Hogwild("m.gguf", prompts=style, engine=FakeEngine().engine, n_ctx=4000, max_runs=4) as hw:
        others = [start(hw, prompt) for prompt in "ABC"]
        for other in others:
            until_token(other)
        told = list(start(hw, max_passes=None, reply_tokens=1000))
        assert set(finished(told).values()) == {"budget"}
        assert len(texts(told)["Alice"]) > 200


def test_what_a_run_gives_back_another_can_have() -> None:
    fake = FakeEngine()
    with hogwild(fake, n_ctx=2 * PROMPT_CELLS + 20) as hw:
        first = start(hw, max_passes=100)
        until_token(first)
        second = start(hw, max_passes=12)
        until_token(second)
        first.close()
        assert set(finished(list(second)).values()) == {"budget"}  # 24 cells more


def test_a_prompt_that_can_never_fit_is_refused_at_once() -> None:
    with hogwild(FakeEngine(), n_ctx=60) as hw:
        other = start(hw)
        until_token(other)
        with pytest.raises(CacheFull):
            next(start(hw, "P" * 60))
        assert set(finished(list(other)).values()) == {"budget"}


# -- the queue --


def test_a_prompt_that_fits_once_others_have_ended_waits_for_that() -> None:
    with hogwild(FakeEngine(), n_ctx=2 * PROMPT_CELLS - 1) as hw:
        first, second = start(hw, cache_prompt=False), start(hw, cache_prompt=False)
        until_token(first)
        assert next(second) == ev.RunQueued(1)
        events: list[ev.Event] = []
        with elsewhere(lambda: events.extend(second)):
            time.sleep(0.01)
            assert events == []
            list(first)
        assert isinstance(events[0], ev.RunStarted)
        assert isinstance(events[-1], ev.RunEnded)


def test_runs_beyond_max_runs_begin_in_the_order_of_arrival() -> None:
    fake = FakeEngine()
    with hogwild(fake, max_runs=2) as hw:
        runs = [start(hw) for _ in range(5)]
        first = [next(run) for run in runs]
        assert [type(event) for event in first[:2]] == [ev.RunStarted] * 2
        assert first[2:] == [ev.RunQueued(1), ev.RunQueued(2), ev.RunQueued(3)]
        runs[1].close()
        # Runs that have begun need not be iterated for others to move up.
        assert [next(run) for run in runs[3:]] == [ev.RunQueued(1), ev.RunQueued(2)]
        assert isinstance(next(runs[2]), ev.RunStarted)


def test_nobody_overtakes_a_run_that_waits_for_room() -> None:
    with hogwild(FakeEngine(), n_ctx=100) as hw:
        first, long, short = start(hw), start(hw, "P" * 60), start(hw)
        until_token(first)
        assert next(long) == ev.RunQueued(1)
        assert next(short) == ev.RunQueued(2)


@pytest.mark.parametrize("end", ["cancel", "close", "drop"])
def test_a_queued_run_leaves_the_queue_at_once(end: str) -> None:
    with hogwild(FakeEngine(), max_runs=1) as hw:
        first, second, third = (start(hw) for _ in range(3))
        until_token(first)
        assert [next(second), next(third)] == [ev.RunQueued(1), ev.RunQueued(2)]
        gc.disable()
        try:
            if end == "drop":
                del second
            else:
                getattr(second, end)()
        finally:
            gc.enable()
        assert next(third) == ev.RunQueued(1)
        if end == "cancel":
            assert [(type(event), event.reason) for event in second] == [  # type: ignore[attr-defined]
                (ev.WorkerFinished, "cancelled"),
                (ev.WorkerFinished, "cancelled"),
                (ev.RunEnded, "cancelled"),
            ]


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_a_run_that_another_thread_waits_for_in_the_queue_can_be_ended(end: str) -> None:
    with hogwild(FakeEngine(), max_runs=1) as hw:
        first, second = start(hw), start(hw)
        until_token(first)
        events: list[ev.Event] = []
        with elsewhere(lambda: events.extend(second)):
            wait_until(lambda: len(events) == 1)
            getattr(second, end)()
        assert events[0] == ev.RunQueued(1)
        assert (events[-1] == events[0]) == (end == "close")
        assert set(finished(list(first)).values()) == {"budget"}


def test_a_run_that_only_its_own_thread_could_let_in_raises_busy_and_waits_on() -> None:
    with hogwild(FakeEngine(), max_runs=1) as hw:
        first, second = start(hw, cache_prompt=False), start(hw, cache_prompt=False)
        until_token(first)
        assert next(second) == ev.RunQueued(1)
        for _ in range(2):
            with pytest.raises(Busy):
                next(second)
        with pytest.raises(Busy):
            hw.generate("P")
        assert set(finished(list(first)).values()) == {"budget"}
        assert set(finished(list(second)).values()) == {"budget"}


def test_threads_that_wait_for_each_others_runs_raise_busy() -> None:
    with hogwild(FakeEngine(), max_runs=2) as hw:
        holding = threading.Barrier(2)

        def hold_one_and_ask_for_another() -> None:
            with start(hw) as held:
                until_token(held)
                holding.wait(5)
                hw.generate("P", max_passes=2)

        with elsewhere(hold_one_and_ask_for_another) as there, elsewhere(hold_one_and_ask_for_another) as here:
            pass
        # One of them has to give up, which lets the other in.
        assert [type(error) for error in there + here] == [Busy]


def test_close_ends_all_runs_those_that_wait_too() -> None:
    fake = FakeEngine()
    fake.on_decode = lambda cache: time.sleep(0.001)  # else they fill the cache before they are closed
    hw = hogwild(fake, max_runs=2)
    runs = [start(hw, max_passes=10**6) for _ in range(4)]
    raised: list[BaseException] = []

    def consume(run: Run) -> None:
        try:
            assert not any(isinstance(event, ev.RunEnded) for event in run)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=consume, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    wait_until(lambda: fake.cache is not None and len(fake.cache.passes) > 20)
    hw.close()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert raised == []
    assert all(run.done for run in runs)
    assert fake.n_open == 0
    assert fake.model.closed


# -- anything at any time --


@pytest.mark.parametrize("seed", range(60))
def test_any_schedule_of_starts_stops_cancels_and_closes_loses_and_leaks_nothing(seed: int) -> None:
    rng = random.Random(seed)
    fake = GuessingEngine()
    n_ctx = rng.choice((60, 120, 300, 4096))
    hw = Hogwild("m.gguf", prompts=TINY_STYLE, engine=fake.engine, n_ctx=n_ctx, max_runs=rng.choice((None, 1, 3)))
    faults: list[BaseException] = []
    runs: list[Run] = []
    hw_closed = threading.Event()

    def work(rng: random.Random) -> None:
        for _ in range(3):
            run = start(hw, workers=rng.randint(1, 3), seed=rng.randrange(99), max_passes=20)
            runs.append(run)
            end, at = rng.choice(("", "", "stop", "cancel", "close", "break")), rng.randrange(40)
            last: ev.Event | None = None
            for i, event in enumerate(run):
                last = event
                if i == at and end == "break":
                    break
                if i == at and end:
                    getattr(run, end)(*([run.workers[0]] if end == "stop" else []))
            assert run.done
            if end in ("", "stop", "cancel") and not hw_closed.is_set():
                assert isinstance(last, ev.RunEnded)
            other = rng.choice(runs)  # perhaps another thread's
            if rng.random() < 0.2:
                other.cancel()

    def consume(rng: random.Random) -> None:
        try:
            work(rng)
        except HogwildError as error:
            if not isinstance(error, Closed):
                faults.append(error)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=consume, args=(random.Random(f"{seed}/{i}"),)) for i in range(8)]
    for thread in threads:
        thread.start()
    if seed % 3 == 0:
        time.sleep(0.002)
        hw_closed.set()
        hw.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert faults == []
    if not hw_closed.is_set():
        assert fake.cache
        assert hw.n_free == n_ctx
        assert set(finished(list(start(hw))).values()) <= {"budget", "answer", "eos", "cache_full"}
    hw.close()
    assert fake.n_open == 0
