"""What can be chosen of an engine: how a model is loaded, where it lies, and what its cache is like."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .option import Options, a_choice, a_flag, a_whole, any_other

FileName: TypeAlias = str | os.PathLike[str]
Lora: TypeAlias = FileName | tuple[FileName, float]
ControlVector: TypeAlias = FileName | tuple[FileName, float] | tuple[FileName, float, int, int]
Servers: TypeAlias = str | Sequence[str]
CacheType: TypeAlias = Literal["f16", "f32", "bf16", "q8_0", "q5_0", "q5_1", "q4_0", "q4_1"]
AttentionForm: TypeAlias = Literal["auto", "fused", "ggml", "composed"]
SplitMode: TypeAlias = Literal["layer", "none"]

MOST_THREADS = 512
MOST_BATCH = 8192
MOST_RANKS = 64
MOST_WINDOWS = 2**24
WINDOWS_A_RUN = 8
MOST_N_CTX = 32768  # unless more is asked for
OF_CACHE = ("n_batch", "type_k", "type_v", "attention", "n_windows")
"""The options of an engine that are a cache's; the others are the model's."""


def windows_for(n_runs: int, n_windows: int | None) -> int:
    """n_windows, for so many runs at once."""
    return min(MOST_WINDOWS, WINDOWS_A_RUN * n_runs) if n_windows is None else n_windows


@dataclass(frozen=True, kw_only=True)
class EngineOptions(Options):
    """How a model is loaded, where it lies, and what its cache is like. Raises InvalidArgument, naming the option."""

    n_ctx: int | None = field(
        default=None,
        metadata=a_whole(
            1,
            "Tokens that the cache holds, those of all workers together. Without it as many as the model was trained "
            f"for, but at most {MOST_N_CTX}, and no more than half of the free memory holds.",
        ),
    )
    n_batch: int = field(
        default=512,
        metadata=a_whole(1, "Most tokens of one forward pass; a longer prompt is fed in several.", MOST_BATCH),
    )
    n_gpu_layers: int | None = field(
        default=None,
        metadata=a_whole(
            -1,
            "Layers that lie on GPUs or on servers, if there are any, the last ones first. -1, or none given, is all.",
        ),
    )
    n_threads: int | None = field(
        default=None,
        metadata=a_whole(
            1,
            "Threads of the CPU, of each rank (--runahead). Without it as many as a pass of the model can use, at most "
            "one a core; while several ranks of a machine compute a prompt, their share of them.",
            MOST_THREADS,
        ),
    )
    type_k: CacheType = field(default="f16", metadata=a_choice(CacheType, "Type in which the cache stores keys."))
    type_v: CacheType = field(default="f16", metadata=a_choice(CacheType, "Type in which the cache stores values."))
    attention: AttentionForm = field(
        default="auto",
        metadata=a_choice(
            AttentionForm,
            "Who computes attention: our kernel (fused), ggml's flash attention (ggml), or plain operations of ggml "
            "(composed); auto chooses for each layer.",
        ),
    )
    n_windows: int | None = field(
        default=None,
        metadata=a_whole(
            1,
            "Windows of tokens that layers with a sliding window hold, beside those of a pass: each worker needs one, "
            "a prompt and what is finished one each. "
            f"Without it {WINDOWS_A_RUN} for each run that there may be at once; on the CPU those that nobody uses "
            "take no memory. "
            "More than the context are all of it, which several ranks (--runahead) always hold.",
            MOST_WINDOWS,
        ),
    )
    lora: Sequence[Lora] = field(
        default=(), metadata=any_other("A LoRA adapter, a GGUF file, and how much of it is added.")
    )
    control_vectors: Sequence[ControlVector] = field(
        default=(), metadata=any_other("A control vector, a GGUF file, and how much of it is added.")
    )
    rpc: Servers = field(
        default="",
        metadata=any_other(
            "Servers (hogwild rpc-server) on other machines whose devices are used; ranks (--runahead) deal them out."
        ),
    )
    device: str | Sequence[str] = field(
        default="",
        metadata=any_other(
            "GPUs of this machine that are used, by ggml's names (hogwild rpc-server --list-devices). Without it all. "
            "Ranks of one machine (--runahead) deal them out."
        ),
    )
    tensor_split: Sequence[float] = field(
        default=(),
        metadata=any_other(
            "How much of the layers each device takes, in proportion. Without it as much as it has memory."
        ),
    )
    split_mode: SplitMode = field(
        default="layer",
        metadata=a_choice(
            SplitMode, "Whether layers are spread over all devices (layer) or all lie on --main-gpu (none)."
        ),
    )
    main_gpu: int = field(
        default=0,
        metadata=a_whole(0, "Number of the device that has all layers with split mode none; servers come first."),
    )
    isolate: bool | None = field(
        default=None,
        metadata=a_flag(
            "Let model and cache live in a process of their own, whose end is an error here. With servers they do."
        ),
    )
    runahead: int = field(
        default=1,
        metadata=a_whole(
            1,
            "Processes (ranks) that prefill a prompt together, each with the whole model: for several sockets, GPUs or "
            "machines. Needs an MPI, and the last rank has the workers.",
            MOST_RANKS,
        ),
    )
    hosts: Servers = field(
        default="", metadata=any_other("Machines of all ranks but the last one, dealt out evenly, which ssh reaches.")
    )
    trust: bool = field(
        default=False,
        metadata=a_flag("Load a file that nobody has tried yet without trying it first in a process of its own."),
    )

    def windows(self, n_runs: int) -> int:
        """n_windows, for so many runs at once."""
        return windows_for(n_runs, self.n_windows)
