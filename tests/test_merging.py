"""One pass for many callers: a fake library counts the views of its passes, and takes as long as it is told."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import mean, median
from typing import Any

import pytest

from hogwild_local.engine.holders import Held
from hogwild_local.engine.ledger import Ledger
from hogwild_local.engine.merging import Merger, Request
from hogwild_local.engine.pace import Pace
from hogwild_local.engine.turns import Turns
from hogwild_local.engine.views import Decoded, DecodeView
from hogwild_local.errors import CacheFull, ComputeError, HogwildError, InvalidArgument

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

    def new_block(self) -> int:
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
        held = self.merger.alone(self.ledger.open)
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
        request = Request([DecodeView([block], [1] * n)], Pace(), N_BATCH)
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


# -- who goes into a pass --


def test_what_arrives_while_a_pass_runs_goes_into_the_next_one_together() -> None:
    made = Made()
    blocks = [made.block() for _ in range(5)]
    began, go_on = blocked(made)
    threads = [in_thread(lambda: made.feed(blocks[0]))]
    began.wait(10)
    threads += [in_thread(lambda block=block: made.feed(block)) for block in blocks[1:]]  # type: ignore[misc]
    wait_for(lambda: len(made.merger._queue) == 4)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert [sorted(own for own, _ in views) for views in made.native.passes] == [blocks[:1], blocks[1:]]
    assert made.is_settled()


def test_alone_nothing_is_waited_for() -> None:
    made = Made()
    block = made.block()

    def no_waiting(*arguments: object, **options: object) -> bool:
        raise AssertionError("it waits")

    made.merger._turns.wait_for_one = no_waiting  # type: ignore[method-assign]
    for _ in range(50):
        made.feed(block)
    assert len(made.native.passes) == made.ledger.len(block) == 50


@pytest.mark.parametrize("main_too", [False, True])
def test_eight_callers_in_step_stay_in_step(main_too: bool) -> None:
    made = Made(lambda n: 0.02)
    blocks = [made.block() for _ in range(8)]

    def run(block: int) -> None:
        for _ in range(25):
            made.feed(block)

    threads = [threading.Thread(target=run, args=[block]) for block in blocks[main_too:]]
    for thread in threads:
        thread.start()
    if main_too:
        run(blocks[0])
    for thread in threads:
        thread.join()
    assert mean(map(len, made.native.passes)) >= 7
    assert [made.ledger.len(block) for block in blocks] == [25] * 8
    assert made.is_settled()


def test_two_callers_that_do_not_begin_together_share_their_passes() -> None:
    # Without a turn for who was woken, each would find the other's pass running for ever.
    made = Made(lambda n: 0.02)
    blocks = [made.block() for _ in range(2)]

    def run(block: int) -> None:
        for _ in range(20):
            made.feed(block)

    first = in_thread(lambda: run(blocks[0]))
    time.sleep(0.01)
    run(blocks[1])
    first.join(10)
    assert sum(len(views) == 2 for views in made.native.passes) >= 15


def test_a_pass_keeps_within_n_batch_and_the_first_in_the_queue_is_always_in_it() -> None:
    made = Made()
    blocks = [made.block() for _ in range(5)]
    began, go_on = blocked(made)
    threads = [in_thread(lambda: made.feed(blocks[0]))]
    began.wait(10)
    for block, n in zip(blocks[1:], (40, 40, 10, 30), strict=True):
        threads.append(in_thread(lambda block=block, n=n: made.feed(block, [1] * n)))  # type: ignore[misc]
        wait_for(lambda block=block: any(("block", block) in request.alone for request in made.merger._queue))
    go_on.set()
    for thread in threads:
        thread.join(10)
    sizes = [[n for _, n in views] for views in made.native.passes]
    assert sizes == [[1], [40, 10], [40], [30]]


def test_an_own_block_or_a_sampler_that_two_ask_for_goes_into_two_passes() -> None:
    made = Made()
    one, other, third = (made.block() for _ in range(3))
    began, go_on = blocked(made)
    threads = [in_thread(lambda: made.feed(third))]
    began.wait(10)
    for block, sampler in [(one, "a"), (one, "b"), (other, "a"), (third, "c")]:
        n = len(made.merger._queue)
        threads.append(in_thread(lambda b=block, s=sampler: made.feed(b, sampler=s)))  # type: ignore[misc]
        wait_for(lambda n=n: len(made.merger._queue) > n)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert made.native.passes[1] == [(one, 1), (third, 1)]
    assert sorted(made.native.lens.values()) == [1, 2, 2]


def test_the_main_thread_leads_nobody_but_itself() -> None:
    made = Made()
    blocks = [made.block() for _ in range(3)]
    with ThreadPoolExecutor(1) as pool:
        # Somebody waits, and is about to lead.
        other = pool.submit(lambda: Request([DecodeView([blocks[1]], [1])])).result()
        made.merger._ask(other)

        def lead() -> None:
            time.sleep(0.05)
            made.feed(blocks[2])

        led = pool.submit(lead)
        made.feed(blocks[0])
        led.result()
    assert [sorted(own for own, _ in views) for views in made.native.passes] == [blocks]
    assert made.native.threads == [False]
    made.feed(blocks[0])
    assert made.native.threads == [False, True]


# -- errors --


def test_where_several_are_refused_each_has_its_own_error_and_the_others_are_fed() -> None:
    made = Made()
    blocks = [made.block() for _ in range(4)]
    made.native.lens.pop(blocks[2])
    began, go_on = blocked(made)
    failures: dict[int, HogwildError] = {}

    def feed(block: int) -> None:
        try:
            made.feed(block)
        except HogwildError as error:
            failures[block] = error

    threads = [in_thread(lambda: feed(blocks[0]))]
    began.wait(10)
    threads += [in_thread(lambda block=block: feed(block)) for block in blocks[1:]]  # type: ignore[misc]
    wait_for(lambda: len(made.merger._queue) == 3)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert list(failures) == [blocks[2]]
    assert isinstance(failures[blocks[2]], InvalidArgument)
    assert [made.ledger.len(block) for block in blocks] == [1, 1, 0, 1]


def test_free_cells_are_promised_in_order() -> None:
    made = Made(n_ctx=40)
    blocks = [made.block() for _ in range(3)]
    began, go_on = blocked(made)
    first = in_thread(lambda: made.feed(blocks[0], [1] * 20))
    began.wait(10)
    assert made.ledger.n_free == 20  # what runs has its cells
    second = in_thread(lambda: made.feed(blocks[1], [1] * 15))
    wait_for(lambda: made.merger._queue)
    with pytest.raises(CacheFull) as full:
        made.feed(blocks[2], [1] * 6)
    assert (full.value.needed, full.value.free) == (6, 5)
    go_on.set()
    first.join(10)
    second.join(10)
    assert [made.ledger.len(block) for block in blocks] == [20, 15, 0]
    made.feed(blocks[2], [1] * 5)
    assert made.is_settled()


def test_a_leader_that_is_interrupted_leaves_the_others_an_error_and_no_deadlock() -> None:
    made = Made()
    blocks = [made.block() for _ in range(3)]
    began, go_on = blocked(made)
    errors_of: dict[int, BaseException] = {}

    def feed(block: int) -> None:
        try:
            made.feed(block)
        except BaseException as error:
            errors_of[block] = error

    threads = [in_thread(lambda: feed(blocks[0]))]
    began.wait(10)

    def interrupt(views: Sequence[DecodeView]) -> None:
        made.native.before = lambda views: None
        raise SystemExit

    threads += [in_thread(lambda block=block: feed(block)) for block in blocks[1:]]  # type: ignore[misc]
    wait_for(lambda: len(made.merger._queue) == 2)
    made.native.before = interrupt
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(errors_of) == 2
    assert {type(error) for error in errors_of.values()} == {SystemExit, ComputeError}
    made.feed(blocks[1])
    assert made.is_settled()


# -- long prompts --


def test_a_long_prompt_alone_is_fed_by_n_batch() -> None:
    made = Made()
    block = made.block()
    made.prompt(block, 150)
    assert [views[0][1] for views in made.native.passes] == [64, 64, 22]
    assert made.is_settled()


def test_while_a_long_prompt_lasts_the_passes_of_others_take_at_most_twice_as_long() -> None:
    made = Made(lambda n: 0.004 + 0.001 * n)
    # What a pass takes is told, not measured: the machine may be busy.
    made.merger._clock = lambda: sum(made.native.seconds(sum(dict(views).values())) for views in made.native.passes)
    long, *blocks = (made.block() for _ in range(4))
    ended = threading.Event()

    def run(block: int) -> None:
        while not ended.is_set():
            made.feed(block)

    threads = [in_thread(lambda block=block: run(block)) for block in blocks]  # type: ignore[misc]
    time.sleep(0.1)
    made.prompt(long, 200)
    time.sleep(0.1)
    ended.set()
    for thread in threads:
        thread.join(10)
    with_others = [dict(views) for views in made.native.passes if len(views) > 1]
    seconds = [made.native.seconds(sum(views.values())) for views in with_others if long in views]
    plain = [made.native.seconds(sum(views.values())) for views in with_others if long not in views]
    assert len(seconds) > 10  # it is fed beside the others
    assert median(seconds) <= 2 * median(plain)
    assert sum(n for views in made.native.passes for own, n in views if own == long) == 200
    assert made.is_settled()


def test_a_prompt_keeps_its_cells_promised_between_its_parts() -> None:
    made = Made(n_ctx=200)
    long, other = made.block(), made.block()
    request = Request([DecodeView([long], [1] * 150)], Pace(), N_BATCH)
    made.merger.feed(request)
    assert (made.ledger.len(long), made.ledger.n_free) == (64, 50)
    with pytest.raises(CacheFull):
        made.feed(other, [1] * 60)
    del request  # who asked has gone without a word, as after two Ctrl+C
    assert made.ledger.n_free == 136


@pytest.mark.parametrize(("n_outputs", "targets"), [(0, None), (1, None), (7, [1, 2, 3, 4, 5, 6, 7]), (20, None)])
def test_the_parts_of_a_view_are_the_view(n_outputs: int, targets: list[int] | None) -> None:
    whole = DecodeView([3, 4], list(range(20)), n_outputs, targets=targets, sampler="s")
    for sizes in ([20], [1] * 20, [7, 13], [19, 1]):
        rest, tokens, outputs, goals = whole, [], 0, []
        for n in sizes:
            part, rest = rest.first(n), rest.rest(n)
            tokens += part.tokens
            outputs += part.n_outputs
            goals += part.targets or []
            assert (part.sampler == "s") == (not rest.tokens)
        assert (tokens, outputs, goals) == (whole.tokens, n_outputs, targets or [])


# -- pieces --


def test_the_share_of_a_prompt_follows_what_was_measured() -> None:
    pace = Pace()
    assert pace.share(4) == 0  # the others' pass is not known yet
    pace.took(4, 0, 1.0)
    assert pace.share(4) == 4
    pace.took(4, 4, 1.1)  # cheap: twice as many, not eight times
    assert pace.share(4) == 8
    pace.took(4, 8, 5.0)  # four times the others' time
    assert pace.share(4) == 1
    pace.took(4, 1, 1.0)
    assert pace.share(4) == 2
    assert pace.share(5) == 0


def test_who_comes_late_is_not_waited_for_until_it_was_seen_in_time() -> None:
    turns = Turns()
    turns.woke([1, 2, 3], 0.1, now=10.0)
    assert turns.patience == pytest.approx(0.005)
    turns.came(1, 10.001)
    assert turns.n_awaited == 2
    turns.came(2, 10.002)
    assert turns.wait_for_one()  # 1 and 2 have come
    assert not turns.wait_for_one()
    turns.give_up()
    turns.woke([1, 2, 3], 0.1, now=11.0)
    assert turns.n_awaited == 2  # 3 did not come
    turns.came(3, 11.001)
    turns.woke([1, 2, 3], 0.1, now=12.0)
    assert turns.n_awaited == 3
    for caller in (1, 2, 3):
        turns.came(caller, 12.001)
    assert turns.n_awaited == 0


def test_freeing_is_noted_at_once_and_done_later_once() -> None:
    made = Made()
    one, other = made.block(), made.block()
    made.feed(one, [1] * 10)
    made.feed(other, [1] * 5)
    began, go_on = blocked(made)
    thread = in_thread(lambda: made.feed(other))
    began.wait(10)
    made.free(one)  # while a pass runs
    made.free(one)
    assert one in made.native.lens
    assert made.ledger.n_free == N_CTX - 5 - 1
    go_on.set()
    thread.join(10)
    made.feed(other)
    assert one not in made.native.lens
    assert made.is_settled()


def test_random_callers_lose_nothing() -> None:
    made = Made(lambda n: 0.0002)

    def cut(block: int, n: int) -> None:
        made.merger.alone(lambda: made.ledger.truncate(block, n))

    def run(seed: int) -> int:
        rng, n, block = random.Random(seed), 0, made.block()
        for _ in range(60):
            match rng.choice("fffffffpcd"):
                case "f":
                    n += (k := rng.randrange(1, 9))
                    made.feed(block, [1] * k)
                case "p":
                    n += (k := rng.randrange(20, 150))
                    made.prompt(block, k)
                case "c":
                    n = rng.randrange(n + 1)
                    cut(block, n)
                case "d":
                    made.free(block)
                    block, n = made.block(), 0
            assert made.ledger.len(block) == n
        return n

    with ThreadPoolExecutor(8) as pool:
        lens = list(pool.map(run, range(8)))
    assert made.is_settled()
    assert sum(lens) == sum(made.native.lens.values())
