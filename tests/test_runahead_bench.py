"""hogwild runahead bench: what it counts, what it compares with, and its picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hogwild_local.cli.gantt import bars, draw
from hogwild_local.cli.runahead import runahead
from hogwild_local.cli.runahead_bench import _table
from hogwild_local.cli.runahead_measure import ALONE, CUT, EVEN, GATHERED, Bench, Row, idle_s
from hogwild_local.cli.runahead_plan import Plan, Wire
from hogwild_local.errors import InvalidArgument
from hogwild_local.runahead.transport import LayerTrace, PassTrace

Paths = Callable[..., Path]

TRACES = [
    PassTrace(0, 6, 10.0, 16.0, [LayerTrace(11.0, 11.0, 0, 60), LayerTrace(13.0, 13.0, 0, 60)]),
    PassTrace(1, 4, 10.5, 18.0, [LayerTrace(11.0, 12.0, 60, 0), LayerTrace(14.0, 14.5, 60, 0)]),
]
"""Two ranks, two layers."""


def row(name: str, wire: Wire | None, seconds: Sequence[float], traces: Sequence[PassTrace] = ()) -> Row:
    return Row(name, wire, lambda n_round: (0.0, ()), list(seconds), [traces] * len(seconds))


def test_a_rank_is_idle_before_its_pass_while_it_waits_and_after_it() -> None:
    assert idle_s(TRACES) == [2.0, 0.5 + 1.0 + 0.5]
    assert idle_s(()) == []


def test_bars_are_what_a_rank_computes_and_where_it_waits() -> None:
    computing, waiting = bars(TRACES[1])
    assert computing == [(10.5, 0.5), (12.0, 2.0), (14.5, 3.5)]
    assert waiting == [(11.0, 1.0), (14.0, 0.5)]


def test_speed_is_compared_with_the_last_rank_alone_and_with_the_baseline_over_the_same_link() -> None:
    free, slow, noisy = Wire(), Wire(1.0), Wire(1.0, noise=0.5)
    rows = [
        row("llama.cpp, 2 threads", None, [4.0]),
        row(ALONE, None, [6.0, 6.0, 60.0]),
        row(GATHERED, free, [4.0], TRACES),
        row(CUT, free, [3.0], TRACES),
        row(GATHERED, slow, [8.0], TRACES),
        row(CUT, slow, [4.0], TRACES),
        row(CUT, noisy, [5.0], TRACES),
    ]
    lines = _table({"model": "x", "empty": ""}, rows)
    of = {" ".join(line.split("|")[0].split()): line.split("|")[1].split() for line in lines[2:9]}
    assert lines[0] == "model: x"
    assert of["llama.cpp, 2 threads"] == ["4.00", "0.0%", "1.50"]
    assert of["run-ahead, 6,4 as it is"] == ["3.00", "0.0%", "2.00", "1.33"]
    assert of["run-ahead, 6,4 1 Gbit/s"] == ["4.00", "0.0%", "1.50", "2.00"]
    assert lines[4].endswith("0.0 MB 2.00 s  0.0 MB 2.00 s")
    assert lines[9:] == ["run-ahead, 6,4, link 1 Gbit/s, 50% noise: noise costs 25.0%"]


def test_what_ranks_did_is_told_of_the_round_nearest_to_the_median() -> None:
    rounds = [[TRACES[0]], [TRACES[1]], list(TRACES)]
    assert Row(CUT, Wire(), lambda n_round: (0.0, ()), [9.0, 2.0, 3.0], rounds).usual == TRACES  # type: ignore[arg-type]


def test_the_first_round_does_not_count_and_every_other_one_goes_the_other_way() -> None:
    asked: list[tuple[str, int]] = []

    def way(name: str, n_first: int) -> Row:
        def run(n_round: int) -> tuple[float, Sequence[PassTrace]]:
            asked.append((name, n_round))
            return float(n_round), [TRACES[0]._replace(n_tokens=n_first), TRACES[1]]

        return Row(name, Wire(), run)

    bench = object.__new__(Bench)
    bench.plan, bench.rows = Plan(n_ranks=2, rounds=2), [way(EVEN, 4), way(CUT, 4), way(CUT, 6)]
    bench.measure(lambda text: None)
    assert asked == [(CUT, 0), (CUT, 0), (EVEN, 0), (EVEN, 1), (CUT, 1), (CUT, 2), (EVEN, 2)]
    assert [row.seconds for row in bench.rows] == [
        [1.0, 2.0]
    ] * 2  # the even one of those with their own chunks is gone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_ranks": 1}, "runahead"),
        ({"context": 20}, "context"),
        ({"links": (-1.0,)}, "link-gbit"),
        ({"links": (float("nan"),)}, "link-gbit"),
        ({"noise": 1.0, "links": (1.0,)}, "noise"),
        ({"noise": 0.5}, "give one with link-gbit"),
        ({"latency_ms": 1.0}, "give one with link-gbit"),
        ({"partition": (4000, 90)}, "no partition of 4096 tokens"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Plan(**{"n_ranks": 2} | options)


def test_limited_links_are_measured_without_noise_and_with_it() -> None:
    plan = Plan(n_ranks=2, links=(0.0, 8.0), latency_ms=2.0, noise=0.25)
    wires = list(plan.wires())
    assert wires == [Wire(), Wire(8.0, 2.0), Wire(8.0, 2.0, 0.25)]
    assert wires[0].limits(seed=5) is None
    assert wires[2].limits(seed=5) == (1e9, 0.002, 0.25, 5)


def test_a_picture_has_a_chart_for_each_prompt(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="no matplotlib: install '.[plot]'")
    draw(tmp_path / "one.svg", [("first", TRACES)], "title")
    draw(tmp_path / "two.svg", [("first", TRACES), ("second", TRACES)])
    one, two = ((tmp_path / name).read_text().count("fill: #d62728") for name in ("one.svg", "two.svg"))
    assert two - one == 4  # two ranks, two layers: where they wait
    with pytest.raises(InvalidArgument, match="must end with one of"):
        draw(tmp_path / "one.txt", [("first", TRACES)])


def test_the_command_measures_all_ways_and_counts_what_ranks_send(tiny_path: Paths, tmp_path: Path) -> None:
    pytest.importorskip("mpi4py", reason="no MPI: install '.[runahead]'")
    file = tmp_path / "figures.json"
    sizes = ["-m", str(tiny_path("llama")), "--runahead", "3", "-t", "1", "-c", "120", "--rounds", "1"]
    links = ["--link-gbit", "0,0.05", "--noise", "0.5", "--partition", "50,40,30"]
    done = CliRunner().invoke(runahead, ["bench", *sizes, *links, "--json", str(file)])
    assert done.exit_code == 0, done.output
    figures = json.loads(file.read_text())
    assert {key: figures["machine"][key] for key in ("ranks", "threads_a_rank")} == {"ranks": 3, "threads_a_rank": 1}
    rows = figures["rows"]
    names = [row["way"].split(", 1 thr")[0] for row in rows]
    assert names == ["llama.cpp", "one process", ALONE, *[GATHERED, EVEN, CUT] * 3]
    of_ranks = [row for row in rows if row["link"] is not None]
    assert [row["link"]["noise"] for row in of_ranks] == [0.0] * 6 + [0.5] * 3
    assert [row["partition"] for row in of_ranks] == [[40] * 3, [40] * 3, [50, 40, 30]] * 3
    for i in range(0, 9, 3):
        gathered, ahead, cut = (sum(row["sent_bytes"]) for row in of_ranks[i : i + 3])
        assert gathered == 2 * ahead
        assert cut == ahead * 140 // 120
    for row in rows:
        assert len(row["ttft"]["seconds"]) == 1
        assert row["ttft"]["median"] > 0
        assert len(row["idle_seconds"]) == len(row["ranks"]) == len(row["partition"])
        assert all(0 <= idle <= row["ttft"]["median"] for idle in row["idle_seconds"])
    assert f"{ALONE:<26}" in done.output
