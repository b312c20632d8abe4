"""hogwild bench: what it counts, and what it compares with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hogwild_local import Model, SharedCache
from hogwild_local.cli.baseline import LlamaBaseline
from hogwild_local.cli.bench import bench
from hogwild_local.cli.bench_plan import Plan
from hogwild_local.cli.machine import Costs, Machine, Work, heads_a_value, measure_machine
from hogwild_local.cli.measure import Row, Timing, _Bench
from models.tiny import TINY

Load = Callable[..., Model]


@pytest.mark.parametrize(("kind", "bits"), [("f16", 16.0), ("q8_0", 8.5)])
def test_bytes_and_operations_of_a_pass_are_those_counted_by_hand(single: Load, kind: str, bits: float) -> None:
    shape = TINY["qwen3"]
    model = single("qwen3", kind)
    queries, kv = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    a_layer = shape.width * (queries + 2 * kv) + queries * shape.width + 3 * shape.width * shape.feed_forward
    values = shape.layers * a_layer + shape.vocabulary * shape.width  # the embedding is read by rows, the output is not
    with SharedCache(model, 64, type_k="f16", type_v="f16") as cache:
        costs = Costs.of(cache, model.metadata)
    cell = shape.layers * 2 * kv
    logits = shape.vocabulary * shape.width
    assert costs == Costs(values * bits / 8, values, logits, 2.0 * cell, cell, shape.heads / shape.kv_heads)
    work = costs.decode(2, 50, 40)  # two workers, who see 40 of 50 cells each
    assert work.n_bytes == values * bits / 8 + 50 * 2 * cell
    assert work.n_operations == 2 * 2 * values + 2 * 2 * 40 * shape.layers * 2 * queries


def test_a_prompt_reads_the_weights_once_a_pass_and_the_cells_before_it() -> None:
    costs = Costs(
        weight_bytes=100.0, weight_values=10.0, output_values=3.0, cell_bytes=4.0, cell_values=2.0, heads_a_value=3.0
    )
    work = costs.prefill(12, 8)  # passes of 8 and 4 tokens, which see 4 and 10 cells in the mean
    assert work.n_bytes == 2 * 100 + 8 * 4 + 12 * 4
    assert work.n_operations == 2 * (12 * 7 + 2 * 3) + 2 * 2 * 3 * (8 * 4 + 4 * 10)


def test_the_bound_is_the_slower_one_of_memory_and_arithmetic() -> None:
    machine = Machine(bytes_per_second=100.0, operations_per_second=1000.0)
    assert machine.bound(Work(50.0, 100.0)) == 0.5
    assert machine.bound(Work(50.0, 2000.0)) == 2.0


def test_heads_that_share_keys_are_read_from_the_metadata() -> None:
    shared = {"general.architecture": "x", "x.attention.head_count": "16", "x.attention.head_count_kv": "8"}
    assert heads_a_value(shared) == 2.0
    assert heads_a_value({**shared, "x.attention.head_count_kv": "[8, 4]"}) == 1.0
    assert heads_a_value({}) == 1.0


def test_sequences_of_the_baseline_see_the_prompt_also_in_recurrent_layers(single: Load) -> None:
    model = single("qwen35")
    with ExitStack() as stack:
        measured = _Bench(model, Plan(workers=(2,), contexts=(40,), passes=3, rounds=1), 40, None, stack)
        measured.prefill()
        with LlamaBaseline(model, 64, 1, flash_attention=False) as alone:
            alone.feed([*measured.tokens, 5], 0)
            expected = np.array(alone.logits(-1)[: model.n_vocab])
        measured.llamas["off"].share(40, 2)
        measured.llamas["off"].step(40, [7, 5])
        assert np.abs(np.array(measured.llamas["off"].logits(1)[: model.n_vocab]) - expected).max() < 1e-2


def test_ours_is_compared_with_the_faster_one_of_llama_cpps() -> None:
    fast, slow = Timing((1.0, 1.0)), Timing((4.0, 4.0))
    for llamas, flash in (({"on": slow, "off": fast}, "off"), ({"on": fast, "off": slow}, "on")):
        row = Row("decode", 8, 1, 1, Timing((0.5, 0.5)), llamas, 0.125)
        assert (row.flash_attention, row.ratio, row.reached) == (flash, 2.0, 0.25)


def test_the_machines_speeds_are_measured() -> None:
    machine = measure_machine(1)
    assert machine.bytes_per_second > 1e7
    assert machine.operations_per_second > 1e7


@pytest.mark.parametrize(("kind", "flashes"), [("f16", {"on", "off"}), ("q8_0", {"on"})])
def test_figures_tell_both_kinds_of_attention_that_llama_cpp_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, flashes: set[str]
) -> None:
    monkeypatch.setattr("hogwild_local.cli.measure.measure_machine", lambda n_threads: Machine(1e9, 1e9))
    file = tmp_path / "figures.json"
    sizes = ["-w", "2", "-c", "16", "--rounds", "1", "--passes", "4", "-t", "1"]
    done = CliRunner().invoke(bench, [*sizes, "--type-k", kind, "--type-v", kind, "--json", str(file)])
    assert done.exit_code == 0, done.output
    for row in json.loads(file.read_text())["rows"]:
        of = {flash: row["ms"].get(f"llama.cpp, flash attention {flash}") for flash in ("on", "off")}
        assert {flash for flash, ms in of.items() if ms} == flashes
        assert row["ms"]["llama.cpp"] == min(ms for ms in of.values() if ms) == of[row["flash_attention"]]
        assert row["reached"] == pytest.approx(row["ms"]["bound"] / row["ms"]["ours"])


def test_a_benchmark_that_is_ended_early_leaves_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Row("decode", 8, 1, 1, Timing((0.5,)), {"on": Timing((1.0,))}, None)

    def measured(model: Model, plan: object) -> Iterator[Row]:
        yield row
        raise KeyboardInterrupt

    monkeypatch.setattr("hogwild_local.cli.measure.measure", measured)
    file = tmp_path / "figures.json"
    assert CliRunner().invoke(bench, ["-t", "1", "--json", str(file)]).exit_code != 0
    assert json.loads(file.read_text())["rows"] == [row.to_dict()]
