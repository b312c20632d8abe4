"""Ctrl+C, also twice within moments: it is always a KeyboardInterrupt, and nothing is lost by it.

A timer's signal stands for the key: it comes at chosen moments of this thread, and raises the same exception.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from isolated import run_isolated

from hogwild_local import Hogwild, Model, Sampler, SharedCache, errors, set_log_hook

PathOf = Callable[..., Path]
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="timers and signals as POSIX has them"),
    # An interrupt may also come inside hypothesis's callback of the garbage collector, where no exception can get out.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def interrupted(call: Callable[[], object], *after_s: float) -> bool:
    """Whether a KeyboardInterrupt came out of call(). One comes so long after its beginning, and so long after each one
    before; none once it has ended."""
    left = list(after_s)

    def arm() -> None:
        signal.setitimer(signal.ITIMER_REAL, left.pop(0) if left else 0)

    def interrupt(number: int, frame: FrameType | None) -> None:
        arm()
        while frame is not None:
            if frame.f_code is call.__code__:  # type: ignore[attr-defined]
                raise KeyboardInterrupt
            frame = frame.f_back

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        arm()
        call()
    except KeyboardInterrupt:
        return True
    finally:
        left.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    return False


@pytest.mark.parametrize(("isolate", "hook"), [(False, False), (False, True), (True, False)])
def test_ctrl_c_while_a_model_is_loaded_is_a_keyboard_interrupt(isolate: bool, hook: bool, tiny_path: PathOf) -> None:
    path = tiny_path("qwen3")

    def load() -> None:
        Model(path, n_threads=1, isolate=isolate).close()

    set_log_hook((lambda level, text: None) if hook else None)
    try:
        load()
        start = time.perf_counter()
        load()
        load_s, n = time.perf_counter() - start, 4 if isolate else 150
        caught = [interrupted(load, load_s * (i + 1) / n) for i in range(n)]
    finally:
        set_log_hook(None)
    assert sum(caught) > n // 5


LOAD = """
import signal, sys, time
from hogwild_local import Model
from hogwild_local.cli.main import cli
from hogwild_local.engine.protocols import native_engine
from dataclasses import replace
def interrupt(number, frame):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
def load(*arguments, **options):
    signal.setitimer(signal.ITIMER_REAL, delay)
    try:
        return Model(*arguments, **options)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
codes = []
for _ in range(3):
    start = time.perf_counter()
    Model(sys.argv[1], n_threads=1).close()
    load_s = time.perf_counter() - start
for i in range(100):
    delay = load_s * (i + 1) / 100
    try:
        cli(["run", "-m", sys.argv[1], "-t", "1", "-n", "1", "Count."], obj=replace(native_engine(), model=load))
    except SystemExit as end:
        codes.append(end.code)
print("codes", sorted(set(codes)), file=sys.stderr)
"""


def test_ctrl_c_while_a_model_is_loaded_is_exit_code_130_without_a_traceback(tiny_path: PathOf) -> None:
    done = run_isolated(LOAD, tiny_path("qwen3"))
    # Whatever else the command line had raised would have ended this child before. One that comes inside somebody's
    # __del__ is told on stderr by Python itself.
    assert done.returncode == 0, done.stderr
    assert re.search(r"^codes \[(0, )?130\]$", done.stderr, flags=re.MULTILINE), done.stderr


@pytest.mark.parametrize("isolate", [False, True])
def test_two_interrupts_within_moments_lose_no_cell(isolate: bool, tiny_path: PathOf) -> None:
    def work() -> None:
        try:
            while True:
                cache.decode([([blocks[0]], [1, 2]), ([*blocks], [3])])
                blocks[0].append(blocks[2])
                cache.decode([([blocks[1]], [1] * 100)])
                blocks[1].truncate(10)
                blocks[0].truncate(2)
        finally:
            for block in blocks:
                block.free()

    caught = []
    with (
        Model(tiny_path("llama"), n_threads=1, isolate=isolate) as model,
        SharedCache(model, n_ctx=4096, n_batch=64) as cache,
    ):
        for i in range(60):
            blocks = [cache.block() for _ in range(3)]
            caught.append(interrupted(work, 0.001 + 0.0001 * i, 0.00002 * (i % 25 + 1)))
            for block in blocks:
                if block._held is not None:  # the second interrupt came before
                    block.free()
            assert cache.n_free == 4096
            cache.check()
            assert cache._native.number("n_free") == 4096
    assert all(caught)


@pytest.mark.parametrize("isolate", [False, True])
def test_after_an_interrupt_the_lengths_are_those_of_the_library(isolate: bool, tiny_path: PathOf) -> None:
    def work() -> None:
        while True:
            cache.decode([([block], [1, 2, 3])])
            other.append(block)
            other.truncate(1)

    with Model(tiny_path("llama"), n_threads=1, isolate=isolate) as model, SharedCache(model, n_ctx=4096) as cache:
        block, other = cache.block(), cache.block()
        for i in range(60):
            assert interrupted(work, 0.0005 + 0.00005 * i)
            assert {block._use(): len(block), other._use(): len(other)} == cache._native.blocks()
            assert cache.n_free == cache._native.number("n_free")


@pytest.mark.parametrize("isolate", [False, True])
def test_a_close_that_was_interrupted_is_ended_by_the_next(isolate: bool, tiny_path: PathOf) -> None:
    for i in range(3 if isolate else 30):
        model = Model(tiny_path("llama"), n_threads=1, isolate=isolate)
        cache = SharedCache(model, n_ctx=64)
        sampler = Sampler(model)
        for thing in (cache, sampler, model):

            def close(thing: Model | SharedCache | Sampler = thing) -> None:
                thing.close()

            interrupted(close, 0.00001 * (i + 1), 0.00001)
            thing.close()
            assert thing._native.closed
        with pytest.raises(errors.Closed):
            cache.block()


def test_ctrl_c_in_the_main_thread_loses_no_result_of_another(tiny_path: PathOf) -> None:
    with Model(tiny_path("llama"), n_threads=1) as model, SharedCache(model, n_ctx=4096) as cache:
        mine, theirs = cache.block(), cache.block()
        ended, n_fed, failures = threading.Event(), [0], []

        def run() -> None:
            try:
                while not ended.is_set() or n_fed[0] < 100:
                    cache.decode([([theirs], [1])])
                    n_fed[0] += 1
                    if len(theirs) > 500:
                        theirs.clear()
                        n_fed[0] = 0
            except BaseException as error:
                failures.append(error)

        def work() -> None:
            try:
                while True:
                    cache.decode([([mine], [1])])
            finally:
                mine.clear()

        thread = threading.Thread(target=run)
        thread.start()
        for i in range(60):
            assert interrupted(work, 0.0005 + 0.00005 * i, 0.0001)
        ended.set()
        mine.clear()
        thread.join(30)
        assert not thread.is_alive()
        assert failures == []
        assert len(theirs) == n_fed[0]
        assert (len(mine), cache.n_free) == (0, 4096 - n_fed[0])


@pytest.mark.parametrize("waiting", [False, True])
def test_an_engine_that_hangs_does_not_hang_close(waiting: bool, tiny_path: PathOf) -> None:
    hogwild = Hogwild(tiny_path("qwen3"), n_ctx=4096, n_threads=1, isolate=True)
    pid, ended, seen = hogwild.model.pid, [], threading.Event()

    def run() -> None:
        try:
            for _ in hogwild.stream("Count.", max_passes=100_000):
                seen.set()
        except errors.HogwildError as error:
            ended.append(error)

    if waiting:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert seen.wait(20)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.2)
    closing = threading.Thread(target=hogwild.close, daemon=True)
    closing.start()
    closing.join(12)
    assert not closing.is_alive()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    if waiting:
        thread.join(5)
        assert not thread.is_alive()
