"""Errors as OpenAI's clients read them."""

from __future__ import annotations

import re
from typing import Any

from starlette.responses import JSONResponse

from ..errors import Busy, CacheFull, Closed, HogwildError, InvalidArgument, OutOfMemory

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "unavailable_error",
}


ASKED_AS = {"prompt": "messages", "reply_tokens": "max_tokens"}
"""What clients call an option of ours."""


MOST_MESSAGE = 1000
"""Characters: it may show what a client has sent."""


class Fault(Exception):
    """What a client is answered. param: the field that is wrong."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message if len(message) <= MOST_MESSAGE else f"{message[:MOST_MESSAGE]}...")
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after

    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def fault_of(error: HogwildError) -> Fault:
    """What an error of a run means to a client."""
    match error:
        case InvalidArgument():
            named = re.match(r"([a-z_]+)(?=[ :\[])", str(error))
            name = ASKED_AS.get(named[1], named[1]) if named else None
            return Fault(400, re.sub(r"^[a-z_]+", name, str(error)) if name else str(error), name)
        case CacheFull():
            message = (
                f"the prompt, with what follows it, needs {error.needed} tokens of context: there are {error.free}"
            )
            return Fault(400, message, "messages", "context_length_exceeded")
        case Busy():
            return Fault(409, str(error))
        case Closed() | OutOfMemory():
            return Fault(503, str(error), retry_after=10)
        case _:
            return Fault(500, str(error))
