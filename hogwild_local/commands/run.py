"""hogwild run: the main job, on the terminal, as plain lines, or as JSON."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .. import set_log_hook
from ..adapters import parse_adapter
from ..display import JsonOutput, LiveOutput, Output, PlainOutput
from ..engine_types import Engine, native_engine
from ..hogwild import Hogwild
from ..params import SamplingParams
from ..run import Run

EPILOG = "Each option can be given as an environment variable: HOGWILD_RUN_MAX_PASSES is --max-passes."
COUNT = click.IntRange(min=1)
LAYOUTS = click.Choice(["combined", "interleaved", "contiguous"])


@click.command(epilog=EPILOG)
@click.argument("prompt", required=False)
@click.option("-f", "--file", type=click.File(encoding="utf-8"), help="Read the prompt from a file; - is stdin.")
@click.option("-m", "--model", type=click.Path(path_type=Path), help="GGUF file. Without it: the embedded one.")
@click.option("-w", "--workers", type=COUNT, default=2, help="How many workers.")
@click.option("--worker", multiple=True, metavar="NAME", help="A worker by name; once for each.")
@click.option("--layout", type=LAYOUTS, default="combined", help="What workers see of each other.")
@click.option("-n", "--max-passes", type=COUNT, default=1024, help="Budget of forward passes.")
@click.option("--seed", type=int, help="Repeats a run; without it, each run is different.")
@click.option("-c", "--ctx", type=COUNT, default=8192, help="Tokens in the cache, of all workers together.")
@click.option("-b", "--batch", type=COUNT, default=512, help="Most tokens of one pass.")
@click.option("-t", "--threads", type=COUNT, help="CPU threads.")
@click.option("--n-gpu-layers", type=click.IntRange(min=-1), help="Layers on devices; -1 is all, also of --rpc alone.")
@click.option("--rpc", default="", metavar="HOST:PORT,...", help="Servers (hogwild rpc-server) whose devices to use.")
@click.option("--tensor-split", default="", metavar="N,N,...", help="How much each device takes; else by its memory.")
@click.option("--split-mode", type=click.Choice(["layer", "none"]), default="layer", help="none: all on --main-gpu.")
@click.option("--main-gpu", type=click.IntRange(min=0), default=0, help="Number of a device, those of --rpc first.")
@click.option("--isolate", is_flag=True, help="Model and cache in a process of their own; --rpc does so anyway.")
@click.option("--lora", multiple=True, metavar="PATH[:SCALE]", help="A LoRA adapter; may be repeated.")
@click.option("--control-vector", multiple=True, metavar="PATH[:SCALE]", help="A control vector; may be repeated.")
@click.option("--temp", type=float, default=0.8, help="Temperature; 0 is greedy.")
@click.option("--top-k", type=int, default=40, help="0 is off.")
@click.option("--top-p", type=float, default=0.95, help="1 is off.")
@click.option("--min-p", type=float, default=0.05, help="0 is off.")
@click.option("--repeat-penalty", type=float, default=1.0, help="1 is off.")
@click.option("--presence-penalty", type=float, default=0.0, help="0 is off.")
@click.option("--frequency-penalty", type=float, default=0.0, help="0 is off.")
@click.option("--type-k", default="f16", help="Type of stored keys: f32, f16, bf16, q8_0, q5_0, q5_1, q4_0, q4_1.")
@click.option("--type-v", default="f16", help="Type of stored values.")
@click.option("--attention", type=click.Choice(["auto", "fused", "ggml"]), default="auto", help="Which kernel.")
@click.option("--prompts", type=click.Path(path_type=Path), help="TOML file with all prompts (docs/prompts.md).")
@click.option("--stop", multiple=True, help="A string that ends the worker that writes it; may be repeated.")
@click.option("--redundancy-every", type=click.IntRange(min=0), default=1024, help="Tokens; 0 is never.")
@click.option("--finisher/--no-finisher", default=True, help="Ask for the answer when the budget has ended.")
@click.option("--thinking/--no-thinking", default=True, help="Think first, where the model can.")
@click.option("-v", "--verbose", is_flag=True, help="llama.cpp's log, and what lies on which device.")
@click.option("--json", "as_json", is_flag=True, help="One JSON event a line.")
@click.option("--plain", is_flag=True, help="Plain lines also on a terminal.")
@click.pass_context
def run(ctx: click.Context, /, prompt: str | None, file: Any, as_json: bool, plain: bool, **options: Any) -> None:
    """Let several workers think about PROMPT together.

    On a terminal the workers are shown side by side; elsewhere as plain lines that begin with the worker's
    name.
    """
    text = _read_prompt(prompt, file)
    sampling = _sampling(options)
    engine = ctx.obj if isinstance(ctx.obj, Engine) else _engine(options)
    if options["verbose"]:
        set_log_hook(lambda level, text: sys.stderr.write(text))
    with _load(engine, options, quiet=as_json) as hogwild:
        if options["verbose"] or options["rpc"] or options["n_gpu_layers"]:
            for device in hogwild.devices:
                click.echo(f"hogwild: {device}", err=True)
        stream = hogwild.stream(
            text,
            workers=_workers(ctx, options),
            layout=options["layout"],
            max_passes=options["max_passes"],
            seed=options["seed"],
            sampling=sampling,
            stop=options["stop"],
            finisher=options["finisher"],
            redundancy_every=options["redundancy_every"],
            thinking=options["thinking"],
        )
        _show(stream, _output(stream, as_json, plain))


def _show(run: Run, output: Output) -> None:
    """Feeds all events to the output. After Ctrl+C it has shown what there was, and the terminal is as
    before."""
    with run, output:
        for event in run:
            output.feed(event)


def _output(run: Run, as_json: bool, plain: bool) -> Output:
    if as_json:
        return JsonOutput()
    from rich.console import Console

    console = Console()
    return PlainOutput(run) if plain or not console.is_terminal else LiveOutput(run, console)


def _read_prompt(prompt: str | None, file: Any) -> str:
    if (prompt is None) == (file is None):
        raise click.UsageError("give either PROMPT or --file" + (", not both" if file else ""))
    if prompt is not None:
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


def _sampling(options: dict[str, Any]) -> SamplingParams:
    names = ("top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
    return SamplingParams(temperature=options["temp"], **{name: options[name] for name in names})


def _engine(options: dict[str, Any]) -> Engine:
    if options["rpc"] or options["isolate"]:
        from ..isolated import isolated_engine

        return isolated_engine()
    return native_engine()


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise click.UsageError(f"--tensor-split: {text!r} is no list of numbers such as 3,1") from None


def _load(engine: Engine, options: dict[str, Any], quiet: bool) -> Hogwild:
    path = options["model"]
    if path is None:
        path = engine.default_model()
        click.echo(
            "hogwild: no --model given, so this is the embedded tiny random model: its output is noise",
            err=True,
        )
    with _load_progress(quiet) as progress:
        return Hogwild(
            path,
            n_ctx=options["ctx"],
            n_batch=options["batch"],
            n_gpu_layers=options["n_gpu_layers"],
            n_threads=options["threads"],
            type_k=options["type_k"],
            type_v=options["type_v"],
            attention=options["attention"],
            lora=[parse_adapter(text) for text in options["lora"]],
            control_vectors=[parse_adapter(text) for text in options["control_vector"]],
            rpc=options["rpc"],
            tensor_split=_numbers(options["tensor_split"]),
            split_mode=options["split_mode"],
            main_gpu=options["main_gpu"],
            prompts=options["prompts"],
            progress=progress,
            engine=engine,
        )


@contextlib.contextmanager
def _load_progress(quiet: bool) -> Iterator[Callable[[float], object] | None]:
    """Shows how much of the model is loaded, where somebody is looking."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    with console.status("loading the model") as status:
        yield lambda part: status.update(f"loading the model: {part:.0%}")
