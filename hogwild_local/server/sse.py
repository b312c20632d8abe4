"""Server-sent events: how they are written, and the response that sends a stream of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.responses import StreamingResponse

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


async def sent(stream: Stream, after: int, skip: int, left: Callable[[], None]) -> AsyncIterator[bytes]:
    """What a client gets: the messages, but for `skip` bytes of the first one, and comments while there are none.
    left: called when the client has it all, has gone, or was too slow."""
    messages = stream.read(after)
    waiting: asyncio.Task[tuple[int, bytes]] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(messages))
            done, _ = await asyncio.wait([waiting], timeout=PING_S)
            if not done:
                yield PING
                continue
            _, message = waiting.result()
            waiting = None
            yield message[skip:]
            skip = 0
    except (StopAsyncIteration, Lost):
        return
    finally:
        if waiting is not None:
            waiting.cancel()
        left()


def response(stream: Stream, left: Callable[[], None], after: int = 0, skip: int = 0) -> StreamingResponse:
    """Sends a stream from behind message `after`, and `skip` bytes of the next one, on."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(sent(stream, after, skip, left), media_type="text/event-stream", headers=headers)
