"""Hogwild: a model and its shared cache, ready to run several workers on a prompt."""

from __future__ import annotations

import math
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from .engine.adapters import ControlVector, Lora
from .engine.devices import Device, merged
from .engine.protocols import Engine, ModelLike, SamplerLike, native_engine
from .errors import Closed, InvalidArgument
from .options import SamplingParams
from .prompts.chat_template import ChatTemplate, Message
from .prompts.model_defaults import ModelDefaults
from .prompts.style import PromptStyle, Wording
from .workers.admission import Admission
from .workers.held import free_all
from .workers.layouts import Layout, make_layout
from .workers.loop import Loop
from .workers.result import Result, collect
from .workers.run import Run
from .workers.settings import AnswerAt, RunSettings
from .workers.worker import default_names, worker_seed

if TYPE_CHECKING:
    from .engine.rpc import Servers  # needs the compiled library

Prompt = str | Sequence[Message]


class Hogwild:
    """Several workers of one model over one KV cache.

        with Hogwild("model.gguf", n_ctx=8192) as hw:
            for event in hw.stream("PROMPT", workers=["Alice", "Bob"]): ...
            print(hw.generate("PROMPT", workers=4).answer)

    model: path of a GGUF file, or a Model, which is then not closed by close(). n_ctx: tokens that the cache
    holds, those of all workers together. n_batch: most tokens of one pass. n_gpu_layers, n_threads, progress
    (called with 0..1 while loading), lora and control_vectors (lists of paths, or of pairs of path and scale), rpc
    (servers of other machines, "host:port,..."), tensor_split, split_mode and main_gpu: for a model given by path, as
    Model takes them. isolate: whether model and cache live in a process of their own, whose end is an EngineDied
    here; None: with rpc, because ggml ends the process whose server dies. type_k, type_v: types of the stored keys and
    values ("f16", "f32", "bf16", "q8_0", "q5_0", "q5_1", "q4_0", "q4_1"). attention: "auto", "fused", "ggml" or
    "composed", see SharedCache. prompts: path of a TOML file or a PromptStyle; None: the model's own, or else the
    built-in one. max_runs: how many runs may go on at the same time; None: as many as the cache has room for.
    engine: see engine_types; for tests.

    Raises InvalidArgument, ModelError, UnsupportedModel and DeviceError; nothing is kept then. All methods may be
    called from any thread, and several runs may go on at the same time: each iterated in a thread of its own, or in
    turn in one thread. Each counts its own cells; one for which there is no room waits its turn (RunQueued).

    .prompts is the style in use; .sampling how workers sample unless told otherwise, and .examples are prompts that
    the model can be tried with: both come with the model (see model_defaults).
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | ModelLike,
        *,
        n_ctx: int = 8192,
        n_gpu_layers: int | None = None,
        n_threads: int | None = None,
        n_batch: int = 512,
        type_k: str = "f16",
        type_v: str = "f16",
        attention: str = "auto",
        lora: Sequence[Lora] = (),
        control_vectors: Sequence[ControlVector] = (),
        prompts: str | os.PathLike[str] | PromptStyle | None = None,
        rpc: Servers = (),
        tensor_split: Sequence[float] = (),
        split_mode: str = "layer",
        main_gpu: int = 0,
        isolate: bool | None = None,
        max_runs: int | None = None,
        progress: Callable[[float], object] | None = None,
        engine: Engine | None = None,
    ) -> None:
        _check_int("n_ctx", n_ctx, 1)
        _check_int("n_batch", n_batch, 1)
        if n_gpu_layers is not None:
            _check_int("n_gpu_layers", n_gpu_layers, -1)
        if isolate is not None:
            _check_bool("isolate", isolate)
        if n_threads is not None:
            _check_int("n_threads", n_threads, 1)
        if max_runs is not None:
            _check_int("max_runs", max_runs, 1)
        style = _load_prompts(prompts)
        self._engine = engine or _engine_for(model, rpc, isolate)
        self._owns_model = isinstance(model, str | os.PathLike)
        if self._owns_model:
            path = Path(cast("str | os.PathLike[str]", model))
            self.model = self._engine.model(
                path,
                n_gpu_layers=n_gpu_layers,
                n_threads=n_threads,
                progress=progress,
                lora=lora,
                control_vectors=control_vectors,
                rpc=rpc,
                tensor_split=tensor_split,
                split_mode=split_mode,
                main_gpu=main_gpu,
            )
        elif n_gpu_layers or n_threads or progress or lora or control_vectors or rpc or tensor_split or main_gpu:
            raise InvalidArgument(
                "n_gpu_layers, n_threads, lora, control_vectors, rpc, tensor_split, main_gpu and progress belong to "
                "the Model that was passed"
            )
        else:
            self.model = cast(ModelLike, model)
        self._cache: Any = None
        try:
            self._chat = ChatTemplate(self.model)
            defaults = ModelDefaults.of(self.model.metadata)
            self.prompts: PromptStyle = style or defaults.prompts
            self.sampling: SamplingParams = defaults.sampling
            self.examples: tuple[str, ...] = defaults.examples
            self._cache = self._engine.cache(
                self.model, n_ctx=n_ctx, n_batch=n_batch, type_k=type_k, type_v=type_v, attention=attention
            )
        except BaseException:
            self._free()
            raise
        self._lock = threading.RLock()  # a signal handler may close() inside stream()
        self._admission = Admission(self._cache.n_ctx, max_runs)
        self._runs: weakref.WeakSet[Run] = weakref.WeakSet()
        self._closed = False

    @property
    def n_ctx(self) -> int:
        """Tokens that the cache holds."""
        return int(self._cache.n_ctx)

    @property
    def devices(self) -> list[Device]:
        """What lies on which device: weights, keys and values."""
        return merged(self.model.devices, self._cache.devices)

    def stream(
        self,
        prompt: Prompt,
        *,
        workers: int | Sequence[str] = 2,
        layout: str | Layout | type[Layout] = "combined",
        max_passes: int = 1024,
        seed: int | None = None,
        sampling: SamplingParams | Mapping[str, SamplingParams] | None = None,
        stop: str | Sequence[str] = (),
        finisher: bool = True,
        finisher_tokens: int = 16,
        redundancy_every: int = 1024,
        thinking: bool = True,
        answer_at: AnswerAt = "token",
        eos_ends_run: bool = False,
    ) -> Run:
        """Starts a run and gives its iterator of events. Nothing is computed before the first event is asked
        for.

        prompt: text, or messages as dicts of role and content, a user's among them. workers: how many, or
        their names. max_passes: budget of forward passes after the prompt; each gives every worker a token.
        seed: any whole number; None draws one (RunStarted tells it). sampling: for all, or by name; where none
        is given, .sampling; a seed in it takes the place of the run's. stop: strings that end the worker that writes
        them. finisher: ask for the answer when all workers have ended without one, however they did, in at most
        finisher_tokens tokens, and in passes that come on top of max_passes. redundancy_every: tokens fed between two
        redundancy questions, 0 for none. thinking: let the workers write inside <think>, where the model knows it.
        answer_at: when an answer counts, with the "token" that closes it or at the end of its "step"; eos_ends_run:
        whether the run ends when one worker ends by end of text: both for comparisons, see docs/fidelity.md.

        Raises Closed and InvalidArgument; the first event raises CacheFull if prompt and finisher could never fit. One
        that fits once other runs have ended waits for that. Nothing is changed then.
        """
        self._check_open()
        names = _check_names(workers, self._cache.n_batch, self.prompts.workers.most)
        messages = _check_messages(prompt)
        _check_int("max_passes", max_passes, 1)
        _check_int("finisher_tokens", finisher_tokens, 1)
        _check_int("redundancy_every", redundancy_every, 0)
        _check_bool("finisher", finisher)
        _check_bool("thinking", thinking)
        if answer_at not in ("token", "step"):
            raise InvalidArgument(f"answer_at must be token or step, not {answer_at!r}")
        _check_bool("eos_ends_run", eos_ends_run)
        if seed is None:
            seed = secrets.randbits(32)
        _check_int("seed", seed)
        settings = RunSettings(
            names,
            seed,
            max_passes,
            redundancy_every,
            finisher_tokens if finisher else 0,
            _check_stops(stop),
            answer_at,
            eos_ends_run,
        )
        layout = make_layout(layout)
        wording = Wording(self.prompts, names, layout.name, thinking)
        samplings = _check_sampling(sampling, names, self.sampling)
        text = wording.prompt(self._chat, messages)
        samplers = self._samplers(samplings, seed)
        with self._lock:
            self._check_open()
            place = self._admission.place()
            run = Run(Loop(self.model, self._cache, layout, wording, text, samplers, settings, place), self._cache)
            self._runs.add(run)
            return run

    def generate(self, prompt: Prompt, **options: Any) -> Result:
        """Runs to the end; options are stream()'s. Raises what stream() raises, and Closed if close() ended
        the run."""
        return collect(self.stream(prompt, **options))

    def close(self) -> None:
        """Ends the runs that are going on (within one pass, or chunk of the prompt) and frees cache and model.
        May be called twice, and from any thread; what Ctrl+C, or an error, left undone, the next call does."""
        with self._lock:
            self._closed = True
            try:
                free_all(list(self._runs), Run.close)
            finally:
                self._free()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("this Hogwild is closed")

    def _samplers(self, samplings: Sequence[SamplingParams], seed: int) -> Callable[[int | None], SamplerLike]:
        """Makes the sampler of a worker: with a seed of its own, and without the forbidden tokens; or the finisher's
        (None), which is greedy."""
        forbidden = {}
        tags = self._chat.think_tags
        own = {"<think>": tags.open.strip(), "</think>": tags.close.strip()} if tags else {}
        if self.model.eos is not None:
            own["<eos>"] = self.model.token_text(self.model.eos)
        for text in self.prompts.step.forbidden:
            tokens = self.model.tokenize(own.get(text, text), add_special=False, parse_special=True)
            if len(tokens) == 1:
                forbidden[tokens[0]] = -math.inf

        def make(worker: int | None) -> SamplerLike:
            if worker is None:
                return self._engine.sampler(self.model, SamplingParams(temperature=0))
            params = samplings[worker]
            own_seed = worker_seed(seed if params.seed is None else params.seed, worker)
            bias = {**forbidden, **params.logit_bias}
            return self._engine.sampler(self.model, replace(params, seed=own_seed, logit_bias=bias))

        return make

    def _free(self) -> None:
        """Cache and model may both be closed twice."""
        try:
            if self._cache is not None:
                self._cache.close()
        finally:
            if self._owns_model:
                self.model.close()


def _engine_for(model: object, rpc: Servers, isolate: bool | None) -> Engine:
    is_remote = bool(rpc) if isolate is None else isolate
    if not isinstance(model, str | os.PathLike) and isolate is None:
        from .engine.isolated.engine import RemoteModel

        is_remote = isinstance(model, RemoteModel)
    if is_remote:
        from .engine.isolated import isolated_engine

        return isolated_engine()
    return native_engine()


def _check_int(name: str, value: object, least: int | None = None) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgument(f"{name} must be a whole number, not {value!r}")
    if least is not None and value < least:
        raise InvalidArgument(f"{name} must be at least {least}, not {value}")


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{name} must be True or False, not {value!r}")


def _check_names(workers: int | Sequence[str], n_batch: int, most: int) -> tuple[str, ...]:
    """n_batch and most: how many workers the cache and the prompts are for (most 0: any number)."""
    if isinstance(workers, int) and not isinstance(workers, bool):
        _check_int("workers", workers, 1)
        _check_how_many(workers, n_batch, most)
        return tuple(default_names(workers))
    if isinstance(workers, str | bytes) or not isinstance(workers, Sequence) or not workers:
        raise InvalidArgument(f"workers must be a number or a list of names, not {workers!r}")
    _check_how_many(len(workers), n_batch, most)
    for name in workers:
        if not isinstance(name, str) or not name.strip():
            raise InvalidArgument(f"workers: names must be non-empty strings, not {name!r}")
        if workers.count(name) > 1:
            raise InvalidArgument(f"workers: the name {name!r} is given twice")
    return tuple(workers)


def _check_how_many(n: int, n_batch: int, most: int) -> None:
    if n > n_batch:
        raise InvalidArgument(f"workers: {n} of them need n_batch >= {n}, not {n_batch}")
    if most and n > most:
        raise InvalidArgument(f"workers: the prompts are for at most {most}, not {n}")


def _check_messages(prompt: Prompt) -> list[Message]:
    if isinstance(prompt, str):
        if not prompt.strip():
            raise InvalidArgument("prompt must not be empty")
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, Sequence) or not prompt:
        raise InvalidArgument(f"prompt must be a text or a list of messages, not {prompt!r}")
    messages = list(cast("Sequence[Message]", prompt))
    for message in messages:
        keys = ("role", "content")
        if not isinstance(message, Mapping) or not all(isinstance(message.get(key), str) for key in keys):
            raise InvalidArgument(f"prompt: a message is a dict with the texts role and content, not {message!r}")
    if not any(message["role"] == "user" for message in messages):
        raise InvalidArgument("prompt: one of the messages must be the user's")
    return messages


def _check_stops(stop: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(stop, Sequence) or isinstance(stop, bytes):
        raise InvalidArgument(f"stop must be a string or a list of strings, not {stop!r}")
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for text in stops:
        if not isinstance(text, str) or not text:
            raise InvalidArgument(f"stop: the strings must not be empty, not {text!r}")
    return stops


def _check_sampling(
    sampling: SamplingParams | Mapping[str, SamplingParams] | None, names: Sequence[str], default: SamplingParams
) -> list[SamplingParams]:
    if sampling is None or isinstance(sampling, SamplingParams):
        return [sampling or default] * len(names)
    if not isinstance(sampling, Mapping):
        raise InvalidArgument(f"sampling must be SamplingParams, or those of workers by name, not {sampling!r}")
    for name, params in sampling.items():
        if name not in names:
            raise InvalidArgument(f"sampling: there is no worker {name!r} (there are {', '.join(names)})")
        if not isinstance(params, SamplingParams):
            raise InvalidArgument(f"sampling: of {name!r} must be SamplingParams, not {params!r}")
    return [sampling.get(name, default) for name in names]


def _load_prompts(prompts: str | os.PathLike[str] | PromptStyle | None) -> PromptStyle | None:
    if prompts is None:
        return None
    if isinstance(prompts, str | os.PathLike):
        return PromptStyle.load(Path(prompts))
    if isinstance(prompts, PromptStyle):
        return prompts
    raise InvalidArgument(f"prompts must be a path or a PromptStyle, not {prompts!r}")
