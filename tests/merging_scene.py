"""A merger over a fake library, which counts the views of its passes and takes as long as it is told."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hogwild_local.engine.holders import Held
from hogwild_local.engine.ledger import Ledger
from hogwild_local.engine.merging import Merger, Request
from hogwild_local.engine.views import Decoded, DecodeView
from hogwild_local.errors import InvalidArgument

N_CTX, N_BATCH = 10_000, 64


class FakeNative:
    """A cache of lengths. A pass takes seconds(its number of tokens), without the interpreter's lock."""

    def __init__(self, seconds: Callable[[int], float] = lambda n: 0.0) -> None:
        self.seconds = seconds
        self.lens: dict[int, int] = {}
        self.passes: list[list[tuple[int, int]]] = []  # (own block, tokens) of each view
        self.threads: list[bool] = []  # whether it was the main one
        self.before: Callable[[Sequence[DecodeView]], object] = lambda views: None
        self._ids = itertools.count()
        self._lock = threading.Lock()

    def new_block(self, is_anchored: bool = False) -> int:
        block = next(self._ids)
        self.lens[block] = 0
        return block

    def free_blocks(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self.lens.pop(block, None)

    def blocks(self) -> dict[int, int]:
        return dict(self.lens)

    def truncate(self, block: int, n: int) -> None:
        self.lens[block] = n

    def decode(self, views: Sequence[DecodeView]) -> list[Decoded]:
        assert self._lock.acquire(blocking=False), "two passes at once"
        try:
            self.before(views)
            owns = [view.blocks[-1] for view in views]
            assert len(set(owns)) == len(owns), "an own block in two views"
            samplers = [view.sampler for view in views if view.sampler]
            assert len(set(samplers)) == len(samplers), "a sampler in two views"
            n = sum(len(view.tokens) for view in views)
            assert n <= N_BATCH
            if not all(view.blocks[-1] in self.lens for view in views):
                raise InvalidArgument("there is no such block")
            self.passes.append([(view.blocks[-1], len(view.tokens)) for view in views])
            self.threads.append(threading.current_thread() is threading.main_thread())
            time.sleep(self.seconds(n))
            for view in views:
                self.lens[view.blocks[-1]] += len(view.tokens)
            return [Decoded(None, None, view.tokens[-1]) for view in views]
        finally:
            self._lock.release()


class Made:
    def __init__(self, seconds: Callable[[int], float] = lambda n: 0.0, n_ctx: int = N_CTX) -> None:
        self.native = FakeNative(seconds)
        self.ledger = Ledger(self.native, n_ctx)  # type: ignore[arg-type]
        self.held: dict[int, Held] = {}
        self.merger = Merger(self.native.decode, self.ledger, N_BATCH)

    def block(self) -> int:
        held = self.merger.alone(partial(self.ledger.open, False))
        self.held[held.id] = held
        return held.id

    def free(self, block: int) -> None:
        self.held.pop(block, None)

    def feed(self, block: int, tokens: Sequence[int] = (1,), **options: Any) -> list[Decoded]:
        request = Request([DecodeView([block], tokens, **options)])
        try:
            return self.merger.feed(request)
        finally:
            self.merger.release(request)

    def prompt(self, block: int, n: int) -> None:
        request = Request([DecodeView([block], [1] * n)], N_BATCH)
        try:
            while request.n_left:
                self.merger.feed(request)
        finally:
            self.merger.release(request)

    def is_settled(self) -> bool:
        """Whether what is counted here is what the library has, and nothing is promised."""
        self.merger.alone(lambda: None)
        return self.ledger.n_free == self.ledger._n_ctx - sum(self.native.lens.values())


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def blocked(made: Made) -> tuple[threading.Event, threading.Event]:
    """The next pass begins (the first event) and goes on until the second is set."""
    began, go_on = threading.Event(), threading.Event()

    def wait(views: object) -> None:
        made.native.before = lambda views: None
        began.set()
        assert go_on.wait(10)

    made.native.before = wait
    return began, go_on


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)
