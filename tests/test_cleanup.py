"""However a run is left, it holds nothing afterwards."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from fakes import TINY_STYLE, FakeCache, FakeEngine, FakeModel, FakeSampler
from runs import HEADERS, finished, hogwild, passes

from hogwild_local import events as ev
from hogwild_local.errors import Busy, Closed, InvalidArgument
from hogwild_local.hogwild import Hogwild
from hogwild_local.options import SamplingParams
from hogwild_local.workers.layouts import Combined


def test_break_frees_everything() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        stream = hw.stream("P")
        for event in stream:
            if isinstance(event, ev.Token):
                break
        assert fake.n_open == 0
        assert stream.done
        assert hw.generate("P", max_passes=2).reason == "budget"


@pytest.mark.parametrize("at", [ev.RunStarted, ev.PromptProgress, ev.StepStarted, ev.Token])
def test_dropping_the_run_anywhere_frees_everything_at_once(at: type[ev.Event]) -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        gc.disable()  # no help from the collector: references alone must do it
        try:
            stream = hw.stream("P")
            while not isinstance(next(stream), at):
                pass
            assert fake.n_open > 0
            del stream
            assert fake.n_open == 0
        finally:
            gc.enable()


def test_an_exception_in_the_engine_frees_everything_and_the_object_lives_on() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:

        def fail(cache: FakeCache) -> None:
            if len(cache.passes) == HEADERS + 2:
                fake.on_decode = lambda cache: None
                raise RuntimeError("backend")

        fake.on_decode = fail
        with pytest.raises(RuntimeError, match="backend"):
            hw.generate("P")
        assert fake.n_open == 0
        assert hw.generate("P", max_passes=2).reason == "budget"


@pytest.mark.parametrize("n_pass", [0, HEADERS + 1])
def test_ctrl_c_in_a_pass_propagates_after_cleaning_up(n_pass: int) -> None:
    fake = FakeEngine()

    def interrupt(cache: FakeCache) -> None:
        if len(cache.passes) == n_pass:
            raise KeyboardInterrupt

    fake.on_decode = interrupt
    with hogwild(fake) as hw:
        with pytest.raises(KeyboardInterrupt):
            hw.generate("P")
        assert fake.n_open == 0


def test_a_sampler_that_cannot_be_made_leaves_nothing_behind() -> None:
    fake = FakeEngine()

    def refuse(model: FakeModel, params: SamplingParams) -> Any:
        if len(fake.samplers) == 1:
            raise InvalidArgument("grammar")
        return fake._make_sampler(model, params)

    hw = Hogwild("m.gguf", prompts=TINY_STYLE, engine=replace(fake.engine, sampler=refuse))
    with pytest.raises(InvalidArgument, match="grammar"):
        hw.generate("P")
    assert fake.n_open == 0


def test_cancel_ends_in_order() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        events = []
        stream = hw.stream("P", finisher=True)
        for event in stream:
            events.append(event)
            if isinstance(event, ev.Token):
                stream.cancel()
    assert set(finished(events).values()) == {"cancelled"}
    assert events[-1].reason == "cancelled"  # type: ignore[attr-defined]
    assert len(passes(fake)) == 1


def test_cancel_in_the_prompt_ends_after_its_chunk() -> None:
    fake = FakeEngine()
    with hogwild(fake, n_batch=4) as hw:
        stream = hw.stream("P")
        fake.on_decode = lambda cache: stream.cancel()
        events = list(stream)
        assert fake.cache
        assert len(fake.cache.passes) == 1
    assert events[-1].reason == "cancelled"  # type: ignore[attr-defined]


def test_close_from_another_thread_ends_the_run_within_one_pass() -> None:
    fake = FakeEngine()
    inside, closing = threading.Event(), threading.Event()

    def slow(cache: FakeCache) -> None:
        if len(cache.passes) == HEADERS + 3:
            inside.set()
            closing.wait(5)
            assert not cache.closed, "the cache was closed under a running pass"

    fake.on_decode = slow
    hw = hogwild(fake)
    stream = hw.stream("P", max_passes=10**6)

    def close() -> None:
        inside.wait(5)
        # Lets the pass go on only when close() has had time to do harm.
        threading.Timer(0.05, closing.set).start()
        hw.close()

    thread = threading.Thread(target=close)
    thread.start()
    list(stream)
    thread.join(5)
    assert not thread.is_alive()
    assert len(passes(fake)) == 4
    assert fake.n_open == 0
    assert fake.model.closed


def test_a_layout_in_use_elsewhere_is_refused_and_not_disturbed() -> None:
    layout = Combined()
    first, second = FakeEngine(), FakeEngine()
    with hogwild(first) as one, hogwild(second) as two:
        stream = one.stream("P", layout=layout, max_passes=2)
        next(stream)
        with pytest.raises(Busy):
            two.generate("P", layout=layout)
        assert list(stream)[-1].reason == "budget"  # type: ignore[attr-defined]


def test_a_closed_hogwild_says_so() -> None:
    hw = hogwild(FakeEngine())
    hw.close()
    hw.close()
    with pytest.raises(Closed):
        hw.stream("P")


def test_generate_is_a_loop_over_stream() -> None:
    fake = FakeEngine("Hi.\n\nyo \\boxed{3}", "uvwxyzuvwxyzuvwxyz")
    with hogwild(fake) as hw:
        result = hw.generate("P", workers=["Ann", "Ben"], seed=5, max_passes=30)
    assert (result.answer, result.reason, result.seed) == ("3", "answer", 5)
    assert result.texts == {"Ann": "Hi.\n\nyo \\boxed{3}", "Ben": "uvwxyzuvwxyzuvw"}
    assert result.history == "<Ann1>Hi.\n\n<Ann2>yo \\boxed{3}\n\n<Ben1>uvwxyzuvwxyzuvw"
    assert result.usage.completion_tokens == 30


def test_many_passes_with_ends_stops_and_restarts_leave_nothing() -> None:
    fake = FakeEngine("A.\n\n" * 40, "Bb!\n\n" * 40, "c" * 200)
    with hogwild(fake) as hw:
        for _ in range(20):
            with hw.stream("P", workers=3, max_passes=100, finisher=False) as stream:
                for event in stream:
                    if isinstance(event, ev.Token) and event.n_pass == 50:
                        stream.stop("Bob")
            assert fake.n_open == 0
            assert fake.cache
            assert hw.n_free == fake.cache.n_ctx
            fake.cache.passes.clear()
            fake.again()


# -- Ctrl+C in the middle of it --


class InterruptAt:
    """Raises KeyboardInterrupt before the nth line that is run of workers/ and hogwild.py."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __enter__(self) -> InterruptAt:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.settrace(None)

    def start(self) -> None:
        sys.settrace(self._trace)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        path = Path(frame.f_code.co_filename)
        if path.parent.name != "workers" and path.name != "hogwild.py":
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace


def test_a_second_ctrl_c_anywhere_in_cleaning_up_loses_nothing() -> None:
    at = 0
    while True:
        at += 1
        fake = FakeEngine()
        second = InterruptAt(at)

        def first(cache: FakeCache, second: InterruptAt = second) -> None:
            if len(cache.passes) == HEADERS + 2:
                cache.on_decode = lambda cache: None
                second.start()
                raise KeyboardInterrupt

        fake.on_decode = first
        with hogwild(fake, max_runs=1) as hw:
            try:
                hw.generate("P")
            except KeyboardInterrupt:
                sys.settrace(None)
            assert fake.n_open == 0, f"interrupted at line {at} of cleaning up"
            assert hw.generate("P", max_passes=1).reason == "budget"
        if second.left > 0:  # it came to no line so late
            break
    assert at > 20


def test_ctrl_c_anywhere_in_close_leaves_it_to_the_next_close() -> None:
    at = 0
    while True:
        at += 1
        fake = FakeEngine()
        hw = hogwild(fake)
        runs = [hw.stream("P", seed=seed) for seed in range(2)]
        for run in runs:
            while not isinstance(next(run), ev.Token):
                pass
        interrupt = InterruptAt(at)
        with suppress(KeyboardInterrupt), interrupt:
            hw.close()
        hw.close()
        assert fake.n_open == 0, f"interrupted at line {at} of close()"
        assert fake.cache
        assert fake.cache.closed
        assert fake.model.closed
        if interrupt.left > 0:
            break
    assert at > 20


@pytest.mark.parametrize("fault", [InvalidArgument("broken"), RuntimeError("broken")])
def test_an_error_of_cleaning_up_is_raised_after_all_else_is_free(fault: Exception) -> None:
    class Broken(FakeSampler):
        def close(self) -> None:
            super().close()
            raise fault

    fake = FakeEngine()

    def make(model: FakeModel, params: SamplingParams) -> FakeSampler:
        sampler = fake._make_sampler(model, params)
        if len(fake.samplers) == 2:
            sampler.__class__ = Broken
        return sampler

    with Hogwild("m.gguf", prompts=TINY_STYLE, engine=replace(fake.engine, sampler=make)) as hw:
        run = hw.stream("P", workers=3)
        while not isinstance(next(run), ev.Token):
            pass
        with pytest.raises(type(fault), match="broken"):
            run.close()
        assert run.done
        assert fake.n_open == 0
        assert hw.generate("P", max_passes=1).reason == "budget"


def test_a_signal_handler_may_close_the_run_in_the_middle_of_a_pass() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        run = hw.stream("P", max_passes=10**6)
        fake.on_decode = lambda cache: run.close() if len(cache.passes) == HEADERS + 2 else None
        events = list(run)
        assert len(passes(fake)) == 3
        assert not any(isinstance(event, ev.RunEnded) for event in events)
        assert fake.n_open == 0


@pytest.mark.parametrize("held", ["run", "iter(run)", "(event for event in run)"])
def test_a_stream_that_is_alive_when_the_interpreter_ends_says_nothing(held: str) -> None:
    code = f"""
from hogwild_local import Hogwild
from hogwild_local.engine.default_model import default_model_path
hogwild = Hogwild(default_model_path(), n_threads=1)
run = hogwild.stream(hogwild.examples[0])
held = {held}
events = [next(held) for _ in range(30)]
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "")
