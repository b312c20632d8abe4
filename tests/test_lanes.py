"""Two lanes to an engine's process: what needs no cache waits for no pass; and a caller that is interrupted leaves
nothing behind that another one hears."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hogwild_local import Model, Sampler, SharedCache
from hogwild_local.engine import wire
from hogwild_local.engine.child import Child
from hogwild_local.engine.pipe import RemoteNative

PathOf = Callable[..., Path]


class Meeting:
    """Stands for the native module. A pass lasts until somebody has tokenized; a load reports until it is stopped."""

    def __init__(self) -> None:
        self._tokenized = threading.Event()
        self.reports: list[bool] = []

    def run_pass(self) -> str:
        return "a pass" if self._tokenized.wait(60) else "nobody came"

    def confuse(self) -> object:
        return object()

    def tokenize(self) -> str:
        self._tokenized.set()
        return "tokens"

    def load(self, progress: Callable[[float], bool]) -> str:
        for part in range(3):
            self.reports.append(progress(part / 2))
        return "loaded"


class Pipe:
    """A child in threads of this process; requests are put into its lanes."""

    def __init__(self, native: Meeting) -> None:
        self.native = native
        replies, out = os.pipe()
        self.replies, self._out = os.fdopen(replies, "rb", buffering=0), os.fdopen(out, "wb", buffering=0)
        self.child = Child(self._out, lambda: native)
        self._threads = [threading.Thread(target=self.child.run, args=(lane,), daemon=True) for lane in wire.LANES]
        for thread in self._threads:
            thread.start()

    def ask(self, lane: int, asked: int, method: str, wants_progress: bool = False) -> None:
        self.child.inboxes[lane].put((asked, (0, method, (), 0, wants_progress, False, [])))

    def reply(self) -> list[Any]:
        """Number, kind and value."""
        return list(wire.receive(self.replies)[:3])

    def close(self) -> None:
        for inbox in self.child.inboxes:
            inbox.put(None)
        for thread in self._threads:
            thread.join(30)
        self.replies.close()
        self._out.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe(Meeting())
    yield pipe
    pipe.close()


def test_a_call_of_the_quick_lane_is_answered_while_a_pass_goes_on(pipe: Pipe) -> None:
    pipe.ask(wire.PASSES, 1, "run_pass")
    pipe.ask(wire.QUICK, 2, "tokenize")
    assert [pipe.reply(), pipe.reply()] == [[2, "ok", "tokens"], [1, "ok", "a pass"]]


def test_a_call_whose_caller_has_gone_is_stopped_and_the_next_one_gets_its_own_answer(pipe: Pipe) -> None:
    pipe.ask(wire.PASSES, 1, "load", wants_progress=True)
    assert pipe.reply() == [1, "progress", 0.0]
    pipe.ask(wire.PASSES, 2, "tokenize")  # instead of an answer
    assert pipe.reply() == [1, "ok", "loaded"]
    assert pipe.reply() == [2, "ok", "tokens"]
    assert pipe.native.reports == [False, False, False]


def test_what_cannot_be_sent_is_an_error_and_the_lane_goes_on(pipe: Pipe) -> None:
    for asked, method, kind in ((1, "confuse", "error"), (2, "nothing", "error"), (3, "tokenize", "ok")):
        pipe.ask(wire.QUICK, asked, method)
        assert pipe.reply()[:2] == [asked, kind]


def settings_of(path: Path) -> dict[str, Any]:
    lists = ("loras", "control_vectors", "tensor_split", "rpc_servers")
    plain = {"n_gpu_layers": 0, "n_threads": 1, "use_mmap": True, "vocab_only": False, "main_gpu": 0, "devices": None}
    return {"path": os.fsencode(path), "split_mode": "layer", **plain, **{name: [] for name in lists}}


def test_a_process_answers_quick_calls_in_the_middle_of_another(tiny_path: PathOf) -> None:
    remote = RemoteNative(())
    isas = []

    def progress(part: float) -> None:
        isas.append(remote.place.call("module", 0, "attention_isas", (), wire.QUICK))

    try:
        remote.NativeModel(settings_of(tiny_path("llama")), progress)
    finally:
        remote.place.close()
    assert isas
    assert all(isas)


def test_an_interrupted_call_leaves_its_answer_to_nobody(tiny_path: PathOf) -> None:
    remote = RemoteNative(())
    place = remote.place
    answers: list[int] = []
    try:
        request: tuple[Any, ...] = (0, "NativeModel", (settings_of(tiny_path("llama")),), 1, True, False, [])
        # The caller is interrupted when it is told of progress.
        assert place._link.ask(wire.pack((wire.PASSES, 99, request)), 99).get()[0] == "progress"
        ask = threading.Thread(target=lambda: answers.append(place.call("module", 0, "free_host_memory", ())))
        ask.start()
        ask.join(30)
        assert len(answers) == 1
        assert answers[0] > 0
    finally:
        place.close()


def test_what_a_model_is_asked_needs_no_turn_between_passes(tiny_path: PathOf) -> None:
    """A thread in the middle of a call of the cache holds that lane."""
    with Model(tiny_path("llama"), n_threads=1, isolate=True) as model, SharedCache(model, n_ctx=64) as cache:
        begun, done = threading.Event(), threading.Event()
        were_answered: list[bool] = []

        def hold() -> None:
            with model._native.place._lanes[wire.PASSES].lock:
                begun.set()
                were_answered.append(done.wait(20))

        thread = threading.Thread(target=hold)
        thread.start()
        begun.wait(60)
        tokens = model.tokenize("Hello")
        assert model.detokenize(tokens) == "Hello"
        assert not any(model.is_eog(token) for token in tokens)
        sampler = Sampler(model)
        done.set()
        thread.join()
        assert were_answered == [True]
        assert cache.next_tokens([([cache.block()], tokens)], [sampler]) != [None]
        sampler.close()
        sampler = Sampler(model)  # with it the other one is freed
        assert cache.next_tokens([([cache.block()], tokens)], [sampler]) != [None]
