"""Conversations that the server keeps: their turns are runs, and each branch is a conversation of its own."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import asdict
from time import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..chat import Chat
from ..errors import HogwildError
from ..options import RunOptions, default_of
from ..workers.run import Run
from .body import Body, body_of
from .chat_files import ChatFiles, SavedChat
from .faults import Fault, fault_of
from .fields import messages_of, run_options, workers_of
from .guard import client_of
from .live import LiveRun, Turn
from .runs import Runs, state_of
from .service import Service, new_name

TITLE_LENGTH = 60


class Chats:
    """Those on disk are there again when the server starts."""

    def __init__(self, service: Service, runs: Runs, files: ChatFiles) -> None:
        self._service, self._runs, self._files = service, runs, files
        self._saved = {chat.id: chat for chat in files.all()}
        self._chats: dict[str, Chat] = {}
        """Of those that were used since."""
        self._disk = asyncio.Lock()
        """Writes are made in their order, and none after a deletion."""
        self._writes: set[asyncio.Task[None]] = set()

    async def create(self, request: Request) -> Response:
        """With what was said before (messages, system), and options for all its turns."""
        body = await self._body(request)
        messages = body.get("messages", [])
        if not isinstance(messages, list):
            raise Fault(400, "messages must be a list", "messages")
        if system := body.text("system"):
            messages = [{"role": "system", "content": system}, *messages]
        options = run_options(body, self._service.hogwild.sampling)
        del options["sampling"]  # a turn says it
        chat = SavedChat(new_name("chat"), self._owner(request), options=options, title=body.text("title"))
        await self._keep(chat, self._made(chat, messages))
        return JSONResponse(_whole(chat), 201, {"Location": f"/v1/chats/{chat.id}"})

    async def all(self, request: Request) -> Response:
        """The latest first, without their messages."""
        owner = self._owner(request)
        mine = [chat for chat in reversed(self._saved.values()) if chat.owner == owner]  # also within a second
        mine.sort(key=lambda chat: chat.updated, reverse=True)
        return JSONResponse({"object": "list", "data": [_head(chat) for chat in mine]})

    async def one(self, request: Request) -> Response:
        return JSONResponse(_whole(self._of(request)))

    async def delete(self, request: Request) -> Response:
        """Ends its turn, if it is in one."""
        chat = self._of(request)
        self._chats.pop(chat.id, None)
        del self._saved[chat.id]
        for live in self._service.live.values():
            if live.turn is not None and live.turn.chat == chat.id:
                live.cancel()
        async with self._disk:
            await asyncio.to_thread(self._files.delete, chat.id)
        return Response(status_code=204)

    async def rename(self, request: Request) -> Response:
        chat, body = self._of(request), await self._body(request)
        chat.title = body.text("title", chat.title)
        await self._write(chat)
        return JSONResponse(_whole(chat))

    async def send(self, request: Request) -> Response:
        """The user's next message: content; or messages, such as the results of tools."""
        saved, body = self._of(request), await self._body(request)
        saved.title = saved.title or body.text("content").strip()[:TITLE_LENGTH]
        said = messages_of(body) if "messages" in body else body.text("content")
        turn = Turn(saved.id, len(saved.messages), body.text("content"))
        return await self._turn(request, saved, body, turn, lambda chat, options: chat.send(said, **options))

    async def regenerate(self, request: Request) -> Response:
        """The last turn again."""
        saved, body = self._of(request), await self._body(request)
        of_user = [index for index, message in enumerate(saved.messages) if message["role"] == "user"]
        index = of_user[-1] if of_user else 0  # where there is none the conversation says so
        content = saved.messages[index]["content"] if of_user else ""
        turn = Turn(saved.id, index, content)
        return await self._turn(request, saved, body, turn, lambda chat, options: chat.regenerate(**options))

    async def edit(self, request: Request) -> Response:
        """Another content for messages[index], the user's; what came after it goes."""
        saved, body = self._of(request), await self._body(request)
        index, content = body.get("index", -1), body.text("content")
        turn = Turn(saved.id, index, content)
        return await self._turn(request, saved, body, turn, lambda chat, options: chat.edit(index, content, **options))

    async def fork(self, request: Request) -> Response:
        """A conversation of its own with the first n messages, or all."""
        saved, body = self._of(request), await self._body(request)
        try:
            branch = self._chat(saved).fork(body.get("n"))
        except HogwildError as error:
            raise fault_of(error) from error
        title = body.text("title", saved.title)
        chat = SavedChat(new_name("chat"), saved.owner, title, parent=saved.id, options=dict(saved.options))
        await self._keep(chat, branch)
        return JSONResponse(_whole(chat), 201, {"Location": f"/v1/chats/{chat.id}"})

    async def _turn(
        self, request: Request, saved: SavedChat, body: Body, turn: Turn, make: Callable[[Chat, dict[str, Any]], Run]
    ) -> Response:
        options = run_options(body, self._service.hogwild.sampling)
        live = await self._runs.begin(lambda: make(self._chat(saved), options), client_of(request), turn)
        live.when_done(lambda live: self._note_turn(saved, live))
        return JSONResponse(state_of(live), 201, {"Location": f"/v1/runs/{live.name}"})

    def _note_turn(self, saved: SavedChat, live: LiveRun) -> None:
        if saved.id in self._saved:
            saved.messages, saved.updated = self._chats[saved.id].messages, int(time())
            write = asyncio.create_task(self._write(saved))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)

    async def written(self) -> None:
        """Waits until all is on disk."""
        await asyncio.gather(*self._writes, return_exceptions=True)

    async def _write(self, saved: SavedChat) -> None:
        async with self._disk:
            if saved.id in self._saved:
                await asyncio.to_thread(self._files.save, saved)

    def _chat(self, saved: SavedChat) -> Chat:
        if saved.id not in self._chats:
            self._chats[saved.id] = self._made(saved, saved.messages)
        return self._chats[saved.id]

    def _made(self, saved: SavedChat, messages: list[dict[str, Any]]) -> Chat:
        try:
            options = {**self._service.defaults, **saved.options}
            options["workers"] = workers_of(
                options.get("workers", default_of(RunOptions, "workers")), self._service.hogwild.sampling
            )
            return self._service.hogwild.chat(messages=messages, keep_thoughts=True, **options)
        except HogwildError as error:
            raise fault_of(error) from error

    async def _keep(self, saved: SavedChat, chat: Chat) -> None:
        saved.messages = chat.messages
        self._saved[saved.id], self._chats[saved.id] = saved, chat
        await self._write(saved)

    async def _body(self, request: Request) -> Body:
        return await body_of(request, self._service.options)

    def _owner(self, request: Request) -> str:
        """Of a key nothing is written down but its hash."""
        if not self._service.options.api_keys:
            return ""
        return hashlib.sha256(client_of(request).encode()).hexdigest()[:16]

    def _of(self, request: Request) -> SavedChat:
        assert self._service.hogwild
        chat = self._saved.get(request.path_params["chat"])
        if chat is None or chat.owner != self._owner(request):
            raise Fault(404, "there is no such conversation", "chat")
        return chat


def _head(chat: SavedChat) -> dict[str, Any]:
    fields = asdict(chat)
    del fields["owner"], fields["messages"]
    return {**fields, "object": "chat", "n_messages": len(chat.messages)}


def _whole(chat: SavedChat) -> dict[str, Any]:
    return {**_head(chat), "messages": chat.messages}
