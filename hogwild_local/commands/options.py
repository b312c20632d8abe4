"""Options that several commands share, and what is made of them: the model, the cache, the sampling."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import click

from ..adapters import parse_adapter
from ..engine_types import Engine
from ..hogwild import Hogwild
from ..params import SamplingParams

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator: TypeAlias = Callable[[Function], Function]


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers such as 1,2,4", param, ctx)


COUNT = click.IntRange(min=1)
LAYOUTS = click.Choice(["combined", "interleaved", "contiguous"])


def _group(*options: Decorator[Any]) -> Decorator[Any]:
    """One decorator for several options, shown by --help in this order."""

    def add(command: Function) -> Function:
        for option in reversed(options):
            command = option(command)
        return command

    return add


engine_options = _group(
    click.option("-m", "--model", type=click.Path(path_type=Path), help="GGUF file. Without it: the embedded one."),
    click.option("-b", "--batch", type=COUNT, default=512, help="Most tokens of one pass."),
    click.option("-t", "--threads", type=COUNT, help="CPU threads."),
    click.option("--n-gpu-layers", type=click.IntRange(min=-1), default=0, help="Layers on the GPU; -1 is all."),
    click.option("--type-k", default="f16", help="Type of stored keys: f32, f16, bf16, q8_0, q5_0, q5_1, q4_0, q4_1."),
    click.option("--type-v", default="f16", help="Type of stored values."),
    click.option("--attention", type=click.Choice(["auto", "fused", "ggml"]), default="auto", help="Which kernel."),
)
"""Model and engine: all commands."""

hogwild_options = _group(
    engine_options,
    click.option("-c", "--ctx", type=COUNT, default=8192, help="Tokens in the cache, of all workers together."),
    click.option("--lora", multiple=True, metavar="PATH[:SCALE]", help="A LoRA adapter; may be repeated."),
    click.option("--control-vector", multiple=True, metavar="PATH[:SCALE]", help="A control vector; may be repeated."),
    click.option("--prompts", type=click.Path(path_type=Path), help="TOML file with all prompts (docs/prompts.md)."),
)
"""What load() takes: the commands that run workers."""

sampling_options = _group(
    click.option("--temp", type=float, default=0.8, help="Temperature; 0 is greedy."),
    click.option("--top-k", type=int, default=40, help="0 is off."),
    click.option("--top-p", type=float, default=0.95, help="1 is off."),
    click.option("--min-p", type=float, default=0.05, help="0 is off."),
    click.option("--repeat-penalty", type=float, default=1.0, help="1 is off."),
    click.option("--presence-penalty", type=float, default=0.0, help="0 is off."),
    click.option("--frequency-penalty", type=float, default=0.0, help="0 is off."),
)
"""What sampling() takes."""

run_options = _group(
    click.option("--redundancy-every", type=click.IntRange(min=0), default=1024, help="Tokens; 0 is never."),
    click.option("--finisher/--no-finisher", default=True, help="Ask for the answer when the budget has ended."),
    click.option("--thinking/--no-thinking", default=True, help="Think first, where the model can."),
)
"""How a run goes on and ends."""


def sampling(options: dict[str, Any]) -> SamplingParams:
    """The settings of each worker's sampler."""
    names = ("top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
    return SamplingParams(temperature=options["temp"], **{name: options[name] for name in names})


def model_path(engine: Engine, options: dict[str, Any]) -> Path:
    """The model named, or the embedded one; then one line on stderr says so."""
    path: Path | None = options["model"]
    if path is not None:
        return path
    click.echo("hogwild: no --model given, so this is the embedded tiny random model: its output is noise", err=True)
    return engine.default_model()


def load(engine: Engine, path: Path, options: dict[str, Any], quiet: bool = False) -> Hogwild:
    """The model with its cache. quiet: no progress, also on a terminal."""
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
