"""What /v1/runs and /v1/chats take and answer, as OpenAPI 3.1. A test holds it against what the server does."""

from __future__ import annotations

from typing import Any, get_args

from .. import __version__
from ..events import Reason
from ..options import RunOptions, SamplingParams, options_of

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
NULL: Schema = {"type": "null"}


def document() -> Schema:
    """All of it."""
    paths: dict[str, dict[str, Schema]] = {}
    for method, path, text, body, answers in _routes():
        operation: Schema = {"summary": text, "responses": {status: _answer(kind) for status, kind in answers.items()}}
        operation["responses"]["4XX"] = _answer("Error")
        if names := [part[1:-1] for part in path.split("/") if part.startswith("{")]:
            operation["parameters"] = [{"name": n, "in": "path", "required": True, "schema": TEXT} for n in names]
        if body is not None:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
        paths.setdefault(path, {})[method] = operation
    info = {"title": "hogwild-local: runs and conversations", "version": __version__}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": _schemas()}}


def _routes() -> list[tuple[str, str, str, Schema | None, dict[str, str]]]:
    """Method, path, what it does, what it takes, and what it answers with."""
    messages = {"type": "array", "items": {"$ref": "#/components/schemas/Message"}}
    turn = _options()
    return [
        ("post", "/v1/runs", "Begin a run", _options(prompt=TEXT, messages=messages), {"201": "Run"}),
        ("get", "/v1/runs", "Runs of this client", None, {"200": "Runs"}),
        ("get", "/v1/runs/{run}", "Where a run stands", None, {"200": "Run"}),
        ("delete", "/v1/runs/{run}", "Cancel a run, and forget it", None, {"204": ""}),
        ("get", "/v1/runs/{run}/events", "Its events, from behind Last-Event-ID on", None, {"200": "events"}),
        ("post", "/v1/runs/{run}/stop", "End one worker", _object(["worker"], worker=TEXT), {"202": "Run"}),
        ("post", "/v1/runs/{run}/say", "Say something to all workers, or one", _said(), {"202": "Run"}),
        ("post", "/v1/runs/{run}/add", "Add a worker", _object([], worker=_worker()), {"202": "Added"}),
        ("post", "/v1/runs/{run}/cancel", "End a run in order", None, {"202": "Run"}),
        (
            "post", "/v1/chats", "Begin a conversation", _options(system=TEXT, messages=messages, title=TEXT),
            {"201": "Chat"},
        ),
        ("get", "/v1/chats", "Conversations, the latest first", None, {"200": "Chats"}),
        ("get", "/v1/chats/{chat}", "A conversation", None, {"200": "Chat"}),
        ("patch", "/v1/chats/{chat}", "Give it another title", _object(["title"], title=TEXT), {"200": "Chat"}),
        ("delete", "/v1/chats/{chat}", "Delete it", None, {"204": ""}),
        ("post", "/v1/chats/{chat}/send", "Say something", _options(content=TEXT, messages=messages), {"201": "Run"}),
        ("post", "/v1/chats/{chat}/regenerate", "The last turn again", turn, {"201": "Run"}),
        (
            "post", "/v1/chats/{chat}/edit", "Say something else instead",
            _options(["index", "content"], index=NUMBER, content=TEXT), {"201": "Run"},
        ),
        ("post", "/v1/chats/{chat}/fork", "Branch", _object([], n=NUMBER, title=TEXT), {"201": "Chat"}),
    ]  # fmt: skip


def _schemas() -> dict[str, Schema]:
    worker = _object(name=TEXT, n_tokens=NUMBER, finished={"enum": [None, *get_args(Reason)]})
    message = _object(["role"], role=TEXT, content={"type": ["string", "array", "null"]})
    run = {
        "id": TEXT,
        "object": {"const": "run"},
        "created": NUMBER,
        "chat": {"type": ["string", "null"]},
        "turn": {"anyOf": [NULL, _strict(_object(index=NUMBER, content=TEXT))]},
        "status": {"enum": ["queued", "running", "ended", "failed"]},
        "workers": {"type": "array", "items": _strict(worker)},
        "seed": {"type": ["integer", "null"]},
        "reason": {"enum": [None, *get_args(Reason)]},
        "answer": {"type": ["string", "null"]},
        "error": {"anyOf": [NULL, {"$ref": "#/components/schemas/Fault"}]},
        "n_events": NUMBER,
    }
    chat = {
        "id": TEXT,
        "object": {"const": "chat"},
        "title": TEXT,
        "created": NUMBER,
        "updated": NUMBER,
        "parent": {"type": ["string", "null"]},
        "options": {"type": "object"},
        "n_messages": NUMBER,
    }
    messages = {"type": "array", "items": {"$ref": "#/components/schemas/Message"}}
    fault = _object(message=TEXT, type=TEXT, param={"type": ["string", "null"]}, code={"type": ["string", "null"]})
    return {
        "Message": message,
        "Run": _strict(_object(**run)),
        "Runs": _list("Run"),
        "Added": _strict(_object(object={"const": "worker"}, run=TEXT, name=TEXT)),
        "ChatHead": _strict(_object(**chat)),
        "Chat": _strict(_object(**chat, messages=messages)),
        "Chats": _list("ChatHead"),
        "Fault": _strict(fault),
        "Error": _strict(_object(error={"$ref": "#/components/schemas/Fault"})),
    }  # fmt: skip


def _said() -> Schema:
    return _object(["text"], text=TEXT, to={"type": ["string", "null"]})


def _options(required: list[str] | None = None, **more: Schema) -> Schema:
    """What a run takes, with the help that the command line shows."""
    asked: Schema = {"stop": {"type": ["string", "array"]}, "max_tokens": NUMBER, "seed": NUMBER}
    asked |= {"response_format": {"type": "object"}, "tools": {"type": "array", "items": {"type": "object"}}}
    asked |= {"tool_choice": {"type": ["string", "object"]}, "parallel_tool_calls": {"type": "boolean"}}
    asked |= {"logprobs": {"type": ["boolean", "integer"]}, "top_logprobs": NUMBER}
    kinds = {"whole": NUMBER, "number": {"type": "number"}, "flag": {"type": "boolean"}}
    for options, names in ((RunOptions, _OF_RUN), (SamplingParams, _OF_SAMPLING)):
        for name in names:
            option = options_of(options)[name]
            schema = {"enum": list(option.choices)} if option.choices else kinds.get(option.kind, {})
            asked[name] = {**schema, "description": option.help}
    asked["workers"] |= {"anyOf": [NUMBER, {"type": "array", "items": _worker()}]}
    return _object(required or [], **asked, **more)


def _worker() -> Schema:
    """A name, or what is this worker's own."""
    own: dict[str, Schema] = {"role": TEXT, "stop": {"type": ["string", "array"]}, "grammar": TEXT}
    numbers: dict[str, Schema] = {name: {"type": "number"} for name in _OF_SAMPLING}
    return {"anyOf": [NULL, TEXT, _object(["name"], name=TEXT, **own, **numbers)]}


_OF_RUN = ("workers", "layout", "max_passes", "ends", "thinking", "reasoning_effort", "cache_prompt", "date")
_OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")


def _object(required: list[str] | None = None, /, **fields: Schema) -> Schema:
    """required: None is all of them."""
    return {"type": "object", "properties": fields, "required": list(fields) if required is None else required}


def _strict(schema: Schema) -> Schema:
    return {**schema, "additionalProperties": False}


def _list(kind: str) -> Schema:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{kind}"}}
    return _strict(_object(object={"const": "list"}, data=items))


def _answer(kind: str) -> Schema:
    if kind == "":
        return {"description": "Done"}
    if kind == "events":
        return {"description": "Server-sent events", "content": {"text/event-stream": {"schema": TEXT}}}
    schema = {"$ref": f"#/components/schemas/{kind}"}
    return {"description": kind, "content": {"application/json": {"schema": schema}}}
