"""One run, followed to its end, and what it would have been with smaller budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from .. import events as ev
from ..errors import CacheFull, Closed
from ..hogwild import Hogwild
from ..options import LayoutName
from ..prompts.style import PromptStyle
from ..workers.run import Run
from .plan import Plan
from .settings import LAYOUTS, Arm


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run with a budget; the fields are those of Record."""

    budget: int
    answer: str | None = None
    by_finisher: bool = False
    passes: int = 0
    tokens: int = 0
    reason: str = "budget"
    milliseconds: float = 0.0
    error: str | None = None
    steps: list[list[str]] | None = None
    texts: dict[str, str] | None = None


def budgets_share_runs(plan: Plan, style: PromptStyle) -> bool:
    """Is a run with a small budget the beginning of one with a large budget?

    Not with a finisher, which asks where the budget ends. And not if a stop string could hold back the end of an
    answer: where the budget ends, what is held back is let go.
    """
    held = any(style.answer.closes_with[-1:] in stop for stop in style.stop.strings)
    return not plan.finisher_tokens and not held


def follow(
    hogwild: Hogwild, plan: Plan, arm: Arm, problem: str, seed: int, budget: int, marks: Sequence[int] = ()
) -> list[Outcome]:
    """Runs a problem to its end. Returns what came of it, and before that what a run with each of the marks, smaller
    budgets, would have come to; a mark that the run did not get beyond is left out.

    A problem that the cache has no room for is an outcome; all other errors of stream() are raised.
    """
    follower = _Follower(budget, sorted(marks))
    run = hogwild.stream(
        problem,
        workers=arm.workers,
        layout=LAYOUTS.get(arm.layout) or cast(LayoutName, arm.layout),
        max_passes=budget,
        seed=seed,
        sampling=replace(plan.sampling, temperature=arm.temperature),
        finisher=plan.finisher_tokens > 0,
        finisher_tokens=plan.finisher_tokens or 1,
        redundancy_every=plan.redundancy_every,
        answer_at=plan.answer_at,
        eos_ends_run=plan.eos_ends_run,
        reply=False,
        cache_prompt=False,  # logits differ in their last bits by what is computed together: a seed must repeat a run
        thinking=plan.thinking,
        date=plan.date,
    )
    with run:
        try:
            follower.follow(run)
        except CacheFull as error:
            return [*follower.cuts, Outcome(budget, reason="cache_full", error=str(error))]
    return [*follower.cuts, follower.outcome(plan.transcripts)]


class _Follower:
    """Looks at the events of one run."""

    def __init__(self, budget: int, marks: list[int]) -> None:
        self.cuts: list[Outcome] = []
        self._budget, self._marks = budget, marks
        self._timings, self._usage = ev.Timings(), ev.Usage()
        self._answer: ev.Answer | None = None
        self._reason: ev.Reason | None = None
        self._steps: list[list[str]] = []
        self._texts: dict[str, str] = {}

    def follow(self, run: Run) -> None:
        for event in run:
            self._take(event)
        if self._reason is None:
            raise Closed("the Hogwild was closed while it ran")

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.RunStarted():
                self._texts = dict.fromkeys(event.workers, "")
            case ev.Token(worker=str() as worker):
                self._texts[worker] += event.text
            case ev.StepEnded():
                self._steps.append([event.worker, event.text, event.reason])
            case ev.PassEnded():
                # The first pass beyond a mark: what was before it is all that a run with that budget does.
                while self._marks and event.timings.passes > self._marks[0]:
                    self.cuts.append(self._cut(self._marks.pop(0)))
                self._timings, self._usage = event.timings, event.usage
            case ev.Answer():
                self._answer = event
            case ev.RunEnded():
                self._timings, self._usage, self._reason = event.timings, event.usage, event.reason

    def _cut(self, budget: int) -> Outcome:
        """Without a finisher, and not ended yet: there is no answer."""
        milliseconds = self._timings.prompt_ms + self._timings.generate_ms
        return Outcome(budget, None, False, budget, self._usage.completion_tokens, "budget", milliseconds)

    def outcome(self, transcript: bool) -> Outcome:
        answer = self._answer
        assert self._reason is not None
        return Outcome(
            self._budget,
            answer=answer.text if answer else None,
            by_finisher=answer is not None and answer.worker is None,
            passes=self._timings.passes,
            tokens=self._usage.completion_tokens,
            reason=self._reason,
            milliseconds=self._timings.prompt_ms + self._timings.generate_ms,
            steps=self._steps if transcript else None,
            texts=self._texts if transcript else None,
        )
