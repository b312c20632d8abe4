"""What is typed while a run goes on."""

from __future__ import annotations

import io

import pytest

from hogwild_local import Worker
from hogwild_local.cli.heard import heard
from hogwild_local.cli.keyboard import Keyboard, Line
from hogwild_local.errors import InvalidArgument


@pytest.mark.parametrize(
    ("typed", "lines", "rest"),
    [
        (["he", "llo\r"], ["hello"], ""),
        (["one\ntwo\nthr"], ["one", "two"], "thr"),
        (["helo\x7flo\n"], ["hello"], ""),
        (["\x7f\x7fa\b"], [], ""),
        (["one two\x17three"], [], "one three"),
        (["one two  \x17"], [], "one "),
        (["nothing\x15all\n"], ["all"], ""),
        (["a\x1b[A\x1b[1;5Cb\x1bOPc\x1bxd\x1b"], [], "abcd"),
        (["  \n\n"], [], "  "),
        (["a\x00\x07é🎉"], [], "aé🎉"),
    ],
)
def test_keys_make_lines(typed: list[str], lines: list[str], rest: str) -> None:
    entered: list[str] = []
    line = Line(lambda text: not entered.append(text))  # type: ignore[func-returns-value]
    for keys in typed:
        line.feed(keys)
    assert (entered, line.text) == (lines, rest)


def test_a_line_that_is_not_taken_stays_to_be_changed() -> None:
    line = Line(lambda text: text == "right")
    line.feed("wrong\n")
    assert line.text == "wrong"
    line.feed("\x15right\n")
    assert line.text == ""


@pytest.mark.parametrize("stdin", [None, io.StringIO("text")])
def test_without_a_terminal_it_hears_nothing(stdin: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    with Keyboard(lambda line: True) as keyboard:
        assert keyboard.typed == ""


class Spoken:
    """What of a run a line can reach."""

    workers = ("Ann", "Ann Lee", "Bob")

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, ...]] = []

    def say(self, text: str, to: str | None = None) -> None:
        self.asked.append(("say", text, to))

    def add(self, worker: Worker | None) -> str:
        made = worker or Worker("Carol")
        self.asked.append(("add", made.name, made.role))
        return made.name

    def stop(self, worker: str) -> None:
        self.asked.append(("stop", worker))


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("Look twice. ", ("say", "Look twice.", None)),
        ("@Bob, look twice.", ("say", "look twice.", "Bob")),
        ("@Ann Lee: you too", ("say", "you too", "Ann Lee")),
        ("@Ann Leere", ("say", "Leere", "Ann")),
        ("/add", ("add", "Carol", None)),
        ("/add Dave Jr", ("add", "Dave Jr", None)),
        ("/add Dave: doubt it: all", ("add", "Dave", "doubt it: all")),
        ("/stop  Ann Lee", ("stop", "Ann Lee")),
    ],
)
def test_a_line_is_said_to_all_or_to_the_one_it_names_or_changes_who_works(line: str, asked: tuple[str, ...]) -> None:
    run = Spoken()
    assert heard(run, line)  # type: ignore[arg-type]
    assert run.asked == [asked]


@pytest.mark.parametrize("line", ["/help", "@Bobby hello", "@", "/quit now"])
def test_a_line_that_means_nothing_says_what_there_is(line: str) -> None:
    run = Spoken()
    with pytest.raises(InvalidArgument, match=r"/add NAME|they are Ann"):
        heard(run, line)  # type: ignore[arg-type]
    assert run.asked == []
