"""llama-server's /tokenize, /detokenize and /apply-template."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..errors import HogwildError
from .body import body_of
from .faults import Fault, fault_of
from .fields import messages_of
from .service import Service

MOST_TOKENS = 1 << 20


class Tokens:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def tokenize(self, request: Request) -> Response:
        body = await body_of(request, self._service.options)
        model = self._service.hogwild.model
        if "content" not in body:
            raise Fault(400, "content is missing", "content")
        special, begins = body.flag("parse_special", True), body.flag("add_special")
        try:
            tokens = await asyncio.to_thread(
                model.tokenize, body.text("content"), add_special=begins, parse_special=special
            )
        except HogwildError as error:
            raise fault_of(error) from error
        if not body.flag("with_pieces"):
            return JSONResponse({"tokens": tokens})
        return JSONResponse({"tokens": [{"id": token, "piece": _piece(model.token_bytes(token))} for token in tokens]})

    async def detokenize(self, request: Request) -> Response:
        body = await body_of(request, self._service.options)
        model, tokens = self._service.hogwild.model, body.get("tokens")
        if not isinstance(tokens, list) or len(tokens) > MOST_TOKENS:
            raise Fault(400, f"tokens must be a list of at most {MOST_TOKENS} whole numbers", "tokens")
        if not all(type(token) is int and 0 <= token < model.n_vocab for token in tokens):
            raise Fault(400, f"tokens: each must be a whole number from 0 to {model.n_vocab - 1}", "tokens")
        pieces = await asyncio.to_thread(lambda: b"".join([model.token_bytes(token) for token in tokens]))
        return JSONResponse({"content": pieces.decode(errors="replace")})

    async def apply_template(self, request: Request) -> Response:
        """The prompt of a run with these messages and options."""
        body = await body_of(request, self._service.options)
        hogwild = self._service.hogwild
        options = {**self._service.defaults, **self._service.options_of(body)}
        try:
            text = await asyncio.to_thread(hogwild.prompt_text, messages_of(body), **options)
        except HogwildError as error:
            raise fault_of(error) from error
        return JSONResponse({"prompt": text})


def _piece(piece: bytes) -> Any:
    """A text, or where it is none, its bytes."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
