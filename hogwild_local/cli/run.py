"""hogwild run: the main job, on the terminal, as plain lines, or as JSON."""

from __future__ import annotations

import random
import sys
import time
from typing import Any

import click
from click.core import ParameterSource

from .. import set_log_hook
from ..events import Token
from ..hogwild import Hogwild
from ..workers.run import Run
from .display import JsonOutput, LiveOutput, Output, PlainOutput
from .options import (
    COUNT,
    LAYOUTS,
    engine_of,
    hogwild_options,
    load,
    model_path,
    run_options,
    sampling,
    sampling_options,
)

EXAMPLE_PACE = 40.0  # the embedded model is too fast to watch
EPILOG = "Each option can be given as an environment variable: HOGWILD_RUN_MAX_PASSES is --max-passes."


@click.command(epilog=EPILOG)
@click.argument("prompt", required=False)
@click.option("-f", "--file", type=click.File(encoding="utf-8"), help="Read the prompt from a file; - is stdin.")
@click.option("-w", "--workers", type=COUNT, default=2, help="How many workers.")
@click.option("--worker", multiple=True, metavar="NAME", help="A worker by name; once for each.")
@click.option("--layout", type=LAYOUTS, default="combined", help="What workers see of each other.")
@click.option("-n", "--max-passes", type=COUNT, default=1024, help="Budget of forward passes.")
@click.option("--seed", type=int, help="Repeats a run; without it, each run is different.")
@hogwild_options
@sampling_options
@click.option("--stop", multiple=True, help="A string that ends the worker that writes it; may be repeated.")
@run_options
@click.option("-v", "--verbose", is_flag=True, help="llama.cpp's log, and what lies on which device.")
@click.option("--json", "as_json", is_flag=True, help="One JSON event a line.")
@click.option("--plain", is_flag=True, help="Plain lines also on a terminal.")
@click.option(
    "--pace",
    type=click.FloatRange(min=0),
    show_default=f"0, as fast as it goes; an example on a terminal: {EXAMPLE_PACE:g}",
    help="Show at most so many passes a second.",
)
@click.pass_context
def run(ctx: click.Context, /, prompt: str | None, file: Any, as_json: bool, plain: bool, **options: Any) -> None:
    """Let several workers think about PROMPT together. Without one, about an example that comes with the model.

    On a terminal the workers are shown side by side; elsewhere as plain lines that begin with the worker's
    name.
    """
    text = _read_prompt(prompt, file)
    engine = engine_of(ctx, options)
    if options["verbose"]:
        set_log_hook(lambda level, text: sys.stderr.write(text))
    with load(engine, model_path(engine, options), options, quiet=as_json) as hogwild:
        if options["verbose"] or options["rpc"] or options["n_gpu_layers"]:
            for device in hogwild.devices:
                click.echo(f"hogwild: {device}", err=True)
        stream = hogwild.stream(
            text if text is not None else _example(hogwild, options["seed"]),
            workers=_workers(ctx, options),
            layout=options["layout"],
            max_passes=options["max_passes"],
            seed=options["seed"],
            sampling=sampling(options, hogwild.sampling),
            stop=options["stop"],
            finisher=options["finisher"],
            redundancy_every=options["redundancy_every"],
            thinking=options["thinking"],
        )
        output = _output(stream, as_json, plain)
        pace = options["pace"]
        if pace is None:
            pace = EXAMPLE_PACE if text is None and isinstance(output, LiveOutput) else 0.0
        _show(stream, output, pace)


def _show(run: Run, output: Output, pace: float) -> None:
    """Feeds all events to the output, of at most pace passes a second (0: any number). After Ctrl+C it has shown what
    there was, and the terminal is as before."""
    n_pass, start = 0, time.monotonic()
    with run, output:
        for event in run:
            if pace and isinstance(event, Token) and event.n_pass > n_pass:
                n_pass = event.n_pass
                time.sleep(max(0.0, start + n_pass / pace - time.monotonic()))
            output.feed(event)


def _output(run: Run, as_json: bool, plain: bool) -> Output:
    if as_json:
        return JsonOutput()
    from rich.console import Console

    console = Console()
    return PlainOutput() if plain or not console.is_terminal else LiveOutput(run, console)


def _example(hogwild: Hogwild, seed: int | None) -> str:
    """One of the prompts that the model brings, which is shown."""
    if not hogwild.examples:
        raise click.UsageError("give PROMPT or --file: this model brings no example")
    example = random.Random(seed).choice(hogwild.examples)
    click.echo(f"{example}\n", err=True)
    return example


def _read_prompt(prompt: str | None, file: Any) -> str | None:
    if prompt is not None and file is not None:
        raise click.UsageError("give either PROMPT or --file, not both")
    if file is None:
        return prompt
    try:
        return str(file.read())
    except UnicodeDecodeError as error:
        raise click.UsageError(f"--file: {file.name} is not UTF-8 text: {error}") from error


def _workers(ctx: click.Context, options: dict[str, Any]) -> int | list[str]:
    """Names count more than a number that comes from the environment; both on the command line make no
    sense."""
    if not options["worker"]:
        return int(options["workers"])
    if ctx.get_parameter_source("workers") is ParameterSource.COMMANDLINE:
        raise click.UsageError("give either --workers or --worker, not both")
    return list(options["worker"])
