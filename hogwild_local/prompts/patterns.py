"""Regular expressions of model files, which nobody has read: those that could search for ever are refused.

Python's re tries every way to read a text, and can't be interrupted. A pattern is let through if its repeats can read a
text in one way only: after each character, the next one says where in the pattern it belongs (Brüggemann-Klein's
one-unambiguous expressions); outside of repeats one choice is left free, such as that of (.*?)x.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import combinations
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from ..errors import InvalidArgument

MOST = 300  # characters of a pattern
FREE_CHOICES = 1

_REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)
_CATEGORIES = {
    sre.CATEGORY_DIGIT: r"\d",
    sre.CATEGORY_NOT_DIGIT: r"\D",
    sre.CATEGORY_SPACE: r"\s",
    sre.CATEGORY_NOT_SPACE: r"\S",
    sre.CATEGORY_WORD: r"\w",
    sre.CATEGORY_NOT_WORD: r"\W",
}


def check_pattern(key: str, pattern: str) -> None:
    """Raises InvalidArgument, which names the key."""
    if len(pattern) > MOST:
        raise InvalidArgument(f"prompts: {key} has more than {MOST} characters")
    reader = _Reader(pattern)
    try:
        reader.read(parser.parse(pattern))
    except _Unknown as error:
        raise InvalidArgument(f"prompts: {key} has {error}, which a model file may not bring") from None
    if reader.in_repeats or reader.choices() > FREE_CHOICES:
        raise InvalidArgument(f"prompts: {key} can read a text in too many ways: it might search for ever")


class _Unknown(Exception):
    """Something that is more than a sequence, choice or repeat of characters."""


Part = tuple[bool, set[int], set[int]]
"""Of a part of a pattern: whether it can be empty, the places that it can begin with, and those it can end with."""


class _Reader:
    """The places of a pattern, one for each character in it, and which can follow each other."""

    def __init__(self, pattern: str) -> None:
        # Enough characters to tell any two sets apart: ASCII, Latin-1, and all that the pattern names, with neighbours.
        named = {code + step for code in map(ord, pattern) for step in (-1, 0, 1)}
        self._alphabet = [chr(code) for code in sorted({*range(256), *named}) if 0 <= code < 0x110000]
        self._ignores_case = bool(re.compile(pattern).flags & re.IGNORECASE)
        self._of_place: list[frozenset[str]] = []
        self._next: list[set[int]] = []
        self.in_repeats = False

    def read(self, items: Iterable[Any]) -> Part:
        empty, first, last = True, set[int](), set[int]()
        for operation, argument in items:
            can_skip, begins, ends = self._read_one(operation, argument)
            for place in last:
                self._next[place] |= begins
            first |= begins if empty else set()
            last = ends | last if can_skip else ends
            empty = empty and can_skip
        return empty, first, last

    def choices(self) -> int:
        """How often a character can be read in two ways."""
        return sum(self._overlap(set(places)) for places in {frozenset(places) for places in self._next})

    def _read_one(self, operation: Any, argument: Any) -> Part:
        if operation in _REPEATS:
            return self._repeat(*argument)
        if operation is sre.SUBPATTERN:
            return self.read(argument[-1])
        if operation is sre.ATOMIC_GROUP:
            return self.read(argument)
        if operation is sre.BRANCH:
            parts = [self.read(branch) for branch in argument[1]]
            return any(part[0] for part in parts), set.union(*(p[1] for p in parts)), set.union(*(p[2] for p in parts))
        if operation is sre.AT:
            return True, set(), set()
        self._of_place.append(frozenset(c for c in self._alphabet if self._holds(c, operation, argument)))
        self._next.append(set())
        place = len(self._next) - 1
        return False, {place}, {place}

    def _repeat(self, least: int, most: int, body: Any) -> Part:
        begin = len(self._next)
        empty, first, last = self.read(body)
        if most > 1:
            for place in last:
                self.in_repeats |= bool(self._next[place] & first)  # by an inner repeat, and by this one
                self._next[place] |= first
            if len(self._next) - begin > 1 or empty:
                inside = [first, *self._next[begin:]]
                self.in_repeats |= empty or any(map(self._overlap, inside))
        return empty or least == 0, first, last

    def _overlap(self, places: set[int]) -> bool:
        return any(self._of_place[a] & self._of_place[b] for a, b in combinations(places, 2))

    def _holds(self, character: str, operation: Any, argument: Any) -> bool:
        forms = {character, character.lower(), character.upper()} if self._ignores_case else {character}
        return any(_matches(form, operation, argument) for form in forms if len(form) == 1)


def _matches(character: str, operation: Any, argument: Any) -> bool:
    code = ord(character)
    if operation is sre.LITERAL:
        return bool(code == argument)
    if operation is sre.NOT_LITERAL:
        return bool(code != argument)
    if operation is sre.ANY:
        return True
    if operation is sre.RANGE:
        return bool(argument[0] <= code <= argument[1])
    if operation is sre.CATEGORY:
        return re.match(_CATEGORIES[argument], character) is not None
    if operation is sre.IN:
        negated = argument[0][0] is sre.NEGATE
        return any(_matches(character, *item) for item in argument[negated:]) is not negated
    raise _Unknown(str(operation).lower())
