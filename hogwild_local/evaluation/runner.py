"""evaluate(): all runs of a plan, as a generator of records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

from ..errors import InvalidArgument
from ..hogwild import Hogwild
from .answers import Checker, make_checker
from .outcome import Outcome, budgets_share_runs, follow
from .plan import Plan
from .problems import Problem
from .records import Journal, Record
from .settings import Arm, arms, replica_seed


def evaluate(hogwild: Hogwild, problems: Sequence[Problem], plan: Plan, journal: Journal) -> Iterator[Record]:
    """Makes the runs that the journal lacks and yields a record of each, once it is on disk.

    Leaving the generator ends the run that is going on; what was yielded stays. With the same journal, problems, plan
    and model it goes on where it stopped, and the records are those of an evaluation that was never stopped. A problem
    that the cache has no room for is a record; all other errors end the evaluation. Budgets are tried in falling
    order, because a run that ended by itself stands for all budgets down to where it ended.

    Raises what check_truths() raises, before the first run; OSError; and what Hogwild.stream() raises.
    """
    check_truths(problems, plan)
    with make_checker(plan.check) as checker:
        for problem, arm, replica in cells(problems, plan):
            yield from _Cell(hogwild, plan, journal, checker, problem, arm, replica).records()


def cells(problems: Sequence[Problem], plan: Plan) -> Iterator[tuple[Problem, Arm, int]]:
    """Problem, arm and replica of all runs, in the order in which they are made; each has a record of every budget.
    All settings of a problem come before the next problem, so that an unfinished evaluation compares what is alike."""
    for problem in problems:
        for arm in arms(plan):
            for replica in range(arm.replicas):
                yield problem, arm, replica


def check_truths(problems: Sequence[Problem], plan: Plan) -> None:
    """Raises InvalidArgument, naming the problem, for a right answer that the plan's check can't use, and ImportError
    if the check needs what is not installed."""
    with make_checker(plan.check) as checker:
        for problem in problems:
            try:
                checker.check_truth(problem.answer)
            except InvalidArgument as error:
                raise InvalidArgument(f"problem {problem.id}: {error}") from None


class _Cell:
    """One problem, arm and replica: all budgets."""

    def __init__(
        self,
        hogwild: Hogwild,
        plan: Plan,
        journal: Journal,
        checker: Checker,
        problem: Problem,
        arm: Arm,
        replica: int,
    ) -> None:
        self._hogwild, self._plan, self._journal, self._checker = hogwild, plan, journal, checker
        self._problem, self._arm, self._replica = problem, arm, replica
        self._seed = replica_seed(plan.seed, problem.id, replica)

    def records(self) -> Iterator[Record]:
        """Those that the journal lacks, by falling budget."""
        known = self._journal.of((self._problem.id, self._arm.name, self._replica))
        missing = [budget for budget in reversed(self._plan.budgets) if budget not in known]
        made: dict[int, Record] = {}
        for at, budget in enumerate(missing):
            same = [record for record in (*known.values(), *made.values()) if record.covers(budget)]
            if not same:
                made |= self._run(budget, missing[at + 1 :])
            record = replace(same[0], budget=budget) if same else made[budget]
            self._journal.append(record)
            yield record

    def _run(self, budget: int, smaller: Sequence[int]) -> dict[int, Record]:
        """Makes a run: its record, and those of smaller budgets that come of it."""
        marks = smaller if budgets_share_runs(self._plan, self._hogwild.prompts) else ()
        problem = self._problem.problem
        outcomes = follow(self._hogwild, self._plan, self._arm, problem, self._seed, budget, marks)
        return {outcome.budget: self._record(outcome) for outcome in outcomes}

    def _record(self, outcome: Outcome) -> Record:
        answer = outcome.answer
        return Record(
            problem=self._problem.id,
            setting=self._arm.name,
            layout=self._arm.layout,
            workers=self._arm.workers,
            replica=self._replica,
            seed=self._seed,
            correct=answer is not None and self._checker.correct(answer, self._problem.answer),
            **{field.name: getattr(outcome, field.name) for field in fields(outcome)},
        )
