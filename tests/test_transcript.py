"""The transcript of a run, and the files that it is saved in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes import FakeCache, FakeEngine
from spoken import hogwild as spoken_to
from test_display import running

from hogwild_local.cli.main import cli
from hogwild_local.cli.saved import save
from hogwild_local.errors import InvalidArgument
from hogwild_local.events import Answer, PassEnded, ReplyEnded, ReplyStarted, ReplyToken, RunEnded, RunStarted
from hogwild_local.workers.transcript import WHY, Step, Transcriber


def test_a_transcript_has_each_step_in_the_order_in_which_they_ended_and_how_all_ended() -> None:
    with running("One.\n\nHi \\boxed{7}", "Two.\n\nb", max_passes=40) as run:
        result = run.result()
    transcript = result.transcript
    assert transcript.workers == ("Alice", "Bob")
    assert transcript.steps[:2] == (Step("Alice", 1, "<Alice1>One.", "end"), Step("Bob", 1, "<Bob1>Two.", "end"))
    assert transcript.steps[2] == Step("Alice", 2, "<Alice2>Hi \\boxed{7}", "answer")
    assert transcript.history == result.history
    assert (transcript.answer, transcript.answered_by, transcript.reason) == ("7", "Alice", "answer")
    assert transcript.finished == {"Alice": "answer", "Bob": "answer"}
    assert (transcript.seed, transcript.timings, transcript.usage) == (1, result.timings, result.usage)
    assert transcript.why == "an answer was found"
    assert json.loads(json.dumps(transcript.to_dict()))["steps"][0]["worker"] == "Alice"


def test_the_finisher_is_its_last_part_with_the_words_that_ask_for_the_answer() -> None:
    with running("x", "y") as run:
        transcript = run.result().transcript
    assert transcript.parts[-1] == ("Finisher", "=\\boxed{42}")
    assert [title for title, _ in transcript.parts] == ["Alice, step 1", "Bob, step 1", "Finisher"]


def test_a_run_that_was_left_has_what_was_written_up_to_then() -> None:
    transcriber = Transcriber()
    with running("One.\n\nHi", "Hello") as run:
        for event in run:
            transcriber.take(event)
            if isinstance(event, PassEnded) and event.n_pass == 6:
                break
    transcript = transcriber.transcript()
    assert [step.reason for step in transcript.steps] == ["end", None, None]
    assert [step.text for step in transcript.steps[1:]] == ["<Bob1>Hellox", "<Alice2>Hi"]
    assert transcript.history == "<Alice1>One."
    assert transcript.reason is None
    assert transcript.usage.completion_tokens == 12


def test_a_reply_is_there_while_it_is_written_and_why_it_was_cut_is_said() -> None:
    transcriber = Transcriber()
    for event in (ReplyStarted("</think>"), ReplyToken(1, "It ", 1), ReplyToken(2, "is", 2)):
        transcriber.take(event)
    assert transcriber.transcript().said == "It is"
    transcriber.take(ReplyEnded("It is", "length"))
    transcript = transcriber.transcript()
    transcriber.take(RunEnded("budget", None, transcript.timings, transcript.usage))
    assert transcriber.transcript().why == f"{WHY['budget']}; the reply ended because {WHY['length']}"


def test_what_was_said_meanwhile_and_who_joined_stand_in_it() -> None:
    with spoken_to(FakeEngine()) as hw:
        run = hw.stream("P", max_passes=20, seed=1)
        run.say("Look twice.", "Bob")
        run.add("Carol")
        result = run.result()
    transcript = result.transcript
    assert transcript.workers == ("Alice", "Bob", "Carol")
    (said,) = [text for title, text in transcript.parts if title == "You"]
    assert said == "[Bob:Look twice.]"
    assert said in result.history
    assert "Carol, step 1" in dict(transcript.parts)


def test_without_a_reply_the_answer_is_what_is_said() -> None:
    transcriber = Transcriber()
    transcriber.take(Answer("7", None))
    assert transcriber.transcript().said == "7"


def hogwild(fake: FakeEngine, *arguments: str) -> Result:
    options = ["run", "-m", "m.gguf", "-n", "30", "--seed", "1", "--reply-tokens", "4", *arguments]
    return CliRunner().invoke(cli, options, obj=fake.engine)


def test_a_run_is_saved_as_json_and_as_markdown_by_the_name_of_the_file(tmp_path: Path) -> None:
    for name in ("run.json", "run.md"):
        result = hogwild(FakeEngine("Hi.\n\nso \\boxed{4}", "b" * 30), "--save", str(tmp_path / name), "2+2?")
        assert result.exit_code == 0
        assert f"the transcript is in {tmp_path / name}" in result.stderr
    saved = json.loads((tmp_path / "run.json").read_text())
    assert saved["messages"][0] == {"role": "user", "content": "2+2?"}
    assert saved["messages"][1]["role"] == "assistant"
    (run,) = saved["runs"]
    assert (run["after"], run["seed"], run["answer"], run["reason"]) == (1, 1, "4", "answer")
    assert run["steps"][0]["text"].endswith("Hi.")
    text = (tmp_path / "run.md").read_text()
    places = [text.index(part) for part in ("## User\n\n2+2?", "### Alice, step 1", "Answer: 4", "## Assistant")]
    assert places == sorted(places)
    assert "Ended: an answer was found; the reply ended because it had as many tokens as it may have. Seed: 1" in text


def test_a_run_is_saved_also_where_it_is_stopped(tmp_path: Path) -> None:
    fake = FakeEngine("abcdef", "uvwxyz")

    def interrupt(cache: FakeCache) -> None:
        if len(cache.passes) >= 12:
            raise KeyboardInterrupt

    fake.on_decode = interrupt
    assert hogwild(fake, "--save", str(tmp_path / "run.json"), "--json", "P").exit_code == 130
    (run,) = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert run["reason"] is None
    assert [step["reason"] for step in run["steps"]] == [None, None]
    assert all(step["text"] for step in run["steps"])


@pytest.mark.parametrize("name", ["none/run.md", "."])
def test_a_file_that_cannot_be_written_is_said_before_anything_is_computed(name: str, tmp_path: Path) -> None:
    fake = FakeEngine()
    result = hogwild(fake, "--save", str(tmp_path / name), "P")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot be written" in result.stderr
    assert fake.model_arguments == {}


def test_a_run_that_did_not_begin_is_not_saved(tmp_path: Path) -> None:
    assert hogwild(FakeEngine(), "--ctx", "50", "--save", str(tmp_path / "run.md"), "P").exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_saved_file_has_no_escapes_and_any_text_can_be_saved(tmp_path: Path) -> None:
    transcriber = Transcriber()
    transcriber.take(RunStarted("m", ("A\x1b[31m",), "combined", 100, 1, 5))
    said = [{"role": "user", "content": "half \udc80, \x1b[2J, é"}]
    for name in ("run.json", "run.md"):
        save(tmp_path / name, said, {1: transcriber.transcript()})
        assert b"\x1b" not in (tmp_path / name).read_bytes()
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["messages"] == said
    assert "é" in (tmp_path / "run.md").read_text(encoding="utf-8")


def test_a_file_that_cannot_be_written_keeps_what_it_had(tmp_path: Path) -> None:
    (tmp_path / "run.md").write_text("before")
    (tmp_path / "run.md.part").mkdir()
    with pytest.raises(InvalidArgument, match="cannot be written"):
        save(tmp_path / "run.md", [], {})
    assert (tmp_path / "run.md").read_text() == "before"
