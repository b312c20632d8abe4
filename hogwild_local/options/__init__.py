"""What can be chosen: of an engine, of a run, of a worker's sampler.

Default, choices, range and help of every option stand here and nowhere else: Hogwild takes its keywords from these
classes (see takes()), and the command line makes its options from their fields. Plain data: importable without the
compiled engine.
"""

from .engine import (
    MOST_BATCH,
    MOST_N_CTX,
    MOST_RANKS,
    MOST_THREADS,
    MOST_WINDOWS,
    OF_CACHE,
    WINDOWS_A_RUN,
    AttentionForm,
    CacheType,
    ControlVector,
    EngineOptions,
    FileName,
    Lora,
    Servers,
    SplitMode,
    windows_for,
)
from .option import Option, Options, default_of, options_of, takes
from .run import SEEDS, AnswerAt, LayoutName, RunOptions, WorkEnds
from .sampling import MOST_LAST_N, MOST_SEED, SAMPLERS, SamplingParams, sampler_named
from .server import ServerOptions
from .worker import Worker, as_worker

__all__ = [
    "MOST_BATCH",
    "MOST_LAST_N",
    "MOST_N_CTX",
    "MOST_RANKS",
    "MOST_SEED",
    "MOST_THREADS",
    "MOST_WINDOWS",
    "OF_CACHE",
    "SAMPLERS",
    "SEEDS",
    "WINDOWS_A_RUN",
    "AnswerAt",
    "AttentionForm",
    "CacheType",
    "ControlVector",
    "EngineOptions",
    "FileName",
    "LayoutName",
    "Lora",
    "Option",
    "Options",
    "RunOptions",
    "SamplingParams",
    "ServerOptions",
    "Servers",
    "SplitMode",
    "WorkEnds",
    "Worker",
    "as_worker",
    "default_of",
    "options_of",
    "sampler_named",
    "takes",
    "windows_for",
]
