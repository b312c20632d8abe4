"""What is typed while a run goes on."""

from __future__ import annotations

import io

import pytest

from hogwild_local.cli.keyboard import Keyboard, Line


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
