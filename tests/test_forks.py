"""The child of a fork() has the objects, and none of the threads that serve them: it is told so, and waits for none."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from isolated import run_isolated

from hogwild_local import Model
from hogwild_local.errors import DeviceError

PathOf = Callable[..., Path]
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork()")

FORK = """
import gc, os, signal, sys, threading, time
from hogwild_local import Model, Sampler, SharedCache, errors
isolate = sys.argv[2] == "True"
model = Model(sys.argv[1], n_threads=2, isolate=isolate)
cache = SharedCache(model, n_ctx=256)
block = cache.block()
sampler = Sampler(model)
row = cache.decode([([block], [1, 2, 3])])[0]
def decode_for_ever():
    other = cache.block()
    while True:
        cache.decode([([other], [1])])
        other.clear()
if sys.argv[3] == "busy":
    threading.Thread(target=decode_for_ever, daemon=True).start()
    time.sleep(0.1)
child = os.fork()
if child == 0:
    signal.alarm(20)
    said = []
    calls = [
        lambda: cache.decode([([block], [1])]), lambda: len(block), lambda: cache.n_free, lambda: cache.block(),
        lambda: block.clear(), lambda: model.tokenize("x"), lambda: sampler.sample(row), lambda: SharedCache(model),
        lambda: Sampler(model), lambda: block.free(),
    ] + ([] if isolate else [lambda: Model(sys.argv[1], n_threads=2)])
    for call in calls:
        try:
            call()
            said.append("nothing")
        except errors.Forked as error:
            said.append("Forked" if "fork()" in str(error) else str(error))
    for thing in (sampler, cache, model):
        thing.close()
    with Model(sys.argv[1], n_threads=2, isolate=True) as own, SharedCache(own, n_ctx=64) as there:
        there.decode([([there.block()], [1, 2])])  # a process of its own is not a copy of anything
    print(*sorted(set(said)), len(said) == len(calls), flush=True)
    sys.exit(7)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
block.clear()
cache.decode([([block], [1, 2])])
print(len(block), model.closed)
"""


@posix
@pytest.mark.parametrize("when", ["idle", "busy"])
@pytest.mark.parametrize("isolate", [False, True])
def test_a_fork_is_told_that_it_cannot_compute_and_the_parent_goes_on(
    isolate: bool, when: str, tiny_path: PathOf
) -> None:
    done = run_isolated(FORK, tiny_path("llama"), isolate, when)
    assert done.stdout.splitlines() == ["Forked True", "7", "2 False"], done.stderr


def test_a_frozen_application_is_not_started_again(tiny_path: PathOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", "/no/application")
    with pytest.raises(DeviceError, match=r"frozen application.*isolate=False"):
        Model(tiny_path("llama"), isolate=True)
