"""The page: its files, and what of a text it shows as HTML."""

from __future__ import annotations

import asyncio
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..options import ServerOptions
from .body import body_of
from .faults import Fault
from .rendering import all_rendered

MOST_TEXTS = 200
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class Page:
    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._rendering = asyncio.Lock()
        """Runs share the processor with one request of these at a time."""
        self._files = {part.name: part.read_bytes() for part in (files(__package__) / "page").iterdir()}

    async def index(self, request: Request) -> Response:
        return self._file("index.html")

    async def part(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            raise Fault(404, "there is no such file", "name")
        return self._file(name)

    async def render(self, request: Request) -> Response:
        """texts as HTML that is safe to show."""
        texts = (await body_of(request, self._options)).get("texts")
        if not isinstance(texts, list) or len(texts) > MOST_TEXTS or not all(isinstance(text, str) for text in texts):
            raise Fault(400, f"texts must be a list of at most {MOST_TEXTS} texts", "texts")
        async with self._rendering:
            return JSONResponse({"html": await asyncio.to_thread(all_rendered, texts)})

    def _file(self, name: str) -> Response:
        headers = {
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }
        return Response(self._files[name], media_type=KINDS[name.rsplit(".", 1)[1]], headers=headers)
