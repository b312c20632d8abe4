"""hogwild runahead bench: a prompt of several ranks against one process and against the paper's baseline, as a table,
as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from ..options import OF_CACHE, EngineOptions
from .grouped import Command, option
from .options import COUNT, Numbers, Parts, engine_options, field_option, given, named_model
from .runahead_plan import Plan
from .terminal import note, say, warnings_as_notes

if TYPE_CHECKING:
    from .runahead_measure import Row

HEADER = f"{'way':<26} {'link':<26} | {'TTFT s':>7}  spread  x alone  x TSP | MB sent, s idle, a rank"


@click.command(cls=Command)
@engine_options
@field_option("Devices", EngineOptions, "runahead", default=2)
@field_option("Devices", EngineOptions, "hosts")
@option("Measurement", "-c", "--context", type=COUNT, default=Plan.context, help="Length of the prompt, in tokens.")
@option("Measurement", "--rounds", type=COUNT, default=Plan.rounds, help="Rounds whose median is shown.")
@option(
    "Measurement", "--link-gbit", type=Parts(), default=Plan.links, metavar="N,...", show_default=False,
    help="Rates that links between ranks are limited to, in Gbit/s and direction, one after the other; 0: no limit.",
)  # fmt: skip
@option("Measurement", "--latency-ms", type=float, default=Plan.latency_ms, help="Latency of the limited links.")
@option(
    "Measurement", "--noise", type=float, default=Plan.noise,
    help="Measure limited links also where others take this part of the rate of a neighbours' link, drawn at random.",
)  # fmt: skip
@option(
    "Measurement", "--partition", type=Numbers(), default=Plan.partition, metavar="N,...", show_default=False,
    help="Tokens of each rank, instead of those that the ranks find best.",
)  # fmt: skip
@option("Measurement", "--seed", type=int, default=Plan.seed, help="A number that repeats random tokens and noise.")
@option(
    "Output", "--json", "json_file", type=click.File("w", encoding="utf-8"),
    help="Write all figures to a file; - is standard output.",
)  # fmt: skip
@option(
    "Output", "--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path),
    help="Picture of who computed and who waited when.",
)  # fmt: skip
def bench(json_file: TextIO | None, plot_file: Path | None, **options: Any) -> None:
    """Measure the time to the first token of a prompt that several ranks prefill.

    In turn in one run: one process with all cores (llama.cpp's llama_decode, and ours), the last rank alone, all ranks
    with keys and values gathered in each layer (TSP, the baseline of arXiv 2405.05329), and all ranks running ahead,
    with even chunks and with those that they find best. --threads are those of a rank. "x alone" and "x TSP" are how
    many times faster it is than the last rank alone, and than TSP over the same link.
    """
    from ..engine.default_model import default_model_path
    from ..engine.rpc import listed
    from ..evaluation.plot import check_plot
    from .gantt import draw
    from .measure import machine_line
    from .runahead_measure import Bench, report

    if plot_file is not None:
        check_plot(plot_file)
    chosen = given(EngineOptions, options)
    of_plan = {name: chosen.pop(name) for name in OF_CACHE}
    hosts = listed(chosen.pop("hosts"), "hosts", "host")
    plan = Plan(
        n_ranks=chosen.pop("runahead"),
        links=options["link_gbit"],
        **{name: options[name] for name in ("context", "rounds", "latency_ms", "noise", "partition", "seed")},
        **of_plan,
    )
    to_stdout = json_file is not None and json_file.name in ("-", "<stdout>")
    with warnings_as_notes(), Bench(named_model(options) or default_model_path(), plan, chosen, hosts) as measured:
        machine = machine_line(measured.model) | {"ranks": plan.n_ranks, "threads_a_rank": measured.n_threads_a_rank}
        measured.measure(lambda text: note(f"hogwild: {text}"))
    if not to_stdout:
        for line in _table(machine, measured.rows):
            say(line)
    if json_file is not None:
        json.dump(report(machine, plan, measured.rows), json_file, indent=1)
        json_file.write("\n")
    if plot_file is not None:
        draw(plot_file, [(_title(row), row.usual) for row in measured.rows if row.wire is not None], machine["model"])


def _table(machine: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    from .runahead_measure import ALONE, GATHERED

    shown = {key: "; ".join(value) if isinstance(value, list) else value for key, value in machine.items()}
    lines = ["  ".join(f"{key}: {value}" for key, value in shown.items() if value), HEADER]
    seconds = {(row.name, row.wire): row.timing.median for row in rows}
    for row in rows:
        median = row.timing.median
        gathered = seconds.get((GATHERED, row.wire))
        against_tsp = "" if gathered is None else f"{gathered / median:.2f}"
        lines.append(
            f"{_name(row):<26} {row.wire or ''!s:<26} | {median:>7.2f}  {row.timing.spread:>6.1%}"
            f"  {seconds[ALONE, None] / median:>7.2f}  {against_tsp:>5} | {_of_ranks(row)}"
        )
    for row in rows:
        if row.wire is not None and row.wire.noise:
            costs = row.timing.median / seconds[row.name, row.wire._replace(noise=0.0)] - 1
            lines.append(f"{_name(row)}, link {row.wire}: noise costs {costs:.1%}")
    return lines


def _of_ranks(row: Row) -> str:
    sent = [trace.n_sent for trace in row.usual]
    return "  ".join(f"{n / 1e6:.1f} MB {idle:.2f} s" for n, idle in zip(sent, row.idle, strict=True))


def _name(row: Row) -> str:
    """With the partition, where it is no even one."""
    from .runahead_measure import is_even

    cut = ",".join(str(trace.n_tokens) for trace in row.usual)
    return row.name if is_even(row.usual) else f"{row.name}, {cut}"


def _title(row: Row) -> str:
    return f"{_name(row)}, link {row.wire}: {row.timing.median:.2f} s"
