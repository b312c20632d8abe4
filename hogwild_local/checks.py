"""Checks of single values, for all floors. Each raises InvalidArgument, which names the value."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import SupportsFloat

from .errors import InvalidArgument

INT32_MAX = 2**31 - 1


def whole(value: object, name: str, least: int = -INT32_MAX - 1, most: int = INT32_MAX) -> int:
    """A whole number in least..most: whatever has __index__, numpy's too, but no bool."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidArgument(f"{name} must be a whole number, not {value!r}") from None
    if number < least:
        raise InvalidArgument(f"{name} is {_shown(number)}: it must be at least {least}")
    if number > most:
        raise InvalidArgument(f"{name} is {_shown(number)}: it must be at most {most}")
    return number


def number(value: object, name: str) -> float:
    """A finite number: whatever has __float__ and is no text."""
    try:
        if isinstance(value, bool | str | bytes) or not isinstance(value, SupportsFloat):
            raise TypeError
        result = float(value)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{name} must be a finite number, not {value!r}") from None
    except OverflowError:
        raise InvalidArgument(f"{name} must be a finite number: this one is too large for a float") from None
    if not math.isfinite(result):
        raise InvalidArgument(f"{name} must be a finite number, not {value!r}")
    return result


def flag(value: object, name: str) -> bool:
    """True or False itself: a text such as "no" would count as True."""
    if not isinstance(value, bool):
        raise InvalidArgument(f"{name} must be True or False, not {value!r}")
    return value


def one_of(value: object, name: str, choices: tuple[str, ...]) -> str:
    """One of several texts."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidArgument(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return value


def text(value: object, name: str, errors: str = "strict") -> str:
    """A text that has a form in UTF-8: no half of a surrogate pair. errors: as in str.encode()."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{name} must be a text, not {value!r}")
    try:
        value.encode(errors=errors)
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{name} holds what is no character: {error}") from None
    return value


def texts(value: object, name: str) -> tuple[str, ...]:
    """A text, or several; none of them empty."""
    several = (value,) if isinstance(value, str) else value
    if isinstance(several, bytes) or not isinstance(several, Sequence):
        raise InvalidArgument(f"{name} must be a text or a list of texts, not {value!r}")
    for each in several:
        if not isinstance(each, str) or not each:
            raise InvalidArgument(f"{name}: the strings must not be empty, not {each!r}")
    return tuple(several)


def _shown(number: int) -> str:
    """Python refuses to write down a number of thousands of digits."""
    return str(number) if number.bit_length() < 1000 else f"a number of {number.bit_length()} bits"
