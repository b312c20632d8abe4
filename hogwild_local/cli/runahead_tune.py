"""hogwild runahead tune: measures how prompts are best cut for these ranks, and keeps it for all later runs."""

from __future__ import annotations

from typing import Any

import click

from ..errors import InvalidArgument
from ..options import OF_CACHE, EngineOptions
from ..runahead.kept import Kept
from ..runahead.launched import of_launcher
from ..runahead.probe import FAR, PROBED
from ..runahead.ranked import RankedCache
from ..runahead.tune import Measured, Tuned, TunePlan, Tuner
from .grouped import Command, option
from .options import Numbers, engine_of, engine_options, field_option, given, model_path
from .terminal import note, say

HEADER = "  tokens |    even s |    best s     gain | partition"
ROOM = 2 * PROBED


@click.command(cls=Command)
@engine_options
@field_option("Model", EngineOptions, "lora")
@field_option("Model", EngineOptions, "control_vectors")
@field_option("Devices", EngineOptions, "runahead")
@field_option("Devices", EngineOptions, "hosts")
@option("Measurement", "-c", "--context", type=Numbers(), default=TunePlan.contexts, help="Lengths of prompts to cut.")
@option(
    "Measurement", "--rounds", type=int, default=TunePlan.rounds, help="Rounds of a partition, whose median counts."
)
@option(
    "Measurement", "--finest", type=int, default=TunePlan.finest,
    help="The search ends with steps of this part of a prompt: 128 is a 128th.",
)  # fmt: skip
@option("Measurement", "--again", is_flag=True, help="Measure also what was measured before.")
@option("Measurement", "--seed", type=int, default=TunePlan.seed, help="A number that repeats the random tokens.")
@click.pass_context
def tune(ctx: click.Context, /, **options: Any) -> None:
    """Measure how prompts are best cut into chunks of ranks, and keep it: later runs of the same model, ranks, hosts
    and threads cut their prompts so, and by interpolation those of other lengths.

    Interrupt it at any time: what was measured is kept, and the same command goes on from there. Let nothing else run
    meanwhile.
    """
    plan = TunePlan(options["context"], options["rounds"], options["finest"], options["seed"])
    engine = of_launcher() or engine_of(ctx, options)  # other ranks than the last one do nothing else
    chosen = given(EngineOptions, options)
    of_cache = {name: chosen.pop(name) for name in OF_CACHE}
    of_model = {name: value for name, value in chosen.items() if name not in ("runahead", "hosts")}
    model = engine.model(model_path(engine, options), **of_model)
    try:
        cache = engine.cache(model, n_ctx=max(*plan.contexts, FAR) + ROOM, **of_cache)
        if not isinstance(cache, RankedCache):
            raise InvalidArgument("there are no ranks whose prompts could be cut: say how many with --runahead")
        _tune(cache, model.n_vocab, plan, options["again"])
    finally:
        model.close()


def _tune(cache: RankedCache, n_vocab: int, plan: TunePlan, again: bool) -> None:
    kept = Kept(cache.group(), lambda text: note(f"hogwild: {text}"))
    if again:
        kept.forget()
    costs = kept.costs() or cache.probed()  # the same ones after an interrupt: then the search goes the same way
    tuner = Tuner(cache, n_vocab, kept.table(), costs, plan, _show)
    note(f"hogwild: the table is {kept.table_file}")
    rows = [tuner.tune(n) for n in sorted(plan.contexts)]
    say(HEADER)
    for row in rows:
        say(_line(row))


def _show(measured: Measured) -> None:
    seconds = ", ".join(f"{each:.3f}" for each in measured.rounds)
    n = sum(measured.partition)
    note(f"hogwild: {n} tokens as {_chunks(measured.partition)}: {seconds} s; best {measured.best_s:.3f} s")


def _line(row: Tuned) -> str:
    gain = row.even_s / row.seconds
    return f"{row.n_tokens:>8} | {row.even_s:>9.3f} | {row.seconds:>9.3f}  {gain:>6.2f}x | {_chunks(row.partition)}"


def _chunks(partition: tuple[int, ...]) -> str:
    return " + ".join(map(str, partition))
