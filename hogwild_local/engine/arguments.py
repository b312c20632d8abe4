"""Arguments in the form in which C takes them. Each raises InvalidArgument, which names the argument."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence

from ..checks import text
from ..errors import InvalidArgument


def c_text(value: str, name: str) -> bytes:
    """A text as C takes it: UTF-8, without the NUL at which C would cut it."""
    data = text(value, name).encode()
    if b"\0" in data:
        raise InvalidArgument(f"{name} holds a NUL character")
    return data


def c_path(path: str | bytes | os.PathLike[str], name: str) -> bytes:
    """The name of a file as C takes it."""
    try:
        data = os.fsencode(path)
    except (TypeError, UnicodeEncodeError) as error:
        raise InvalidArgument(f"{name} cannot be the name of a file: {error}") from None
    if b"\0" in data:
        raise InvalidArgument(f"{name} holds a NUL character")
    return data


def token_list(tokens: Sequence[int], n_vocab: int) -> list[int]:
    """Tokens of a model, at least one, as plain ints."""
    try:
        given = list(tokens)
        numbers = list(map(operator.index, given))
    except TypeError:
        raise InvalidArgument(f"tokens must be whole numbers, not {tokens!r}") from None
    if bool in map(type, given):
        raise InvalidArgument("tokens must be whole numbers, not True or False")
    if not numbers:
        raise InvalidArgument("a view has no tokens to feed")
    if min(numbers) < 0 or max(numbers) >= n_vocab:
        bad = next(number for number in numbers if not 0 <= number < n_vocab)
        raise InvalidArgument(f"token {bad} is out of range: this model has tokens 0 to {n_vocab - 1}")
    return numbers
