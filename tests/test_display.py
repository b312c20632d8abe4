"""How a run looks: plain lines that never mix workers, JSON lines, and frames for any size of terminal."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fakes import TINY_STYLE, FakeEngine
from rich.console import Console

from hogwild_local.cli.display import JsonOutput, LiveOutput, Output, PlainOutput
from hogwild_local.cli.terminal import printable
from hogwild_local.events import (
    Answer,
    Event,
    PassEnded,
    PromptProgress,
    ReplyStarted,
    ReplyToken,
    RunEnded,
    StepEnded,
    StepStarted,
    Token,
)
from hogwild_local.hogwild import Hogwild
from hogwild_local.workers.run import Run


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


def screen(width: int, height: int) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)


def frame(output: LiveOutput, width: int, height: int) -> list[str]:
    """The lines of the frame as it is now."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(output.render())
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_plain_lines_begin_with_the_workers_name_and_never_mix() -> None:
    file = io.StringIO()
    with running("One\ntwo.\n\nx", "Hello\nyou") as run:
        show(run, PlainOutput(file))
    lines = file.getvalue().splitlines()
    alice = [line for line in lines if line.startswith("Alice: ")]
    bob = [line for line in lines if line.startswith("Bob: ")]
    assert alice == ["Alice: <Alice1>One", "Alice: two.", "Alice: <Alice2>xxxx", "Alice: [budget]"]
    assert bob == ["Bob: <Bob1>Hello", "Bob: youxxx", "Bob: [budget]"]
    assert lines[-3:-1] == ["finisher: =\\boxed{42}", "Answer: 42"]
    assert "tokens/s" in lines[-1]
    assert len(lines) == len(alice) + len(bob) + 3


def test_plain_output_shows_what_there_was_when_the_run_is_interrupted() -> None:
    file = io.StringIO()
    with running("abc", "xyz") as run, pytest.raises(KeyboardInterrupt):
        show_and_interrupt(run, PlainOutput(file))
    assert file.getvalue().splitlines()[:2] == ["Alice: <Alice1>ab", "Bob: <Bob1>x"]


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


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 16])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (40, 24), (30, 60), (20, 10)])
def test_every_frame_is_as_wide_as_the_terminal_and_shows_every_worker_that_fits(
    workers: int, width: int, height: int
) -> None:
    with running(*["word " * 40] * workers, workers=workers, max_passes=30) as run:
        output = LiveOutput(run, screen(width, height))
        for event in run:
            output.feed(event)
            if isinstance(event, Token) and event.n_pass == 20:
                break
        lines = frame(output, width, height)
        assert max(map(len, lines)) <= width
        room = (width // LiveOutput.LEAST_WIDTH) * ((height - 2) // 3)
        if workers <= room:
            assert len(lines) < height
            text = "".join(lines)
            assert all(name[:3] in text for name in run.workers)


def test_wide_terminals_show_workers_side_by_side_and_narrow_ones_below_each_other() -> None:
    with running("hello", "world") as run:
        output = LiveOutput(run, screen(80, 24))
        for event in run:
            output.feed(event)
            if isinstance(event, Token) and event.n_pass == 5 and event.worker == "Bob":
                break
        wide = [line for line in frame(output, 80, 24) if "hello" in line]
        assert len(wide) == 1
        assert "world" in wide[0]
    with running("hello", "world") as run:
        output = LiveOutput(run, screen(40, 24))
        for event in run:
            output.feed(event)
            if isinstance(event, Token) and event.n_pass == 5 and event.worker == "Bob":
                break
        narrow = [line for line in frame(output, 40, 24) if "hello" in line]
        assert len(narrow) == 1
        assert "world" not in narrow[0]


def test_a_finished_step_moves_from_its_column_to_the_history() -> None:
    with running("Hi.\n\nnext", "x") as run:
        output = LiveOutput(run, screen(80, 24))
        for event in run:
            output.feed(event)
            if isinstance(event, StepEnded):
                break
        lines = frame(output, 80, 24)
    history = "\n".join(lines[: len(lines) // 3 + 1])
    assert "<Alice1>Hi." in history
    assert "Hi." not in "\n".join(lines[len(lines) // 3 + 1 :])


def test_the_status_line_shows_progress_then_passes_speed_and_room() -> None:
    with running("a", "b") as run:
        output = LiveOutput(run, screen(80, 24))
        output.feed(PromptProgress(5, 10))
        assert "prompt 5/10" in frame(output, 80, 24)[-1]
        for event in run:
            output.feed(event)
            if isinstance(event, PassEnded) and event.n_pass == 3:
                break
        status = frame(output, 80, 24)[-1]
    assert "pass 3" in status
    assert "tokens/s" in status
    assert isinstance(event, PassEnded)
    assert f"{event.usage.context_left} of context left" in status


@pytest.mark.parametrize(("width", "height"), [(80, 24), (30, 10)])
def test_the_reply_takes_the_place_of_the_workers(width: int, height: int) -> None:
    with running("x") as run:
        output = LiveOutput(run, screen(width, height))
        for event in (StepStarted("Alice", 1, "alone"), ReplyStarted("</think>"), ReplyToken(1, "It is 42.", 9)):
            output.feed(event)
        lines = frame(output, width, height)
        assert all(len(line) == width for line in lines[:-1])
        assert len(lines) <= height
        assert any("It is 42." in line for line in lines)
        assert not any("alone" in line or "</think>" in line for line in lines)


def test_the_live_view_ends_with_the_answer_and_restores_the_terminal() -> None:
    console = screen(200, 24)
    with running("Hi \\boxed{7}", "b", max_passes=20) as run:
        show(run, LiveOutput(run, console))
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Answer: 7" in written
    assert "tokens/s" in written.splitlines()[-1]
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") > 0


def test_ctrl_c_in_mid_run_restores_the_terminal() -> None:
    console = screen(80, 24)
    with running("a", "b") as run, pytest.raises(KeyboardInterrupt):
        show_and_interrupt(run, LiveOutput(run, console))
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") > 0


def test_a_model_cannot_write_control_characters() -> None:
    assert printable("a\x1b[2Jb\r\x07\n\tc\x9b") == "a\ufffd[2Jb\ufffd\n\tc\ufffd"
    with running("\x1b[31m[bold]x", "b") as run:
        output = LiveOutput(run, screen(80, 24))
        for event in run:
            output.feed(event)
            if isinstance(event, RunEnded):
                break
        text = "".join(frame(output, 80, 24))
    assert "\x1b" not in text
    assert "[31m[bold]" in text
