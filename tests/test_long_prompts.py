"""Long prompts among many callers: cut into parts that let the others go on."""

from __future__ import annotations

import threading
import time
from statistics import median

import pytest
from merging_scene import N_BATCH, Made, in_thread, wait_for

from hogwild_local.engine.merging import POLL_S, Request
from hogwild_local.engine.pace import Pace
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
