"""A fake engine whose workers answer, give up or go on, as their seeds say; for tests of the evaluation."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from fakes import EOS, TINY_STYLE, FakeCache, FakeEngine, FakeModel, FakeSampler

from hogwild_local.evaluation import Journal, Plan, Problem, Record, evaluate
from hogwild_local.hogwild import Hogwild
from hogwild_local.options import SamplingParams

PROBLEMS = [Problem(f"p{i}", f"problem {i}", str(i % 3)) for i in range(3)]


class GuessingEngine(FakeEngine):
    """A worker writes up to 20 letters, in steps, then \\boxed{0}, \\boxed{1}, \\boxed{2}, or the end of text, or goes
    on for ever. The finisher answers with a digit that depends on how much was written."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = replace(self.engine, sampler=self._guess)
        self.on_decode = self._ask
        self.runs = 0
        self.temperatures: set[float] = set()

    def _guess(self, model: FakeModel, params: SamplingParams) -> FakeSampler:
        if params.seed is None:  # the finisher's
            return FakeSampler(params, [], self.filler)
        rng = random.Random(params.seed)
        text = "".join(rng.choice(("a", "b", "c.\n\n")) for _ in range(rng.randrange(20)))
        end: list[int] | None = self._tokens(rng.choice((r"\boxed{0}", r"\boxed{1}", r"\boxed{2}", "", "")))
        script = [*(self._tokens(text) or []), *(end or rng.choice(([EOS], [])))]
        self.runs += 1
        self.temperatures.add(params.temperature)
        return FakeSampler(params, script, self.filler)

    def _ask(self, cache: FakeCache) -> None:
        if any(block.name == "finisher" and not len(block) for block in cache.blocks):
            cache.finisher = [ord(str(cache.n_free % 3)), ord("}")]


def hogwild(fake: FakeEngine, n_ctx: int = 4096) -> Hogwild:
    return Hogwild("m.gguf", prompts=TINY_STYLE, engine=fake.engine, n_ctx=n_ctx)


def records_of(path: Any, plan: Plan, problems: list[Problem] = PROBLEMS, n_ctx: int = 4096) -> list[Record]:
    """Evaluates with a journal at path; all records that it holds then."""
    fake = GuessingEngine()
    with hogwild(fake, n_ctx) as hw, Journal(path) as journal:
        for _ in evaluate(hw, problems, plan, journal):
            pass
        assert fake.n_open == 0
        return journal.records


def timeless(records: list[Record]) -> list[Record]:
    """Without what differs from run to run."""
    return [replace(record, milliseconds=0.0) for record in records]


def lines(path: Path) -> list[dict[str, Any]]:
    """All lines of a journal, without the times."""
    return [{**json.loads(line), "milliseconds": 0} for line in path.read_text().splitlines()]
