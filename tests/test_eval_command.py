"""hogwild eval: options, the directory, and how it ends."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fakes import FakeCache, FakeEngine
from guessing import GuessingEngine

from hogwild_local.cli.main import cli

PROBLEMS = """
{"problem": "1-1?", "answer": 0}
{"problem": "6/3?", "answer": "2", "id": "two"}
{"problem": "4?", "answer": 4}
""".lstrip()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory with a file of problems, p.jsonl. The present one."""
    monkeypatch.chdir(tmp_path)
    Path("p.jsonl").write_text(PROBLEMS)
    return tmp_path


def evaluate(*arguments: str, fake: FakeEngine | None = None, **env: str) -> Result:
    fake = fake or GuessingEngine()
    options = ["eval", "p.jsonl", "-m", "m.gguf", "--budgets", "9,30", "--check", "number", *arguments]
    return CliRunner().invoke(cli, options, obj=fake.engine, env=env)


def records(out: str = "p-eval") -> list[dict[str, Any]]:
    return [{**json.loads(line), "milliseconds": 0} for line in Path(out, "records.jsonl").read_text().splitlines()]


def test_a_directory_holds_plan_records_and_summaries_and_stdout_the_table() -> None:
    result = evaluate("--baseline", "independent", "--baseline", "delayed", "--layout", "interleaved", "-w", "1,2,3")
    assert (result.exit_code, result.stderr) == (0, "")
    names = ["single", "interleaved-2", "interleaved-3", "delayed-2", "delayed-3"]
    names += [f"independent-{n}-{way}" for way in ("first", "majority") for n in (2, 3)]
    with Path("p-eval/summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["setting"] for row in rows[::2]] == names
    assert [(row["budget"], row["n"]) for row in rows] == [("9", "3"), ("30", "3")] * len(names)
    assert Path("p-eval/summary.md").read_text() == result.stdout
    assert len(result.stdout.splitlines()) == 2 + len(names)
    plan = json.loads(Path("p-eval/plan.json").read_text())
    assert (plan["identity"]["check"], plan["extent"]["budgets"]) == ("number", [9, 30])
    made = records()
    assert len(made) == 3 * 2 * (3 + 2 + 2)
    assert {record["problem"] for record in made} == {"1", "two", "3"}
    singles = [r for r in made if r["setting"] == "single" and r["replica"] == 0 and r["budget"] == 30]
    assert sum(record["correct"] for record in singles) == int(rows[1]["correct"])
    pictures = ["accuracy.png"] if importlib.util.find_spec("matplotlib") else []
    assert sorted(path.name for path in Path("p-eval").iterdir()) == sorted(
        ["plan.json", "records.jsonl", "summary.csv", "summary.md", *pictures]
    )


def test_the_same_command_again_runs_nothing_and_shows_the_same_table() -> None:
    first = evaluate()
    fake = GuessingEngine()
    again = evaluate(fake=fake)
    assert again.stdout == first.stdout
    assert again.stderr == "hogwild: 12 of 12 records are there already\n"
    assert fake.model_arguments["vocab_only"]  # not even the weights are loaded


def test_ctrl_c_exits_with_130_and_the_same_command_goes_on() -> None:
    expected = evaluate("--out", "whole")
    fake = GuessingEngine()

    def interrupt(cache: FakeCache) -> None:
        fake._ask(cache)
        if len(cache.passes) > 150:
            raise KeyboardInterrupt

    fake.on_decode = interrupt
    stopped = evaluate("--out", "cut", fake=fake)
    assert stopped.exit_code == 130
    assert stopped.stderr == "hogwild: stopped; the same command goes on from here\n"
    assert stopped.stdout == ""
    assert fake.n_open == 0
    assert 0 < len(records("cut")) < len(records("whole"))
    resumed = evaluate("--out", "cut")
    assert (resumed.exit_code, resumed.stdout) == (0, expected.stdout)
    assert records("cut") == records("whole")


def test_more_budgets_workers_and_problems_extend_an_evaluation() -> None:
    evaluate("--limit", "1", "-w", "1")
    before = records()
    assert {record["problem"] for record in before} == {"1"}
    larger = evaluate("-w", "1,2", "--budgets", "9,30,40", "--baseline", "delayed")
    assert larger.exit_code == 0
    assert records()[: len(before)] == before
    fresh = evaluate("-w", "1,2", "--budgets", "9,30,40", "--baseline", "delayed", "--out", "fresh")
    assert larger.stdout == fresh.stdout
    assert sorted(map(str, records())) == sorted(map(str, records("fresh")))


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        (["--temp", "0.5"], "temperature was 0.8 and is 0.5"),
        (["--seed", "4"], "seed was 0 and is 4"),
        (["--no-finisher"], "finisher_tokens was 16 and is 0"),
        (["--check", "exact"], 'check was "number" and is "exact"'),
        (["--ctx", "5000"], "ctx was 8192 and is 5000"),
        (["-m", "other.gguf"], 'model was "m.gguf" and is "other.gguf"'),
        (["--lora", "a.gguf:0.5"], 'lora was [] and is [["a.gguf", 0.5]]'),
    ],
)
def test_another_evaluation_in_the_same_directory_is_refused_and_the_change_named(
    arguments: list[str], change: str
) -> None:
    evaluate("-w", "1")
    before = Path("p-eval/records.jsonl").read_bytes()
    result = evaluate("-w", "1", *arguments)
    assert result.exit_code == 2
    assert change in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert Path("p-eval/records.jsonl").read_bytes() == before


def test_a_changed_file_of_problems_or_prompts_or_model_is_another_evaluation(place: Path) -> None:
    style = Path(__file__).parent.parent / "hogwild_local" / "prompts" / "default.toml"
    Path("m.gguf").write_bytes(b"one")
    Path("mine.toml").write_text(style.read_text())
    assert evaluate("-w", "1", "--prompts", "mine.toml").exit_code == 0
    Path("mine.toml").write_text(style.read_text().replace("There is no time left.", "Time is up."))
    assert "prompts was" in evaluate("-w", "1", "--prompts", "mine.toml").stderr
    Path("m.gguf").write_bytes(b"two")
    assert "model was" in evaluate("-w", "1").stderr
    Path("p.jsonl").write_text(PROBLEMS.replace("4?", "5?"))
    assert "problems was" in evaluate("-w", "1").stderr


def test_records_without_a_plan_are_refused() -> None:
    evaluate("-w", "1")
    Path("p-eval/plan.json").unlink()
    assert "no plan.json" in evaluate("-w", "1").stderr


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["eval"], "PROBLEMS"),
        (["eval", "missing.jsonl"], "missing.jsonl"),
        (["eval", "p.jsonl", "--workers", "two"], "--workers"),
        (["eval", "p.jsonl", "--workers", "0"], "workers"),
        (["eval", "p.jsonl", "--budgets", "0"], "budgets"),
        (["eval", "p.jsonl", "--check", "vibes"], "--check"),
        (["eval", "p.jsonl", "--baseline", "oracle"], "--baseline"),
        (["eval", "p.jsonl", "--layout", "diagonal"], "--layout"),
        (["eval", "p.jsonl", "--temp", "0", "--baseline", "independent"], "--independent-temp"),
        (["eval", "p.jsonl", "--prompts", "none.toml"], "none.toml"),
        (["eval", "p.jsonl", "--limit", "0"], "--limit"),
        (["eval", "bad.jsonl"], "bad.jsonl, line 1"),
        (["eval", "words.jsonl", "--check", "number"], "problem 1: the answer 'four' is not a number"),
    ],
)
def test_wrong_usage_exits_with_2_names_the_fault_and_leaves_nothing(arguments: list[str], fault: str) -> None:
    Path("bad.jsonl").write_text("{}\n")
    Path("words.jsonl").write_text('{"problem": "2+2?", "answer": "four"}\n')
    before = sorted(Path().iterdir())
    result = CliRunner().invoke(cli, arguments, obj=GuessingEngine().engine)
    assert result.exit_code == 2
    assert fault in result.stderr
    assert result.stdout == ""
    assert sorted(Path().iterdir()) == before


def test_a_missing_model_is_one_line_and_exit_code_1() -> None:
    result = evaluate("-m", "missing.gguf")
    assert (result.exit_code, result.stderr) == (1, "hogwild: missing.gguf: no such file\n")
    assert evaluate("--temp", "0.1").exit_code == 0  # nothing was made, so any plan is welcome


def test_a_directory_that_cannot_be_made_is_one_line_and_exit_code_1() -> None:
    result = evaluate("--out", "p.jsonl/below")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("module", "option"), [("matplotlib", "--plot=a.png"), ("math_verify", "--check=math")])
def test_a_missing_extra_is_named_before_anything_is_run(
    module: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    fake = GuessingEngine()
    result = evaluate(option, fake=fake)
    assert (result.exit_code, fake.runs) == (1, 0)
    assert "pip install 'hogwild-local[" in result.stderr


def test_without_matplotlib_everything_but_the_picture_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert evaluate("-w", "1").exit_code == 0
    assert Path("p-eval/summary.csv").exists()
    assert not Path("p-eval/accuracy.png").exists()


def test_a_plot_goes_where_it_is_asked_to() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra plot)")
    assert evaluate("-w", "1", "--plot", "mine.svg").exit_code == 0
    assert "<svg" in Path("mine.svg").read_text()
    assert evaluate("-w", "1", "--plot", "mine.xyz").exit_code == 2


def test_options_reach_engine_and_runs_also_from_the_environment() -> None:
    fake = GuessingEngine()
    result = evaluate(
        "--temp", "0.3", "--threads", "2", "--type-k", "f32", "--ctx", "5000", "--transcripts",
        "--baseline", "independent", fake=fake, HOGWILD_EVAL_INDEPENDENT_TEMP="0.9", HOGWILD_EVAL_LIMIT="2",
    )  # fmt: skip
    assert result.exit_code == 0
    assert fake.temperatures == {0.3, 0.9}
    assert fake.model_arguments["n_threads"] == 2
    assert fake.cache
    assert (fake.cache.type_k, fake.cache.n_ctx) == ("f32", 5000)
    assert {record["problem"] for record in records()} == {"1", "two"}
    assert all(set(record["texts"]) <= {"Alice", "Bob"} for record in records())


def test_on_a_terminal_a_bar_shows_how_far_it_is() -> None:
    result = evaluate("-w", "1", FORCE_COLOR="1", TERM="xterm", COLUMNS="100")
    assert result.exit_code == 0
    assert "6 of 6 records" in result.stderr
    assert "100%" in result.stderr
    assert "records" not in result.stdout


def test_the_embedded_model_is_evaluated_end_to_end() -> None:
    arguments = ["eval", "p.jsonl", "--limit", "2", "--budgets", "4,8", "-t", "1", "--baseline", "independent"]
    arguments += ["--independent-temp", "0.8"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.stderr
    assert "embedded" in result.stderr
    made = records()
    assert len(made) == 2 * 2 * (1 + 2 + 1)
    assert all(0 < record["passes"] <= record["budget"] for record in made)
    assert all(record["tokens"] >= record["passes"] for record in made)
    assert len(result.stdout.splitlines()) == 2 + 4
