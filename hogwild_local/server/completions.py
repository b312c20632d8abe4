"""OpenAI's /v1/chat/completions and /v1/completions."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..events import Event
from ..workers.result import Result
from . import chunks, text_chunks
from .body import Body, body_of
from .chunks import ChatChunks, ChunkSettings
from .faults import Fault
from .fields import messages_of, prompt_of
from .guard import client_of
from .leaving import Gone, unless_gone
from .live import Encoder, LiveRun
from .resume import Resumable
from .service import Service, new_name
from .text_chunks import TextChunks

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form:
    """What a route answers with."""

    prefix: str
    chunks: Callable[[ChunkSettings], ChatChunks]
    whole: Callable[[ChunkSettings, LiveRun, Result], dict[str, Any]]


CHAT = Form("chatcmpl", ChatChunks, chunks.whole)
TEXT = Form("cmpl", TextChunks, text_chunks.whole)


class Completions:
    """Both routes."""

    def __init__(self, service: Service, resumable: Resumable, reasoning: str) -> None:
        self._service, self._resumable, self._reasoning = service, resumable, reasoning

    async def chat(self, request: Request) -> Response:
        body = await body_of(request, self._service.options)
        return await self._complete(request, body, messages_of(body), CHAT)

    async def text(self, request: Request) -> Response:
        """The prompt is what a user says: the model answers it, as a chat model does."""
        body = await body_of(request, self._service.options)
        return await self._complete(request, body, prompt_of(body), TEXT)

    async def _complete(self, request: Request, body: Body, messages: list[Any], form: Form) -> Response:
        service = self._service
        options = service.options_of(body)
        settings = ChunkSettings.of(
            body, new_name(form.prefix), service.name, self._reasoning, service.hogwild.model.token_bytes
        )
        streams = body.flag("stream")
        encode: Encoder = form.chunks(settings) if streams else _nothing
        conversation = self._resumable.name_of(request) if streams else None
        live = service.start(service.run_of(messages, options), client_of(request), encode, settings.name)
        if streams:
            if conversation is not None:
                self._resumable.keep(conversation, live)
            await of_run(request, live, live.begun())
            return live.response()
        result = await of_run(request, live, live.result())
        return JSONResponse(form.whole(settings, live, result))


def _nothing(live: LiveRun, event: Event) -> list[bytes]:
    return []


async def of_run(request: Request, live: LiveRun, asked: Coroutine[Any, Any, T]) -> T:
    """What is asked of a run; a client that goes meanwhile ends it, unless it stays."""
    try:
        return await unless_gone(request.receive, asked)
    except BaseException as error:
        if not live.stays:
            live.cancel()
        if isinstance(error, Gone):
            raise Fault(499, "the client has gone") from None
        raise
