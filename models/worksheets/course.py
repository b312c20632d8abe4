"""The course: which lessons a model gets, and in which order. It follows from the seed alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .collaboration import Collaboration, Lesson, Visibility
from .items import MAX_ITEMS, MAX_WORKERS, random_worksheet


@dataclass(frozen=True)
class Course:
    """steps: of the optimizer. tokens: of one step, those of all processes together. grown_up: the part of the steps in
    which worksheets grow from 3 items to 12. freedom: see Collaboration."""

    steps: int = 3200
    tokens: int = 8192
    processes: int = 2
    grown_up: float = 0.3
    freedom: float = 0.03
    seed: int = 1


def lessons_of(course: Course, step: int, rank: int) -> list[Lesson]:
    """What one process learns in one step: lessons of about the same size, as many as fit."""
    rng = random.Random(f"{course.seed}/{step}/{rank}")
    growing = course.grown_up * course.steps
    most = 3 + (MAX_ITEMS - 3) * (min(1.0, step / growing) if growing else 1.0)
    n_items = rng.randint(2, round(most))
    n_workers = rng.randint(1, MAX_WORKERS)
    kinds: tuple[Visibility, ...] = ("combined", "interleaved", "contiguous")
    visibility = rng.choices(kinds, (6, 2, 2))[0]
    has_given = rng.random() < 1 / 2
    lessons: list[Lesson] = []
    longest_prompt = longest_stream = 0
    while True:
        sheet = random_worksheet(rng, n_items, has_given)
        lesson = Collaboration(sheet, n_workers, visibility, rng, course.freedom).lesson()
        longest_prompt = max(longest_prompt, len(lesson.prompt) + 1)
        longest_stream = max(longest_stream, *(sum(len(fed.tokens) for fed in stream) for stream in lesson.streams))
        size = (longest_prompt + n_workers * longest_stream) * (len(lessons) + 1)
        if lessons and size > course.tokens // course.processes:
            return lessons
        lessons.append(lesson)
