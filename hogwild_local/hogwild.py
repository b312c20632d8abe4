"""Hogwild: a model and its shared cache, ready to run several workers on a prompt."""

from __future__ import annotations

import contextlib
import secrets
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date as Date
from functools import cache, partial
from typing import Any, Self

from .chat import Chat
from .engine.devices import Device, merged
from .engine.protocols import ModelLike
from .errors import Closed
from .events import Event
from .forms.reply_form import ReplyForm
from .forms.tools import checked_tools
from .hub import downloaded
from .loading import HogwildOptions, Loaded, ModelOrPath
from .options import RunOptions, SamplingParams, takes
from .prompts.dialects import ThinkTags
from .prompts.messages import Message, Prompt, checked_messages
from .prompts.prompt import Prompt as PromptText
from .prompts.readable import check_readable
from .prompts.style import PromptStyle, Wording
from .prompts.variables import checked_date
from .runahead.transport import PassTrace
from .workers.admission import Admission
from .workers.commands import Commands
from .workers.held import free_all
from .workers.layouts import make_layout
from .workers.limits import Limits
from .workers.loop import Loop
from .workers.opening import role_tokens
from .workers.result import Result
from .workers.run import Run
from .workers.samplers import Samplers, closing_of, forbidden_tokens
from .workers.settings import RunSettings

MOST_WAIT_S = 3.0  # of close(), for a pass in an engine's process of its own


class Hogwild:
    """Several workers of one model over one KV cache.

        with Hogwild("model.gguf", n_ctx=8192) as hw:
            for event in hw.stream("PROMPT", workers=["Alice", "Bob"]): ...
            print(hw.generate("PROMPT", workers=4).answer)

    model: path of a GGUF file, or a Model, which is then not closed by close(); what says how to load one cannot be
    given beside it. prompts: path of a TOML file or a PromptStyle; None: the model's own, or else the built-in one.
    progress: called with 0..1 while a model is loaded. engine: where model and cache come from; for tests. All other
    keywords are the fields of EngineOptions, which says what they are.

    Raises InvalidArgument, ModelError, UnsupportedModel and DeviceError; nothing is kept then. Warns of an n_ctx beyond
    what the model was trained for. All methods may be called from any thread, and several runs may go on at the same
    time: each iterated in a thread of its own, or in turn in one thread. Each counts its own cells; one for which there
    is no room waits its turn (RunQueued).

    .prompts is the style in use; .sampling how workers sample unless told otherwise, of which .own_sampling is what the
    model's file says, and .examples are prompts that the model can be tried with: all come with the model (see
    model_defaults). To change one field of the model's sampling: dataclasses.replace(hw.sampling, top_k=20).
    """

    @takes(HogwildOptions)
    def __init__(self, model: ModelOrPath, options: HogwildOptions) -> None:
        self._loaded = loaded = Loaded(model, options)
        self.model: ModelLike = loaded.model
        self.prompts: PromptStyle = loaded.prompts
        self.sampling: SamplingParams = loaded.defaults.sampling
        self.own_sampling: Mapping[str, Any] = loaded.defaults.own_sampling
        self.examples: tuple[str, ...] = loaded.defaults.examples
        self._cache, self._template = loaded.cache, loaded.template
        self._lock = threading.RLock()  # a signal handler may close() inside stream()
        self._admission = Admission(self._cache.n_ctx, loaded.max_runs)
        self._runs: weakref.WeakSet[Run] = weakref.WeakSet()
        self._closed = False

    @classmethod
    def from_pretrained(cls, repo: str, quant: str | None = None, filename: str | None = None, **options: Any) -> Self:
        """A model from the Hugging Face Hub, which stays in the cache of huggingface_hub (the extra hub). repo:
        "USER/REPO"; quant, filename: which of its files, see hub.downloaded(); options: those of Hogwild().

            hw = Hogwild.from_pretrained("USER/REPO", quant="Q4_K_M", n_ctx=8192)

        Raises ImportError without huggingface_hub, InvalidArgument (with what there is), ModelError, and as Hogwild().
        """
        HogwildOptions(**options)  # what is wrong with them is told before anything is fetched
        return cls(downloaded(repo, quant, filename), **options)

    @property
    def n_ctx(self) -> int:
        """Tokens that the cache holds, as asked for or as chosen."""
        return int(self._cache.n_ctx)

    @property
    def n_windowed(self) -> int:
        """Cells of layers with a sliding window; n_ctx where the model has none, or those hold all."""
        return int(self._cache.n_windowed)

    @property
    def n_free(self) -> int:
        """Cells that no run uses; those of prompts that are kept for later runs are among them."""
        prefixes = self._admission.prefixes
        with prefixes.lock:
            return int(self._cache.n_free) + prefixes.n_cells - prefixes.n_held

    @property
    def devices(self) -> list[Device]:
        """What lies on which device: weights, keys and values."""
        return merged(self.model.devices, self._cache.devices)

    @property
    def ranks(self) -> list[PassTrace]:
        """With runahead: what each rank did for the last prompt, who waited how long and what was sent; empty where the
        last rank fed it alone."""
        return self._cache.ranks() if hasattr(self._cache, "ranks") else []

    @property
    def devices_of_ranks(self) -> list[tuple[str, list[Device]]]:
        """With runahead: for each rank its host, and what of its weights lies on which device there."""
        return self.model.devices_of_ranks() if hasattr(self.model, "devices_of_ranks") else []

    def watch_ranks(self, progress: Callable[[tuple[list[int], int]], object] | None) -> None:
        """With runahead: lets progress be called while a prompt is computed, with the layers that the ranks have
        reached and how many layers there are. What it raises ends the pass."""
        if hasattr(self._cache, "watch"):
            self._cache.watch(progress)

    @takes(RunOptions)
    def stream(self, prompt: Prompt, options: RunOptions) -> Run:
        """Starts a run and gives its iterator of events. Nothing is computed before the first event is asked for.

        prompt: text, or messages as dicts of role and content, a user's among them. The keywords are the fields of
        RunOptions, which says what they are.

        Raises Closed and InvalidArgument. The first event raises what is found out with the model: CacheFull if prompt
        and finisher could never fit, InvalidArgument for a prompt that it cannot read. One that fits once other runs
        have ended waits for that. Nothing is changed then.

        In a coroutine: async for event in hw.stream("PROMPT"); see Run.
        """
        return self._stream(prompt, options)

    def _stream(self, prompt: Prompt, options: RunOptions, told: Callable[[Event], None] | None = None) -> Run:
        """told: called with each event before the run's consumer gets it."""
        self._check_open()
        workers = self._limits.workers(options.workers)
        names = [worker.name for worker in workers]
        messages = checked_messages(prompt)
        seed = secrets.randbits(32) if options.seed is None else options.seed
        day = checked_date(options.date)
        tags = self._template.think_tags if options.thinking else None
        tools, form = self._form(options, tags)
        settings = RunSettings.of(options, workers, seed, day.isoformat(), bool(self.prompts.reply.text), form)
        layout = make_layout(options.layout)
        wording = self._wording(names, layout.name, options)
        text = partial(self._text, wording, messages, day, options.reasoning_effort, tools)
        closing = closing_of(self.model, tags, options.ends, self._template.turn_ends, calls=form.family is not None)
        of_run = options.sampling or self.sampling
        forbidden = cache(partial(forbidden_tokens, self.model, self._template.think_tags, self.prompts.step.forbidden))
        sampler = partial(self._loaded.engine.sampler, self.model)
        samplers = Samplers(sampler, of_run, forbidden, closing, seed, form.grammar)
        samplers.check_grammar()
        commands = Commands(names, self._limits)
        with self._lock:
            self._check_open()
            place = self._admission.place()
            loop = Loop(self.model, self._cache, layout, wording, text, samplers, settings, place, commands)
            run = Run(loop, self._cache, told)
            self._runs.add(run)
            return run

    def _wording(self, names: Sequence[str], layout: str, options: RunOptions) -> Wording:
        return Wording(self.prompts, names, layout, options.thinking, self._template.dialect.structure)

    def _form(self, options: RunOptions, tags: ThinkTags | None) -> tuple[Sequence[Mapping[str, Any]], ReplyForm]:
        """The tools that a run's prompt shows, and its reply's form. Raises InvalidArgument."""
        tools = checked_tools(options.tools, options.tool_choice, options.parallel_tool_calls)
        family = self._template.tools.known_family() if tools else None
        form = ReplyForm.of(options.response_format, tools, family, tags.answer if tags else "")
        return (tools.all if tools else ()), form

    def _text(
        self, wording: Wording, messages: Sequence[Message], day: Date, effort: str | None, tools: Sequence[Any]
    ) -> PromptText:
        """Raises InvalidArgument for what the model cannot read, or its template not render."""
        # What it has said itself may be of tokens that no text is cut into.
        check_readable(self.model, [message["content"] for message in messages if message["role"] != "assistant"])
        return wording.prompt(self._template, messages, day, effort, tools)

    @property
    def _limits(self) -> Limits:
        return Limits(self._cache.n_batch, self.prompts)

    @takes(RunOptions)
    def generate(self, prompt: Prompt, options: RunOptions) -> Result:
        """Runs to the end; options are stream()'s. Raises what stream() raises, and Closed if close() ended
        the run."""
        return self._stream(prompt, options).result()

    @takes(RunOptions)
    async def agenerate(self, prompt: Prompt, options: RunOptions) -> Result:
        """generate() for a coroutine: others go on meanwhile. If its task is cancelled, the run ends within one pass,
        or chunk of the prompt."""
        return await self._stream(prompt, options).aresult()

    def chat(
        self, system: str | None = None, messages: Sequence[Message] = (), keep_thoughts: bool = False, **options: Any
    ) -> Chat:
        """A conversation, which begins with messages that were said before. system: what the system message says beside
        the rules of working together; keep_thoughts: whether the workers' thoughts are kept in the messages; options:
        those of stream(), for each turn. Raises InvalidArgument."""
        checked = RunOptions(**options)
        make_layout(checked.layout)
        self._limits.workers(checked.workers)
        first = [] if system is None else [{"role": "system", "content": system}]

        def start(said: Sequence[Message], of_turn: Mapping[str, Any], told: Callable[[Event], None]) -> Run:
            return self._stream(said, RunOptions(**of_turn), told)

        return Chat(start, [*first, *messages], options, keep_thoughts)

    @takes(RunOptions)
    def count_tokens(self, prompt: Prompt, options: RunOptions) -> int:
        """Tokens of a prompt, with the rules, whatever the chat template puts around it, and the workers' roles, for
        such a run. Raises InvalidArgument."""
        wording, text = self._whole_text(prompt, options)
        roles = [role_tokens(self.model, wording, worker) for worker in self._limits.workers(options.workers)]
        return len(text.tokens(self.model)) + sum(map(len, roles))

    @takes(RunOptions)
    def prompt_text(self, prompt: Prompt, options: RunOptions) -> str:
        """The prompt of such a run as the model reads it, with the rules and the chat template. Raises
        InvalidArgument."""
        return self._whole_text(prompt, options)[1].text

    def _whole_text(self, prompt: Prompt, options: RunOptions) -> tuple[Wording, PromptText]:
        self._check_open()
        names = [worker.name for worker in self._limits.workers(options.workers)]
        wording = self._wording(names, make_layout(options.layout).name, options)
        (tools, _), day = self._form(options, None), checked_date(options.date)
        return wording, self._text(wording, checked_messages(prompt), day, options.reasoning_effort, tools)

    def close(self) -> None:
        """Ends the runs that are going on (within one pass, or chunk of the prompt) and frees cache and model.
        May be called twice, and from any thread; what Ctrl+C, or an error, left undone, the next call does."""
        with self._lock:
            self._closed = True
            try:
                with self._in_time():
                    free_all(list(self._runs), Run.close)
            finally:
                self._loaded.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("this Hogwild is closed")

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        """A run waits for its pass. Where the engine's own process hangs, that process is ended."""
        end = threading.Timer(MOST_WAIT_S, self.model.close)
        end.daemon = True
        if self._loaded.owns_process:
            end.start()
        try:
            yield
        finally:
            end.cancel()
