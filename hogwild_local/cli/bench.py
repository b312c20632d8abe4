"""hogwild bench: ours against llama.cpp's own parallel decoding, as a table and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TextIO

import click

from ..options import OF_CACHE, EngineOptions
from .bench_plan import Plan
from .grouped import Command, option
from .options import Numbers, engine_options, given, named_model
from .terminal import say

if TYPE_CHECKING:
    from .measure import Row

HEADER = (
    "              context  workers |    ours ms   spread  tokens/s |  llama.cpp  flash   spread  tokens/s |   speed-up"
    " |  bound ms  reached"
)


@click.command(cls=Command)
@engine_options
@option("Measurement", "-w", "--workers", type=Numbers(), default=Plan.workers, help="Numbers of workers to measure.")
@option(
    "Measurement", "-c", "--context", type=Numbers(), default=Plan.contexts,
    help="Lengths of the shared prompt to measure, in tokens.",
)  # fmt: skip
@option(
    "Measurement", "--passes", type=int, default=Plan.passes,
    help="Passes of a round, the first two of which do not count.",
)  # fmt: skip
@option(
    "Measurement", "--rounds", type=int, default=Plan.rounds, help="Rounds of a measurement, whose median is shown."
)
@option("Measurement", "--seed", type=int, default=Plan.seed, help="A number that repeats the random tokens.")
@option(
    "Output", "--json", "json_file", type=click.File("w", encoding="utf-8"),
    help="Write all figures to a file, again after each line; - is standard output.",
)  # fmt: skip
def bench(json_file: TextIO | None, **options: Any) -> None:
    """Measure milliseconds a pass and tokens a second, of ours and of llama.cpp's llama_decode in turn.

    Both run in one process on the same weights, and so on the same devices: as many sequences as workers over one
    shared prompt. A speed-up above 1 means that ours is faster, than the faster one of llama.cpp with flash attention
    and without (the column "flash" says which). "bound" is what the measured speeds of this machine's memory and
    arithmetic allow, "reached" the part of it that ours reaches.

    With --rpc the model is in this process too, because llama.cpp needs it here: ggml aborts the command if a server
    dies.
    """
    from ..engine.default_model import default_model_path
    from ..engine.model import Model
    from .measure import machine_line, measure, report

    chosen = given(EngineOptions, options)
    of_plan = {name: chosen.pop(name) for name in OF_CACHE}
    plan = Plan(
        workers=options["workers"],
        contexts=options["context"],
        passes=options["passes"],
        rounds=options["rounds"],
        seed=options["seed"],
        **of_plan,
    )
    with Model(named_model(options) or default_model_path(), **chosen) as loaded:
        machine = machine_line(loaded)
        to_stdout = json_file is not None and json_file.name in ("-", "<stdout>")
        is_rewritten = json_file is not None and not to_stdout and json_file.seekable()
        if not to_stdout:
            shown = {key: "; ".join(value) if isinstance(value, list) else value for key, value in machine.items()}
            say("  ".join(f"{key}: {value}" for key, value in shown.items() if value))
            say(HEADER)
        rows = []
        for row in measure(loaded, plan):
            rows.append(row)
            if not to_stdout:
                say(_line(row))
            if json_file is not None and is_rewritten:  # whoever ends this early has what was measured
                json_file.seek(0)
                _write(json_file, report(machine, plan, rows))
    if json_file is not None and not is_rewritten:
        _write(json_file, report(machine, plan, rows))


def _write(json_file: TextIO, figures: dict[str, Any]) -> None:
    json.dump(figures, json_file, indent=1)
    json_file.write("\n")
    json_file.flush()


def _line(row: Row) -> str:
    workers = str(row.workers) if row.workers else ""
    ours, llama = row.ours, row.llama
    bound = "" if row.bound is None or row.reached is None else f" {1e3 * row.bound:>9.1f}  {row.reached:>7.0%}"
    return (
        f"{row.kind:>8}  {row.context:>11}  {workers:>7} |"
        f" {1e3 * ours.median:>10.1f}  {ours.spread:>6.1%}  {row.n_tokens / ours.median:>8.1f} |"
        f" {1e3 * llama.median:>10.1f}  {row.flash_attention:>5}"
        f"  {llama.spread:>6.1%}  {row.n_tokens / llama.median:>8.1f} |"
        f" {row.ratio:>9.2f}x |{bound}"
    )
