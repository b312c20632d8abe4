"""Clients that go before they have what they asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")


class Gone(Exception):
    """The client has gone."""


async def unless_gone(receive: Receive, asked: Coroutine[Any, Any, T]) -> T:
    """What is asked for, which ends where the client goes first: Gone is raised then. In tasks of asyncio: starlette's
    are anyio's, whose errors refer to themselves, and so keep a run and its stream until cycles are collected."""
    asking, gone = asyncio.create_task(asked), asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait([asking, gone], return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise Gone
        return asking.result()
    finally:
        asking.cancel()
        gone.cancel()
        await asyncio.wait([asking, gone])


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
