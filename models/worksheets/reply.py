"""The reply: what one voice says when the work has ended. It has read all that was written, and says what is there:

The results are a = 85, b = 72 and c = 19.
So far a = 85, b is not done and c = 19. The given c = 49 was wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from .alphabet import EOS
from .collaboration import NEVER, Fed, Lesson

OPENING = "\n>"


def with_reply(lesson: Lesson, n_passes: int) -> Lesson:
    """The lesson and its reply. The work ends after n_passes: with the answer, or because the budget ends. As in
    hogwild_local's worker loop, one more pass feeds what all have sampled last; but where that ended a step and the
    next one was about to begin, it has nobody to be fed to."""
    answered = n_passes == lesson.n_passes
    streams = [stream[:n_passes] for stream in lesson.streams]
    for stream in streams:
        last = stream[-1]
        if answered or last.target != "\n":
            stream.append(Fed(n_passes, last.target, "", True, last.step))
    # With the answer everything ends: steps of the same pass join the history with all that is left, in worker order.
    joined = n_passes - answered
    steps = [step if step.in_history_from <= joined else replace(step, in_history_from=NEVER) for step in lesson.steps]
    return replace(lesson, streams=streams, steps=steps, n_passes=n_passes + 1, reply=_reply(lesson, n_passes))


def reply_length(lesson: Lesson) -> int:
    """How many tokens of a reply are fed: its opening, and all but its last one."""
    return len(OPENING) + len(lesson.reply) - 1 if lesson.reply else 0


def _reply(lesson: Lesson, last_pass: int) -> tuple[str, ...]:
    """last_pass: the last one in which something was fed."""
    sheet, steps = lesson.sheet, lesson.steps
    done = {step.label for step in steps if not step.is_wrong and step.value_from < last_pass}  # with both digits
    wrong = (sheet.wrong, f"{sheet.wrong_result:02}") if sheet.wrong else None
    noticed = wrong if any(step.fix_from <= last_pass for step in steps) else None
    labels = [item.label for item in sheet.items]
    return tuple(sentences(labels, {label: f"{sheet.result(label):02}" for label in done}, noticed))


def sentences(labels: Sequence[str], results: Mapping[str, str], wrong: tuple[str, str] | None) -> Iterator[str]:
    """The tokens of a reply. results: two digits each, by label, as far as they are there; wrong: the label and the
    result that came with the worksheet, where somebody has found that it is wrong."""
    yield from ("The ", "results ", "are ") if all(label in results for label in labels) else ("So ", "far ")
    for label in labels:
        if label != labels[0]:
            yield " and " if label == labels[-1] else ", "
        yield label
        yield from (" = ", *results[label]) if label in results else (" is ", "not ", "done")
    yield "."
    if wrong:
        yield from (" The ", "given ", wrong[0], " = ", *wrong[1], " was ", "wrong", ".")
    yield EOS
