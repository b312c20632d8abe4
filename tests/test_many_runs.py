"""Several runs of one Hogwild at once: each writes what it writes alone, and whatever happens to some of them, nothing
of the others is lost, no cell leaks, and nobody waits for ever."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hogwild_local import Hogwild, SamplingParams
from hogwild_local import events as ev
from hogwild_local.errors import CacheFull, Closed

GREEDY = SamplingParams(temperature=0.0)
PROMPTS = [f"Count from {i} on, and say why." for i in range(8)]
SCHEDULES = 1000
SEATS = 8
PATIENCE_S = 60.0


@pytest.fixture(scope="module", params=[False, True], ids=["here", "isolated"])
def hogwild(request: pytest.FixtureRequest, tiny_path: Callable[..., Path]) -> Iterator[Hogwild]:
    """The engine in this process, and in one of its own."""
    # q8_0: ggml's products of it give the same bits whatever the number of rows, so whoever shares a pass.
    options = {"n_ctx": 4096, "n_threads": 1, "type_k": "f32", "type_v": "f32", "isolate": request.param}
    with Hogwild(tiny_path("llama-bos", "q8_0"), **options) as made:
        yield made


def tokens_of(hogwild: Hogwild, prompt: str, workers: int) -> list[tuple[str | None, int | None]]:
    with hogwild.stream(prompt, workers=workers, max_passes=24, sampling=GREEDY, seed=1, reply=False) as run:
        return [(event.worker, event.token) for event in run if isinstance(event, ev.Token)]


@pytest.mark.parametrize(("n_runs", "workers"), [(2, 2), (8, 1), (3, 3)])
def test_runs_at_once_write_what_each_writes_alone(hogwild: Hogwild, n_runs: int, workers: int) -> None:
    alone = [tokens_of(hogwild, prompt, workers) for prompt in PROMPTS[:n_runs]]
    with ThreadPoolExecutor(n_runs) as pool:
        at_once = list(pool.map(lambda prompt: tokens_of(hogwild, prompt, workers), PROMPTS[:n_runs]))
    assert at_once == alone
    assert all(len(tokens) >= 24 for tokens in alone)


def test_runs_of_an_engine_in_a_process_of_its_own_share_their_passes(tiny_path: Callable[..., Path]) -> None:
    model = tiny_path("llama-bos", "q8_0")
    with Hogwild(model, n_ctx=4096, n_threads=1, type_k="f32", type_v="f32", isolate=True) as there:
        alone = [tokens_of(there, prompt, 1) for prompt in PROMPTS[:4]]
        sizes: list[int] = []
        merger = there._cache._merger
        decode = merger._decode
        merger._decode = lambda views: sizes.append(len(views)) or decode(views)
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda prompt: tokens_of(there, prompt, 1), PROMPTS[:4])) == alone
        assert max(sizes) > 1


def one_schedule(hogwild: Hogwild, chance: random.Random) -> str:
    """A run, and what becomes of it: it ends by itself, or somebody stops a worker, cancels, closes or drops it at a
    random moment. Returns its last event's name, or how it was left."""
    workers = chance.randint(1, 3)
    passes = chance.randint(1, 12)
    fate = chance.choice(["end", "stop", "cancel", "close", "drop", "other thread"])
    at = chance.randint(0, 30)
    try:
        options = {"workers": workers, "max_passes": passes, "seed": chance.getrandbits(32), "reply_tokens": 8}
        run = hogwild.stream(chance.choice(PROMPTS), **options)
        last = "nothing"
        for n, event in enumerate(run):
            last = event.kind()
            if n != at or fate == "end":
                continue
            match fate:
                case "stop":
                    run.stop(chance.choice(run.workers))
                case "cancel":
                    run.cancel()
                case "close":
                    run.close()
                    return "closed"
                case "drop":
                    return "dropped"
                case "other thread":
                    threading.Thread(target=run.cancel).start()
        return last
    except CacheFull:
        return "full"


@pytest.mark.parametrize("seed", range(4))
def test_random_schedules_of_eight_threads_lose_nothing(hogwild: Hogwild, seed: int) -> None:
    free = hogwild.n_free
    left: list[str] = []
    failures: list[BaseException] = []

    def seat(number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        try:
            for _ in range(SCHEDULES // SEATS // 4):
                left.append(one_schedule(hogwild, chance))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=seat, args=(number,), daemon=True) for number in range(SEATS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():  # however slow the machine: what counts is that some run ends
            n_left = len(left)
            thread.join(PATIENCE_S)
            assert not thread.is_alive() or len(left) > n_left, "a run waits for ever"
    assert not failures, failures[0]
    assert len(left) == SCHEDULES // 4 // SEATS * SEATS
    assert set(left) <= {"run_ended", "closed", "dropped", "full"}
    assert left.count("run_ended") > len(left) // 4
    assert hogwild.n_free == free


def test_closing_the_hogwild_ends_all_runs_of_all_threads(tiny_path: Callable[..., Path]) -> None:
    made = Hogwild(tiny_path("llama-bos", "q8_0"), n_ctx=4096, n_threads=1)
    started = threading.Barrier(SEATS + 1)

    def endless(index: int) -> str:
        try:
            for n, event in enumerate(made.stream(PROMPTS[index], workers=1, max_passes=100_000)):
                if n == 5:
                    started.wait(PATIENCE_S)
                last = event.kind()
            return last
        except Closed:
            return "closed"

    with ThreadPoolExecutor(SEATS) as pool:
        jobs = [pool.submit(endless, index) for index in range(SEATS)]
        started.wait(PATIENCE_S)
        made.close()
        assert all(isinstance(job.result(PATIENCE_S), str) for job in jobs)
