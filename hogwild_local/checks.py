"""Checks of arguments before they reach C. Each raises InvalidArgument, naming the argument."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import SupportsIndex

from .errors import InvalidArgument


def whole(value: SupportsIndex, name: str, least: int, most: int) -> int:
    """A whole number in least..most."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidArgument(f"{name} must be a whole number, not {value!r}") from None
    if not least <= number <= most:
        raise InvalidArgument(f"{name} is {number}: it must be {least} to {most}")
    return number


def token_list(tokens: Sequence[int], n_vocab: int) -> list[int]:
    """Tokens of a model, at least one, as plain ints."""
    try:
        numbers = list(map(operator.index, tokens))
    except TypeError:
        raise InvalidArgument(f"tokens must be whole numbers, not {tokens!r}") from None
    if not numbers:
        raise InvalidArgument("a view has no tokens to feed")
    if min(numbers) < 0 or max(numbers) >= n_vocab:
        bad = next(number for number in numbers if not 0 <= number < n_vocab)
        raise InvalidArgument(f"token {bad} is out of range: this model has tokens 0 to {n_vocab - 1}")
    return numbers
