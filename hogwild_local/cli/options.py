"""Options that several commands share, made from the fields of hogwild_local.options, and what is made of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..checks import INT32_MAX
from ..engine.adapters import parse_adapter
from ..engine.protocols import Engine
from ..hogwild import Hogwild
from ..hub import downloaded, parse_repo
from ..loading import engine_for
from ..options import EngineOptions, Options, RunOptions, SamplingParams, default_of, options_of
from .grouped import Decorator, Title, option, together
from .terminal import note, warnings_as_notes


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


class Parts(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between them."""

    name = "parts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(",")) if value else ()
        except ValueError:
            self.fail(f"{value!r} is no list of numbers such as 3,1", param, ctx)


class Adapter(click.ParamType[tuple[str, float]]):
    """PATH or PATH:SCALE."""

    name = "path[:scale]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        return value if isinstance(value, tuple) else parse_adapter(value)


COUNT = click.IntRange(min=1)
LAYOUTS = click.Choice(options_of(RunOptions)["layout"].choices)

FLAGS = {
    "n_ctx": ("-c", "--ctx"),
    "n_batch": ("-b", "--batch"),
    "n_threads": ("-t", "--threads"),
    "control_vectors": ("--control-vector",),
    "max_passes": ("-n", "--max-passes"),
    "workers": ("-w", "--workers"),
    "temperature": ("--temp",),
    "api_keys": ("--api-key",),
    "cors_origins": ("--cors-origin",),
    "allowed_hosts": ("--allowed-host",),
    "sampler_order": ("--samplers",),
}
"""Of the fields that are not simply called --like-the-field."""

FORMS: dict[str, dict[str, Any]] = {
    "lora": {"type": Adapter(), "multiple": True, "metavar": "PATH[:SCALE]"},
    "control_vectors": {"type": Adapter(), "multiple": True, "metavar": "PATH[:SCALE]"},
    "rpc": {"metavar": "HOST:PORT,...", "show_default": False},
    "device": {"metavar": "NAME,...", "show_default": False},
    "hosts": {"metavar": "HOST,...", "show_default": False},
    "tensor_split": {"type": Parts(), "metavar": "N,N,...", "show_default": False},
    "stop": {"multiple": True},
    "date": {"metavar": "YYYY-MM-DD"},
    "reasoning_effort": {"metavar": "WORD", "show_default": False},
    "host": {},
    "data": {"metavar": "FOLDER", "show_default": False},
    "unix": {"metavar": "PATH", "show_default": False},
    "api_keys": {"multiple": True, "metavar": "KEY"},
    "cors_origins": {"multiple": True, "metavar": "ORIGIN"},
    "allowed_hosts": {"multiple": True, "metavar": "NAME"},
    "workers": {"type": COUNT},
    "sampler_order": {"metavar": "NAME;NAME;..."},
    "layout": {"type": LAYOUTS},
}
"""How fields of other than simple types are written."""


def flags_of(name: str) -> tuple[str, ...]:
    """How a field is called on the command line; the last one is its long name."""
    return FLAGS.get(name, (f"--{name.replace('_', '-')}",))


def field_option(group: Title, kind: type[Options], name: str, **changes: Any) -> Decorator[Any]:
    """The option of a field."""
    field, default, flags = options_of(kind)[name], default_of(kind, name), flags_of(name)
    settings: dict[str, Any] = {"help": field.help, "default": default}
    match field.kind:
        case "whole":
            is_simple = abs(field.least) <= 1  # then --help shows the range
            most = None if field.most == INT32_MAX else field.most
            settings["type"] = click.IntRange(field.least, most) if is_simple else click.INT
        case "number":
            settings["type"] = click.FLOAT
        case "choice":
            settings["type"] = click.Choice(field.choices)
        case "flag" if default:
            flags = (f"{flags[-1]}/--no-{name.replace('_', '-')}",)
        case "flag":
            settings["is_flag"] = True
        case "other":
            settings |= FORMS[name]
    return option(group, *flags, **(settings | changes))


def given(kind: type[Options], options: dict[str, Any]) -> dict[str, Any]:
    """The fields of a class that a command has options for."""
    long_names = {name: flags_of(name)[-1].removeprefix("--").replace("-", "_") for name in options_of(kind)}
    return {name: options[long] for name, long in long_names.items() if long in options}


def _fields(group: Title, kind: type[Options], *names: str) -> Decorator[Any]:
    return together(*(field_option(group, kind, name) for name in names))


engine_options = together(
    option(
        "Model", "-m", "--model", type=click.Path(path_type=Path),
        help="The model, a GGUF file. Without it the embedded one, which knows worksheets only.",
    ),
    option(
        "Model", "-hf", "--hf-repo", metavar="USER/REPO[:QUANT]",
        help="The model, from the Hugging Face Hub (needs the extra hub); it stays in that library's cache. QUANT may "
        "be a file's name. Without it Q4_K_M, Q8_0, or the first file.",
    ),
    _fields("Model", EngineOptions, "trust", "n_batch", "type_k", "type_v", "attention", "n_windows"),
    _fields(
        "Devices", EngineOptions, "n_threads", "n_gpu_layers", "rpc", "device", "tensor_split", "split_mode", "main_gpu"
    ),
)  # fmt: skip
"""Model, engine, and where layers lie: all commands that load a model."""

hogwild_options = together(
    engine_options,
    _fields("Model", EngineOptions, "n_ctx", "lora", "control_vectors"),
    option(
        "Model", "--prompts", type=click.Path(path_type=Path),
        help="TOML file with the wording of all prompts (docs/prompts.md). Without it the model's own, or ours.",
    ),
    _fields("Devices", EngineOptions, "isolate", "runahead", "hosts"),
)  # fmt: skip
"""What load() takes: the commands that run workers."""

SAMPLING = (
    "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty", "sampler_order"
)  # fmt: skip


def _as_text(value: float | Sequence[str]) -> str:
    return f"{value:g}" if isinstance(value, float | int) else ";".join(value)


sampling_options = together(
    *(
        field_option(
            "Sampling", SamplingParams, name, default=None,
            show_default=f"the model's own, or {_as_text(default_of(SamplingParams, name))}",
        )
        for name in SAMPLING
    )
)  # fmt: skip
"""What sampling() takes."""

run_options = _fields(
    "Workers", RunOptions, "finisher", "finisher_tokens", "redundancy_every", "thinking", "answer_at", "eos_ends_run",
    "date",
)  # fmt: skip
"""How a run goes on and ends."""

reply_options = _fields("Workers", RunOptions, "ends", "reply", "reply_tokens")
"""What follows the work."""

worker_options = together(
    _fields("Workers", RunOptions, "layout", "max_passes", "seed", "stop", "reasoning_effort"),
    run_options,
    reply_options,
    hogwild_options,
    sampling_options,
)
"""All that a run takes but its workers: the commands that show runs."""


def sampling(options: dict[str, Any], default: SamplingParams) -> SamplingParams:
    """The settings of each worker's sampler: the model's, but for those that are given."""
    chosen = given(SamplingParams, options)
    return replace(default, **{name: chosen[name] for name in SAMPLING if chosen[name] is not None})


def named_model(options: dict[str, Any]) -> Path | None:
    """The file that --model names, or --hf-repo brings."""
    path, repo = options["model"], options["hf_repo"]
    if path is not None and repo is not None:
        raise click.UsageError("give either --model or --hf-repo, not both")
    return path if repo is None else downloaded(*parse_repo(repo))


def model_path(engine: Engine, options: dict[str, Any]) -> Path:
    """The model named, or the embedded one; then one line on stderr says so."""
    path = named_model(options)
    if path is not None:
        return path
    note("hogwild: no --model given, so this is the embedded one: it knows worksheets, and nothing else")
    return engine.default_model()


def engine_of(context: click.Context, options: dict[str, Any]) -> Engine:
    """The engine that the context brings (see main.py), or the compiled one."""
    if isinstance(context.obj, Engine):
        return context.obj
    return engine_for(EngineOptions(**given(EngineOptions, options)))


def load(
    engine: Engine,
    path: Path,
    options: dict[str, Any],
    quiet: bool = False,
    max_runs: int | None = None,
    progress: Callable[[float], object] | None = None,
) -> Hogwild:
    """The model with its cache; what is not on the CPU is said. quiet: no progress, also on a terminal. progress: is
    called with it, see Hogwild."""
    with _load_progress(quiet) as shown, warnings_as_notes():
        arguments = given(EngineOptions, options)
        hogwild = Hogwild(
            path, prompts=options["prompts"], progress=progress or shown, engine=engine, max_runs=max_runs, **arguments
        )
    others = hogwild.devices_of_ranks[:-1]
    places = [(f"rank {rank} on {host}: ", device) for rank, (host, of_rank) in enumerate(others) for device in of_rank]
    places += [("", device) for device in hogwild.devices]
    if options.get("verbose") or any(device.name != "CPU" for _, device in places):
        for where, device in places:
            note(f"hogwild: {where}{device}")
    return hogwild


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
