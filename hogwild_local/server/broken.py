"""Faults of ours: the client is told that there is one, and the log which."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .faults import Fault

log = logging.getLogger(__name__)


class Broken:
    """Answers 500 where a route raises what nobody expects, unless it has begun to answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            log.exception("%s %.200r failed", scope["method"], scope["path"])
            if begun:
                raise
            fault = Fault(500, "something went wrong in the server: its log says what")
            await fault.response()(scope, receive, send)
