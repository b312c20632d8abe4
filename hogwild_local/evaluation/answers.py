"""Checkers: is an answer right, and which answers are the same one (for a vote)?

exact    the same text, without the white space around it
number   the same number: 1,000 is 1000.0, 0.5 is 1/2 is \\frac{1}{2}; $ and % are left out
math     math-verify says that they are equal (an optional extra)
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import threading
from collections.abc import Hashable
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path

from ..errors import InvalidArgument

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?"
THOUSANDS = r"(?<!\d)(?<!\.)\d{1,3}(?:,\d{3})+(?!\d)"
FRACTION = re.compile(r"([-+]?)\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
# Left out: LaTeX's spaces and signs, and at the end units, degrees and percent; in front, money.
LATEX = re.compile(r"\\[$%!,]|\\(?:left|right)\b")
UNIT = re.compile(r"(?:\\(?:text|mathrm)\{[^{}]*\}|\^\\circ|\^\{\\circ\}|[$€£%°.\s])+$")
MONEY = re.compile(r"^[\s$]*([-+]?)\s*[$€£]?\s*")
MOST_DIGITS = 500


class Checker(AbstractContextManager["Checker"]):
    """Says whether answers are right. A context manager, since a checker may own a process."""

    name = "exact"

    def check_truth(self, truth: str) -> None:
        """Raises InvalidArgument if no answer could ever be found equal to this right one."""

    def correct(self, answer: str, truth: str) -> bool:
        """Is answer right, where truth is the right one? Never raises because of what they say."""
        return self.vote(answer) == self.vote(truth)

    def vote(self, answer: str) -> Hashable:
        """Answers with the same vote are the same answer."""
        return answer.strip()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends what the checker owns. May be called twice."""


class NumberChecker(Checker):
    """Compares numbers, exactly. An answer that is no number is wrong."""

    name = "number"

    def check_truth(self, truth: str) -> None:
        if parse_number(truth) is None:
            raise InvalidArgument(f"the answer {truth!r} is not a number")

    def correct(self, answer: str, truth: str) -> bool:
        number = parse_number(answer)
        return number is not None and number == parse_number(truth)

    def vote(self, answer: str) -> Hashable:
        number = parse_number(answer)
        return answer.strip() if number is None else number


class MathChecker(Checker):
    """Compares formulas with math-verify, in a process of its own: it stops by SIGALRM what takes too long, and that
    works in the main thread only. What crashes or hangs counts as wrong. Raises ImportError without math-verify."""

    name = "math"
    SECONDS = 60.0

    def __init__(self) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise ImportError("the check math needs math-verify: pip install 'hogwild-local[math]'")
        self._process: subprocess.Popen[str] | None = None

    def correct(self, answer: str, truth: str) -> bool:
        process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        guard = threading.Timer(self.SECONDS, process.kill)
        guard.start()
        try:
            process.stdin.write(json.dumps([answer, truth]) + "\n")
            process.stdin.flush()
            reply = process.stdout.readline()
        except OSError:
            reply = ""
        finally:
            guard.cancel()
        if not reply:
            self.close()
        return reply == "true\n"

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _start(self) -> subprocess.Popen[str]:
        if self._process is None:
            # -P: the modules beside that file must not stand in for others of the same name.
            command = [sys.executable, "-P", str(Path(__file__).with_name("math_server.py"))]
            pipe = subprocess.PIPE
            # A session of its own: Ctrl+C is for us, and we end it.
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, start_new_session=True
            )
        return self._process


CHECKERS: dict[str, type[Checker]] = {cls.name: cls for cls in (Checker, NumberChecker, MathChecker)}


def make_checker(name: str) -> Checker:
    """The checker of that name. Raises InvalidArgument, which lists the names, and ImportError."""
    if name not in CHECKERS:
        raise InvalidArgument(f"check must be one of {', '.join(CHECKERS)}, not {name!r}")
    return CHECKERS[name]()


def parse_number(text: str) -> Fraction | None:
    """The number that text is, decorations left out; None if it is none, or more than one."""
    text = text.replace("\u2212", "-").replace("{,}", ",")
    text = MONEY.sub(r"\1", UNIT.sub("", LATEX.sub("", text)))
    text = re.sub(THOUSANDS, lambda match: match[0].replace(",", ""), text, flags=re.ASCII)
    text = FRACTION.sub(r"\1\2/\3", text)
    match = re.fullmatch(rf"({NUMBER})(?:\s*/\s*({NUMBER}))?", text, flags=re.ASCII)
    if match is None or len(text) > MOST_DIGITS:  # int() refuses longer ones
        return None
    above, below = Fraction(match[1]), Fraction(match[2] or 1)
    return above / below if below else None
