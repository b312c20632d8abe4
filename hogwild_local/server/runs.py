"""Runs as clients of our own see them: each event with its name and number, and what may be done to a run meanwhile."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .. import events as ev
from ..errors import Closed, HogwildError
from . import sse
from .body import Body, body_of
from .faults import Fault, fault_of
from .fields import messages_of, prompt_of, worker_of
from .guard import client_of
from .kept import Kept
from .live import LiveRun, Turn
from .resume import read_on
from .service import Service, new_name


class Runs:
    """They go on when nobody reads their events, and can be read for a while when they have ended."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._kept = Kept(service.options)

    async def create(self, request: Request) -> Response:
        """Answers as soon as it is begun, or queued."""
        body = await body_of(request, self._service.options)
        options = self._service.options_of(body)
        messages = messages_of(body) if "messages" in body else prompt_of(body)
        live = await self.begin(self._service.run_of(messages, options), client_of(request))
        return JSONResponse(state_of(live), 201, {"Location": f"/v1/runs/{live.name}"})

    async def begin(self, make: Any, client: str, turn: Turn | None = None) -> LiveRun:
        """turn: what it replies to, in a conversation. Raises Fault."""
        self._kept.check_room()
        live = self._service.start(make, client, event_message, new_name("run"))
        live.turn = turn
        self._kept.put(live.name, live)
        await live.begun()
        return live

    async def all(self, request: Request) -> Response:
        """Those of this client."""
        assert self._service.hogwild
        mine = [live for live in self._kept.all() if live.client == client_of(request)]
        return JSONResponse({"object": "list", "data": [state_of(live) for live in mine]})

    async def one(self, request: Request) -> Response:
        return JSONResponse(state_of(self._of(request)))

    async def events(self, request: Request) -> Response:
        return read_on(request, self._of(request))

    async def stop(self, request: Request) -> Response:
        """One worker of it."""
        live, body = self._of(request), await self._body(request)
        return _done(live, lambda: live.run.stop(body.text("worker")))

    async def say(self, request: Request) -> Response:
        """Something to all workers, or to one of them. Its events tell when it is heard."""
        live, body = self._of(request), await self._body(request)
        return _done(live, lambda: live.run.say(body.text("text"), body.get("to")))

    async def add(self, request: Request) -> Response:
        """One more worker. Answers with its name; its events tell when it joins."""
        live, body = self._of(request), await self._body(request)
        worker = worker_of(body["worker"], self._service.hogwild.sampling) if "worker" in body else None
        names: list[str] = []
        _done(live, lambda: names.append(live.run.add(worker)))
        return JSONResponse({"object": "worker", "run": live.name, "name": names[0]}, 202)

    async def cancel(self, request: Request) -> Response:
        """In order: who reads it is told."""
        live = self._of(request)
        return _done(live, live.cancel)

    async def delete(self, request: Request) -> Response:
        """Cancels it, and forgets it."""
        await self._kept.stop(self._of(request).name)
        return Response(status_code=204)

    async def _body(self, request: Request) -> Body:
        return await body_of(request, self._service.options)

    def _of(self, request: Request) -> LiveRun:
        live = self._kept.get(request.path_params["run"])
        if live is None or live.client != client_of(request):
            raise Fault(404, "there is no such run, or it is kept no longer", "run")
        return live


def event_message(live: LiveRun, event: ev.Event) -> list[bytes]:
    """An encoder: each event as it is."""
    return [sse.data(event.to_dict(), event.kind())]


def state_of(live: LiveRun) -> dict[str, Any]:
    """Where a run stands."""
    ended = live.ended
    return {
        "id": live.name,
        "object": "run",
        "created": live.created,
        "chat": live.turn.chat if live.turn else None,
        "turn": {"index": live.turn.index, "content": live.turn.content} if live.turn else None,
        "status": _status(live),
        "workers": [
            {"name": name, "n_tokens": n, "finished": live.finished.get(name)} for name, n in live.n_written.items()
        ],
        "seed": live.started.seed if live.started else None,
        "reason": ended.reason if ended else None,
        "answer": ended.answer if ended else None,
        "error": live.fault.body()["error"] if live.fault else None,
        "n_events": live.stream.n_messages,
    }


def _status(live: LiveRun) -> str:
    if live.is_done:
        return "failed" if live.fault else "ended"
    return "queued" if live.is_waiting else "running"


def _done(live: LiveRun, do: Any) -> Response:
    if live.is_done:
        raise Fault(409, "the run has ended", "run")
    try:
        do()
    except Closed:
        raise Fault(409, "the workers of this run have ended", "run") from None
    except HogwildError as error:
        raise fault_of(error) from error
    return JSONResponse(state_of(live), 202)
