"""The live view: a frame for any size of terminal, and a terminal that is as before afterwards."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable

import pytest
from rich.cells import cell_len
from rich.console import Console
from terminals import Terminal
from test_display import running, show, show_and_interrupt

from hogwild_local.cli import progress
from hogwild_local.cli.frame import COLOURS, arrange, n_hidden, style_of
from hogwild_local.cli.live import LiveOutput
from hogwild_local.cli.terminal import note, printable
from hogwild_local.events import (
    Event,
    PassEnded,
    PromptProgress,
    ReplyStarted,
    ReplyToken,
    RunEnded,
    StepEnded,
    StepStarted,
    Timings,
    Usage,
)
from hogwild_local.workers.run import Run

SIZES = [(80, 24), (140, 40), (200, 50), (40, 24), (30, 60), (20, 10), (8, 4)]


def screen(width: int, height: int, **settings: object) -> Console:
    chosen = {"color_system": None, **settings}
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=True, **chosen)  # type: ignore[arg-type]


def written(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def frame(output: LiveOutput, width: int, height: int) -> list[str]:
    """The lines of the frame as it is now."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(output.render())
    return written(console).splitlines()


def feed_until(run: Run, output: LiveOutput, stop: Callable[[Event], bool]) -> Event:
    for event in run:
        output.feed(event)
        if stop(event):
            return event
    raise AssertionError("it never came")


def at_pass(n: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, PassEnded) and event.n_pass == n


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8, 16, 26])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_frame_fills_the_screen_and_no_more_and_says_how_many_workers_do_not_fit(
    workers: int, width: int, height: int
) -> None:
    with running(*["It is.\n\n" + "word " * 40] * workers, workers=workers, max_passes=30) as run:
        output = LiveOutput(run, screen(width, height))
        feed_until(run, output, at_pass(20))
        lines = frame(output, width, height)
        assert len(lines) == height
        assert max(map(cell_len, lines)) <= width
        hidden = n_hidden(workers, width, height - 1)
        text = "\n".join(lines)
        assert sum(name[:3] in text for name in run.workers) >= workers - hidden
        assert hidden == 0 or width < 70 or f"{hidden} workers do not fit" in lines[-1]


def test_eight_workers_on_80_by_24_are_readable() -> None:
    at = arrange(8, 80, 23, done=100)
    assert at.per_row <= 2
    assert at.height >= 4  # a name and three lines
    assert at.done >= 4


@pytest.mark.parametrize(("n", "width", "height"), [(4, 140, 39), (5, 140, 39), (3, 80, 23), (26, 80, 23), (8, 80, 23)])
def test_rows_are_as_even_as_they_can_be(n: int, width: int, height: int) -> None:
    at = arrange(n, width, height, done=0)
    assert at.rows * at.per_row - n < at.rows
    assert height - at.rows * at.height < at.rows


def test_what_is_finished_takes_only_the_lines_that_it_needs() -> None:
    assert arrange(2, 80, 23, done=0).done == 0
    assert arrange(2, 80, 23, done=3).done == 3
    assert arrange(2, 80, 23, done=100).done == 11
    assert arrange(8, 80, 23, done=100).done == 7


def test_wide_terminals_show_workers_side_by_side_and_narrow_ones_below_each_other() -> None:
    for width, is_beside in ((80, True), (40, False)):
        with running("hello", "world") as run:
            output = LiveOutput(run, screen(width, 24))
            feed_until(run, output, at_pass(5))
            (line,) = [line for line in frame(output, width, 24) if "hello" in line]
            assert ("world" in line) == is_beside


def test_wide_characters_push_nobody_out_of_a_column() -> None:
    with running("和は二千五百です🎉e\u0301" * 9, "here", max_passes=200) as run:
        output = LiveOutput(run, screen(80, 24))
        feed_until(run, output, at_pass(60))
        (line,) = [line for line in frame(output, 80, 24) if "here" in line]
        assert "和" in line
        assert cell_len(line[: line.index("<Bob1>here")]) == 41  # 39 of Alice's, and two between them


def test_a_finished_step_moves_from_its_column_to_those_above_with_the_name_of_who_wrote_it() -> None:
    with running("Hi.\n\nnext", "x") as run:
        output = LiveOutput(run, screen(80, 24))
        feed_until(run, output, lambda event: isinstance(event, StepEnded))
        lines = frame(output, 80, 24)
        assert lines[0].split() == ["Alice", "<Alice1>Hi."]
        assert "Hi." not in "\n".join(lines[1:])


def test_workers_have_colours_of_their_own_which_no_color_takes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({style_of(index) for index in range(12)}) == len(set(COLOURS)) == 12
    assert style_of(25)  # there are more workers than colours
    for no_color in (False, True):
        if no_color:
            monkeypatch.setenv("NO_COLOR", "1")
        console = screen(80, 24, color_system="standard")
        with running("hello", "world") as run:
            output = LiveOutput(run, console)
            feed_until(run, output, at_pass(5))
            console.print(output.render())
        assert ("\x1b[36m" in written(console)) == (not no_color)
        assert ("\x1b[33m" in written(console)) == (not no_color)


def test_the_prompt_has_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 60.0, 60.0, 90.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    with running("a", "b") as run:
        output = LiveOutput(run, screen(80, 24))
        output.feed(PromptProgress(100, 500))  # an earlier run had computed these
        status = frame(output, 80, 24)[-1]
        assert "prompt 100/500 tokens" in status
        assert "left" not in status
        output.feed(PromptProgress(200, 500))
        assert frame(output, 80, 24)[-1].endswith("3:00 left")
        assert frame(output, 80, 24)[-1].endswith("2:30 left")  # it counts down until the next chunk


def test_ranks_share_a_bar_of_all_their_layers() -> None:
    with running("a", "b") as run:
        output = LiveOutput(run, screen(80, 24))
        output.ranks(([13, 6], 28))
        assert "prompt 21/56 layers" in frame(output, 80, 24)[-1]


def test_the_status_tells_passes_room_and_tokens_a_second_as_they_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with running("a", "b") as run:
        output = LiveOutput(run, screen(80, 24))
        for n_pass in range(1, 101):
            now = n_pass / 10
            engine = Timings(passes=n_pass, tokens_per_second=3600.0)
            output.feed(PassEnded(n_pass, engine, Usage(5, 2 * n_pass, 321, 0)))
        status = frame(output, 80, 24)[-1]
    assert "pass 100 " in status
    assert "20.0 tokens/s" in status
    assert "321 of context left" in status


@pytest.mark.parametrize(("width", "height"), [(80, 24), (30, 10)])
def test_the_reply_takes_the_place_of_the_workers(width: int, height: int) -> None:
    with running("x") as run:
        output = LiveOutput(run, screen(width, height))
        for event in (StepStarted("Alice", 1, "alone"), ReplyStarted("</think>"), ReplyToken(1, "It is 42.", 9)):
            output.feed(event)
        lines = frame(output, width, height)
        assert len(lines) == height
        assert any("It is 42." in line for line in lines)
        assert not any("alone" in line or "</think>" in line for line in lines)


def test_when_a_run_has_ended_all_that_was_written_is_shown_and_why_it_ended() -> None:
    console = screen(200, 24)
    with running("One.\n\nHi \\boxed{7}", "b", max_passes=40) as run:
        show(run, LiveOutput(run, console))
    *_, after = written(console).split("\x1b[?1049l")
    lines = after.splitlines()
    assert lines.index("Alice, step 1") < lines.index("<Alice1>One.") < lines.index("Alice, step 2")
    assert lines.index("Answer: 7") == lines.index("Ended: an answer was found. Seed: 1") - 1
    assert "tokens/s" in lines[-1]
    assert written(console).count("\x1b[?25l") == written(console).count("\x1b[?25h") > 0
    assert written(console).count("\x1b[?1049h") == written(console).count("\x1b[?1049l") > 0


def test_a_turn_of_a_conversation_ends_with_its_reply_and_one_line() -> None:
    console = screen(80, 24)
    usage = Usage(5, 2, 321, 0)
    with running("x") as run, LiveOutput(run, console, of_turn=True) as output:
        output.feed(next(run))
        for event in (StepStarted("Alice", 1, "alone"), ReplyStarted(""), ReplyToken(1, "So it is.", 9)):
            output.feed(event)
        output.feed(RunEnded("budget", None, Timings(9, 1, 1.0, 100.0, 90.0, 10.0, 20.0), usage))
    *_, after = written(console).split("\x1b[?1049l")
    assert after.split("\n") == ["So it is.", "", "10 passes, 20.0 tokens/s; context left: 321 tokens", ""]


def test_ctrl_c_in_mid_run_restores_the_terminal_and_shows_what_there_was() -> None:
    console = screen(80, 24)
    with running("a", "b") as run, pytest.raises(KeyboardInterrupt):
        show_and_interrupt(run, LiveOutput(run, console))
    assert written(console).count("\x1b[?25l") == written(console).count("\x1b[?25h") > 0
    *_, after = written(console).split("\x1b[?1049l")
    assert "<Alice1>ax" in after
    assert "Ended: Ctrl+C was pressed. Seed: 1" in after


def test_what_is_said_meanwhile_is_said_after_the_screen_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    console, said = screen(80, 24), Terminal()
    monkeypatch.setattr(sys, "stderr", said)
    with running("a", "b") as run:
        with LiveOutput(run, console):
            note("a rank was lost")
            assert said.getvalue() == ""
        assert said.getvalue() == "a rank was lost\n"


def test_a_model_cannot_write_control_characters() -> None:
    assert printable("a\x1b[2Jb\r\x07\n\tc\x9b") == "a\ufffd[2Jb\ufffd\n\tc\ufffd"
    console = screen(80, 24)
    with running("\x1b[31m[bold]x", "b") as run:
        output = LiveOutput(run, console)
        feed_until(run, output, lambda event: isinstance(event, RunEnded))
        text = "".join(frame(output, 80, 24))
        output.close()
    for shown in (text, written(console)):
        assert "\x1b" not in shown
        assert "[31m[bold]" in shown


# -- a program on a terminal --

WORDS = '"One.\\n\\n" + "two " * 9999, "three " * 9999'


def test_the_view_fits_a_terminal_that_changes_its_size_and_ctrl_z_gives_it_back() -> None:
    with Terminal("run", "-m", "m.gguf", "P", scripts=WORDS) as terminal:
        terminal.until("pass 3")
        assert [line for line in terminal.lines if "Alice step" in line and "Bob step" in line]
        terminal.resize(40, 12)
        terminal.until("\nBob step")
        terminal.interrupt(signal.SIGTSTP)  # nobody is there to let it go on: it is not stopped at all
        terminal.until_written(b"\x1b[?1049h", times=2)
        assert terminal.written.count(b"\x1b[?1049l") == 1
        terminal.interrupt()
        assert terminal.ended() == 130
        assert b"Ended: Ctrl+C was pressed." in terminal.written


def test_a_dumb_terminal_gets_plain_lines() -> None:
    with Terminal("run", "-m", "m.gguf", "-n", "5", "P", scripts="", TERM="dumb") as terminal:
        assert terminal.ended() == 0
        assert b"Alice: " in terminal.written
        assert b"\x1b" not in terminal.written


def test_the_view_says_that_one_can_type_until_somebody_does() -> None:
    with Terminal("run", "-m", "m.gguf", "P", scripts=WORDS) as terminal:
        terminal.until("Type to the workers: a line is said to all")
        terminal.type("hm")
        terminal.until("> hm")
        assert "Type to the workers" not in "\n".join(terminal.lines)
        terminal.interrupt()
        assert terminal.ended() == 130
