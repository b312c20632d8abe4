"""What the server serves: one Hogwild, the runs on it, and how many there may be."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import time
from typing import Any
from weakref import WeakValueDictionary

from .. import events as ev
from ..errors import Cancelled, HogwildError, InvalidArgument
from ..forms.tools import checked_tools
from ..hogwild import Hogwild
from ..options import RunOptions, ServerOptions, default_of
from ..prompts.chat_template import ChatTemplate
from ..prompts.messages import Message
from ..workers.admission import Allowance
from ..workers.run import Run
from .body import Body
from .faults import Fault, fault_of
from .fields import run_options
from .live import Encoder, LiveRun
from .stream import Stream

RETRY_S = 5


class Service:
    """load: makes the Hogwild; it is called in a thread, and until it has returned everything is answered with 503. It
    is to look at .is_ending, and then to give up by raising Cancelled.
    defaults: options of each run where a request says nothing. name: of the model."""

    def __init__(
        self, load: Callable[[], Hogwild], options: ServerOptions, defaults: Mapping[str, Any], name: str
    ) -> None:
        self.options, self.defaults, self.name = options, dict(defaults), name
        self.started = int(time())
        self.totals: Counter[str] = Counter()
        self.live: dict[str, LiveRun] = {}
        self._allowances: WeakValueDictionary[str, Allowance] = WeakValueDictionary()
        """By client."""
        self._load = load
        self._hogwild: Hogwild | None = None
        self._asks_for_effort = False
        self.can_call_tools = False
        self._loading: asyncio.Task[None] | None = None
        self.is_ending = False
        """From when on nothing begins any more."""
        self.failure: Exception | None = None
        """Why there is no model, and never will be."""
        self._tell_failure: Callable[[], object] = lambda: None

    @property
    def hogwild(self) -> Hogwild:
        """Raises Fault while it is not there."""
        if self.failure is not None:
            raise Fault(500, str(self.failure))
        if self._hogwild is None:
            raise Fault(503, "Loading model", retry_after=RETRY_S)
        return self._hogwild

    def when_failed(self, tell: Callable[[], object]) -> None:
        """tell: called when the model cannot be loaded."""
        self._tell_failure = tell

    def begin(self) -> None:
        self._loading = asyncio.create_task(self._made())

    async def _made(self) -> None:
        try:
            hogwild = await asyncio.to_thread(self._load)
            template = ChatTemplate(hogwild.model)
            self._asks_for_effort = template.asks_for_effort
            self.can_call_tools = template.tools.shows_tools and template.tools.family is not None
            self._hogwild = hogwild
        except Exception as error:
            if isinstance(error, Cancelled) and self.is_ending:
                return
            self.failure = error
            self._tell_failure()

    def cancel_all(self) -> None:
        """Runs end in order, within one pass, and none begins any more."""
        self.is_ending = True
        for live in self.live.values():
            live.cancel()

    async def end(self) -> None:
        """Ends all runs in order, and frees the model."""
        self.cancel_all()
        if self._loading is not None:
            await self._loading
        for live in list(self.live.values()):
            await live.gone()
        if self._hogwild is not None:
            await asyncio.to_thread(self._hogwild.close)

    def options_of(self, body: Body) -> dict[str, Any]:
        """What a request says, as options of a run. Raises Fault. What clients say to whatever model there is, such as
        tools that it may call, is left out for one that cannot do with it."""
        options = run_options(body, self.hogwild.sampling)
        if not self._asks_for_effort:
            options.pop("reasoning_effort", None)
        if not self.can_call_tools and not _must_call(options):
            options.pop("tools", None)
            options.pop("tool_choice", None)
        return options

    def run_of(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Callable[[], Run]:
        """Makes a run, with the server's options where these say nothing."""
        return lambda: self.hogwild.stream(messages, **{**self.defaults, **options})

    def start(self, make: Callable[[], Run], client: str, encode: Encoder, name: str) -> LiveRun:
        """A run of a client's. Raises Fault: 429 where too many wait, or too many are this client's."""
        if self.is_ending:
            raise Fault(503, "the server ends")
        room = self.options.parallel + self.options.queue
        of_client = sum(live.client == client for live in self.live.values())
        if len(self.live) >= room or of_client >= share_of(room):
            raise Fault(429, "too many requests wait already", code="queue_full", retry_after=RETRY_S)
        try:
            run = make()
        except HogwildError as error:
            raise fault_of(error) from error
        run.limit(self._allowance_of(client))
        live = LiveRun(run, name, client, encode, Stream(self.options.stream_mb << 20))
        self.live[name] = live
        live.when_done(self._note_end)
        return live

    @property
    def n_ctx(self) -> int:
        """Cells that one client can have: others are to find some."""
        n_ctx = self.hogwild.n_ctx
        return n_ctx if self.options.parallel == 1 else share_of(n_ctx)

    def _allowance_of(self, client: str) -> Allowance:
        if client not in self._allowances:
            self._allowances[client] = made = Allowance(self.n_ctx, share_of(self.options.parallel))
            return made  # it is there as long as one of its runs
        return self._allowances[client]

    def _note_end(self, live: LiveRun) -> None:
        self.live.pop(live.name, None)
        self.totals["requests"] += 1
        if (ended := live.ended) is not None:
            usage, timings = ended.usage, ended.timings
            self.totals["prompt_tokens"] += usage.prompt_tokens - usage.cached_tokens
            self.totals["cached_tokens"] += usage.cached_tokens
            self.totals["predicted_tokens"] += usage.completion_tokens
            self.totals["prompt_ms"] += round(timings.prompt_ms)
            self.totals["predicted_ms"] += round(timings.generate_ms)
            self.totals["passes"] += timings.passes + timings.closing_passes
        else:
            self.totals["failed_requests"] += 1


def _must_call(options: Mapping[str, Any]) -> bool:
    """Whether the reply has to be a call of a tool. Raises Fault."""
    choice = options.get("tool_choice", default_of(RunOptions, "tool_choice"))
    try:
        tools = checked_tools(options.get("tools"), choice, True)
    except InvalidArgument as error:
        raise fault_of(error) from error
    return tools is not None and tools.must


def share_of(n: int) -> int:
    """How much of n one client may have."""
    return max(1, n * 3 // 4)


def new_name(kind: str) -> str:
    """An id that cannot be guessed."""
    return f"{kind}-{secrets.token_hex(12)}"


def timings_of(timings: ev.Timings, usage: ev.Usage) -> dict[str, Any]:
    """As llama-server has them."""
    prompt_n = usage.prompt_tokens - usage.cached_tokens
    return {
        "cache_n": usage.cached_tokens,
        "prompt_n": prompt_n,
        "prompt_ms": timings.prompt_ms,
        "prompt_per_token_ms": timings.prompt_ms / max(1, prompt_n),
        "prompt_per_second": 1e3 * prompt_n / max(1e-3, timings.prompt_ms),
        "predicted_n": usage.completion_tokens,
        "predicted_ms": timings.generate_ms,
        "predicted_per_token_ms": timings.generate_ms / max(1, usage.completion_tokens),
        "predicted_per_second": timings.tokens_per_second,
    }
