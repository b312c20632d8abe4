"""Who says how a prompt is cut: what was asked for, a table that is kept, or costs; and what all that is worth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_blocks import Load, Paths, probe, tokens_of
from test_runahead import F32, alone, ranks

from hogwild_local import SharedCache
from hogwild_local.errors import ComputeError, InvalidArgument, RankLost, RunaheadError
from hogwild_local.runahead.balance import planned
from hogwild_local.runahead.costs import Costs, Link, RankCosts, of_plain
from hogwild_local.runahead.cutter import WORTH_PROBING, Cutter
from hogwild_local.runahead.kept import Kept
from hogwild_local.runahead.leader import Group
from hogwild_local.runahead.partition import even, interpolated

OF = {"model": "a model", "attention": "auto", "ranks": ["a CPU", "a CPU"], "hosts": []}
COSTS = Costs([RankCosts(4e-5, 2.5e-4, 7e-5, 8.7e-8)] * 2, [Link(5e-5, 1e10)] * 2, [4096] * 28)


def refuse(text: str) -> None:
    raise AssertionError(text)


def kept(**changes: Any) -> Kept:
    return Kept(OF | changes, refuse)


# -- files -----------------------------------------------------------------------------------------------------


def test_what_was_measured_is_there_afterwards() -> None:
    table = kept().table()
    table.add((500, 524), [1.0, 3.0, 2.0])
    table.add((512, 512), [2.5])
    table.add((1200, 848), [5.0])
    table.add((512, 512), [2.0, 1.5])
    again = kept().table()
    assert (again.rounds((512, 512)), again.rounds((1, 1023))) == ([2.5, 2.0, 1.5], [])
    assert again.ranking(1024) == [(500, 524), (512, 512)]  # medians are equal: the first one that was measured
    assert again.best() == {1024: (500, 524), 2048: (1200, 848)}
    kept().keep_costs(COSTS)
    assert kept().costs() == COSTS


@pytest.mark.parametrize(
    "changes",
    [{"model": "another"}, {"attention": "ggml"}, {"ranks": ["a CPU", "another CPU"]}, {"hosts": ["a", "b"]}],
)
def test_other_ranks_have_another_table(changes: dict[str, Any]) -> None:
    kept().table().add((500, 524), [1.0])
    kept().keep_costs(COSTS)
    assert kept(**changes).table().best() == {}
    assert kept(**changes).costs() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"of": {}, "measured": []}',
        "\udcff",
        *(
            json.dumps({"of": OF, "measured": rows})
            for rows in (
                None, 5, [[[500, 524]]], [[[500, 524], []]], [[[500, 524], [-1]]], [[[500, 524, 1], [1.0]]],
                [[[0, 1024], [1.0]]], [[["x", 524], [1.0]]], [[[500, 524], ["x"]]], [[5, [1.0]]],
            )
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".json", ".costs.json"])
def test_a_damaged_file_is_named_and_left_aside(suffix: str, text: str, cache_folder: Path) -> None:
    kept().table().add((500, 524), [1.0])
    kept().keep_costs(COSTS)
    file = next(
        file for file in (cache_folder / "runahead").iterdir() if file.suffixes == list(Path(f"x{suffix}").suffixes)
    )
    file.write_text(text, encoding="utf-8", errors="surrogateescape")
    said: list[str] = []
    damaged = Kept(OF, said.append)
    assert damaged.table().best() == ({} if suffix == ".json" else {1024: (500, 524)})
    assert damaged.costs() == (COSTS if suffix == ".json" else None)
    assert len(said) == 1
    assert str(file) in said[0]
    damaged.table().add((512, 512), [1.0])  # and it can be made anew
    damaged.keep_costs(COSTS)
    assert kept().costs() == COSTS


def test_a_folder_that_cannot_be_written_is_named_or_done_without(cache_folder: Path) -> None:
    cache_folder.parent.write_text("a file")
    said: list[str] = []
    blocked = Kept(OF, said.append)
    with pytest.raises(RunaheadError, match=f"cannot be kept in {cache_folder}"):
        blocked.table().add((500, 524), [1.0])
    assert Cutter(2, blocked, Asked(COSTS)).cut(3000, 0) == planned(COSTS, 3000)
    assert said


# -- who says how a prompt is cut ------------------------------------------------------------------------------


class Asked:
    """Measures costs, counted."""

    def __init__(self, answer: Costs | Exception | None) -> None:
        self.answer, self.n = answer, 0

    def __call__(self) -> Costs | None:
        self.n += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_table_says_how_prompts_are_cut_that_nothing_is_known_of() -> None:
    kept().table().add((700, 324), [1.0])
    kept().table().add((1500, 548), [2.0])
    cutter = Cutter(2, kept(), asked := Asked(COSTS))
    assert cutter.cut(1024, 0) == (700, 324)
    assert cutter.cut(1500, 0) == interpolated({1024: (700, 324), 2048: (1500, 548)}, 1500)
    assert asked.n == 0


@pytest.mark.parametrize("n_known", [1, 1000, 20_000])
def test_behind_known_tokens_the_costs_say_how_a_table_changes(n_known: int) -> None:
    kept().keep_costs(COSTS)
    plan = planned(COSTS, 2048, n_known)
    kept().table().add(planned(COSTS, 2048), [1.0])  # a table that says what the costs say
    assert Cutter(2, kept(), refuse).cut(2048, n_known)[0] == pytest.approx(plan[0], abs=2)  # type: ignore[arg-type]
    kept().table().add((1500, 548), [0.5])
    found = Cutter(2, kept(), refuse).cut(2048, n_known)  # type: ignore[arg-type]
    assert sum(found) == 2048
    assert plan[0] < found[0] <= 1501


def test_other_links_than_those_there_are_have_no_table() -> None:
    kept().table().add((1200, 848), [1.0])
    cutter = Cutter(2, kept(), Asked(COSTS))
    cutter.limit(slow := Link(1e-3, 1e7))
    assert cutter.cut(2048, 0) == planned(COSTS._replace(links=[slow, slow]), 2048) != planned(COSTS, 2048)
    cutter.limit(None)
    assert cutter.cut(2048, 0) == (1200, 848)


def test_without_costs_a_table_says_how_all_prompts_are_cut() -> None:
    kept().table().add((1500, 548), [0.5])
    assert Cutter(2, kept(), Asked(None)).cut(2048, 100) == (1500, 548)


def test_without_a_table_the_first_long_prompt_measures_costs_once_and_for_all() -> None:
    long = 2 * WORTH_PROBING
    cutter = Cutter(2, kept(), asked := Asked(COSTS))
    assert cutter.cut(long - 1, 0) == even(long - 1, 2)
    assert asked.n == 0
    assert cutter.cut(long, 0) == planned(COSTS, long) != even(long, 2)
    assert cutter.cut(long - 1, 0) == planned(COSTS, long - 1)
    assert asked.n == 1
    assert Cutter(2, kept(), refuse).cut(3000, 0) == planned(COSTS, 3000)  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [None, ComputeError("a device is gone")])
def test_where_costs_cannot_be_measured_chunks_are_even(answer: Costs | Exception | None) -> None:
    assert Cutter(2, kept(), Asked(answer)).cut(3000, 0) == (1500, 1500)


def test_a_rank_that_is_lost_is_no_reason_for_even_chunks() -> None:
    with pytest.raises(RankLost):
        Cutter(2, kept(), Asked(RankLost("gone"))).cut(3000, 0)


# -- ranks in threads ------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tiny_path: Paths) -> Iterator[tuple[Any, SharedCache, Group]]:
    """The native cache of the last of two ranks."""
    with (
        ranks(tiny_path("llama"), 2, cut=None) as (model, group),
        SharedCache(model, n_ctx=2000, n_batch=2000, **F32) as cache,
    ):
        yield cache._native, cache, group


def chunks_of(group: Group) -> list[int]:
    return [trace.n_tokens for trace in group.traces]


def test_a_partition_can_be_forced(pair: Any, single: Load) -> None:
    native, cache, group = pair
    tokens = tokens_of(single("llama"), 150)
    native.cut_as([120, 30])
    block = cache.block()
    logits = cache.decode([([block], tokens)])[0]
    assert chunks_of(group) == [120, 30]
    for got, wanted in zip([logits, probe(cache, block)], alone(single("llama"), tokens, **F32), strict=True):
        assert np.abs(got - wanted).max() <= 1e-3
    cache.decode([([cache.block()], tokens[:100])])
    assert chunks_of(group) == [50, 50]
    native.cut_as(None)
    cache.decode([([cache.block()], tokens)])
    assert chunks_of(group) == [75, 75]


@pytest.mark.parametrize("partition", [[150], [1, 2, 3], [0, 150], [-1, 151], [1.5, 3], ["a", "b"]])
def test_what_is_no_partition_is_not_forced(partition: Any, pair: Any, single: Load) -> None:
    native, cache, group = pair
    with pytest.raises(InvalidArgument):
        native.cut_as(partition)
    cache.decode([([cache.block()], tokens_of(single("llama"), 150))])
    assert chunks_of(group) == [75, 75]


def test_costs_are_measured_and_the_cache_is_as_before(pair: Any, single: Load) -> None:
    native, cache, _ = pair
    block = cache.block()
    cache.decode([([block], tokens_of(single("llama"), 100))])
    before = [cache.n_free, cache.read(block)]
    costs = of_plain(native.probed())
    assert [cache.n_free, cache.read(block)] == before
    cache.check()
    assert len(costs.ranks) == len(costs.links) == 2
    assert costs.ranks[0] == costs.ranks[1]  # the same CPU: what differs is chance
    assert costs.ranks[0].token_s > 0
    assert all(link.bytes_per_s > 0 for link in costs.links)
    assert costs.layers == [native.layer_bytes(layer, 1) for layer in range(native.n_layers())]
    assert Kept(native.group(), refuse).costs() == costs


def test_a_cache_without_room_measures_no_costs(pair: Any, single: Load) -> None:
    native, cache, _ = pair
    block = cache.block()
    cache.decode([([block], tokens_of(single("llama"), 1700))])
    assert native.probed() is None
    assert (len(block), cache.n_free) == (1700, 300)


def test_a_table_of_these_ranks_is_used(pair: Any, single: Load) -> None:
    native, cache, group = pair
    assert native.group()["ranks"][0] == native.group()["ranks"][1]
    Kept(native.group(), refuse).table().add((110, 40), [1.0])
    cache.decode([([cache.block()], tokens_of(single("llama"), 150))])
    assert chunks_of(group) == [110, 40]
