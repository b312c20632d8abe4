"""One pass for many callers: who goes into it, and what becomes of errors."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import mean

import pytest
from merging_scene import N_BATCH, N_CTX, Made, blocked, in_thread, wait_for

from hogwild_local.engine import turns
from hogwild_local.engine.merging import Request
from hogwild_local.engine.turns import Turns
from hogwild_local.engine.views import DecodeView
from hogwild_local.errors import CacheFull, ComputeError, HogwildError, InvalidArgument

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


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes may keep a thread from asking in time. That who is waited for comes is what counts here."""
    monkeypatch.setattr(turns, "PATIENCE_S", 1.0)


@pytest.mark.parametrize("main_too", [False, True])
def test_eight_callers_in_step_stay_in_step(main_too: bool, patient: None) -> None:
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


def test_two_callers_that_do_not_begin_together_share_their_passes(patient: None) -> None:
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


def test_who_comes_late_is_not_waited_for_until_it_was_seen_in_time() -> None:
    turns, end = Turns(), threading.Event()
    callers = [in_thread(lambda: end.wait(60)) for _ in range(3)]
    turns.woke(callers, 0.1, now=10.0)
    assert turns.patience == pytest.approx(0.005)
    turns.came(callers[0], 10.001)
    assert turns.n_awaited == 2
    turns.came(callers[1], 10.002)
    assert turns.wait_for_one()  # two have come
    assert not turns.wait_for_one()
    turns.give_up()
    turns.woke(callers, 0.1, now=11.0)
    assert turns.n_awaited == 2  # the third did not come
    turns.came(callers[2], 11.001)
    turns.woke(callers, 0.1, now=12.0)
    assert turns.n_awaited == 3
    for caller in callers:
        turns.came(caller, 12.001)
    assert turns.n_awaited == 0
    end.set()


def test_threads_that_have_ended_are_forgotten_with_the_next_pass() -> None:
    made, all_alive = Made(), threading.Barrier(20)

    def call(block: int) -> None:
        made.merger.feed(Request([DecodeView([block], [1])], N_BATCH, n_later=5))  # of a prompt that never goes on
        all_alive.wait(10)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(call, [made.block() for _ in range(20)]))
    merger, turns = made.merger, made.merger._turns
    assert turns._in_time_until
    assert turns._late or turns._away
    assert merger._dues
    made.feed(made.block())
    kept = (turns._away, turns._late, turns._in_time_until, merger._dues)
    assert {caller for callers in kept for caller in callers} == {threading.current_thread()}


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
