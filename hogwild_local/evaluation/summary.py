"""Summary: accuracy of each setting at each budget, as rows, as a table, as CSV."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from .answers import make_checker
from .combine import Verdict, combine
from .plan import Plan
from .problems import Problem
from .records import Record
from .settings import Setting, settings

Z95 = statistics.NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Row:
    """One setting at one budget. n: problems; low, high: 95 % interval of the accuracy (Wilson); median_passes: to a
    correct answer, None if there is none; by_finisher: answers that came only when asked for at the end; unfit:
    problems that the cache had no room for."""

    setting: str
    layout: str
    workers: int
    budget: int
    n: int
    correct: int
    accuracy: float
    low: float
    high: float
    median_passes: float | None
    by_finisher: int
    unfit: int


def wilson(correct: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of correct of n (E. B. Wilson, 1927); of nothing it is 0 to 1."""
    if not n:
        return 0.0, 1.0
    p, square = correct / n, z * z
    center = (p + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * math.sqrt(p * (1 - p) / n + square / (4 * n * n))
    return (0.0 if correct == 0 else center - half), (1.0 if correct == n else center + half)


def summarize(records: Iterable[Record], problems: Sequence[Problem], plan: Plan) -> list[Row]:
    """A row for each setting and budget of the plan. A problem counts once all replicas of the setting are there."""
    known = {(*record.cell, record.budget): record for record in records}
    vote = make_checker(plan.check).vote
    rows = []
    for setting in settings(plan):
        for budget in plan.budgets:
            verdicts, unfit = [], 0
            for problem in problems:
                cells = [(problem.id, setting.arm, replica, budget) for replica in range(setting.n_replicas)]
                if all(cell in known for cell in cells):
                    replicas = [known[cell] for cell in cells]
                    verdicts.append(combine(replicas, setting.combine, vote))
                    unfit += any(record.error is not None for record in replicas)
            rows.append(_row(setting, budget, verdicts, unfit))
    return rows


def _row(setting: Setting, budget: int, verdicts: Sequence[Verdict], unfit: int) -> Row:
    passes = [verdict.passes for verdict in verdicts if verdict.correct]
    low, high = wilson(len(passes), len(verdicts))
    return Row(
        setting=setting.name,
        layout=setting.layout,
        workers=setting.workers,
        budget=budget,
        n=len(verdicts),
        correct=len(passes),
        accuracy=len(passes) / len(verdicts) if verdicts else 0.0,
        low=low,
        high=high,
        median_passes=statistics.median(passes) if passes else None,
        by_finisher=sum(verdict.by_finisher for verdict in verdicts),
        unfit=unfit,
    )


def table(rows: Sequence[Row]) -> str:
    """A Markdown table with aligned columns, without a last line end: a line for each setting. Accuracy in percent at
    each budget; all else at the largest one."""
    budgets = sorted({row.budget for row in rows})
    head = ["setting", *map(str, budgets), "95 % interval", "correct", "median passes", "by finisher", "unfit"]
    by_setting: dict[str, list[Row]] = {}
    for row in rows:
        by_setting.setdefault(row.setting, []).append(row)
    lines = [head, *(_cells(group) for group in by_setting.values())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    padded = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """All fields of all rows, with a header line. Raises OSError."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def _cells(rows: Sequence[Row]) -> list[str]:
    """One setting, by rising budget."""
    last = rows[-1]
    return [
        last.setting,
        *(f"{100 * row.accuracy:.1f}" if row.n else "" for row in rows),
        f"{100 * last.low:.1f} to {100 * last.high:.1f}",
        f"{last.correct} of {last.n}",
        "" if last.median_passes is None else f"{last.median_passes:g}",
        str(last.by_finisher),
        str(last.unfit),
    ]
