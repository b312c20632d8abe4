"""Server-sent events: how they are written, and the response that sends a stream of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from .leaving import Gone, unless_gone
from .stream import Lost, Stream

PING = b": ping\n\n"
"""A comment: proxies and clients see that the connection lives."""
PING_S = 10.0
DONE = b"data: [DONE]\n\n"


def numbered(message: bytes, number: int) -> bytes:
    """With the number that a client reads on from."""
    return b"id: %d\n%b" % (number, message)


def data(value: Mapping[str, Any], event: str = "") -> bytes:
    """One event. event: its name; OpenAI's clients want none."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


async def sent(stream: Stream, after: int, skip: int) -> AsyncIterator[bytes]:
    """What a client gets: the messages, but for `skip` bytes of the first one, and comments while there are none. It
    ends early where the client was too slow."""
    while True:
        try:
            async with asyncio.timeout(PING_S):
                if not await stream.more(after):
                    return
        except TimeoutError:
            yield PING
            continue
        try:
            after, messages = stream.behind(after)
        except Lost:
            return
        yield messages[skip:]
        skip = 0


class StreamResponse(StreamingResponse):
    """Sends a stream from behind message `after`, and `skip` bytes of the next one, on. left: called when the client
    has it all, has gone, or was too slow; also where it goes before anything was sent."""

    def __init__(self, stream: Stream, left: Callable[[], None], after: int = 0, skip: int = 0) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(sent(stream, after, skip), media_type="text/event-stream", headers=headers)
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] == "HEAD":
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": b""})
            else:
                with contextlib.suppress(Gone):
                    await unless_gone(receive, self.stream_response(send))
        finally:
            self._left()
