"""The baselines of run-ahead prefill, on the same ranks: keys and values gathered by all in every layer (TSP), and the
last rank alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from mla import write_mla
from ranks import Wires, rounding
from test_blocks import Load, Paths, probe, tokens_of
from test_runahead import F32, alone, cut, ranks

from hogwild_local import Model, SharedCache
from hogwild_local.errors import Cancelled, ComputeError, InvalidArgument, OutOfMemory, RankLost
from hogwild_local.runahead.chunk import Exchange
from hogwild_local.runahead.helper import Helper
from hogwild_local.runahead.partition import Partition
from hogwild_local.runahead.ranked import RankedCache
from hogwild_local.runahead.routes import ROUTES, Method, Prompt
from hogwild_local.runahead.slow_link import Limits
from hogwild_local.runahead.transport import PassTrace

OPTIONS = {"n_ctx": 400, "n_batch": 400}
METHODS: list[Method] = ["runahead", "all-gather"]


def sent(traces: Sequence[PassTrace], cache: SharedCache) -> list[int]:
    """Tokens that each rank sent in each layer."""
    native = cache._native
    return [sum(trace.layers[layer].n_sent for trace in traces) // native.layer_bytes(layer, 1) for layer in range(2)]


@pytest.mark.parametrize("n_ranks", [2, 3, 4])
@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3-yarn"])
def test_logits_are_those_of_a_single_process(name: str, n_ranks: int, tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single(name), 151)
    wanted = alone(single(name), tokens, **F32)
    with ranks(tiny_path(name), n_ranks) as (model, group), RankedCache(model, **OPTIONS, **F32) as cache:
        cache.method("all-gather")
        block = cache.block()
        logits = cache.decode([([block], tokens)])[0]
        assert sum(trace.n_tokens for trace in group.traces) == 151
        assert len(group.traces) == n_ranks
        assert np.abs(logits - wanted[0]).max() <= rounding(name, wanted[0])
        assert np.abs(probe(cache, block) - wanted[1]).max() <= rounding(name, wanted[1])
        assert block.tokens == tokens
        cache.check()


def test_values_that_are_part_of_the_keys_are_gathered_too(tmp_path: Path) -> None:
    path = write_mla(tmp_path / "mla.gguf")
    with Model(path, n_threads=1) as model:
        tokens = tokens_of(model, 90)
        wanted = alone(model, tokens, **F32)
    with ranks(path, 3) as (model, _), RankedCache(model, **OPTIONS, **F32) as cache:
        cache.method("all-gather")
        block = cache.block()
        assert np.abs(cache.decode([([block], tokens)])[0] - wanted[0]).max() <= 1e-3
        assert np.abs(probe(cache, block) - wanted[1]).max() <= 1e-3


def test_what_the_last_rank_has_already_goes_to_all(tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single("gemma2"), 260)
    wanted = alone(single("gemma2"), tokens, **F32)
    with ranks(tiny_path("gemma2"), 3) as (model, group), RankedCache(model, **OPTIONS, **F32) as cache:
        cache.method("all-gather")
        first, second = cache.block(), cache.block()
        cache.decode([([first], tokens[:100])])
        cache.decode([([first], tokens[100:170])])
        logits = cache.decode([([first, second], tokens[170:])])[0]
        assert np.abs(logits - wanted[0]).max() <= rounding("gemma2", wanted[0])
        assert np.abs(probe(cache, first, second) - wanted[1]).max() <= rounding("gemma2", wanted[1])
        assert sent(group.traces, cache) == [2 * 90 + 2 * 170] * 2
        assert sum(trace.n_sent for trace in group.traces) == sum(trace.n_received for trace in group.traces)


@pytest.mark.parametrize(("n_ranks", "theirs", "ours"), [(2, 120, 60), (3, 240, 120), (4, 360, 180)])
def test_all_gather_sends_twice_as_much(n_ranks: int, theirs: int, ours: int, tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single("llama"), 120)
    with ranks(tiny_path("llama"), n_ranks) as (model, group), RankedCache(model, **OPTIONS) as cache:
        counted = {}
        for method in METHODS:
            cache.method(method)
            cache.decode([([cache.block()], tokens)])
            counted[method] = sent(group.traces, cache)
    assert counted == {"runahead": [ours] * 2, "all-gather": [theirs] * 2}


@pytest.mark.parametrize(
    ("method", "partition", "entries"), [("runahead", (4, 3, 2), 22), ("all-gather", (3, 3, 3), 36)]
)
def test_the_papers_example_is_counted_as_in_the_paper(method: Method, partition: Partition, entries: int) -> None:
    """Section 4 of arXiv 2405.05329: keys and values of 9 tokens over 3 ranks."""
    routes = [ROUTES[method](rank, Prompt([0] * 9, (), partition, method)) for rank in range(3)]
    assert sum(2 * piece.n for route in routes for piece in (*route.sends_own, *route.sends_on)) == entries


@pytest.mark.parametrize("known", [(), (7, 2)])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("partition", [(5, 1), (1, 1, 1), (6, 4, 2, 3)])
def test_what_one_rank_sends_another_one_receives(method: Method, partition: Partition, known: Sequence[int]) -> None:
    size = len(partition)
    prompt = Prompt([0] * (sum(known) + sum(partition)), known, partition, method)
    routes = [ROUTES[method](rank, prompt) for rank in range(size)]
    gone = [
        *((rank, sum(known)) for rank in routes[-1].sends_known_to),
        *((piece.rank, piece.n) for route in routes for piece in (*route.sends_own, *route.sends_on)),
    ]
    come = [(rank, piece.n) for rank, route in enumerate(routes) for piece in route.receives]
    assert sorted(gone) == sorted(come)
    assert all(piece.begin + piece.n <= route.n_memory for route in routes for piece in route.receives)


def test_the_last_rank_can_compute_alone_and_with_others_again(tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single("llama"), 100)
    wanted = alone(single("llama"), tokens, **F32)[0]
    with ranks(tiny_path("llama"), 2) as (model, group), RankedCache(model, **OPTIONS, **F32) as cache:
        for method, n_traces in (("alone", 0), ("runahead", 2)):
            cache.method(method)  # type: ignore[arg-type]
            assert np.abs(cache.decode([([cache.block()], tokens)])[0] - wanted).max() <= 1e-3
            assert len(group.traces) == n_traces
        with pytest.raises(InvalidArgument, match=r"method.*runahead, all-gather, alone"):
            cache.method("ring")  # type: ignore[arg-type]


def test_a_partition_that_is_forced_is_used_until_it_is_not(tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single("llama"), 100)
    with ranks(tiny_path("llama"), 2, cut(60, 40)) as (model, group), RankedCache(model, **OPTIONS) as cache:
        for forced, used in (((70, 30), [70, 30]), (None, [60, 40])):
            cache.cut_as(forced)
            cache.decode([([cache.block()], tokens)])
            assert [trace.n_tokens for trace in group.traces] == used
        cache.cut_as((70, 30))
        cache.method("all-gather")  # which is even by its definition
        cache.decode([([cache.block()], tokens)])
        assert [trace.n_tokens for trace in group.traces] == [50, 50]
        for wrong in ((70, 0), (100,)):
            with pytest.raises(InvalidArgument, match="partition"):
                cache.cut_as(wrong)


@pytest.mark.parametrize("method", METHODS)
def test_a_rank_that_breaks_down_in_the_middle_leaves_the_cache(method: Method, tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single("llama"), 150)
    with ranks(tiny_path("llama"), 3, lose=(1, 1)) as (model, _), RankedCache(model, **OPTIONS) as cache:
        cache.method(method)
        block = cache.block()
        with pytest.raises(RankLost):
            cache.decode([([block], tokens)])
        assert (len(block), cache.n_free) == (0, 400)
        cache.check()


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_a_prompt_that_is_given_up_leaves_the_cache_and_the_ranks_are_ready_for_the_next_one(
    method: Method, rank: int, layer: int, tiny_path: Paths, single: Load
) -> None:
    tokens = tokens_of(single("llama"), 200)
    wanted = alone(single("llama"), tokens, **F32)[0]
    with ranks(tiny_path("llama"), 3) as (model, group), RankedCache(model, **OPTIONS, **F32) as cache:
        cache.method(method)
        wires = group.transport.wires  # type: ignore[attr-defined]
        block = cache.block()
        cache.decode([([block], tokens[:80])])
        before = cache.read(block)
        of_rank = "" if rank == 2 else f"rank {rank}: "
        for error in (OutOfMemory("no memory for 7 tokens"), ComputeError("the device failed")):
            wires.faults[rank, layer] = error
            with pytest.raises(type(error), match=f"^{of_rank}{error}$"):
                cache.decode([([block], tokens[80:])])
            assert cache.read(block) == before
            assert all(box.empty() for box in wires.mail.values())  # every message has met its receiver
        logits = cache.decode([([block], tokens[80:])])[0]
        assert np.abs(logits - wanted).max() <= 1e-3
        assert len(group.traces) == 3
        cache.check()


def test_a_rank_computes_no_more_layers_of_a_prompt_that_another_one_has_given_up() -> None:
    class Cells:
        def n_layers(self) -> int:
            return 2

        def layer_bytes(self, layer: int, n: int) -> int:
            return n

    wires = Wires(2)
    exchange = Exchange(Cells(), wires.transport(0), Prompt([0] * 4, (), (2, 2), number=7))  # type: ignore[arg-type]
    exchange.begin(())
    wires.given_up = 6  # an earlier one
    exchange.exchange(0)
    wires.given_up = 7
    with pytest.raises(Cancelled, match="another rank"):
        exchange.exchange(1)


@pytest.mark.parametrize("method", METHODS)
def test_logits_are_the_same_over_slow_and_disturbed_links(method: Method, tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single("llama"), 150)
    wanted = alone(single("llama"), tokens, **F32)[0]
    with ranks(tiny_path("llama"), 3) as (model, group), RankedCache(model, **OPTIONS, **F32) as cache:
        cache.method(method)
        cache.limit_links(Limits(bytes_per_s=1e6, latency_s=0.002, noise=0.5, seed=1))
        assert np.abs(cache.decode([([cache.block()], tokens)])[0] - wanted).max() <= 1e-3
        slow = group.traces
        cache.limit_links(None)
        assert np.abs(cache.decode([([cache.block()], tokens)])[0] - wanted).max() <= 1e-3
    bytes_of_first_layer = slow[1].layers[0].n_received
    first = slow[1].layers[0].received_s - slow[0].layers[0].stored_s
    assert first >= bytes_of_first_layer / 1e6 / (1 if method == "runahead" else 2)  # two links bring the gathered ones
    assert [trace.n_sent for trace in slow] == [trace.n_sent for trace in group.traces]


def test_what_ranks_did_is_told_in_the_last_ones_time(
    tiny_path: Paths, single: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Helper, "clock", lambda self: time.monotonic() + 1000)
    with ranks(tiny_path("llama"), 2) as (model, group), RankedCache(model, **OPTIONS) as cache:
        cache.decode([([cache.block()], tokens_of(single("llama"), 100))])
        began = [trace.began_s for trace in cache.ranks()]
        assert began[0] - began[1] == pytest.approx(-1000, abs=60)
        monkeypatch.undo()
        group.compare_clocks()
        cache.decode([([cache.block()], tokens_of(single("llama"), 100))])
        assert group._ahead_s == [0.0]
