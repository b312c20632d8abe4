"""What is done on the target, the most important first: each step is a command, with the time it may take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import profilers, readers
from .backends import CPU_ONLY

Figures = dict[str, Any]
PROFILED_WORKERS = 4


@dataclass(frozen=True)
class Step:
    """name: a file's too. commands: run in turn; "{out}" in them stands for the step's own file. read: what is made of
    what they printed and of that file, also where they were cut off. least, most: seconds; with less than `least` left
    it is not begun. needs: steps that must have been done. n_bytes: that it writes. in_background: it runs while others
    do. instead_of: steps that tell the same in another way: where one has figures, this one is not there."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    read: Callable[[str, Path], Figures]
    least: float
    most: float
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    n_bytes: float = 0.0
    in_background: bool = False
    instead_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sizes:
    """What is measured, with what. models: options of `python -m models large`, and about how many bytes it writes;
    tests, traces: which of them, as pytest's -k has it; patience: the steps' limits are multiplied by it."""

    models: Mapping[str, tuple[Sequence[str], float]]
    contexts: tuple[int, ...]
    workers: str
    bench: tuple[str, ...]  # further options
    step: int  # tokens of an unfinished step, where it is fixed
    passes: int
    prompts: tuple[int, ...]  # for several ranks
    tests: str
    traces: str
    patience: float = 1.0


TINY = ["--layers", "2", "--width", "64", "--heads", "4", "--kv-heads", "2", "--head-size", "16",
        "--feed-forward", "128", "--vocabulary", "512"]  # fmt: skip
FULL = Sizes(
    {"8b": (["--like", "8b"], 4.7e9), "32b": (["--like", "32b"], 18.5e9)}, (1024, 4096, 16384), "1,2,4,8", (), 32, 60,
    (4096, 16384), "not trace", "trace",
)  # fmt: skip
# A software driver compiles each shader for seconds, the first time: few types, few sizes, much patience.
DRY = Sizes(
    {"8b": (["--like", "8b", *TINY], 1e6), "32b": (["--like", "32b", *TINY], 1e6)}, (16, 32, 64), "1,2",
    ("--rounds", "1", "--passes", "3", "--threads", "1"), 2, 3, (64,),
    "not trace and (qwen3-f16 or one_sequence)", "trace and contiguous_llama and f16-f16", 4.0,
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What the commands run on. python: with hogwild-local in it; models: where they are written; architectures: a
    folder of models to check, or None."""

    python: Path
    models: Path
    backend: str
    sizes: Sizes
    architectures: Path | None = None

    @property
    def hogwild(self) -> str:
        return str(self.python.with_name("hogwild"))

    def model(self, name: str) -> str:
        return str(self.models / f"{name}.gguf")


def steps(target: Target, building: Sequence[Step]) -> list[Step]:
    """All, in their order. building: what makes the environment, the last of which all others need."""
    built = (building[-1].name,) if building else ()
    small, middle, large = target.sizes.contexts
    forms = ("ggml", "composed") if target.backend != CPU_ONLY else ("fused", "ggml", "composed")
    best, *others = forms
    found = [
        *building[:1],
        *(_model(target, name, building) for name in target.sizes.models),
        *building[1:],
        *_tests(target, built),
        _bench(target, "8b", small, best, built),
        _bench(target, "8b", middle, best, built),
        _bandwidth(target, "8b", built),
        _counts(target, "8b", middle, built),
        _bench(target, "32b", middle, best, built),
        *_kernels(target, "8b", middle, built),
        _bench(target, "32b", large, best, built),
        _bench(target, "8b", large, best, built),
        _bandwidth(target, "32b", built),
        _bench(target, "32b", small, best, built),
        *(_bench(target, "8b", context, form, built) for form in others for context in (small, middle, large)),
        *(_bench(target, "32b", context, form, built) for form in others for context in (middle, large, small)),
        _counts(target, "32b", middle, built),
        *_kernels(target, "32b", middle, built),
        *(_ranks(target, prompt, built) for prompt in target.sizes.prompts),
    ]
    found += _architectures(target, built)
    return [replace(step, most=step.most * target.sizes.patience) for step in found]


def _model(target: Target, name: str, building: Sequence[Step]) -> Step:
    options, n_bytes = target.sizes.models[name]
    command = (str(target.python), "-m", "models", "large", target.model(name), *options)
    needs = tuple(step.name for step in building[:1])
    return Step(f"model-{name}", (command,), readers.file_size(target.model(name)), 2, 600, needs,
                n_bytes=n_bytes, in_background=True)  # fmt: skip


def _tests(target: Target, built: tuple[str, ...]) -> list[Step]:
    pytest = (str(target.python), "scripts/gpu_figures/resumed.py", "{out}", "--tb=short", "-p", "no:cacheprovider")
    layers = Step("tests", ((*pytest, "tests/test_gpu.py", "-k", target.sizes.tests),), readers.tests, 5, 300, built)
    file = "tests/test_traces.py" if target.backend == CPU_ONLY else "tests/test_gpu.py"
    return [layers, Step("traces", ((*pytest, file, "-k", target.sizes.traces),), readers.tests, 5, 300, built)]


def _bench(target: Target, model: str, context: int, form: str, built: tuple[str, ...]) -> Step:
    command = (
        target.hogwild, "bench", "-m", target.model(model), "--n-gpu-layers", "-1", "--attention", form,
        "-w", target.sizes.workers, "-c", str(context), *target.sizes.bench, "--json", "{out}",
    )  # fmt: skip
    needs = (*built, f"model-{model}")
    return Step(f"bench-{model}-{context}-{form}", (command,), readers.bench, 10, 180, needs)


def _bandwidth(target: Target, model: str, built: tuple[str, ...]) -> Step:
    contexts = ",".join(map(str, target.sizes.contexts))
    command = (
        str(target.python), "benchmarks/device_memory.py", target.model(model), "--n-gpu-layers", "-1", "--contexts",
        contexts, "--workers", target.sizes.workers, "--passes", str(target.sizes.passes), "--json", "{out}",
    )  # fmt: skip
    return Step(f"memory-{model}", (command,), readers.rows, 10, 120, (*built, f"model-{model}"))


def _one_pass(target: Target, model: str, context: int, passes: int) -> tuple[str, ...]:
    return (
        str(target.python), "benchmarks/pass_profile.py", target.model(model), "--n-gpu-layers", "-1", "--context",
        str(context), "--workers", str(PROFILED_WORKERS), "--step", str(target.sizes.step), "--passes", str(passes),
    )  # fmt: skip


def _counts(target: Target, model: str, context: int, built: tuple[str, ...]) -> Step:
    command = (*_one_pass(target, model, context, target.sizes.passes), "--json", "{out}")
    return Step(f"counts-{model}", (command,), readers.rows, 10, 90, (*built, f"model-{model}"))


def _kernels(target: Target, model: str, context: int, built: tuple[str, ...]) -> Iterator[Step]:
    """By the device's tools that are here, until one tells something; by our engine where none did."""
    needs, others = (*built, f"model-{model}"), tuple[str, ...]()
    for profiler in (*profilers.of_device(target.backend), profilers.of_nodes()):
        command = (*_one_pass(target, model, context, profiler.passes), *profiler.options)
        commands, environment = profiler.commands(command), dict(profiler.environment)
        step = Step(f"kernels-{model}-{profiler.name}", commands, profiler.read, 15, 150, needs, environment,
                    instead_of=others)  # fmt: skip
        yield step
        others = (*others, step.name)


def _ranks(target: Target, prompt: int, built: tuple[str, ...]) -> Step:
    command = (
        target.hogwild, "runahead", "bench", "-m", target.model("8b"), "--n-gpu-layers", "-1", "--runahead", "2", "-c",
        str(prompt), "--rounds", "2", "--json", "{out}",
    )  # fmt: skip
    return Step(f"runahead-8b-{prompt}", (command,), readers.rows, 20, 150, (*built, "model-8b"))


def _architectures(target: Target, built: tuple[str, ...]) -> list[Step]:
    if target.architectures is None:
        return []
    layers = "0" if target.backend == CPU_ONLY else "-1"
    command = (
        str(target.python), "scripts/architectures", str(target.architectures), "--n-gpu-layers", layers, "--write",
        "{out}",
    )  # fmt: skip
    return [Step("architectures", (command,), readers.architectures, 20, 600, built)]
