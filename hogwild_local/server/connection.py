"""One connection: uvicorn waits for whoever sends half a request, or takes nothing of what he is sent; here it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SLACK_S = 2.0
"""A body that does not come is answered by who reads it, if it is read at all."""


class Connection(H11Protocol):
    """patience: seconds that a client has for a request, and for taking any of what waits for it."""

    def __init__(self, patience: float, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._patience = patience
        self._unsent: asyncio.TimerHandle | None = None
        self._untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_awaiting_taking()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_awaiting_request()
        self._stop_awaiting_taking()

    def _await_request(self) -> None:
        """Between two requests uvicorn has a time of its own."""
        is_in_head = self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None
        if not is_in_head and self.conn.their_state is not h11.SEND_BODY:
            self._stop_awaiting_request()
        elif self._unsent is None and not self.transport.is_closing():
            self._unsent = self.loop.call_later(self._patience + SLACK_S, self._give_up)

    def _give_up(self) -> None:
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self.send_400_response("The request was not complete in time.")
        else:
            self.transport.abort()

    def _await_taking(self, before: int | None = None) -> None:
        """before: bytes that waited when it was looked last."""
        n = self.transport.get_write_buffer_size()
        if before is not None and n >= before:
            self.transport.abort()
        else:
            self._untaken = self.loop.call_later(self._patience, self._await_taking, n)

    def _stop_awaiting_request(self) -> None:
        if self._unsent is not None:
            self._unsent.cancel()
            self._unsent = None

    def _stop_awaiting_taking(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None
