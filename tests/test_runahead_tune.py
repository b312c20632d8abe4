"""The search of the best partitions by measurement: what it finds, that it goes on where it was ended; its command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_blocks import Paths
from test_cutter import COSTS, OF, kept

from hogwild_local.errors import InvalidArgument
from hogwild_local.runahead import tune as tune_module
from hogwild_local.runahead.balance import planned
from hogwild_local.runahead.costs import Costs
from hogwild_local.runahead.partition import Partition, even
from hogwild_local.runahead.ranked import RankedCache, started
from hogwild_local.runahead.simulation import ttft
from hogwild_local.runahead.tune import Measured, TunePlan, Tuner

# -- measuring -------------------------------------------------------------------------------------------------


class Ranks(RankedCache):
    """A cache whose prompts take as long as the costs say. ends: passes that it lives for; lucky: a partition that is
    fast twice."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ends: int = 10**6, lucky: Partition = ()) -> None:
        self.now_s, self.ends, self.lucky = 0.0, ends, lucky
        self.forced, self.passes = None, list[Partition]()
        monkeypatch.setattr(tune_module, "time", SimpleNamespace(monotonic=lambda: self.now_s))

    def group(self) -> dict[str, Any]:
        return OF

    def cut_as(self, partition: Partition | None) -> None:
        self.forced = partition

    def block(self, name: str = "") -> Any:
        return SimpleNamespace(free=lambda: None)

    def decode(self, views: Any, *rest: Any, **options: Any) -> Any:
        assert self.forced is not None
        assert len(views[0][1]) == sum(self.forced)
        if len(self.passes) == self.ends:
            raise KeyboardInterrupt
        self.passes.append(self.forced)
        is_lucky = self.forced == self.lucky and self.passes.count(self.lucky) <= 2
        self.now_s += ttft(COSTS, self.forced) * (0.5 if is_lucky else 1.0)


def tuned(cache: Ranks, costs: Costs | None, seen: list[Measured] | None = None) -> Tuner:
    return Tuner(cache, 100, kept().table(), costs, TunePlan((1024, 2048), 3), ([] if seen is None else seen).append)


@pytest.mark.parametrize("costs", [None, COSTS])
def test_the_table_has_the_best_partition_of_each_length(costs: Costs | None, monkeypatch: pytest.MonkeyPatch) -> None:
    tuner = tuned(cache := Ranks(monkeypatch), costs)
    for n in (1024, 2048):
        row = tuner.tune(n)
        assert row.seconds <= 1.01 * ttft(COSTS, planned(COSTS, n))
        assert row.even_s == pytest.approx(ttft(COSTS, even(n, 2)))
        assert kept().table().best()[n] == row.partition
        assert row.n_measured == sum(sum(each) == n for each in set(cache.passes))
    assert cache.forced is None


def test_what_is_clearly_worse_gets_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Measured] = []
    tuned(Ranks(monkeypatch), COSTS, seen).tune(2048)
    rounds = rounds_of(2048)
    assert set(rounds.values()) == {1, 3, 6}
    best_s = ttft(COSTS, kept().table().best()[2048])
    for partition, n in rounds.items():
        assert (n == 1) == (ttft(COSTS, partition) > 1.05 * best_s) or partition == even(2048, 2)
    assert seen[-1].best_s == pytest.approx(best_s)


def test_the_best_get_more_rounds_so_that_luck_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that is worse is twice as fast in two of its first three rounds."""
    first, second = planned(COSTS, 2048)
    lucky = (first - 128, second + 128)
    row = tuned(cache := Ranks(monkeypatch, lucky=lucky), COSTS).tune(2048)
    assert cache.passes.count(lucky) > 3
    assert row.seconds <= 1.01 * ttft(COSTS, (first, second)) < ttft(COSTS, lucky)
    assert row.partition != lucky


def rounds_of(n_tokens: int) -> Counter[Partition]:
    table = kept().table()
    return Counter({partition: len(table.rounds(partition)) for partition in table.ranking(n_tokens)})


@pytest.mark.parametrize("ends", [0, 1, 4, 9, 15, 20])
def test_one_that_was_interrupted_goes_on(ends: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Ranks(monkeypatch)
    wanted = tuned(whole, COSTS).tune(2048)
    kept().forget()
    first = Ranks(monkeypatch, ends)
    with pytest.raises(KeyboardInterrupt):
        tuned(first, COSTS).tune(2048)
    assert first.forced is None
    kept_rounds = rounds_of(2048)
    second = Ranks(monkeypatch)
    again = tuned(second, COSTS).tune(2048)
    assert again == wanted._replace(even_s=pytest.approx(wanted.even_s), seconds=pytest.approx(wanted.seconds))
    assert rounds_of(2048) == Counter(whole.passes[1:])  # the first pass of each one is not counted
    assert Counter(second.passes[1:]) + kept_rounds == rounds_of(2048)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"contexts": ()}, "context"),
        ({"contexts": (1024, 63)}, "context"),
        ({"contexts": (8193,)}, "context"),
        ({"rounds": 0}, "rounds"),
        ({"finest": 8}, "finest"),
    ],
)
def test_a_plan_that_cannot_be_measured_is_refused(plan: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        TunePlan(**plan)


# -- the command -----------------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-P", "-c", "from hogwild_local.cli.main import main; main()"]


def tune_command(path: Path, *more: str) -> list[str]:
    return [*COMMAND, "runahead", "tune", "-m", str(path), "-t", "1", "-c", "128,256", "--rounds", "1", *more]


def rows_of(cache_folder: Path) -> list[tuple[list[int], list[float]]]:
    """The table: each partition with its rounds."""
    [file] = [file for file in (cache_folder / "runahead").iterdir() if file.suffixes == [".json"]]
    return json.loads(file.read_text())["measured"]


def test_the_command_goes_on_where_it_was_killed_and_later_runs_use_its_table(
    tiny_path: Paths, cache_folder: Path
) -> None:
    pytest.importorskip("mpi4py", reason="no MPI: install '.[runahead]'")
    command = tune_command(tiny_path("llama"), "--runahead", "2")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as first:
        assert first.stderr is not None
        seen = [line for line, _ in zip(iter(first.stderr.readline, ""), range(4), strict=False)]
        first.send_signal(signal.SIGKILL)
    before = rows_of(cache_folder)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert ["tokens as" in line for line in seen] == [False, True, True, True]
    assert len(before) >= 3
    for (partition, rounds), (partition_now, rounds_now) in zip(before, rows_of(cache_folder), strict=False):
        assert (partition, rounds) == (partition_now, rounds_now[: len(rounds)])
    assert len(rows_of(cache_folder)) > len(before)
    lines = done.stdout.splitlines()
    assert [int(line.split("|")[0]) for line in lines[1:]] == [128, 256]
    best = tuple(int(n) for n in lines[2].rpartition("|")[2].split(" + "))

    engine = started(2)
    with engine.model(tiny_path("llama"), n_threads=1) as model:  # type: ignore[attr-defined]
        cache = engine.cache(model, n_ctx=600, n_batch=512, type_k="f16", type_v="f16", attention="auto")
        assert isinstance(cache, RankedCache)
        cache.decode([([cache.block("prompt")], [1] * 256)])
        assert tuple(trace.n_tokens for trace in cache.ranks()) == best
        cache.cut_as((200, 56))
        cache.decode([([cache.block("another")], [1] * 256)])
        assert [trace.n_tokens for trace in cache.ranks()] == [200, 56]
    assert {file.name.partition(".")[2] for file in (cache_folder / "runahead").iterdir()} == {"json", "costs.json"}


def test_there_is_nothing_to_tune_without_ranks(tiny_path: Paths) -> None:
    done = subprocess.run(tune_command(tiny_path("llama")), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "say how many with --runahead" in done.stderr
