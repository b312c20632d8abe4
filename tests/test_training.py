"""The course that the worksheet model takes, and that a training goes through it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.worksheets.batches import make_batch
from models.worksheets.course import KINDS, PHASES, Course, Phase, lessons_of


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.integers(0, 1), st.integers(0, 2**32))
def test_a_batch_costs_what_the_course_allows_and_wastes_little(step: int, rank: int, seed: int) -> None:
    course = Course(grown_up=30, seed=seed)
    lessons = lessons_of(course, step, rank)
    assert lessons == lessons_of(course, step, rank)
    assert {(len(made.streams), made.visibility, len(made.sheet.items)) for made in lessons} == {
        (len(lessons[0].streams), lessons[0].visibility, len(lessons[0].sheet.items))
    }
    n, length = make_batch(lessons).tokens.shape
    most = course.tokens / course.processes
    assert n == 1 or most / 2 <= n * length * (1 + length / 500) / 2 <= most


def test_a_course_has_worksheets_of_all_kinds_with_replies_and_without() -> None:
    course = Course(grown_up=30)
    batches = [lessons_of(course, step, 0) for step in range(100)]
    assert {len(made[0].streams) for made in batches} == {1, 2, 3, 4}
    assert {made[0].visibility for made in batches} == set(KINDS)
    assert 25 <= sum(bool(made[0].reply) for made in batches) <= 55
    assert max(len(made[0].sheet.items) for made in batches[:3]) <= 4
    assert {len(made[0].sheet.items) for made in batches[30:]} == set(range(2, 13))
    replies = [made.reply for lessons in batches for made in lessons if made.reply]
    so_far = sum(reply[0] == "So " for reply in replies)
    assert 0.2 <= so_far / len(replies) <= 0.4


def test_a_course_has_phases_each_with_its_kinds_of_lessons_and_its_rate() -> None:
    course = Course((Phase(20, 3.0, (1, 0, 0)), Phase(10, 2.0, (0, 1, 1))), tokens=1000)
    kinds = [{made.visibility for made in lessons_of(course, step, 0)} for step in range(course.steps)]
    assert set().union(*kinds[:20]) == {"combined"}
    assert set().union(*kinds[20:]) == {"interleaved", "contiguous"}
    assert [course.phase_of(step) for step in (0, 19, 20, 29)] == [
        (course.phases[0], 0), (course.phases[0], 19), (course.phases[1], 0), (course.phases[1], 9)
    ]  # fmt: skip
    with pytest.raises(IndexError):
        course.phase_of(30)


def test_in_each_phase_the_rate_warms_up_and_falls() -> None:
    for phase in PHASES:
        rates = [phase.rate_at(step) for step in range(phase.steps)]
        highest = rates.index(max(rates))
        assert phase.rate * 0.95 <= rates[highest] <= phase.rate
        assert rates[: highest + 1] == sorted(rates[: highest + 1])
        assert rates[highest:] == sorted(rates[highest:], reverse=True)
        assert rates[0] <= phase.rate / 50
        assert rates[-1] <= phase.rate / 40


def test_a_training_that_was_interrupted_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason="training needs PyTorch: pip install '.[train]'")
    from models.worksheets.network import Size
    from models.worksheets.optimizer import Optimizer
    from models.worksheets.train import Training, train

    torch.set_num_threads(1)  # two wait for each other where the machine is busy
    small = Size(layers=1, width=32, heads=1, feed_forward=32)
    course = Course((Phase(2, 3e-3, (1, 1, 1)), Phase(3, 1e-3, (0, 1, 0))), tokens=500, processes=1)
    training = Training(course, small, save_every=2)
    step, taken = Optimizer.step, itertools.count()

    def interrupt(self: Optimizer, rate: float, processes: int) -> None:
        if next(taken) == 3:
            raise KeyboardInterrupt
        step(self, rate, processes)

    train(tmp_path / "whole", training)
    with monkeypatch.context() as patch:
        patch.setattr(Optimizer, "step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", training)
    train(tmp_path / "cut", training)
    whole, cut = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "cut"))
    assert whole["step"] == cut["step"] == 5
    for name, weight in whole["network"].items():
        torch.testing.assert_close(cut["network"][name], weight)
    with pytest.raises(ValueError, match="course differ"):
        train(tmp_path / "cut", Training(replace(course, seed=2), small))
