"""The evaluation: which runs are made, and how they become records."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeCache, FakeEngine
from guessing import PROBLEMS, GuessingEngine, hogwild, lines, records_of, timeless

from hogwild_local import Hogwild
from hogwild_local.errors import ComputeError, InvalidArgument
from hogwild_local.evaluation import Journal, Plan, Problem, Record, evaluate, read_problems
from hogwild_local.evaluation.settings import arms, replica_seed
from hogwild_local.options import SamplingParams

PLAN = Plan(workers=(1, 2, 3), budgets=(5, 12, 25), baselines=("independent", "delayed"), check="number")
# -- budgets --


@pytest.mark.parametrize("n_ctx", [4096, 110])
@pytest.mark.parametrize("finisher_tokens", [16, 0])
def test_records_of_several_budgets_are_those_of_each_budget_run_alone(
    tmp_path: Path, finisher_tokens: int, n_ctx: int
) -> None:
    budgets = (3, 8, 13, 21, 34, 60)
    plan = Plan(workers=(1, 2, 4), budgets=budgets, check="number", finisher_tokens=finisher_tokens)
    problems = [Problem(str(i), f"problem {i}", str(i % 3)) for i in range(15)]
    together = records_of(tmp_path / "together.jsonl", plan, problems, n_ctx)
    alone = [
        record
        for budget in budgets
        for record in records_of(tmp_path / f"{budget}.jsonl", replace(plan, budgets=(budget,)), problems, n_ctx)
    ]

    def key(record: Record) -> tuple[Any, ...]:
        return (*record.cell, record.budget)

    assert sorted(timeless(together), key=key) == sorted(timeless(alone), key=key)
    reasons = {record.reason for record in together}
    assert reasons >= {"answer", "budget", "eos"}  # all that can happen did happen
    assert ("cache_full" in reasons) == (n_ctx == 110)
    assert any(record.correct for record in together)
    assert any(record.by_finisher for record in together) == bool(finisher_tokens)


def test_a_larger_budget_added_later_reuses_the_runs_that_ended_by_themselves(tmp_path: Path) -> None:
    small, large = (replace(PLAN, budgets=budgets) for budgets in ((25,), (25, 60)))
    records_of(tmp_path / "grown.jsonl", small)
    grown = records_of(tmp_path / "grown.jsonl", large)
    fresh = records_of(tmp_path / "fresh.jsonl", large)
    assert {record.to_json() for record in timeless(grown)} == {record.to_json() for record in timeless(fresh)}


def test_without_a_finisher_one_run_serves_all_budgets(tmp_path: Path) -> None:
    fake = GuessingEngine()
    plan = Plan(workers=(1,), budgets=(2, 5, 9, 30), finisher_tokens=0)
    with hogwild(fake) as hw, Journal(tmp_path / "records.jsonl") as journal:
        assert len(list(evaluate(hw, PROBLEMS, plan, journal))) == 4 * len(PROBLEMS)
    assert fake.runs == len(PROBLEMS)


def test_a_stop_string_that_can_hold_back_an_answer_makes_each_budget_a_run(tmp_path: Path) -> None:
    # With 6 passes the answer is complete but held back, and let go where the budget ends; with 9 it is found too.
    fake = FakeEngine()
    fake.engine = replace(fake.engine, sampler=lambda model, params: fake_sampler(fake, params, r"\boxed{4}"))
    with hogwild(fake) as hw, Journal(tmp_path / "records.jsonl") as journal:
        hw.prompts = replace(hw.prompts, stop=type(hw.prompts.stop)(("}x!",)))
        plan = Plan(workers=(1,), budgets=(9, 30), finisher_tokens=0)
        records = list(evaluate(hw, PROBLEMS[:1], plan, journal))
    assert [(record.budget, record.answer, record.passes, record.reason) for record in records] == [
        (30, "4", 11, "answer"),
        (9, "4", 9, "budget"),
    ]


def fake_sampler(fake: FakeEngine, params: SamplingParams, text: str) -> Any:
    from fakes import FakeSampler

    return FakeSampler(params, fake.model.tokenize(text, add_special=False), ord("x"))


# -- what is run --


def test_seeds_depend_on_problem_and_replica_alone(tmp_path: Path) -> None:
    records = records_of(tmp_path / "records.jsonl", PLAN)
    for record in records:
        assert record.seed == replica_seed(PLAN.seed, record.problem, record.replica)
    assert len({record.seed for record in records}) == 3 * len(PROBLEMS)
    assert replica_seed(1, "p", 0) != replica_seed(0, "p", 0)


def test_independent_workers_are_the_single_worker_and_its_replicas() -> None:
    plan = Plan(workers=(1, 2, 4), baselines=("independent",))
    assert [(arm.name, arm.replicas) for arm in arms(plan)] == [("single", 4), ("combined-2", 1), ("combined-4", 1)]


def test_independent_workers_with_a_temperature_of_their_own_are_runs_of_their_own(tmp_path: Path) -> None:
    plan = Plan(
        workers=(1, 2), budgets=(5,), baselines=("independent",), sampling=SamplingParams(temperature=0.0),
        independent_temp=0.7,
    )  # fmt: skip
    fake = GuessingEngine()
    with hogwild(fake) as hw, Journal(tmp_path / "records.jsonl") as journal:
        records = list(evaluate(hw, PROBLEMS[:1], plan, journal))
    assert [(r.setting, r.replica) for r in records] == [
        ("single", 0), ("independent", 0), ("independent", 1), ("combined-2", 0),
    ]  # fmt: skip
    assert fake.temperatures == {0.0, 0.7}


def test_delayed_workers_see_all_of_the_combined_layout_but_unfinished_steps(tmp_path: Path) -> None:
    fake = GuessingEngine()
    seen: set[tuple[str, ...]] = set()

    def look(cache: FakeCache) -> None:
        seen.update(tuple(feed.names) for feeds in cache.passes for feed in feeds)

    fake.on_decode = look
    plan = Plan(workers=(2,), layouts=(), budgets=(10,), baselines=("delayed",), finisher_tokens=0)
    with hogwild(fake) as hw, Journal(tmp_path / "records.jsonl") as journal:
        (record,) = evaluate(hw, PROBLEMS[:1], plan, journal)
    assert (record.setting, record.layout) == ("delayed-2", "delayed")
    assert {names for names in seen if len(names) > 1} == {
        ("shared", "header", "separator", f"worker {i}") for i in range(2)
    }


def test_a_problem_that_does_not_fit_is_wrong_and_the_others_go_on(tmp_path: Path) -> None:
    problems = [Problem("long", "x" * 500, "1"), *PROBLEMS[:1]]
    records = records_of(tmp_path / "records.jsonl", replace(PLAN, workers=(1,), baselines=()), problems, n_ctx=300)
    long, short = records[:3], records[3:]
    assert {(r.problem, r.reason, r.correct, r.passes) for r in long} == {("long", "cache_full", False, 0)}
    assert "300 are free" in str(long[0].error)
    assert len(short) == 3
    assert all(record.error is None for record in short)


def test_any_other_error_ends_the_evaluation_and_what_is_done_stays(tmp_path: Path) -> None:
    fake = GuessingEngine()
    with hogwild(fake) as hw, Journal(tmp_path / "records.jsonl") as journal:
        run = evaluate(hw, PROBLEMS, PLAN, journal)
        first = next(run)

        def fail(cache: FakeCache) -> None:
            raise ComputeError("broken")

        fake.on_decode = fail
        with pytest.raises(ComputeError):
            list(run)
        assert journal.records[0] == first
        assert fake.n_open == 0


def test_transcripts_are_what_was_written_in_the_order_in_which_steps_ended(tmp_path: Path) -> None:
    fake = FakeEngine("One.\n\nTwo", "Three!\n\n")
    plan = Plan(workers=(2,), budgets=(9,), finisher_tokens=0, transcripts=True)
    with hogwild(fake) as hw, Journal(tmp_path / "records.jsonl") as journal:
        (record,) = evaluate(hw, PROBLEMS[:1], plan, journal)
    assert record.steps == [
        ["Alice", "<Alice1>One.", "end"],
        ["Bob", "<Bob1>Three!", "end"],
        ["Alice", "<Alice2>Twoxx", "budget"],
        ["Bob", "<Bob2>xxx", "budget"],
    ]
    assert record.texts == {"Alice": "One.\n\nTwoxx", "Bob": "Three!\n\nxxx"}


def test_a_real_model_gives_the_same_records_after_a_resume(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    plan = Plan(workers=(1, 2), budgets=(6, 12), baselines=("independent",), finisher_tokens=4, transcripts=True)

    def run(path: Path) -> list[dict[str, Any]]:
        with Hogwild(tiny_path("llama"), n_ctx=2000, n_threads=1) as hw, Journal(path) as journal:
            for _ in evaluate(hw, PROBLEMS[:2], plan, journal):
                pass
        return lines(path)

    expected = run(tmp_path / "whole.jsonl")
    half = (tmp_path / "whole.jsonl").read_bytes()
    (tmp_path / "half.jsonl").write_bytes(half[: len(half) // 2])
    assert run(tmp_path / "half.jsonl") == expected
    assert len({tuple(record["texts"].values()) for record in expected}) > 4


# -- plans and problems --


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"workers": ()}, "workers must not be empty"),
        ({"workers": (0,)}, "workers is 0"),
        ({"budgets": ()}, "budgets must not be empty"),
        ({"budgets": (0,)}, "budgets is 0"),
        ({"layouts": ("diagonal",)}, "diagonal"),
        ({"layouts": ()}, "layouts"),
        ({"baselines": ("oracle",)}, "oracle"),
        ({"workers": (1,), "baselines": ("delayed",)}, "baselines"),
        ({"check": "vibes"}, "vibes"),
        ({"sampling": SamplingParams(seed=1)}, "seed"),
        ({"sampling": SamplingParams(temperature=0), "baselines": ("independent",)}, "independent"),
        ({"finisher_tokens": -1}, "finisher_tokens"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidArgument, match=fault):
        Plan(**fields)


def test_a_right_answer_that_the_check_cannot_use_is_named_before_any_run(tmp_path: Path) -> None:
    fake = GuessingEngine()
    problems = [*PROBLEMS[:1], Problem("odd", "problem", "about four")]
    with (
        hogwild(fake) as hw,
        Journal(tmp_path / "records.jsonl") as journal,
        pytest.raises(InvalidArgument, match=r"problem odd: .*about four"),
    ):
        next(evaluate(hw, problems, PLAN, journal))
    assert fake.runs == 0


def test_problems_are_known_by_their_id_or_their_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    first = {"problem": "a\u2028b", "answer": 1.5, "id": 7, "more": []}
    lines = [json.dumps(first, ensure_ascii=False), "", '{"problem": "c", "answer": "x"}']
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert read_problems(path) == [Problem("7", "a\u2028b", "1.5"), Problem("3", "c", "x")]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "JSON"),
        ("[1]", "object"),
        ('{"problem": "x"}', '"answer" is missing'),
        ('{"answer": "x"}', '"problem" is missing'),
        ('{"problem": "x", "answer": null}', '"answer" must be'),
        ('{"problem": "x", "answer": true}', '"answer" must be'),
        ('{"problem": "x", "answer": NaN}', '"answer" must be'),
        ('{"problem": " ", "answer": "x"}', '"problem" must be'),
        ('{"problem": "\\ud800", "answer": "x"}', "no character"),
        ('{"problem": "x", "answer": "y", "id": "1"}', "that of line 1"),
        ("\xff", "UTF-8"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"problem": "a", "answer": "b"}\n' + line.encode("latin-1") + b"\n")
    with pytest.raises(InvalidArgument, match=r"bad.jsonl, line 2: ") as caught:
        read_problems(path)
    assert fault in str(caught.value)


def test_a_file_without_problems_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    path.write_text("\n \n")
    with pytest.raises(InvalidArgument, match="no problems"):
        read_problems(path)
    with pytest.raises(InvalidArgument, match=r"missing\.jsonl"):
        read_problems(tmp_path / "missing.jsonl")
