"""From records to figures: how replicas become one answer, intervals, table, CSV and plot."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hogwild_local.errors import InvalidArgument
from hogwild_local.evaluation import Plan, Problem, Record, summarize, table, write_csv
from hogwild_local.evaluation.combine import Verdict, combine
from hogwild_local.evaluation.plot import check_plot, plot
from hogwild_local.evaluation.summary import wilson

PLAN = Plan(workers=(1, 2), layouts=(), budgets=(10,), baselines=("independent",))
PROBLEMS = [Problem("p", "problem", "4"), Problem("q", "problem", "4")]


def record(
    replica: int, answer: str | None, passes: int, by_finisher: bool = False, problem: str = "p", budget: int = 10
) -> Record:
    reason = "budget" if by_finisher or answer is None else "answer"
    right = answer == "4"
    return Record(
        problem, "single", "contiguous", 1, replica, budget, 0, answer, right, by_finisher, passes, passes, reason, 1.0
    )


@pytest.mark.parametrize(
    ("given", "first", "majority"),
    [
        # the first is alone, the others agree
        ([("5", 3, 0), ("4", 6, 0), ("4", 7, 0)], ("5", 3), ("4", 7)),
        # all differ: the one that was first given wins; passes are those of the last
        ([("5", 8, 0), ("4", 6, 0), ("6", 7, 0)], ("4", 6), ("4", 8)),
        # at once: the lower replica
        ([("5", 6, 0), ("4", 6, 0)], ("5", 6), ("5", 6)),
        # at once, but one had to be asked
        ([("5", 10, 1), ("4", 10, 0)], ("4", 10), ("4", 10)),
        # a tie of two and two: the pair whose first answer came first
        ([("5", 9, 0), ("4", 2, 0), ("5", 3, 0), ("4", 9, 0)], ("4", 2), ("4", 9)),
        # who has no answer has no vote, but is waited for
        ([(None, 10, 0), (None, 10, 0), ("4", 6, 0)], ("4", 6), ("4", 10)),
        ([(None, 10, 0), (None, 4, 0)], (None, 10), (None, 10)),
    ],
)
def test_first_and_majority(
    given: list[tuple[str | None, int, int]], first: tuple[str | None, int], majority: tuple[str | None, int]
) -> None:
    records = [record(i, answer, passes, bool(asked)) for i, (answer, passes, asked) in enumerate(given)]
    for how, (answer, passes) in (("first", first), ("majority", majority)):
        verdict = combine(records, how, str.strip)  # type: ignore[arg-type]
        assert (verdict.answer, verdict.passes, verdict.correct) == (answer, passes, answer == "4")


def test_equal_votes_are_one_answer() -> None:
    records = [record(0, "5", 1), record(1, "4", 2), record(2, "4.0", 3)]
    assert combine(records, "majority", float) == Verdict("4", True, False, 3)


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_those_of_the_literature(correct: int, n: int, low: float, high: float) -> None:
    """R. G. Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3."""
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(n - correct, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_an_interval_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 5)[1] == 1.0


def test_a_setting_counts_its_own_replicas_only_and_complete_problems_only() -> None:
    plan = replace(PLAN, workers=(1, 2, 3))
    records = [
        *(record(replica, answer, 5 + replica) for replica, answer in enumerate(("5", "4", "4"))),
        *(record(replica, "4", 3, problem="q") for replica in range(2)),
    ]
    rows = {row.setting: (row.correct, row.n, row.median_passes) for row in summarize(records, PROBLEMS, plan)}
    assert rows == {
        "single": (1, 2, 3.0),
        "independent-2-first": (1, 2, 3.0),
        "independent-2-majority": (1, 2, 3.0),
        "independent-3-first": (0, 1, None),  # q lacks a replica
        "independent-3-majority": (1, 1, 7.0),
    }


def test_rows_count_finisher_and_problems_that_did_not_fit() -> None:
    unfit = replace(record(0, None, 0, problem="q"), reason="cache_full", error="300 are free")
    (row,) = summarize([record(0, "4", 10, True), unfit], PROBLEMS, Plan(workers=(1,), budgets=(10,)))
    assert (row.accuracy, row.by_finisher, row.unfit, row.budget) == (0.5, 1, 1, 10)


def test_table_and_csv_say_the_same(tmp_path: Path) -> None:
    rows = summarize(
        [record(0, "4", 7), record(0, None, 10, problem="q"), record(0, "4", 7, budget=20)],
        PROBLEMS,
        Plan(workers=(1,), budgets=(10, 20, 30)),
    )
    first, dashes, *lines = table(rows).splitlines()
    assert len({len(line) for line in (first, dashes, *lines)}) == 1
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == [
        "single", "50.0", "100.0", "", "0.0 to 100.0", "0 of 0", "", "0", "0",
    ]  # fmt: skip
    write_csv(tmp_path / "s.csv", rows)
    with (tmp_path / "s.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [(row["setting"], row["budget"], row["n"], row["correct"]) for row in read] == [
        ("single", "10", "2", "1"), ("single", "20", "1", "1"), ("single", "30", "0", "0"),
    ]  # fmt: skip
    assert float(read[0]["low"]) == rows[0].low


def test_a_plot_has_a_line_with_its_intervals_for_each_setting(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra plot)")
    records = [record(0, "4", 7), record(1, "4", 7), record(0, "4", 7, budget=20)]
    rows = summarize(records, PROBLEMS[:1], replace(PLAN, budgets=(10, 20)))
    for name in ("a.svg", "a.png", "none"):
        plot(tmp_path / name, rows, "title")
    assert (tmp_path / "none").read_bytes().startswith(b"\x89PNG")
    picture = (tmp_path / "a.svg").read_text()
    assert picture.count('id="FillBetweenPolyCollection') + picture.count('id="PolyCollection') == 3
    with pytest.raises(InvalidArgument, match=r"a\.xyz must end with"):
        check_plot(Path("a.xyz"))


def test_without_matplotlib_a_plot_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"hogwild-local\[plot\]"):
        plot(tmp_path / "a.png", [])


def test_the_package_and_its_evaluation_import_no_optional_extra() -> None:
    program = (
        "import sys, hogwild_local.cli, hogwild_local.evaluation, hogwild_local.evaluation.plot;"
        "print([name for name in ('matplotlib', 'math_verify', 'sympy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
