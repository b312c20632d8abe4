"""What perfect workers write together: the lessons that the model learns from.

The passes are those of hogwild_local's worker loop: in each, every worker is fed what it sampled last (after the end
of a step, that and the prefix of the next), sees what the others are fed in the same pass, and samples one token. A
decision rests only on what its worker can see then.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .alphabet import ANSWER, FIX, GIVE_UP, LABELS, NAMES, WAIT
from .items import Worksheet

Visibility = Literal["combined", "interleaved", "contiguous"]
NEVER = 1 << 30


@dataclass(slots=True)
class Step:
    """A step in the making. The numbers are passes: from then on it is seen (what is sampled in one pass is fed, and
    so seen, in the next)."""

    worker: int  # -1: it came with the worksheet
    label: str = ""
    is_fix: bool = False
    fix_from: int = NEVER  # the mark that announces a fix
    label_from: int = NEVER
    value_from: int = NEVER  # the first digit of the result
    given_up_from: int = NEVER
    answer_from: int = NEVER
    in_history_from: int = NEVER
    is_wrong: bool = False


@dataclass(frozen=True, slots=True)
class Fed:
    """Tokens fed to a worker in one pass, as part of a step (an index into Lesson.steps), and the one that it samples
    then. is_free: there is nothing to learn from it, since the choice was made at random, or none was made."""

    n_pass: int
    tokens: str
    target: str
    is_free: bool
    step: int


@dataclass(frozen=True, slots=True)
class Lesson:
    """A worksheet solved; and what is said about it then, where it has a reply."""

    sheet: Worksheet
    visibility: Visibility
    prompt: str
    streams: list[list[Fed]]  # of each worker
    steps: list[Step]
    n_passes: int
    reply: tuple[str, ...] = ()  # its tokens, the end of text included


def prompt_of(sheet_text: str, n_workers: int, visibility: Visibility) -> str:
    """What all workers read: how many they are, and whether they see each other's unfinished steps (#) or not (/)."""
    return f"{'/' if visibility == 'interleaved' else '#'}{n_workers}\n{sheet_text}"


class Collaboration:
    """One worksheet and its workers. freedom: how often a worker picks an item at random, also one that is taken: so
    they learn what to do then."""

    def __init__(
        self, sheet: Worksheet, n_workers: int, visibility: Visibility, rng: random.Random, freedom: float = 0.0
    ) -> None:
        self.sheet, self.visibility, self.rng, self.freedom = sheet, visibility, rng, freedom
        self.labels = LABELS[: len(sheet.items)]
        self.now = 0
        self.answered = False
        self.steps = [
            Step(-1, label, label_from=0, value_from=0, in_history_from=0, is_wrong=label == sheet.wrong)
            for label in sheet.given
        ]
        self.writers = [Writer(index, self) for index in range(n_workers)]

    def lesson(self) -> Lesson:
        """Lets them write until one has answered."""
        streams: list[list[Fed]] = [[] for _ in self.writers]
        texts = [writer.tokens() for writer in self.writers]
        pending = [f"\n{NAMES[writer.index]}:" for writer in self.writers]
        while not self.answered:
            for index, (writer, text) in enumerate(zip(self.writers, texts, strict=True)):
                fed = pending[index]
                at = writer.at  # the step that was fed; sampling may begin another
                writer.is_free = False
                token = next(text)
                streams[index].append(Fed(self.now, fed, token, writer.is_free, at))
                pending[index] = f"\n{NAMES[index]}:" if token == "\n" else token
            self.now += 1
        prompt = prompt_of(self.sheet.text, len(self.writers), self.visibility)
        return Lesson(self.sheet, self.visibility, prompt, streams, self.steps, self.now)


class Writer:
    """One worker."""

    def __init__(self, index: int, run: Collaboration) -> None:
        self.index, self.run = index, run
        self.is_free = False
        self.chooses_in = 0  # the last pass in which it chooses what to do next
        self._begin()

    def tokens(self) -> Iterator[str]:
        """What it samples, a token a pass, for ever; each is decided when it is asked for."""
        run = self.run
        while True:
            while (choice := self._choice()) == WAIT:
                self.chooses_in = run.now + 1
                yield WAIT
            if choice == ANSWER:
                yield from self._answer()
            else:
                yield from self._solve(choice)
            self.step.in_history_from = self.chooses_in = run.now + 1
            self._begin()
            yield "\n"

    def _begin(self) -> None:
        self.step = Step(self.index)
        self.at = len(self.run.steps)
        self.run.steps.append(self.step)

    def _sees(self, step: Step, since: int) -> bool:
        """Whether something about a step, fed in pass since, is in this worker's view."""
        if self.run.visibility == "interleaved" and step.worker != self.index:
            since = max(since, step.in_history_from)
        return since <= self.run.now

    def _value_seen(self, label: str) -> bool:
        return any(step.label == label and not step.is_wrong and self._sees(step, step.value_from)
                   for step in self.run.steps)  # fmt: skip

    def _choice(self) -> str:
        """The label of an item, or FIX, WAIT, ANSWER."""
        run = self.run
        taken = {step.label for step in run.steps
                 if self._sees(step, step.label_from) and not self._sees(step, step.given_up_from)}  # fmt: skip
        left = [label for label in run.labels if label not in taken]
        if run.freedom and run.rng.random() < run.freedom and (label := self._any_label()):
            self.is_free = True
            return label
        apart = run.visibility == "interleaved"
        turn = self.index if apart else sum(other.chooses_in == run.now for other in run.writers[: self.index])
        if run.sheet.wrong and turn == 0 and not any(self._sees(step, step.fix_from) for step in run.steps):
            return FIX
        if apart and left:  # blind to what the others do, it keeps to its share, then helps from the end
            mine = [label for label in left if LABELS.index(label) % len(run.writers) == self.index]
            return mine[0] if mine else left[-1]
        if turn < len(left):
            return left[turn]
        answering = any(self._sees(step, step.answer_from) for step in run.steps)
        return WAIT if left or answering or (turn > 0 and not apart) else ANSWER

    def _any_label(self) -> str | None:
        ready = [item.label for item in self.run.sheet.items if item.needs is None or self._value_seen(item.needs)]
        return self.run.rng.choice(ready) if ready else None

    def _solve(self, choice: str) -> Iterator[str]:
        run, step = self.run, self.step
        if choice == FIX:
            assert run.sheet.wrong is not None
            step.is_fix, step.fix_from, choice = True, run.now + 1, run.sheet.wrong
            yield FIX
        step.label, step.label_from = choice, run.now + 1
        yield choice
        if self._comes_second():
            step.given_up_from = run.now + 1
            yield GIVE_UP
            return
        working = run.sheet.working(choice)[1:]
        if needs := run.sheet.items[LABELS.index(choice)].needs:
            yield from self._value_of(needs)
            working = working[3:]
        yield from f"{working}{choice}="
        result = f"{run.sheet.result(choice):02}"
        step.value_from = run.now + 1
        yield from result

    def _value_of(self, label: str) -> Iterator[str]:
        """The label and, as soon as it can be seen, its value."""
        yield label
        while not self._value_seen(label):
            yield WAIT
        yield from f"{self.run.sheet.result(label):02}"

    def _comes_second(self) -> bool:
        """Somebody else has taken the same item: earlier, or at the same time and comes first in the alphabet."""
        mine = self.step
        return any(
            step.label == mine.label and step is not mine and step.is_fix == mine.is_fix
            and self._sees(step, step.label_from) and not self._sees(step, step.given_up_from)
            and (step.label_from, step.worker) < (mine.label_from, mine.worker)
            for step in self.run.steps
        )  # fmt: skip

    def _answer(self) -> Iterator[str]:
        """Begun when all items are taken: what is not there yet is waited for."""
        self.step.answer_from = self.run.now + 1
        yield ANSWER
        for label in self.run.labels:
            yield from self._value_of(label)
        self.run.answered = True


def text_of(lesson: Lesson, worker: int) -> str:
    """All that one worker was fed and sampled last, of a lesson without reply."""
    stream = lesson.streams[worker]
    return "".join(fed.tokens for fed in stream) + stream[-1].target
