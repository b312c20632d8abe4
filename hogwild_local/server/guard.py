"""Who may ask: pages of other sites may not, neither by their origin nor by a name that leads here (DNS rebinding)."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ..options import ServerOptions
from .faults import Fault

HOST = re.compile(r"(\[[^][]*\]|[^][:]*)(?::\d{1,5})?")
OPEN_PATHS = {"/", "/health", "/v1/health"}
"""No key is asked for there, as llama-server does it, nor for the parts of the page."""


class Guard:
    """Refuses a request before any of it is read."""

    def __init__(self, app: ASGIApp, options: ServerOptions) -> None:
        self._app, self._options = app, options
        self._keys = [key.encode() for key in options.api_keys]
        self._names = {"localhost", options.host, *options.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (fault := self._fault(scope)):
            await fault.response()(scope, receive, send)
            return
        if scope["type"] == "http":
            address = (scope.get("client") or [""])[0]
            scope["state"]["client"] = key_of(Headers(scope=scope)) if self._keys else address
        await self._app(scope, receive, send)

    def _fault(self, scope: Scope) -> Fault | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._options.unix is None and not self._is_ours(host):
            return Fault(403, f"this server is not called {_shown(host)}: --allowed-host would allow it")
        if origin is not None and not self._may_ask(origin, host):
            return Fault(403, f"pages of {_shown(origin)} may not use this server: --cors-origin would allow it")
        if self._keys and not self._is_open(scope) and not self._has_key(headers):
            return Fault(401, "the API key is missing or wrong", code="invalid_api_key")
        return None

    def _is_ours(self, host: str) -> bool:
        parts = HOST.fullmatch(host)
        if parts is None:
            return False
        name = parts[1].strip("[]")
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True  # a rebound name would be a name

    def _may_ask(self, origin: str, host: str) -> bool:
        origins: Sequence[str] = self._options.cors_origins
        return origin in origins or "*" in origins or origin in (f"http://{host}", f"https://{host}")

    def _is_open(self, scope: Scope) -> bool:
        path, method = scope["path"], scope["method"]
        return path in OPEN_PATHS or method == "OPTIONS" or (method == "GET" and path.startswith("/page/"))

    def _has_key(self, headers: Headers) -> bool:
        given = key_of(headers).encode("latin-1")  # as it came
        return any(secrets.compare_digest(given, key) for key in self._keys)


def key_of(headers: Headers) -> str:
    """The API key that a client has sent, or ""."""
    kind, _, bearer = headers.get("authorization", "").partition(" ")
    return bearer.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")


def client_of(request: Request) -> str:
    """Whose request it is: a key's, or where none are asked for, an address's. What else a client says of itself is not
    believed."""
    return str(request.state.client)


def _shown(value: str) -> str:
    return repr(value[:80])
