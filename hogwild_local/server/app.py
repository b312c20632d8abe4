"""The server's routes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..disk import data_folder
from ..options import ServerOptions
from .broken import Broken
from .chat_files import ChatFiles
from .chats import Chats
from .completions import Completions
from .faults import Fault
from .guard import Guard
from .openapi import document
from .page_routes import Page
from .responses import Responses
from .resume import Resumable
from .runs import Runs
from .service import Service
from .status import Status
from .tokens import Tokens

Call = Callable[[Request], Awaitable[Response]]


def application(service: Service, reasoning: str) -> Starlette:
    """Begins to load the model when it starts; all runs have ended when it stops."""
    resumable = Resumable(service.options)
    completions, status, tokens = Completions(service, resumable, reasoning), Status(service), Tokens(service)
    get = {
        "/health": status.health,
        "/models": status.models,
        "/props": status.props,
        "/slots": status.slots,
        "/metrics": status.metrics,
        "/v1/stream": resumable.read,
        "/openapi.json": described,
    }
    post = {
        "/chat/completions": completions.chat,
        "/completions": completions.text,
        "/responses": Responses(service).create,
        "/tokenize": tokens.tokenize,
        "/detokenize": tokens.detokenize,
        "/apply-template": tokens.apply_template,
        "/v1/streams/lookup": resumable.lookup,
    }
    routes = [Route(path, call, methods=["GET"]) for path, call in _with_v1(get).items()]
    routes += [Route(path, call, methods=["POST"]) for path, call in _with_v1(post).items()]
    routes.append(Route("/v1/stream", resumable.stop, methods=["DELETE"]))
    page = Page(service.options)
    routes += [
        Route("/", page.index, methods=["GET"]),
        Route("/page/render", page.render, methods=["POST"]),
        Route("/page/{name}", page.part, methods=["GET"]),
    ]
    runs = Runs(service)
    chats = Chats(service, runs, ChatFiles(_folder(service.options)))
    routes += _runs(runs) + _chats(chats)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.begin()
        yield
        await service.end()
        await chats.written()

    made = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(Broken),
            Middleware(
                CORSMiddleware,
                allow_origins=list(service.options.cors_origins),
                allow_methods=["*"],
                allow_headers=["*"],
            ),
            Middleware(Guard, options=service.options),
        ],
        exception_handlers={Fault: _faulty, HTTPException: _refused},
    )
    made.router.redirect_slashes = False  # to a name that the client says
    return made


def _runs(runs: Runs) -> list[Route]:
    return [
        Route("/v1/runs", runs.create, methods=["POST"]),
        Route("/v1/runs", runs.all, methods=["GET"]),
        Route("/v1/runs/{run}", runs.one, methods=["GET"]),
        Route("/v1/runs/{run}", runs.delete, methods=["DELETE"]),
        Route("/v1/runs/{run}/events", runs.events, methods=["GET"]),
        Route("/v1/runs/{run}/stop", runs.stop, methods=["POST"]),
        Route("/v1/runs/{run}/say", runs.say, methods=["POST"]),
        Route("/v1/runs/{run}/add", runs.add, methods=["POST"]),
        Route("/v1/runs/{run}/cancel", runs.cancel, methods=["POST"]),
    ]


def _chats(chats: Chats) -> list[Route]:
    return [
        Route("/v1/chats", chats.create, methods=["POST"]),
        Route("/v1/chats", chats.all, methods=["GET"]),
        Route("/v1/chats/{chat}", chats.one, methods=["GET"]),
        Route("/v1/chats/{chat}", chats.rename, methods=["PATCH"]),
        Route("/v1/chats/{chat}", chats.delete, methods=["DELETE"]),
        Route("/v1/chats/{chat}/send", chats.send, methods=["POST"]),
        Route("/v1/chats/{chat}/regenerate", chats.regenerate, methods=["POST"]),
        Route("/v1/chats/{chat}/edit", chats.edit, methods=["POST"]),
        Route("/v1/chats/{chat}/fork", chats.fork, methods=["POST"]),
    ]


async def described(request: Request) -> Response:
    """What our own routes take and answer."""
    return JSONResponse(document())


def _folder(options: ServerOptions) -> Path | None:
    if options.data is None:
        return data_folder() / "chats"
    return Path(options.data) if options.data else None


def _with_v1(routes: Mapping[str, Call]) -> dict[str, Call]:
    """Clients use either form."""
    return {form: call for path, call in routes.items() for form in {path, f"/v1{path.removeprefix('/v1')}"}}


def _faulty(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, Fault)
    return fault.response()


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Fault(error.status_code, f"{request.method} {request.scope['path'][:200]}: {error.detail}").response()
