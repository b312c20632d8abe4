"""OpenAI's /v1/responses: a reasoning item for each worker, written side by side, and then the message."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .body import Body, body_of
from .completions import client_of, unless_gone
from .faults import Fault
from .fields import run_options
from .response_events import ResponseEvents
from .service import Service, new_name

MOST_STORED = 256


class Responses:
    """Conversations of the latest responses are kept, for previous_response_id."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._said: OrderedDict[tuple[str, str], list[Mapping[str, Any]]] = OrderedDict()

    async def create(self, request: Request) -> Response:
        service, client = self._service, client_of(request)
        body = await body_of(request, service.options)
        messages = self._before(client, body) + _messages_of(body)
        options = run_options(body.renamed(max_output_tokens="max_tokens"), service.hogwild.sampling)
        if instructions := body.text("instructions"):
            asked = [{"role": "system", "content": instructions}, *messages]
        else:
            asked = messages
        events = ResponseEvents(new_name("resp"), body.text("model", service.name), body)
        live = service.start(service.run_of(asked, options), client, events, events.name)
        if body.flag("store", True):
            live.when_done(lambda _: self._store((client, events.name), [*messages, *events.said]))
        if body.flag("stream"):
            await unless_gone(request, live, live.begun())
            return live.response()
        await unless_gone(request, live, live.result())
        return JSONResponse(events.response)

    def _before(self, client: str, body: Body) -> list[Mapping[str, Any]]:
        """The conversation that it goes on with."""
        name = body.text("previous_response_id")
        if not name:
            return []
        if (client, name) not in self._said:
            raise Fault(404, "there is no such response, or it is kept no longer", "previous_response_id")
        return self._said[client, name]

    def _store(self, name: tuple[str, str], messages: list[Mapping[str, Any]]) -> None:
        self._said[name] = messages
        while len(self._said) > MOST_STORED:
            self._said.popitem(last=False)


def _messages_of(body: Body) -> list[Mapping[str, Any]]:
    """Raises Fault."""
    given = body.get("input")
    if isinstance(given, str) and given.strip():
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise Fault(400, "input must be a text, or a list of messages", "input")
    messages: list[Mapping[str, Any]] = []
    for item in given:
        if not isinstance(item, dict):
            raise Fault(400, "input: each item must be an object", "input")
        if item.get("type", "message") == "message":
            role = "system" if item.get("role") == "developer" else item.get("role")
            messages.append({**({"content": item["content"]} if "content" in item else {}), "role": role})
        elif item["type"] != "reasoning":  # what was thought is not said again
            raise Fault(400, f"input: items of type {item['type']!r} are not understood", "input")
    return messages
