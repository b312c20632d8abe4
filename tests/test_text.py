"""Streaming text: any split of any bytes gives the same text; stop strings never show; fences and steps."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hogwild_local.errors import InvalidArgument
from hogwild_local.workers.text import EndOfStep, OpenBlock, StopStrings, Utf8Stream

ENDS = re.compile(r"""[.!?]["')*]*$""")


def pieces_of(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    edges = [0, *cuts, len(whole)]
    return [whole[a:b] for a, b in pairwise(edges)]


@st.composite
def split_bytes(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    whole = draw(st.one_of(st.binary(max_size=40), st.text(max_size=20).map(lambda text: text.encode())))
    return whole, pieces_of(draw, whole)


@st.composite
def split_text(draw: st.DrawFn) -> tuple[str, list[str], list[str]]:
    whole = draw(st.text("abc", max_size=30))
    pieces = [piece.decode() for piece in pieces_of(draw, whole.encode())]
    return whole, pieces, draw(st.lists(st.text("abc", min_size=1, max_size=5), max_size=3))


@given(split_bytes())
def test_any_split_of_any_bytes_streams_the_same_text(case: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = case
    stream = Utf8Stream()
    assert "".join(map(stream.feed, pieces)) + stream.flush() == whole.decode(errors="replace")


def test_an_incomplete_character_waits_for_its_bytes() -> None:
    stream = Utf8Stream()
    assert [stream.feed(bytes([byte])) for byte in "é€".encode()] == ["", "é", "", "", "€"]
    assert stream.flush() == ""


def test_a_flushed_stream_is_new() -> None:
    stream = Utf8Stream()
    stream.feed("€".encode()[:2])
    assert stream.flush() == "\ufffd"
    assert stream.feed(b"a") == "a"


@given(split_text())
def test_stop_strings_cut_the_text_before_the_earliest_however_it_is_split(
    case: tuple[str, list[str], list[str]],
) -> None:
    whole, pieces, stops = case
    matcher, shown = StopStrings(stops), ""
    for piece in pieces:
        shown += matcher.feed(piece)
        assert whole.startswith(shown)
        if matcher.found:
            break
    ends = [whole.find(stop) + len(stop) for stop in stops if stop in whole]
    if ends:
        # A stream sees first what is complete first; among those complete in one piece, what begins first.
        assert matcher.found in stops
        assert shown + matcher.found == whole[: len(shown) + len(matcher.found)]
        assert not any(stop in shown for stop in stops)
    else:
        assert matcher.found is None
        assert shown + matcher.flush() == whole


def test_only_the_possible_beginning_of_a_stop_string_is_held_back() -> None:
    matcher = StopStrings(["STOP"])
    assert [matcher.feed(piece) for piece in ("a S", "T", "x", "ST", "OP b")] == ["a ", "", "STx", "", ""]
    assert matcher.found == "STOP"
    assert matcher.feed("more") == ""


@pytest.mark.parametrize("bad", ["", None, 3])
def test_a_stop_string_must_be_text(bad: object) -> None:
    with pytest.raises(InvalidArgument, match="stop"):
        StopStrings([bad])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("a\n```python\nx", True),
        ("```\nx\n```\n", False),
        ("```\nx\n```", True),  # the line may go on
        ("````\n```\n", True),
        ("```\n```python\n", True),
        ("~~~\n```\n", True),
        ("a ``` b\n", False),
        ("  ```\nx\n", True),
        ("> ```\n> x\n", True),
        ("> ```\n> x\n> ```\n", False),
        ("- ```python\n  x\n", True),
        ("1. ~~~\n   x\n   ~~~\n", False),
        ("> - 12) ```\n", True),
        ("a\n$$\nx\n", True),
        ("a\n$$\nx\n$$\n", False),
        ("so $$\nx\n$$.\n", False),
        ("so $$\nx\n", True),
        ("$$ x = 1\n", True),
        ("$$ x = 1 $$\n", False),
        ("$$ x = 1\n + 2 $$ and\n", False),
        ("- $$\n  x\n", True),
        ("it costs $$ or $$$ a day\n", False),
        ("```\n$$\n```\n", False),
        ("$$\n```\n$$\n", False),
    ],
)
def test_open_blocks(text: str, is_open: bool) -> None:
    at_once, bytewise = OpenBlock(), OpenBlock()
    at_once.feed(text)
    for char in text:
        bytewise.feed(char)
    assert at_once.open is bytewise.open is is_open


def ends(pieces: list[str], spans: bool = False) -> list[bool]:
    rule = EndOfStep("\n\n", ENDS, spans)
    return [rule.feed(piece) for piece in pieces]


def test_a_step_ends_with_the_token_that_contains_an_empty_line_after_a_sentence() -> None:
    assert ends(["Done", ".", "\n\n"]) == [False, False, True]
    assert ends(["Done", '."\n\nNext']) == [False, True]
    assert ends(["Done.", " \n\n\n\n"]) == [False, True]


def test_no_step_ends_without_a_sentence_before() -> None:
    assert ends(["a list:", "\n\n"]) == [False, False]
    assert ends(["\n\n"]) == [False]


def test_no_step_ends_inside_a_code_fence() -> None:
    assert ends(["```\n", "x = 1.", "\n\n", "```\n", "End.", "\n\n"]) == [False] * 5 + [True]


def test_no_step_ends_inside_a_formula() -> None:
    assert ends(["$$\n", "x = 1.", "\n\n", "$$\n", "End.", "\n\n"]) == [False] * 5 + [True]


def test_a_separator_of_several_tokens_counts_only_where_the_vocabulary_has_none() -> None:
    assert ends(["Done.\n", "\n"]) == [False, False]
    assert ends(["Done.\n", "\n", "a"], spans=True) == [False, True, False]


def test_the_next_step_knows_nothing_of_the_last() -> None:
    rule = EndOfStep("\n\n", ENDS, spans_tokens=True)
    rule.feed("```\nDone.\n")
    rule.reset()
    assert rule.feed("\n") is False
    assert rule.feed("So.\n\n") is True
