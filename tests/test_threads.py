"""Threads on the same objects, interrupts, exits without goodbye: calls wait or are refused, none crashes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from isolated import run_isolated

from hogwild_local import CacheBlock, Model, Sampler, SamplingParams, SharedCache
from hogwild_local.errors import Cancelled, Closed, HogwildError, InvalidArgument

Load = Callable[..., Model]
PROMPT = [7, 3, 9, 1, 200, 31, 17]


def f32_cache(model: Model, **settings: object) -> SharedCache:
    return SharedCache(model, **({"n_ctx": 512, "type_k": "f32", "type_v": "f32"} | settings))


def write(cache: SharedCache, shared: CacheBlock, own: CacheBlock, first: int, n: int) -> list[np.ndarray]:
    """n greedy tokens into own, each after the one before. Their logits."""
    rows = []
    token = first
    for _ in range(n):
        rows.append(cache.decode([([shared, own], [token])])[0])
        token = int(rows[-1].argmax())
    return rows


def test_threads_on_one_cache_get_what_they_get_one_after_the_other(single: Load) -> None:
    results = []
    for n_threads in (1, 4):
        with f32_cache(single("llama")) as cache, ThreadPoolExecutor(n_threads) as pool:
            shared = cache.block("shared")
            cache.decode([([shared], PROMPT)])
            blocks = [cache.block() for _ in range(4)]
            jobs = [pool.submit(write, cache, shared, block, i, 40) for i, block in enumerate(blocks)]
            results.append(np.array([job.result() for job in jobs]))
            cache.check()
            assert [len(block) for block in blocks] == [40] * 4
    # Merged, a pass has more rows, and its sums other orders.
    assert np.array_equal(results[0].argmax(-1), results[1].argmax(-1))
    assert np.abs(results[0] - results[1]).max() <= 1e-3


def test_caches_of_one_model_work_at_the_same_time(single: Load) -> None:
    def run(seed: int) -> np.ndarray:
        with f32_cache(single("qwen3"), attention="ggml" if seed % 2 else "fused") as cache:
            shared, own = cache.block(), cache.block()
            cache.decode([([shared], PROMPT)])
            return np.array(write(cache, shared, own, seed, 30))

    serial = [run(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(run, range(4)))
    assert all(np.array_equal(a, b) for a, b in zip(serial, parallel, strict=True))


def test_the_first_calls_of_a_process_may_come_from_two_threads(tiny_path: Callable[..., Path]) -> None:
    """Nothing is set up yet then. What goes wrong is ThreadSanitizer's to see: scripts/sanitize."""
    code = """
import sys, threading
from hogwild_local import Model, SharedCache
import hogwild_local.engine.native
start = threading.Barrier(2)
def work():
    start.wait()
    with Model(sys.argv[1], n_threads=2) as model, SharedCache(model, n_ctx=64) as cache:
        cache.decode([([cache.block()], [1, 2, 3])])
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    done = run_isolated(code, tiny_path("llama"))
    assert (done.returncode, done.stderr) == (0, "")


def test_samplers_and_tokenizer_serve_many_threads(single: Load) -> None:
    model = single("llama")
    logits = np.random.default_rng(0).normal(size=(50, model.n_vocab)).astype(np.float32)

    def run(seed: int) -> tuple[list[int], list[int]]:
        sampler = Sampler(model, SamplingParams(seed=seed, repeat_penalty=1.2))
        return [sampler.sample(row) for row in logits], model.tokenize("What is\n\n this? " * 20)

    serial = [run(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(8))) == serial


def test_one_sampler_in_two_threads_is_safe(single: Load) -> None:
    model = single("llama")
    sampler = Sampler(model, SamplingParams(seed=1, repeat_penalty=1.2))
    logits = np.zeros(model.n_vocab, dtype=np.float32)
    with ThreadPoolExecutor(2) as pool:
        tokens = list(pool.map(lambda _: sampler.sample(logits), range(400)))
    assert all(0 <= token < model.n_vocab for token in tokens)


@pytest.mark.parametrize(
    "what", ["close cache", "close model", "free block", "clear block", "append block", "truncate"]
)
def test_what_one_thread_takes_away_another_does_not_crash_on(what: str, tiny_path: Callable[..., Path]) -> None:
    for _ in range(5):
        model = Model(tiny_path("llama"), n_threads=1)
        cache = f32_cache(model, n_ctx=4096, n_batch=32)
        shared, own = cache.block("shared"), cache.block("own")
        decoded = threading.Event()
        ended: list[BaseException | None] = []

        def work(cache: SharedCache = cache, shared: CacheBlock = shared, own: CacheBlock = own,
                 decoded: threading.Event = decoded, ended: list[BaseException | None] = ended) -> None:  # fmt: skip
            try:
                for _ in range(60):
                    cache.decode([([shared, own], [1])])
                    decoded.set()
                ended.append(None)
            except HogwildError as error:
                ended.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        decoded.wait(30)
        match what:
            case "close cache":
                cache.close()
            case "close model":
                model.close()
            case "free block":
                own.free()
            case "clear block":
                own.clear()
            case "append block":
                shared.append(own)
            case "truncate":
                own.truncate(1)
        thread.join()
        if what == "close cache":
            assert ended[0] is None or isinstance(ended[0], Closed)
        elif what == "free block":
            assert ended[0] is None or isinstance(ended[0], InvalidArgument)
        else:
            assert ended == [None]
        if not cache.closed:
            cache.check()
        cache.close()
        model.close()


def test_closing_twice_at_once_frees_once(tiny_path: Callable[..., Path]) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            model = Model(tiny_path("llama-bos"), n_threads=1)
            cache = SharedCache(model, n_ctx=32)
            for job in [pool.submit(thing.close) for thing in (model, cache) * 4]:
                job.result()
            assert model.closed
            assert cache.closed


def test_progress_that_raises_leaves_the_block_as_before(single: Load) -> None:
    rows = []
    for stop in (False, True):
        with f32_cache(single("llama"), n_batch=16) as cache:
            block, other = cache.block("block"), cache.block("other")
            cache.decode([([block], PROMPT)])
            seen: list[tuple[int, int]] = []

            def progress(done: int, total: int, seen: list[tuple[int, int]] = seen) -> None:
                seen.append((done, total))
                if done >= 48:
                    raise RuntimeError("enough")

            if stop:
                with pytest.raises(RuntimeError, match="enough"):
                    cache.decode([([other, block], [5] * 100)], progress=progress)
                assert seen == [(16, 100), (32, 100), (48, 100)]
            assert (len(block), cache.n_free) == (len(PROMPT), 512 - len(PROMPT))
            rows.append(cache.decode([([block], [4])]))
    assert np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize("what", ["close", "free", "truncate"])
def test_progress_may_take_the_block_away_and_its_own_error_is_the_one_raised(what: str, single: Load) -> None:
    with f32_cache(single("llama"), n_batch=16) as cache:
        block = cache.block("block")
        cache.decode([([block], PROMPT)])

        def progress(done: int, total: int) -> None:
            {"close": cache.close, "free": block.free, "truncate": lambda: block.truncate(2)}[what]()
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            cache.decode([([block], [5] * 100)], progress=progress)
        if what != "close":
            cache.check()


def test_ctrl_c_in_a_long_prompt_ends_it_and_keeps_the_cache(single: Load) -> None:
    with f32_cache(single("llama"), n_batch=16) as cache:
        block = cache.block()
        with pytest.raises(KeyboardInterrupt):
            cache.decode([([block], [5] * 100)], progress=lambda done, total: signal.raise_signal(signal.SIGINT))
        assert (len(block), cache.n_free) == (0, 512)
        assert np.isfinite(cache.decode([([block], [5] * 100)])).all()


@pytest.mark.parametrize("use_mmap", [True, False])
def test_progress_of_a_load_cancels_it(use_mmap: bool, tiny_path: Callable[..., Path]) -> None:
    seen: list[float] = []
    Model(tiny_path("llama"), n_threads=1, use_mmap=use_mmap, progress=seen.append).close()
    assert seen
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[-1] == 1
    with pytest.raises(Cancelled):
        Model(tiny_path("llama"), use_mmap=use_mmap, progress=lambda _: False)

    def fail(_: float) -> None:
        raise ZeroDivisionError("in the callback")

    with pytest.raises(ZeroDivisionError, match="in the callback"):
        Model(tiny_path("llama"), use_mmap=use_mmap, progress=fail)
    with pytest.raises(KeyboardInterrupt):
        Model(tiny_path("llama"), use_mmap=use_mmap, progress=lambda _: signal.raise_signal(signal.SIGINT))


EXITS = {
    "nothing closed": "",
    "the model is collected before the cache": "del model; import gc; gc.collect(); cache.decode([([a], [1])])",
    "the cache is collected before its block": "del cache; import gc; gc.collect(); print(len(a))",
    "an exception": "sys.exit(0)",
    "objects in a cycle": "a.cycle = cache; cache.cycle = model; model.cycle = sampler; sampler.cycle = a",
    "a daemon thread decodes": """
def forever():
    while True:
        try:
            cache.decode([([a, b], [1] * 50)])
            b.clear()
        except errors.Closed:
            return
threading.Thread(target=forever, daemon=True).start()
import time; time.sleep(0.1)
""",
}


@pytest.mark.parametrize("case", EXITS)
def test_an_exit_without_close_is_quiet(case: str, tiny_path: Callable[..., Path]) -> None:
    code = f"""
import sys, threading
from hogwild_local import Model, Sampler, SharedCache, errors
model = Model(sys.argv[1], n_threads=1)
cache = SharedCache(model, n_ctx=256)
sampler = Sampler(model)
a, b = cache.block("a"), cache.block("b")
sampler.sample(cache.decode([([b, a], model.tokenize("Hello"))])[0])
{EXITS[case]}
"""
    for _ in range(3 if "thread" in case else 1):
        done = run_isolated(code, tiny_path("llama"))
        assert (done.returncode, done.stderr) == (0, "")


def test_what_was_freed_at_exit_is_closed_for_the_threads_that_go_on(tiny_path: Callable[..., Path]) -> None:
    code = """
import atexit, sys
def go_on():
    for call in (lambda: cache.decode([([a], [1])]), lambda: cache.check(), lambda: model.tokenize("Hello")):
        try:
            call()
        except errors.Closed as error:
            print(error)
atexit.register(go_on)  # before weakref's, and so called after it
from hogwild_local import Model, SharedCache, errors
model = Model(sys.argv[1], n_threads=1)
cache = SharedCache(model, n_ctx=256)
a = cache.block("a")
"""
    done = run_isolated(code, tiny_path("llama"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["this cache was closed"] * 2 + ["this model was closed"]


def test_everything_is_quiet_by_default(tiny_path: Callable[..., Path]) -> None:
    code = """
import sys
from hogwild_local import Model, SharedCache, errors
model = Model(sys.argv[1], n_threads=1)
model.detokenize(model.tokenize(model.token_text(model.bos) + "text", parse_special=True))  # BOS twice
for settings in ({"n_ctx": 2**31 - 1}, {"type_k": "q8_0"}, {"type_v": "x"}):
    try:
        SharedCache(model, **settings)
    except errors.HogwildError:
        pass
with SharedCache(model, n_ctx=600) as cache:
    cache.decode([([cache.block()], [1] * 600)])
model.close()
"""
    done = run_isolated(code, tiny_path("llama-bos"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
