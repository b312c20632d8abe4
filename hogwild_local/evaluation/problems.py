"""Problems: a JSONL file, one object a line, with the texts "problem" and "answer", and "id" if you like."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. id: its "id", or else the number of its line, counted from 1; no two of a file are the same."""

    id: str
    problem: str
    answer: str


def read_problems(path: str | Path) -> list[Problem]:
    """All problems of a file, in its order. Empty lines are skipped, other keys are ignored; numbers count as texts.

    Raises InvalidArgument, which names file and line.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error}") from error
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    # Lines end with \n alone: other line ends of Unicode may stand inside a JSON string.
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            problem = _parse(line, number)
            if problem.id in lines:
                raise ValueError(f'the id "{problem.id}" was that of line {lines[problem.id]}')
        except ValueError as error:
            raise InvalidArgument(f"{path}, line {number}: {error}") from None
        lines[problem.id] = number
        problems.append(problem)
    if not problems:
        raise InvalidArgument(f"{path} has no problems")
    return problems


def digest(problems: Sequence[Problem]) -> str:
    """The same for the same problems in the same order: 16 hexadecimal digits."""
    texts = json.dumps([[problem.id, problem.problem, problem.answer] for problem in problems])
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


def _parse(line: bytes, number: int) -> Problem:
    """Raises ValueError, which says what is wrong."""
    try:
        fields = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 text: {error}") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"no valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError('a line must be an object such as {"problem": "1+1?", "answer": "2"}')
    return Problem(
        _text(fields, "id") if "id" in fields else str(number), _text(fields, "problem"), _text(fields, "answer")
    )


def _text(fields: dict[str, Any], key: str) -> str:
    if key not in fields:
        raise ValueError(f'"{key}" is missing')
    value = fields[key]
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'"{key}" must be a text or a number, not {json.dumps(value)}')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f'"{key}" holds what is no character: {error}') from None
    return value
