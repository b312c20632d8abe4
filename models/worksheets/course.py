"""The course: which lessons a model gets, and in which order. It follows from the seed alone."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from .collaboration import Collaboration, Lesson, Visibility
from .items import MAX_ITEMS, MAX_WORKERS, random_worksheet
from .reply import reply_length, with_reply

CHOICE = 3  # as many lessons are made as fit this often, so that those of a batch can be of one size
DEAR = 500  # tokens of a lesson for which attention costs as much as all else
KINDS: tuple[Visibility, ...] = ("combined", "interleaved", "contiguous")
WARM_UP = 100  # steps
LAST_RATE = 0.02  # of the full rate, at the end of a phase


@dataclass(frozen=True)
class Phase:
    """A part of the course. steps: of the optimizer. rate: of learning, at its highest: it warms up, then falls along a
    cosine. kinds: how often lessons are of each of the KINDS."""

    steps: int
    rate: float
    kinds: tuple[int, int, int]

    def rate_at(self, step: int) -> float:
        fall = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * step / self.steps)) / 2
        return self.rate * min(1.0, (step + 1) / WARM_UP) * fall


# Who sees only finished steps keeps to a share, which depends on the worker and on how many there are: after the
# first phase those choices, and nothing else, went wrong often (6, 20 and 26 % of them, with 2, 3 and 4 workers).
PHASES = (Phase(2500, 3e-3, (6, 2, 2)), Phase(1000, 1.5e-3, (3, 5, 2)))


@dataclass(frozen=True)
class Course:
    """tokens: of one step, those of all processes together, where a lesson has 500; of longer ones fewer, so that all
    steps cost the same. grown_up: the step from which on worksheets have up to 12 items; in the first one, up to 3.
    freedom: see Collaboration. replies: how many batches have them. stopped: how many of those lessons end with the
    budget, anywhere, and not with the answer."""

    phases: tuple[Phase, ...] = PHASES
    tokens: int = 8192
    processes: int = 2
    grown_up: int = 750
    freedom: float = 0.03
    replies: float = 0.4
    stopped: float = 0.4
    seed: int = 1

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def phase_of(self, step: int) -> tuple[Phase, int]:
        """The phase of a step, and its number there. Raises IndexError for a step after the last one."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise IndexError("the course has no such step")


def lessons_of(course: Course, step: int, rank: int) -> list[Lesson]:
    """What one process learns in one step: lessons of about the same size, as many as fit."""
    rng = random.Random(f"{course.seed}/{step}/{rank}")
    most = course.tokens // course.processes
    lessons = _lessons(course, step, rng)
    made = [next(lessons)]
    while _cost(made) <= CHOICE * most:
        made.append(next(lessons))
    return rng.choice(list(_batches(sorted(made, key=lambda lesson: _cost([lesson])), most)))


def _lessons(course: Course, step: int, rng: random.Random) -> Iterator[Lesson]:
    """As many as one likes, of one kind."""
    most = 3 + (MAX_ITEMS - 3) * min(1.0, step / course.grown_up)
    n_items, n_workers = rng.randint(2, round(most)), rng.randint(1, MAX_WORKERS)
    visibility = rng.choices(KINDS, course.phase_of(step)[0].kinds)[0]
    has_given, has_reply = rng.random() < 1 / 2, rng.random() < course.replies
    while True:
        sheet = random_worksheet(rng, n_items, has_given)
        lesson = Collaboration(sheet, n_workers, visibility, rng, course.freedom).lesson()
        if has_reply:
            stops = rng.random() < course.stopped
            lesson = with_reply(lesson, rng.randint(1, lesson.n_passes) if stops else lesson.n_passes)
        yield lesson


def _batches(lessons: list[Lesson], most: int) -> Iterator[list[Lesson]]:
    """All lessons in their order, as many in a batch as that cost allows, but at least one. The last batch is filled up
    with lessons of the one before."""
    batch: list[Lesson] = []
    for lesson in lessons:
        if batch and _cost([*batch, lesson]) > most:
            yield batch
            batch = []
        batch.append(lesson)
    for lesson in reversed(lessons[: -len(batch)]):
        if _cost([lesson, *batch]) > most:
            break
        batch.insert(0, lesson)
    yield batch


def _cost(lessons: list[Lesson]) -> float:
    """Of a batch of these, in tokens."""
    prompt = max(len(lesson.prompt) + 1 for lesson in lessons)
    stream = max(sum(len(fed.tokens) for fed in stream) for lesson in lessons for stream in lesson.streams)
    n = prompt + len(lessons[0].streams) * stream + max(map(reply_length, lessons))
    return len(lessons) * n * (1 + n / DEAR) / 2
