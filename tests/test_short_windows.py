"""What a run does where layers with a sliding window have no room: less is fed in a pass, then somebody ends."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeCache, FakeEngine
from runs import finished, hogwild, of, run, seen_by_finisher, texts

from hogwild_local import Hogwild, SamplingParams, SharedCache
from hogwild_local import events as ev
from hogwild_local.errors import CacheFull
from hogwild_local.workers.run import Run

WINDOW = 24  # of the tiny gemma2, in every other layer
LONG = {"max_passes": 150, "finisher": False, "reply": False, "seed": 1}


@contextlib.contextmanager
def windowed(path: Path, n_windows: int, **options: Any) -> Iterator[Hogwild]:
    with Hogwild(path, n_ctx=8192, n_threads=1, n_batch=64, n_windows=n_windows, max_runs=9, **options) as hw:
        yield hw
        held = hw._admission.prefixes.n_held
        assert (hw.n_free, held) == (hw.n_ctx, 0), "something is still held"


def counted(hw: Hogwild, run: Run) -> list[ev.Event]:
    """All events of the only run; after each pass it has counted the cells that the cache has."""
    events = []
    for event in run:
        events.append(event)
        if isinstance(event, ev.PassEnded):
            used = hw._cache.n_ctx - hw._cache.n_free
            assert run._loop.place.used + hw._admission.prefixes.n_cells == used
    return events


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("layout", ["combined", "interleaved", "contiguous"])
def test_workers_for_whom_there_are_no_windows_end_and_the_others_go_on(
    tiny_path: Callable[..., Path], layout: str, isolate: bool
) -> None:
    with windowed(tiny_path("gemma2"), 3, isolate=isolate) as hw:
        events = counted(hw, hw.stream("A prompt. ", workers=6, layout=layout, **LONG))
        reasons = finished(events)
        assert reasons["Frank"] == "cache_full", "the last one first"
        assert reasons["Alice"] in ("eos", "budget")
        n_full = list(reasons.values()).count("cache_full")
        assert 1 <= n_full < 6
        assert {event.worker for event in of(events, ev.StepEnded) if event.reason == "cache_full"} <= set(reasons)
        n_of = {name: sum(token.worker == name for token in of(events, ev.Token)) for name in reasons}
        assert n_of["Alice"] > n_of["Frank"]


def test_a_run_may_lose_all_its_workers(tiny_path: Callable[..., Path]) -> None:
    with windowed(tiny_path("gemma2"), 1) as hw:
        events = counted(hw, hw.stream("A prompt. ", workers=3, **LONG))
        assert set(finished(events).values()) == {"cache_full"}
        assert events[-1].reason == "cache_full"  # type: ignore[attr-defined]
        again = hw.generate("A prompt. ", workers=1, layout="interleaved", **LONG)
        assert again.reason in ("eos", "budget")


@pytest.mark.parametrize("isolate", [False, True])
def test_where_several_runs_have_too_few_windows_workers_end_and_no_run_fails(
    tiny_path: Callable[..., Path], isolate: bool
) -> None:
    with windowed(tiny_path("gemma2"), 7, isolate=isolate) as hw, ThreadPoolExecutor(4) as pool:

        def reasons(seed: int) -> list[str]:
            run = hw.stream("P", workers=3, layout="interleaved", **{**LONG, "seed": seed}, sampling=endless(hw))
            return list(finished(list(run)).values())

        ended = list(pool.map(reasons, range(4)))
    assert all(len(of_run) == 3 for of_run in ended)
    assert any("cache_full" in of_run for of_run in ended), "windows were never short"
    assert any(reason != "cache_full" for of_run in ended for reason in of_run), "nobody went on"


def test_what_the_user_says_is_refused_before_a_worker_ends(tiny_path: Callable[..., Path]) -> None:
    with windowed(tiny_path("gemma2"), 4) as hw:
        run = hw.stream("A prompt. ", workers=3, layout="interleaved", **LONG, sampling=endless(hw))
        events, others = [], []
        for event in run:
            events.append(event)
            if isinstance(event, ev.PassEnded) and event.n_pass == 20:
                others = taken(hw._cache)
                run.say("A word. " * 30)
        refused = [event for event in events if getattr(event, "reason", "") == "cache_full"]
        assert isinstance(refused[0], ev.NotSaid)
        assert len(of(events, ev.NotSaid)) == 1
        for block in others:
            block.free()


def endless(hw: Hogwild) -> SamplingParams:
    """Nobody says that no more comes."""
    assert hw.model.eos is not None
    return SamplingParams(logit_bias={hw.model.eos: -1e9})


def taken(cache: SharedCache) -> list[Any]:
    """Blocks of others, which leave room for no token in layers with a window."""
    blocks = []
    for n in (WINDOW, 1):
        with contextlib.suppress(CacheFull):
            while True:
                blocks.append(cache.block())
                cache.decode([([blocks[-1]], [1] * n)])
    return blocks


def test_a_prompt_for_which_there_are_no_windows_is_an_error_and_nothing_is_held(
    tiny_path: Callable[..., Path],
) -> None:
    with windowed(tiny_path("gemma2"), 4) as hw:
        others = taken(hw._cache)
        with pytest.raises(CacheFull, match="n_windows"):
            hw.generate("A prompt. " * 20, workers=2, **LONG)
        for block in others:
            block.free()
        assert hw._cache.n_free == hw.n_ctx
        assert hw.generate("A prompt. " * 20, workers=1, layout="interleaved", **LONG).reason in ("eos", "budget")


def test_a_step_that_cannot_be_cut_off_stays(tiny_path: Callable[..., Path]) -> None:
    """Of the contiguous layout, where a worker's steps are one block."""
    with windowed(tiny_path("gemma2"), 3) as hw:
        how: dict[str, Any] = {**LONG, "max_passes": 500, "sampling": endless(hw)}
        run = hw.stream("A prompt. ", workers=2, layout="contiguous", **how)
        events, others, n_before = [], [], 0
        for event in run:
            events.append(event)
            bob = run._loop._run.layout.own[-1:] if isinstance(event, ev.PassEnded) else ()
            if bob and not others and len(bob[0]) > 400:
                start = run._loop._run.layout._step_start[1]
                others, n_before = taken(hw._cache), len(bob[0])
                assert bob[0].last_cut(start) < start, "nothing of the step's window was dropped"
            elif bob:
                assert len(bob[0]) >= n_before
        assert finished(events)["Bob"] == "cache_full"
        for block in others:
            block.free()


# -- by a fake engine, which refuses what it is told to --


class Short:
    """Refuses passes of so many tokens. whose: the names of the blocks that they are fed to."""

    def __init__(self, fake: FakeEngine, refuses: Callable[[int], bool], whose: tuple[str, ...]) -> None:
        self.n_refused = 0
        make = fake.engine.cache

        def cache(model: Any, **options: Any) -> FakeCache:
            made: Any = make(model, **options)
            decode = made._decode

            def short(views: Sequence[Any]) -> Any:
                n = sum(len(tokens) for _, tokens in views)
                if views[0][0][-1].name.startswith(whose) and refuses(n):
                    self.n_refused += 1
                    raise CacheFull(n, n - 1)
                return decode(views)

            made._decode = short
            return made  # type: ignore[no-any-return]

        object.__setattr__(fake.engine, "cache", cache)


def test_what_is_fed_in_smaller_parts_is_what_was_to_be_fed() -> None:
    scripts = ("One.\n\nTwo.\n\nThree.", "Un.\n\nDeux.\n\nTrois.", "Eins.\n\nZwei.")
    written = []
    for most in (512, 4):
        fake = FakeEngine(*scripts)
        short = Short(fake, lambda n, most=most: n > most, ("worker",))  # type: ignore[misc]
        events = run(fake, 3, max_passes=60, finisher=True)
        written.append({who: text.rstrip("x") for who, text in texts(events).items()})
        assert (short.n_refused > 0) == (most == 4)
        assert all(step in seen_by_finisher(fake) for step in ("<Alice2>Two.", "<Bob2>Deux.", "<Carol2>Zwei."))
    assert written[0] == written[1]


@pytest.mark.parametrize("layout", ["combined", "contiguous"])
@pytest.mark.parametrize("seed", range(12))
def test_passes_that_are_refused_at_random_leave_nothing_wrong(layout: str, seed: int) -> None:
    """The fake cache checks the rules of a decode, and run() that nothing is held afterwards."""
    rng = random.Random(seed)
    fake = FakeEngine(*(["Word. " * 4 + "\n\n"] * 3))
    short = Short(fake, lambda n: rng.random() < 0.1, ("worker", "finisher"))
    with hogwild(fake) as hw:
        events = counted(hw, hw.stream("P", workers=4, max_passes=40, seed=1, layout=layout))
        assert fake.n_open == 0
    assert short.n_refused > 0
    assert len(finished(events)) == 4
