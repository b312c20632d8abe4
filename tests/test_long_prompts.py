"""Long prompts among many callers: cut into parts that let the others go on."""

from __future__ import annotations

import threading
import time
from statistics import mean, median

import pytest
from merging_scene import N_BATCH, Made, blocked, in_thread, wait_for

from hogwild_local.engine.merging import POLL_S, Request
from hogwild_local.engine.pace import AIM, FURTHER, Pace, full_rows
from hogwild_local.engine.views import DecodeView
from hogwild_local.errors import CacheFull


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


def test_a_prompt_that_looks_while_its_pass_is_being_told_is_fed_to_its_end() -> None:
    """A leader may be held up between the pass and its word to those who wait, for longer than these sleep."""
    made = Made()
    long, other, ended = made.block(), made.block(), threading.Event()
    end = made.merger._end

    def late(*arguments: object) -> None:
        time.sleep(2 * POLL_S)
        end(*arguments)  # type: ignore[arg-type]

    def lead() -> None:
        while not ended.is_set():
            made.feed(other)

    made.merger._end = late  # type: ignore[method-assign]
    leader = in_thread(lead)
    wait_for(lambda: made.native.passes)
    made.prompt(long, 150)  # the main thread leads nobody else's pass
    ended.set()
    leader.join(10)
    assert any(len(views) > 1 for views in made.native.passes)
    assert sum(n for views in made.native.passes for own, n in views if own == long) == 150
    assert made.is_settled()


def test_a_prompt_keeps_its_cells_promised_between_its_parts() -> None:
    made = Made(n_ctx=200)
    long, other = made.block(), made.block()
    request = Request([DecodeView([long], [1] * 150)], N_BATCH)
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


def test_the_share_of_a_prompt_follows_what_was_measured() -> None:
    pace, prompt = Pace(), object()
    assert pace.share(prompt, 4, 1) == 0  # the others' pass is not known yet
    pace.took(4, 0, 1.0)
    assert pace.share(prompt, 4, 1) == 4
    pace.took(4, 4, 1.1)  # cheap: twice as many, not eight times
    assert pace.share(prompt, 4, 1) == 8
    pace.took(4, 8, 5.0)  # four times the others' time
    assert pace.share(prompt, 4, 1) == 4  # rows come in fours
    assert pace.share(prompt, 5, 1) == 0
    assert pace.share(object(), 4, 1) == 0  # another prompt: their pass is measured again


@pytest.mark.parametrize("token_s", [0.01, 0.04, 0.19, 0.25, 0.6])
@pytest.mark.parametrize("n_prompts", [1, 3])
def test_passes_are_as_long_as_allowed_in_the_mean_whatever_a_token_costs(token_s: float, n_prompts: int) -> None:
    pace, prompt, times = Pace(), object(), []
    for _ in range(200):
        n = pace.share(prompt, 4, n_prompts)
        times.append(1.0 + n * token_s)
        pace.took(4, n, times[-1])
    assert mean(times) == pytest.approx(1 + AIM + FURTHER * (n_prompts - 1), rel=0.05)


def test_for_each_further_prompt_that_waits_twice_the_time_of_the_others_is_taken() -> None:
    pace, prompt = Pace(), object()
    pace.took(0, 64, 6.4)
    assert pace.share(prompt, 4, 1) == 0
    pace.took(4, 0, 1.0)
    assert [pace.share(prompt, 4, n) for n in (1, 3, 8)] == [8, 28, 124]


def test_no_row_of_a_pass_is_computed_for_nothing() -> None:
    assert [full_rows(n) for n in (3, 4, 7, 31, 32, 63, 64, 100)] == [0, 4, 4, 28, 32, 32, 64, 96]
    assert [full_rows(0, n) for n in (1, 4, 5, 29, 32, 33)] == [4, 4, 8, 32, 32, 64]


def test_prompts_share_a_pass_and_the_one_that_would_have_ended_first_goes_first() -> None:
    made = Made()
    began, go_on = blocked(made)
    first, long, short, equal, late = (made.block() for _ in range(5))
    threads = [in_thread(lambda: made.prompt(first, 20))]
    assert began.wait(10)
    for block, n in ((long, 100), (short, 30), (equal, 100)):
        threads.append(in_thread(lambda block=block, n=n: made.prompt(block, n)))  # type: ignore[misc]
        wait_for(lambda: len(made.merger._queue) == len(threads) - 1)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert made.native.passes == [
        [(first, 20)], [(short, 30), (long, 34)], [(long, 64)], [(long, 2), (equal, 62)], [(equal, 38)],
    ]  # fmt: skip
    made.prompt(late, 10)
    assert made.is_settled()


def test_no_stream_of_short_prompts_holds_up_a_long_one() -> None:
    made = Made()
    began, go_on = blocked(made)
    first, long, *blocks = (made.block() for _ in range(4))
    threads = [in_thread(lambda: made.prompt(first, 20))]
    assert began.wait(10)
    threads.append(in_thread(lambda: made.prompt(long, 200)))
    wait_for(lambda: len(made.merger._queue) == 1)

    def stream(block: int) -> None:
        for _ in range(20):
            made.prompt(block, N_BATCH)

    shorts = [in_thread(lambda block=block: stream(block)) for block in blocks]  # type: ignore[misc]
    wait_for(lambda: len(made.merger._queue) == 3)
    go_on.set()
    for thread in [*threads, *shorts]:
        thread.join(10)
    of_long = [n for n, views in enumerate(made.native.passes) if any(own == long for own, _ in views)]
    # 20 tokens were fed before, 200 are its own, and so many may come before it.
    assert of_long[-1] * N_BATCH <= 20 + 200 + 200 + 2 * N_BATCH
    assert made.is_settled()


def test_a_pass_that_was_interrupted_tells_nothing_of_how_long_passes_take() -> None:
    made = Made()
    block = made.block()

    def interrupt(views: object) -> None:
        raise KeyboardInterrupt

    made.native.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        made.feed(block)
    made.native.before = lambda views: None
    assert made.merger._pace._alone_s == {}
    made.feed(block)
    assert list(made.merger._pace._alone_s) == [1]
