"""Worksheets: items to compute, some from another's result, and steps that somebody has already written.

    a=27+58
    b=a-13^40      the larger of a-13 and 40

Every number, in between too, has two digits: 0 to 99. An item has one to three operations, done from left to right.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .alphabet import ABSENT, FIX, LABELS

MAX_ITEMS, MAX_OPERATIONS, MAX_WORKERS = len(LABELS), 3, 4


@dataclass(frozen=True, slots=True)
class Item:
    """One line: first, a number or the label of an earlier item, then operations such as ("+", 58)."""

    label: str
    first: int | str
    operations: tuple[tuple[str, int], ...]

    @property
    def line(self) -> str:
        first = self.first if isinstance(self.first, str) else f"{self.first:02}"
        return f"{self.label}={first}" + "".join(f"{sign}{number:02}" for sign, number in self.operations)

    @property
    def needs(self) -> str | None:
        """The label of the item whose result this one begins with."""
        return self.first if isinstance(self.first, str) else None


@dataclass(frozen=True, slots=True)
class Worksheet:
    """Items, and steps of somebody absent: given are the labels that are done, wrong is the one of them with a
    wrong result."""

    items: tuple[Item, ...]
    results: tuple[int, ...]
    given: str = ""
    wrong: str | None = None
    wrong_result: int = 0

    @property
    def text(self) -> str:
        """What the user writes."""
        lines = [item.line for item in self.items]
        for label in self.given:
            written = self.wrong_result if label == self.wrong else self.result(label)
            lines.append(f"{ABSENT}:{self.working(label)}{label}={written:02}")
        return "\n".join(lines)

    @property
    def answer(self) -> str:
        """All results: a85b72c19."""
        return "".join(f"{item.label}{result:02}" for item, result in zip(self.items, self.results, strict=True))

    def result(self, label: str) -> int:
        return self.results[LABELS.index(label)]

    def working(self, label: str) -> str:
        """The step that computes an item, without its last part: the result."""
        item = self.items[LABELS.index(label)]
        text, value = label, item.first
        if isinstance(value, str):
            text, value = text + value, self.result(value)
        for sign, number in item.operations:
            text += f"{value:02}{sign}{number:02}={digits(value, sign, number)};"
            value = apply(value, sign, number)
        return text

    def step(self, label: str, fix: bool = False) -> str:
        """The whole step: working and result. fix: because a wrong result was found."""
        return f"{FIX if fix else ''}{self.working(label)}{label}={self.result(label):02}"


def apply(left: int, sign: str, right: int) -> int:
    """One operation; ^ is the larger of two."""
    if sign == "+":
        return left + right
    return left - right if sign == "-" else max(left, right)


def digits(left: int, sign: str, right: int) -> str:
    """How an operation is worked out: carry, ones, tens; or the larger number."""
    result = apply(left, sign, right)
    if sign == "^":
        return f"{result:02}"
    carry = left % 10 + right % 10 > 9 if sign == "+" else left % 10 < right % 10
    return f"{int(carry)}{result % 10}{result // 10}"


def random_worksheet(rng: random.Random, n_items: int | None = None, has_given: bool | None = None) -> Worksheet:
    """2 to 12 items. A third begins with another's result; in a quarter of the worksheets (has_given: this one) the
    first ones are done, and every other of those has a wrong result among them."""
    n = n_items or rng.randint(2, MAX_ITEMS)
    if not 1 <= n <= MAX_ITEMS:
        raise ValueError(f"a worksheet has 1 to {MAX_ITEMS} items, not {n}")
    items: list[Item] = []
    results: list[int] = []
    for label in LABELS[:n]:
        needs = rng.randrange(len(items)) if items and rng.random() < 1 / 3 else None
        value = rng.randint(0, 99) if needs is None else results[needs]
        first = value if needs is None else LABELS[needs]
        operations = []
        for _ in range(rng.randint(1, MAX_OPERATIONS)):
            operation = _random_operation(rng, value)
            value = apply(value, *operation)
            operations.append(operation)
        items.append(Item(label, first, tuple(operations)))
        results.append(value)
    sheet = Worksheet(tuple(items), tuple(results))
    if has_given is None:
        has_given = rng.random() < 1 / 4
    return _with_given(rng, sheet) if has_given else sheet


def _random_operation(rng: random.Random, value: int) -> tuple[str, int]:
    """One whose result has two digits."""
    sign = rng.choice("++--^")
    if sign == "+":
        return sign, rng.randint(0, 99 - value)
    return sign, rng.randint(0, value if sign == "-" else 99)


def _with_given(rng: random.Random, sheet: Worksheet) -> Worksheet:
    given = LABELS[: rng.randint(1, max(1, len(sheet.items) // 2))]
    if rng.random() >= 1 / 2:
        return replace(sheet, given=given)
    wrong = rng.choice(given)
    return replace(sheet, given=given, wrong=wrong, wrong_result=_slip(rng, sheet.result(wrong)))


def _slip(rng: random.Random, result: int) -> int:
    """A result with other tens."""
    tens = rng.choice([other for other in range(10) if other != result // 10])
    return 10 * tens + result % 10
