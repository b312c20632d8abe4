"""Options that several commands share, and what is made of them: the model, the cache, the sampling."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import click

from ..engine.adapters import parse_adapter
from ..engine.protocols import Engine, native_engine
from ..hogwild import Hogwild
from ..options import SamplingParams

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
    click.option(
        "--n-gpu-layers", type=click.IntRange(min=-1), help="Layers on devices; -1 is all, also of --rpc alone."
    ),
    click.option("--type-k", default="f16", help="Type of stored keys: f32, f16, bf16, q8_0, q5_0, q5_1, q4_0, q4_1."),
    click.option("--type-v", default="f16", help="Type of stored values."),
    click.option(
        "--attention", type=click.Choice(["auto", "fused", "ggml", "composed"]), default="auto", help="Which kernel."
    ),
)
"""Model and engine: all commands. What is made of them, and of device_options, is model_arguments()."""

device_options = _group(
    click.option(
        "--rpc", default="", metavar="HOST:PORT,...", help="Servers (hogwild rpc-server) whose devices to use."
    ),
    click.option(
        "--tensor-split", default="", metavar="N,N,...", help="How much each device takes; else by its memory."
    ),
    click.option(
        "--split-mode", type=click.Choice(["layer", "none"]), default="layer", help="none: all on --main-gpu."
    ),
    click.option("--main-gpu", type=click.IntRange(min=0), default=0, help="Number of a device, those of --rpc first."),
)
"""Where layers lie: all commands."""

hogwild_options = _group(
    engine_options,
    device_options,
    click.option("--isolate", is_flag=True, help="Model and cache in a process of their own; --rpc does so anyway."),
    click.option("-c", "--ctx", type=COUNT, default=8192, help="Tokens in the cache, of all workers together."),
    click.option("--lora", multiple=True, metavar="PATH[:SCALE]", help="A LoRA adapter; may be repeated."),
    click.option("--control-vector", multiple=True, metavar="PATH[:SCALE]", help="A control vector; may be repeated."),
    click.option("--prompts", type=click.Path(path_type=Path), help="TOML file with all prompts (docs/prompts.md)."),
)
"""What load() takes: the commands that run workers."""

OWN = "the model's own, or "


def _sampling_option(name: str, kind: type, help: str) -> Decorator[Any]:
    default = getattr(SamplingParams(), SAMPLING[name])
    return click.option(f"--{name}", type=kind, show_default=f"{OWN}{default:g}", help=help)


SAMPLING = {
    "temp": "temperature",
    "top-k": "top_k",
    "top-p": "top_p",
    "min-p": "min_p",
    "repeat-penalty": "repeat_penalty",
    "presence-penalty": "presence_penalty",
    "frequency-penalty": "frequency_penalty",
}
"""Names of options, and of the fields of SamplingParams."""

sampling_options = _group(
    _sampling_option("temp", float, "Temperature; 0 is greedy."),
    _sampling_option("top-k", int, "0 is off."),
    _sampling_option("top-p", float, "1 is off."),
    _sampling_option("min-p", float, "0 is off."),
    _sampling_option("repeat-penalty", float, "1 is off."),
    _sampling_option("presence-penalty", float, "0 is off."),
    _sampling_option("frequency-penalty", float, "0 is off."),
)
"""What sampling() takes."""

run_options = _group(
    click.option("--redundancy-every", type=click.IntRange(min=0), default=1024, help="Tokens; 0 is never."),
    click.option("--finisher/--no-finisher", default=True, help="Ask for the answer when the budget has ended."),
    click.option("--thinking/--no-thinking", default=True, help="Think first, where the model can."),
)
"""How a run goes on and ends."""


def sampling(options: dict[str, Any], default: SamplingParams) -> SamplingParams:
    """The settings of each worker's sampler: the model's, but for those that are given."""
    given = {field: options[name.replace("-", "_")] for name, field in SAMPLING.items()}
    return replace(default, **{field: value for field, value in given.items() if value is not None})


def model_path(engine: Engine, options: dict[str, Any]) -> Path:
    """The model named, or the embedded one; then one line on stderr says so."""
    path: Path | None = options["model"]
    if path is not None:
        return path
    click.echo(
        "hogwild: no --model given, so this is the embedded one: it knows worksheets, and nothing else", err=True
    )
    return engine.default_model()


def engine_of(context: click.Context, options: dict[str, Any]) -> Engine:
    """The engine that the context brings (see cli.py), or the compiled one, in this process or in one of its own."""
    if isinstance(context.obj, Engine):
        return context.obj
    if options["rpc"] or options["isolate"]:
        from ..engine.isolated import isolated_engine

        return isolated_engine()
    return native_engine()


def model_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """How to load the model: what Model and Hogwild take by the same names."""
    return {
        "n_gpu_layers": options["n_gpu_layers"],
        "n_threads": options["threads"],
        "rpc": options["rpc"],
        "tensor_split": _numbers(options["tensor_split"]),
        "split_mode": options["split_mode"],
        "main_gpu": options["main_gpu"],
    }


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise click.UsageError(f"--tensor-split: {text!r} is no list of numbers such as 3,1") from None


def load(engine: Engine, path: Path, options: dict[str, Any], quiet: bool = False) -> Hogwild:
    """The model with its cache. quiet: no progress, also on a terminal."""
    with _load_progress(quiet) as progress:
        return Hogwild(
            path,
            n_ctx=options["ctx"],
            n_batch=options["batch"],
            **model_arguments(options),
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
