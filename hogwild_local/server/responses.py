"""OpenAI's /v1/responses: a reasoning item for each worker, written side by side, and then the message."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .body import Body, body_of
from .chat_shelf import MOST_CHARACTERS
from .completions import of_run
from .faults import Fault
from .guard import client_of
from .live import LiveRun
from .response_events import ResponseEvents
from .response_input import asked_as_chat, messages_of
from .service import Service, new_name
from .sizes import Sizes

MOST_STORED = 256


class Responses:
    """Conversations of the latest responses are kept, for previous_response_id."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._said: OrderedDict[tuple[str, str], list[Mapping[str, Any]]] = OrderedDict()
        self._sizes = Sizes()  # of those

    async def create(self, request: Request) -> Response:
        service, client = self._service, client_of(request)
        body = await body_of(request, service.options)
        messages = self._before(client, body) + messages_of(body)
        options = service.options_of(asked_as_chat(body))
        if instructions := body.text("instructions"):
            asked = [{"role": "system", "content": instructions}, *messages]
        else:
            asked = messages
        piece = service.hogwild.model.token_bytes
        events = ResponseEvents(new_name("resp"), body.text("model", service.name), body, piece)
        live = service.start(service.run_of(asked, options), client, events, events.name)
        if body.flag("store", True):
            live.when_done(lambda live: self._store(live, (client, events.name), [*messages, *events.said]))
        if body.flag("stream"):
            await of_run(request, live, live.begun())
            return live.response()
        await of_run(request, live, live.result())
        return JSONResponse(events.response)

    def _before(self, client: str, body: Body) -> list[Mapping[str, Any]]:
        """The conversation that it goes on with."""
        name = body.text("previous_response_id")
        if not name:
            return []
        if (client, name) not in self._said:
            raise Fault(404, "there is no such response, or it is kept no longer", "previous_response_id")
        return self._said[client, name]

    def _store(self, live: LiveRun, name: tuple[str, str], messages: list[Mapping[str, Any]]) -> None:
        if live.ended is None:  # it failed
            return
        self._said[name] = messages
        self._sizes.note(name, messages)
        while len(self._said) > MOST_STORED or self._sizes.total > MOST_CHARACTERS:
            first, _ = self._said.popitem(last=False)
            self._sizes.forget(first)
