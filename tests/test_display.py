"""How a run looks where there is no terminal: plain lines that never mix workers, and JSON lines; and its end."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from fakes import TINY_STYLE, FakeEngine
from spoken import hogwild as spoken_to

from hogwild_local.cli.display import JsonOutput, Output, PlainOutput
from hogwild_local.cli.ending import last_lines
from hogwild_local.cli.terminal import Terminated
from hogwild_local.errors import ModelError
from hogwild_local.events import Answer, Event, PromptProgress, StepStarted, Token
from hogwild_local.hogwild import Hogwild
from hogwild_local.workers.run import Run
from hogwild_local.workers.transcript import Transcriber


@contextmanager
def running(*scripts: str, workers: int = 2, **options: object) -> Iterator[Run]:
    fake = FakeEngine(*scripts, finisher="42}")
    settings = {"max_passes": 12, "seed": 1, **options}
    with Hogwild("m.gguf", prompts=TINY_STYLE, n_batch=4096, engine=fake.engine) as hw:
        yield hw.stream("P", workers=workers, **settings)  # type: ignore[arg-type]


def show(run: Run, output: Output) -> None:
    with output:
        for event in run:
            output.feed(event)


def show_and_interrupt(run: Run, output: Output) -> None:
    """Until Alice's second token."""
    with output:
        for event in run:
            output.feed(event)
            if isinstance(event, Token) and event.n_pass == 2:
                raise KeyboardInterrupt


def test_plain_lines_begin_with_the_workers_name_and_never_mix() -> None:
    file = io.StringIO()
    with running("One\ntwo.\n\nx", "Hello\nyou") as run:
        show(run, PlainOutput(file))
    lines = file.getvalue().splitlines()
    alice = [line for line in lines if line.startswith("Alice: ")]
    bob = [line for line in lines if line.startswith("Bob: ")]
    assert alice == ["Alice: <Alice1>One", "Alice: two.", "Alice: <Alice2>xxxx", "Alice: [budget]"]
    assert bob == ["Bob: <Bob1>Hello", "Bob: youxxx", "Bob: [budget]"]
    assert lines[-4:-1] == [
        "finisher: =\\boxed{42}",
        "Answer: 42",
        "Ended: the budget of passes was used up. Seed: 1",
    ]
    assert "tokens/s" in lines[-1]
    assert len(lines) == len(alice) + len(bob) + 4


def test_plain_output_shows_what_there_was_when_the_run_is_interrupted() -> None:
    file = io.StringIO()
    with running("abc", "xyz") as run, pytest.raises(KeyboardInterrupt):
        show_and_interrupt(run, PlainOutput(file))
    lines = file.getvalue().splitlines()
    assert lines[:2] == ["Alice: <Alice1>ab", "Bob: <Bob1>x"]
    assert lines[2:4] == ["No answer was found", "Ended: Ctrl+C was pressed. Seed: 1"]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (None, "an answer was found"),
        (KeyboardInterrupt(), "Ctrl+C was pressed"),
        (Terminated(signal.SIGTERM), "SIGTERM came"),
        (ModelError("it broke"), "there was an error"),
    ],
)
def test_why_a_run_ended_is_said_in_words(error: BaseException | None, why: str) -> None:
    with running("Hi \\boxed{7}", "b", max_passes=40) as run:
        transcript = run.result().transcript
    assert last_lines(transcript, error)[:2] == ["Answer: 7", f"Ended: {why}. Seed: 1"]


@pytest.mark.parametrize(
    ("reply", "line"),
    [(None, "No answer was found"), ("Perhaps.", "No answer was found: the reply is all there is")],
)
def test_that_there_is_no_answer_is_said(reply: str | None, line: str) -> None:
    with running("Hi", "b", finisher=False, reply=False) as run:
        transcript = replace(run.result().transcript, reply=reply)
    assert last_lines(transcript, None)[0] == line
    assert line not in last_lines(transcript, None, of_turn=True)


def test_a_run_that_did_not_begin_has_no_end() -> None:
    assert last_lines(Transcriber().transcript(), ModelError("it broke")) == []


def test_plain_lines_have_what_was_said_meanwhile_and_what_came_to_nothing() -> None:
    file = io.StringIO()
    with spoken_to(FakeEngine(), n_ctx=200) as hw:
        run = hw.stream("P", max_passes=5, seed=1)
        for text in ("Look twice.", "more " * 100):
            run.say(text)
        show(run, PlainOutput(file))
    said = [line for line in file.getvalue().splitlines() if line.startswith("you: ")]
    assert said[0] == "you: Look twice."
    assert said[1].startswith("you: [")


def test_json_lines_hold_all_of_every_event() -> None:
    file = io.StringIO()
    with running("é.\n\n", "x") as run:
        show(run, JsonOutput(file))
    events = [json.loads(line) for line in file.getvalue().splitlines()]
    assert events[0]["event"] == "run_started"
    assert events[0]["workers"] == ["Alice", "Bob"]
    assert {"event": "token", "worker": "Alice", "token": 0xA9, "text": "é", "n_pass": 2} in events
    assert events[-1]["event"] == "run_ended"
    assert set(events[-1]["timings"]) >= {"passes", "decode_ms", "tokens_per_second"}
    assert file.getvalue().isascii()


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (Answer("4", None), "answer"),
        (PromptProgress(1, 2), "prompt_progress"),
        (StepStarted("A", 1, "t"), "step_started"),
    ],
)
def test_the_kind_of_an_event_is_its_class_in_snake_case(event: Event, kind: str) -> None:
    assert event.to_dict()["event"] == kind
