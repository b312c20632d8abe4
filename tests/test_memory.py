"""Memory stays flat over long runs, and keys and values exist once. Measured in fresh processes, by resident pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from isolated import run_isolated

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")

# Resident memory in KiB. Free but not given back is no leak: malloc_trim gives it back where nothing lies above it, and
# with a fixed M_MMAP_THRESHOLD (-3) large buffers lie alone. Else glibc raises it, and MiB come and go by chance.
RSS = """
import ctypes, gc, os, sys
from pathlib import Path
if hasattr(ctypes.CDLL(None), "mallopt"):
    ctypes.CDLL(None).mallopt(-3, 1 << 16)
def rss():
    gc.collect()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
"""


def growths(code: str, *args: object) -> list[int]:
    """What the code printed: KiB."""
    done = run_isolated(RSS + code, *args)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize(("attention", "bound"), [("fused", 30), ("ggml", 200)])
def test_2000_passes_with_step_ends_and_restarts_leave_memory_flat(
    attention: str, bound: int, tiny_path: Callable[..., Path]
) -> None:
    # Seven times 300 passes. A leak of 100 bytes a pass shows in each as 30 KiB. Graphs of "ggml" come and go with the
    # blocks' lengths, and their buffers with them. One leaked graph is above 100 KiB, and 300 passes build dozens.
    code = """
from hogwild_local import Model, SharedCache
model = Model(sys.argv[1], n_threads=1)
cache = SharedCache(model, n_ctx=400, n_batch=64, attention=sys.argv[2])
shared = cache.block("shared")
workers = [cache.block(f"worker {i}") for i in range(3)]
cache.decode([([shared], [1] * 20)])

def run(n):
    for i in range(n):
        cache.decode([([shared, *(o for o in workers if o is not w), w], [i % 300]) for w in workers])
        if i % 17 == 16:  # a step ends
            shared.append(workers[i % 3])
        if len(shared) > 200:
            shared.truncate(20)
        if i % 50 == 49:  # a worker is stopped, another starts
            workers[i // 50 % 3].free()
            workers[i // 50 % 3] = cache.block("again")
        if cache.n_free < 10:
            for worker in workers:
                worker.clear()

run(1000)
for _ in range(7):
    before = rss()
    run(300)
    print(rss() - before)
"""
    assert median(growths(code, tiny_path("llama-bos"), attention)) < bound


def test_runs_with_stopped_workers_leave_memory_flat(tiny_path: Callable[..., Path]) -> None:
    code = """
from hogwild_local import Hogwild
hw = Hogwild(sys.argv[1], n_ctx=1500, n_threads=1)
def run(n, seed):
    for i in range(n):
        passes = 0
        with hw.stream("Go", workers=["A", "B", "C"], max_passes=100, seed=seed + i) as events:
            for event in events:
                passes += 1
                if passes == 60:
                    events.stop("B")
                if i % 5 == 4 and passes == 200:
                    break
run(45, 0)
for window in range(5):
    before = rss()
    run(10, 45 + 10 * window)
    print(rss() - before)
"""
    # Five times 1,000 passes. A buffer for passes of a new size shows in one of them, a leak in each.
    assert median(growths(code, tiny_path("qwen3"))) < 100


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
def test_keys_and_values_exist_once(attention: str, tiny_path: Callable[..., Path]) -> None:
    # 49,152 cells of 2 layers * 2 * 3 heads * 32 * 2 bytes: 36 MiB. A second cache, or scores of all cells, would show.
    code = """
from hogwild_local import Model, SharedCache
model = Model(sys.argv[1], n_threads=1)
SharedCache(model, n_ctx=64).close()
before = rss()
cache = SharedCache(model, n_ctx=49152, attention=sys.argv[2])
blocks = [cache.block() for _ in range(3)]
for block in blocks:
    cache.decode([([*(other for other in blocks if other is not block), block], [1] * 20)])
print(cache.n_bytes // 1024)
print(rss() - before)
cache.close()
print(rss() - before)
"""
    n_bytes, grown, left = growths(code, tiny_path("llama-mha"), attention)
    assert n_bytes > 35_000
    assert n_bytes - 1000 < grown < n_bytes + 8_000  # compute buffers of the passes, llama.cpp's smallest context
    assert left < 4_000


def test_loading_and_closing_leaves_memory_flat(tiny_path: Callable[..., Path]) -> None:
    code = """
from hogwild_local import Model, Sampler, SharedCache
def once():
    with Model(sys.argv[1], n_threads=1) as model, SharedCache(model, n_ctx=256) as cache:
        cache.decode([([cache.block()], model.tokenize("Hello"))])
        Sampler(model).close()
for _ in range(5):
    once()
before = rss()
for _ in range(20):
    once()
print(rss() - before)
"""
    assert growths(code, tiny_path("llama"))[0] < 500


def test_dropped_objects_are_freed_as_closed_ones(tiny_path: Callable[..., Path]) -> None:
    code = """
from hogwild_local import Model, SharedCache
model = Model(sys.argv[1], n_threads=1)
def once():
    cache = SharedCache(model, n_ctx=8192)
    cache.decode([([cache.block()], [1, 2])])
once()
before = rss()
for _ in range(10):
    once()
print(rss() - before)
"""
    assert growths(code, tiny_path("llama-mha"))[0] < 1000


def test_errors_leak_nothing(tiny_path: Callable[..., Path]) -> None:
    code = """
from hogwild_local import Model, SharedCache, errors
model = Model(sys.argv[1], n_threads=1)
cache = SharedCache(model, n_ctx=32)
block = cache.block()
def once():
    for call in (lambda: SharedCache(model, n_ctx=2**31 - 1), lambda: cache.decode([([block], [1] * 33)]),
                 lambda: SharedCache(model, type_k="q9"), lambda: Model("missing"), lambda: Model(sys.executable)):
        try:
            call()
        except errors.HogwildError:
            pass
for _ in range(20):
    once()
for _ in range(5):
    before = rss()
    for _ in range(100):
        once()
    print(rss() - before)
"""
    # What is made once, some time, is in one of them; what leaks is in all.
    assert median(growths(code, tiny_path("llama-bos"))) < 500
