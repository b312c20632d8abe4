"""Streams of completions that are read again, as llama-server has them: a request names its conversation in the header
X-Conversation-Id; GET /v1/stream?conv_id=ID&from=BYTES reads on, DELETE stops."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..options import ServerOptions
from .body import body_of
from .faults import Fault
from .guard import client_of
from .kept import Kept
from .live import LiveRun
from .sse import StreamResponse
from .stream import Lost


class Resumable:
    """By client and conversation. A new request of the same conversation takes the place of the old one."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._kept = Kept(options)

    def name_of(self, request: Request) -> str | None:
        """The conversation, where a client wants its stream kept. Raises Fault if that cannot be."""
        name = request.headers.get("x-conversation-id") if self._options.resume else None
        if name:
            self._kept.check_room()
        return _key(request, name) if name else None

    def keep(self, name: str, live: LiveRun) -> None:
        self._kept.put(name, live)

    async def read(self, request: Request) -> Response:
        """From a place in bytes (from), or behind an event (Last-Event-ID)."""
        live = self._kept.get(_key(request, request.query_params.get("conv_id", "")))
        if live is None:
            raise Fault(404, "no stream of this conversation is kept", "conv_id")
        if "from" not in request.query_params:
            return read_on(request, live)
        try:
            after, skip = live.stream.after_bytes(number(request.query_params["from"], "from"))
        except Lost:
            raise Fault(400, "from: the stream is not kept from there on", "from") from None
        return live.response(after, skip)

    async def stop(self, request: Request) -> Response:
        """Ends its run; also if there is none."""
        await self._kept.stop(_key(request, request.query_params.get("conv_id", "")))
        return Response(status_code=204)

    async def lookup(self, request: Request) -> Response:
        """Which of some conversations have a stream. Others' cannot be listed."""
        names = (await body_of(request, self._options)).get("conversation_ids")
        if not isinstance(names, list):
            raise Fault(400, "conversation_ids must be a list", "conversation_ids")
        texts = [name for name in names if isinstance(name, str)]
        known = [(name, live) for name in texts if (live := self._kept.get(_key(request, name)))]
        return JSONResponse([
            {
                "conversation_id": name,
                "is_done": live.is_done,
                "total_bytes": live.stream.n_bytes,
                "started_at": live.created,
            }
            for name, live in known
        ])  # fmt: skip


def _key(request: Request, conversation: str) -> str:
    return f"{client_of(request)} {conversation}"


def read_on(request: Request, live: LiveRun) -> StreamResponse:
    """The stream of a run, from behind the event that its client has had last. Raises Fault."""
    after = number(request.headers.get("last-event-id", "0"), "Last-Event-ID")
    if after < live.stream.n_dropped:
        raise Fault(400, "Last-Event-ID: the stream is not kept from there on", "Last-Event-ID")
    return live.response(after)


def number(value: str, name: str) -> int:
    """Raises Fault."""
    if not value.isascii() or not value.isdecimal() or len(value) > 15:
        raise Fault(400, f"{name} must be a whole number", name)
    return int(value)
