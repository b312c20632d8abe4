"""A log hook runs in the middle of a call: what it asks of the library is refused, what it frees is freed afterwards.
In processes of their own, because a fault here is a crash or a deadlock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from isolated import run_isolated

# hook(action): every log line of the next calls runs it; what it raised is in seen.
SETUP = """
import sys
from hogwild_local import Model, Sampler, SharedCache, errors, set_log_hook
model = Model(sys.argv[1], n_threads=1)
cache = SharedCache(model, n_ctx=64)
block = cache.block()
seen = []
def hook(action):
    def on_line(level, text):
        try:
            seen.append(action())
        except errors.HogwildError as error:
            seen.append(type(error).__name__)
    set_log_hook(on_line)
"""


def output(code: str, *args: object) -> str:
    # Large buffers lie alone, so that resident memory does not come and go by where the heap ends.
    done = run_isolated(SETUP + code, *args, environment={"MALLOC_MMAP_THRESHOLD_": "65536"})
    assert (done.returncode, done.stderr) == (0, ""), (done.returncode, done.stderr)
    return done.stdout.strip()


def test_a_call_from_inside_a_hook_is_refused_and_the_outer_one_goes_on(tiny_path: Callable[..., Path]) -> None:
    code = """
sampler = Sampler(model)
actions = [lambda: cache.n_free, lambda: cache.block(), lambda: len(block), lambda: model.n_vocab + cache.n_moved,
           lambda: cache.decode([([block], [1])]), lambda: model.tokenize("a"), lambda: SharedCache(model, n_ctx=64),
           lambda: Sampler(model), lambda: sampler.reset(), lambda: Model(sys.argv[1])]
# llama.cpp is asked for a graph for each: it was asked for that of 1 token before.
for n, action in zip([2, 3, 4, 5, 6, 7, 8, 9, 13, 17], actions, strict=True):
    block.clear()
    hook(action)
    cache.decode([([block], [1] * n)])
    assert seen and set(seen) == {"Busy"}, (n, seen)
    seen.clear()
set_log_hook(None)
print(len(block), cache.n_free)
"""
    assert output(code, tiny_path("llama")) == "17 47"


def test_what_a_hook_closes_is_freed_after_the_call(tiny_path: Callable[..., Path]) -> None:
    code = """
def close():
    cache.close()
    model.close()
hook(close)
rows = cache.decode([([block], [1, 2, 3])])
set_log_hook(None)
print(rows.shape[0], cache.closed, model.closed)
try:
    cache.n_free
except errors.Closed:
    print("closed")
"""
    assert output(code, tiny_path("llama")).split() == ["1", "True", "True", "closed"]


def test_a_hook_may_close_the_cache_of_a_call_that_fails(tiny_path: Callable[..., Path]) -> None:
    # What the error tells of the cache must not be read from one that is gone.
    code = """
hook(lambda: cache.close())
full = cache.block()
try:
    cache.decode([([full], [1] * 64), ([block], [1])])
except errors.HogwildError as error:
    print(type(error).__name__)
set_log_hook(None)
"""
    assert output(code, tiny_path("llama")) in ("CacheFull", "BatchTooLarge")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_of_what_hooks_close_is_given_back(tiny_path: Callable[..., Path]) -> None:
    code = """
import ctypes
from pathlib import Path
if hasattr(ctypes.CDLL(None), "mallopt"):
    ctypes.CDLL(None).mallopt(-3, 1 << 16)  # large buffers lie alone, see test_memory.py
def pages():
    return int(Path("/proc/self/statm").read_text().split()[1])
def once():
    made = SharedCache(model, n_ctx=16384)
    made.decode([([made.block()], [1])])
    hook(lambda: made.close())
    SharedCache(model, n_ctx=64).close()
    set_log_hook(None)
    assert made.closed
for _ in range(3):
    once()
before = pages()
for _ in range(10):
    once()
print(pages() - before)
"""
    # Ten caches of 12 MiB are 30,000 pages.
    assert int(output(code, tiny_path("llama-mha"))) < 5000
