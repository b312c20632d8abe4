"""Checkers of answers, with known answers."""

from __future__ import annotations

import importlib.util
from fractions import Fraction

import pytest

from hogwild_local.errors import InvalidArgument
from hogwild_local.evaluation.answers import CHECKERS, MathChecker, make_checker, parse_number

needs_math = pytest.mark.skipif(
    importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed (the extra math)"
)


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [("4", "4", True), (" 4\n", "4", True), ("4.0", "4", False), ("A", "a", False), ("", "4", False)],
)
def test_exact_is_the_same_text_without_the_space_around_it(answer: str, truth: str, right: bool) -> None:
    assert make_checker("exact").correct(answer, truth) is right


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42), ("-7", -7), ("+7", 7), ("\u22127", -7), ("1,234,567", 1234567), ("1{,}000", 1000),
        (r"10\,000", 10000),
        ("3.50", Fraction(7, 2)), (".5", Fraction(1, 2)), ("5.", 5), ("1e3", 1000), ("2.5E-1", Fraction(1, 4)),
        ("1/2", Fraction(1, 2)), (" 3 / 4 ", Fraction(3, 4)), (r"\frac{1}{2}", Fraction(1, 2)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)), ("$18", 18), ("-$5", -5), (r"\$1,234.50", Fraction(2469, 2)), ("$42$", 42),
        ("€3", 3), ("50%", 50), (r"50\%", 50), (r"90^\circ", 90), (r"18\text{ dollars}", 18),
        ("", None), ("x", None), ("x=5", None), ("5 6", None), ("1,2", None), ("12,34", None), ("1234,567", None),
        ("--5", None), ("5-6", None), ("1/0", None), ("1/2/3", None), ("nan", None), ("inf", None), ("1e99999", None),
        ("1_000", None), ("٣", None), ("9" * 5000, None), ("18 dollars", None),
    ],
)  # fmt: skip
def test_a_number_is_read_exactly_or_not_at_all(text: str, number: object) -> None:
    assert parse_number(text) == number


def test_numbers_are_compared_as_numbers_and_vote_as_numbers() -> None:
    checker = make_checker("number")
    assert checker.correct("$1,000.00", "1000")
    assert checker.correct("0.5", r"\frac{1}{2}")
    assert not checker.correct("0.3333333333333333", "1/3")
    assert not checker.correct("a", "a")
    assert checker.vote("1,000") == checker.vote(" 1000.0 ") != checker.vote("a") == checker.vote(" a")
    with pytest.raises(InvalidArgument, match="seven"):
        checker.check_truth("seven")


def test_an_unknown_check_is_named_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match=r"exact, number, math, not 'vibes'"):
        make_checker("vibes")
    assert all(checker.name == name for name, checker in CHECKERS.items())


def test_without_math_verify_the_check_math_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "math_verify", None)
    with pytest.raises(ImportError, match=r"hogwild-local\[math\]"):
        make_checker("math")


@needs_math
@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("0.5", r"\frac{1}{2}", True), ("x+1", "1+x", True), ("(1,2)", "(1, 2)", True),
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        ("5", "$5$", True), ("5", "6", False), ("}{", "5", False), ("", "5", False), ("\n\u2028", "5", False),
    ],
)  # fmt: skip
def test_math_is_equality_of_formulas(answer: str, truth: str, right: bool) -> None:
    with make_checker("math") as checker:
        assert checker.correct(answer, truth) is right


@needs_math
def test_math_goes_on_after_its_process_has_died_or_hung() -> None:
    with MathChecker() as checker:
        assert checker.correct("5", "5")
        process = checker._process
        assert process is not None
        process.kill()
        process.wait()
        assert not checker.correct("5", "5")  # its answer is lost
        assert checker.correct("5", "5")
        checker.SECONDS = 0.0  # no time at all: as if it hung
        assert not checker.correct("5", "5")
        checker.SECONDS = 60.0
        assert checker.correct("5", "5")
    assert checker._process is None
