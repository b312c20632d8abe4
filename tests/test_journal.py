"""The journal of an evaluation: a kill at any moment changes nothing, and what it holds is checked."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from guessing import PROBLEMS, GuessingEngine, hogwild, lines, records_of
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_local.errors import Busy, InvalidArgument
from hogwild_local.evaluation import Journal, Plan, Record, evaluate
from hogwild_local.evaluation.plan import check_plan, recorded_date, save_plan

PLAN = Plan(workers=(1, 2, 3), budgets=(5, 12, 25), baselines=("independent", "delayed"), check="number")
RECORD = Record("p", "combined-2", "combined", 2, 0, 64, 1, "4", True, False, 30, 60, "answer", 1.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of an evaluation that was never stopped."""
    path = tmp_path_factory.mktemp("whole") / "records.jsonl"
    records_of(path, PLAN)
    return path


@given(part=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_an_evaluation_that_was_killed_at_any_byte_ends_like_one_that_was_not(whole: Path, part: float) -> None:
    data = whole.read_bytes()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "records.jsonl"
        path.write_bytes(data[: round(part * len(data))])
        records_of(path, PLAN)
        assert lines(path) == lines(whole)


@pytest.mark.parametrize("n", [0, 1, 7, 40])
def test_leaving_the_generator_keeps_what_it_yielded_and_the_next_one_yields_the_rest(
    tmp_path: Path, whole: Path, n: int
) -> None:
    path = tmp_path / "records.jsonl"
    fake = GuessingEngine()
    with hogwild(fake) as hw, Journal(path) as journal:
        run = evaluate(hw, PROBLEMS, PLAN, journal)
        first = [next(run) for _ in range(n)]
        run.close()
        assert fake.n_open == 0
        assert journal.records == first
    with hogwild(fake) as hw, Journal(path) as journal:
        rest = list(evaluate(hw, PROBLEMS, PLAN, journal))
        assert len(first) + len(rest) == len(lines(whole))
    assert lines(path) == lines(whole)


def test_what_is_done_is_not_run_again(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(whole.read_bytes())
    fake = GuessingEngine()
    with hogwild(fake) as hw, Journal(path) as journal:
        assert list(evaluate(hw, PROBLEMS, PLAN, journal)) == []
    assert fake.runs == 0


def test_a_record_survives_json() -> None:
    for record in (RECORD, replace(RECORD, answer=None, error="é", steps=[["A", "x", "end"]], texts={"A": "x"})):
        assert Record.from_json(record.to_json()) == record
    assert "steps" not in RECORD.to_json()


@pytest.mark.parametrize("line", ["", "{", '{"problem": "p', "\0\0\0", RECORD.to_json()[:-1]])
@pytest.mark.parametrize("end", ["", "\n"])
def test_what_is_left_of_a_record_is_dropped_where_it_is_last(tmp_path: Path, line: str, end: str) -> None:
    path = tmp_path / "records.jsonl"
    good = RECORD.to_json() + "\n"
    path.write_text(good + line + "\n" + good)
    with pytest.raises(InvalidArgument, match=r"records.jsonl, line 2 is no record"):
        Journal(path)
    path.write_text(good + line + end)
    with Journal(path) as journal:
        assert journal.records == [RECORD]
    assert path.read_text() == good


@pytest.mark.parametrize("text", ["[]", "1", '{"problem": "p"}', RECORD.to_json()[:-1] + ', "more": 1}', "Dear diary,"])
@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("before", ["", RECORD.to_json() + "\n"])
def test_a_file_of_something_else_stays_as_it_is(tmp_path: Path, text: str, end: str, before: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(before + text + end)
    with pytest.raises(InvalidArgument, match=rf"records.jsonl, line {before.count(chr(10)) + 1} is no record"):
        Journal(path)
    assert path.read_text() == before + text + end


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("problem", 1),
        ("workers", "2"),
        ("budget", 1.5),
        ("budget", True),
        ("correct", 1),
        ("answer", ["4"]),
        ("milliseconds", float("inf")),
        ("steps", ["abc"]),
        ("steps", [[1]]),
        ("texts", {"A": None}),
    ],
)
def test_a_value_of_the_wrong_type_is_named(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps({**json.loads(RECORD.to_json()), name: value}) + "\n")
    with pytest.raises(InvalidArgument, match=f"line 1 is no record: {name} must be"):
        Journal(path)


def test_deep_brackets_are_no_record(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("[" * 100_000 + "\n")
    with pytest.raises(InvalidArgument, match="line 1 is no record"):
        Journal(path)


def test_plan_and_names_of_files_are_on_disk_before_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replaced = os.fsync, Path.replace

    def on_sync(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def on_replace(path: Path, target: Path) -> Path:
        done.append("named")
        return replaced(path, target)

    monkeypatch.setattr(os, "fsync", on_sync)
    monkeypatch.setattr(Path, "replace", on_replace)
    save_plan(tmp_path, PLAN.identity(), PLAN.extent())
    assert done == ["file", "named", "folder"]
    Journal(tmp_path / "records.jsonl").close()
    assert done[3:] == ["folder"]


def test_a_journal_keeps_a_record_once_and_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with Journal(path) as journal:
        journal.append(RECORD)
        with pytest.raises(InvalidArgument, match="already"):
            journal.append(replace(RECORD, correct=False))
        with pytest.raises(Busy, match="in use"):
            Journal(path)
    path.write_text(path.read_text() * 2)
    with Journal(path) as journal:
        assert len(journal) == 1


# -- the date --


def test_an_evaluation_that_goes_on_the_next_day_keeps_its_date(tmp_path: Path) -> None:
    plan = replace(PLAN, date="2026-02-28")
    assert PLAN.date is not None
    assert recorded_date(tmp_path) is None
    save_plan(tmp_path, plan.identity(), plan.extent())
    assert recorded_date(tmp_path) is None  # nothing was run yet
    (tmp_path / "records.jsonl").write_text(RECORD.to_json() + "\n")
    assert recorded_date(tmp_path) == "2026-02-28"
    with pytest.raises(InvalidArgument, match='date was "2026-02-28" and is'):
        check_plan(tmp_path, replace(plan, date="2026-03-01").identity())
    check_plan(tmp_path, replace(plan, date=recorded_date(tmp_path)).identity())
