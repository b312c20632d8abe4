"""What a Hogwild stands on: its options, a model, its cache, and what the model's file says of runs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from .checks import whole
from .engine.protocols import Engine, ModelLike, native_engine
from .engine.rpc import listed
from .errors import InvalidArgument
from .options import OF_CACHE, WINDOWS_A_RUN, EngineOptions, default_of
from .prompts.chat_template import ChatTemplate
from .prompts.model_defaults import ModelDefaults
from .prompts.style import PromptStyle

ModelOrPath: TypeAlias = str | os.PathLike[str] | ModelLike

OF_MODEL = (
    "n_gpu_layers",
    "n_threads",
    "progress",
    "lora",
    "control_vectors",
    "rpc",
    "device",
    "tensor_split",
    "split_mode",
    "main_gpu",
    "trust",
)
"""Options that a model is loaded with."""


@dataclass(frozen=True, kw_only=True)
class HogwildOptions(EngineOptions):
    """What Hogwild takes beside a model: the engine's options, and what is of no engine. max_runs: how many runs may go
    on at the same time; None: as many as the cache has room for, also in layers with a sliding window (n_windows)."""

    prompts: str | os.PathLike[str] | PromptStyle | None = None
    progress: Callable[[float], object] | None = None
    engine: Engine | None = None
    max_runs: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_runs is not None:
            whole(self.max_runs, "max_runs", 1)
        if self.progress is not None and not callable(self.progress):
            raise InvalidArgument(f"progress must be a function of one number, not {self.progress!r}")
        if self.engine is not None and not isinstance(self.engine, Engine):
            raise InvalidArgument(f"engine must be an Engine, not {self.engine!r}")

    @property
    def isolates(self) -> bool:
        """Whether a model that is loaded with these lives in a process of its own."""
        return self.runahead > 1 or (bool(self.rpc) if self.isolate is None else self.isolate)


class Loaded:
    """All that is loaded, and freed by close(). Raises as Hogwild(); nothing is kept then."""

    def __init__(self, model: ModelOrPath, options: HogwildOptions) -> None:
        style = _style(options.prompts)
        path = Path(model) if isinstance(model, str | os.PathLike) else None
        if path is None:
            _check_loaded(model, options)
        self.engine = options.engine or engine_for(options)
        of_model = {name: getattr(options, name) for name in OF_MODEL}
        self.model: ModelLike = (
            cast(ModelLike, model) if path is None else self.engine.model(path, **of_model, isolate=options.isolates)
        )
        self._owns_model = path is not None
        self.owns_process = path is not None and options.isolates
        self.cache: Any = None
        try:
            self.template = ChatTemplate(self.model)
            self.defaults = ModelDefaults.of(self.model.metadata)
            self.prompts: PromptStyle = style or self.defaults.prompts
            _warn(self.model.n_ctx_train, options.n_ctx, self.defaults.unused)
            of_cache = {name: getattr(options, name) for name in OF_CACHE}
            of_cache["n_windows"] = options.windows(options.max_runs or 1)
            self.cache = self.engine.cache(self.model, n_ctx=options.n_ctx, **of_cache)
            self.max_runs = options.max_runs
            if self.max_runs is None and self.cache.n_windowed < self.cache.n_ctx:
                self.max_runs = max(1, of_cache["n_windows"] // WINDOWS_A_RUN)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """May be called twice; what an error left undone, the next call does."""
        try:
            if self.cache is not None:
                self.cache.close()
        finally:
            if self._owns_model:
                self.model.close()


def engine_for(options: EngineOptions) -> Engine:
    """The compiled engine, in this process or as several ranks. Raises InvalidArgument; ranks that cannot be had are an
    error when a model is made."""
    hosts = listed(options.hosts, "hosts", "host")
    if options.runahead == 1:
        if hosts:
            raise InvalidArgument("hosts are those of several ranks: say how many with runahead")
        return native_engine()
    if options.isolate is False:
        raise InvalidArgument("isolate: ranks (runahead) are processes of their own")
    from .runahead.ranked import started

    return started(options.runahead, hosts)


def _check_loaded(model: object, options: HogwildOptions) -> None:
    if not all(hasattr(model, name) for name in ("tokenize", "metadata", "chat_template")):
        raise InvalidArgument(f"model must be the path of a GGUF file or a Model, not {model!r}")
    given = [name for name in OF_MODEL if getattr(options, name) != default_of(HogwildOptions, name)]
    given += ["isolate"] * (options.isolate is not None) + ["runahead"] * (options.runahead > 1)
    if given:
        raise InvalidArgument(f"{', '.join(given)}: the model is loaded already; give it to the Model that is passed")


def _warn(trained: int, n_ctx: int | None, unused: Sequence[str]) -> None:
    """trained: tokens of the longest text that the model was trained on; 0: unknown. n_ctx: what was asked for. unused:
    what the model's file asks for and does not get."""
    of_caller = 5  # of Hogwild()
    if n_ctx is not None and 0 < trained < n_ctx:
        warnings.warn(
            f"n_ctx is {n_ctx}, but the model was trained on texts of at most {trained} tokens: beyond them it may "
            "write nonsense",
            stacklevel=of_caller,
        )
    for what in unused:
        warnings.warn(
            f"the model's own {what}: there is no such sampler here, so this is left out", stacklevel=of_caller
        )


def _style(prompts: str | os.PathLike[str] | PromptStyle | None) -> PromptStyle | None:
    if prompts is None:
        return None
    if isinstance(prompts, str | os.PathLike):
        return PromptStyle.load(Path(prompts))
    if isinstance(prompts, PromptStyle):
        return prompts
    raise InvalidArgument(f"prompts must be a path or a PromptStyle, not {prompts!r}")
