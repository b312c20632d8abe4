"""How often the reply of a model says what its workers have written: after the answer, and when a budget has ended."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hogwild_local import Hogwild

from .alphabet import EOS, FIX, LABELS
from .items import Worksheet
from .reply import sentences

RESULT = re.compile(rf";([{LABELS}])=(\d\d)$")  # the end of a step that was worked out
FIXED = re.compile(rf":{FIX}([{LABELS}]?)")


@dataclass(frozen=True)
class Said:
    """A reply, and what it had to be. answered: the workers had found the answer."""

    sheet: Worksheet
    answered: bool
    reply: str
    wanted: str


def reply_to(sheet: Worksheet, steps: Iterable[str]) -> str:
    """What the reply has to say after these steps, finished or not, in the order in which they ended."""
    results: dict[str, str] = {}
    wrong = None
    for text in (*sheet.text.split("\n"), *steps):
        if (fix := FIXED.search(text)) and wrong is None:
            label = fix[1] or sheet.wrong or ""  # somebody has just noticed it
            wrong = (label, results.pop(label, ""))
        if found := RESULT.search(text):
            results[found[1]] = found[2]
    return "".join(sentences(LABELS[: len(sheet.items)], results, wrong)).removesuffix(EOS)


def replies(hogwild: Hogwild, sheets: Sequence[Worksheet], workers: int) -> Iterator[Said]:
    """Of each worksheet two: the workers write until they have an answer, and then until a smaller budget ends, drawn
    at random."""
    rng = random.Random(f"replies/{workers}")
    for sheet in sheets:
        budget = 1024
        for _ in range(2):
            result = hogwild.generate(sheet.text, workers=workers, max_passes=budget, seed=0)
            wanted = reply_to(sheet, result.history.split("\n"))
            yield Said(sheet, result.answer is not None, result.reply or "", wanted)
            budget = rng.randint(1, max(1, result.timings.passes - 1))
