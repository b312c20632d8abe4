"""How often workers computed what another had computed or was computing, in an evaluation with --transcripts."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .alphabet import LABELS

# The end of a step that was worked out: the label, = and the result.
RESULT = re.compile(rf"([{LABELS}])=\d\d$")


@dataclass
class Count:
    """computed: items that were worked out to the end; twice: those of them that had been before."""

    computed: int = 0
    twice: int = 0

    def add(self, other: Count) -> None:
        self.computed += other.computed
        self.twice += other.twice

    @property
    def part(self) -> float:
        return self.twice / self.computed if self.computed else 0.0


def results_of(given: str, steps: Iterable[Sequence[str]]) -> Count:
    """steps: [worker, text, reason] in the order in which they ended; given: labels that came with the worksheet. A
    fix (a step that begins with !) is meant to compute something again, once."""
    count = Count()
    seen = set(given)
    for _, text, _ in steps:
        found = RESULT.search(text)
        if not found:
            continue
        what = ("!" if ":!" in text else "") + found[1]
        count.computed += 1
        count.twice += what in seen
        seen.add(what)
    return count


def duplicates(records: Iterable[str], problems: Iterable[str]) -> dict[str, Count]:
    """By setting, from the lines of records.jsonl and of the problems."""
    given = {}
    for line in problems:
        problem = json.loads(line)
        given[str(problem["id"])] = "".join(re.findall(r"^Z:([a-l])", problem["problem"], re.MULTILINE))
    longest: dict[tuple[str, str, int], dict[str, Any]] = {}  # one run may stand for several budgets
    for line in records:
        record = json.loads(line)
        run = (record["setting"], record["problem"], record["replica"])
        if record.get("steps") and (run not in longest or longest[run]["budget"] < record["budget"]):
            longest[run] = record
    counts: dict[str, Count] = defaultdict(Count)
    for (setting, problem, _), record in longest.items():
        counts[setting].add(results_of(given[problem], record["steps"]))
    return counts
