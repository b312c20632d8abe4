"""Conversations that the server keeps: their turns are runs, and each branch is a conversation of its own."""

from __future__ import annotations

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
from .chat_files import ChatFiles, ChatHead, Messages
from .chat_shelf import ChatShelf
from .faults import Fault, fault_of
from .fields import messages_of, workers_of
from .guard import client_of
from .live import LiveRun, Turn
from .runs import Runs, state_of
from .service import Service, new_name

TITLE_LENGTH = 60


class Chats:
    """Those on disk are there again when the server starts."""

    def __init__(self, service: Service, runs: Runs, files: ChatFiles) -> None:
        self._service, self._runs = service, runs
        self._shelf = ChatShelf(files, lambda name: bool(self._turns(name)))

    async def create(self, request: Request) -> Response:
        """With what was said before (messages, system), and options for all its turns."""
        body = await self._body(request)
        messages = body.get("messages", [])
        if not isinstance(messages, list):
            raise Fault(400, "messages must be a list", "messages")
        if system := body.text("system"):
            messages = [{"role": "system", "content": system}, *messages]
        options = self._service.options_of(body)
        del options["sampling"]  # a turn says it
        head = ChatHead(new_name("chat"), self._owner(request), options=options, title=body.text("title"))
        await self._shelf.put(head, self._made(head, messages))
        return await self._answer(head, 201, {"Location": f"/v1/chats/{head.id}"})

    async def all(self, request: Request) -> Response:
        """The latest first, without their messages."""
        owner = self._owner(request)
        mine = [head for head in reversed(self._shelf.heads.values()) if head.owner == owner]  # also within a second
        mine.sort(key=lambda head: head.updated, reverse=True)
        return JSONResponse({"object": "list", "data": [_shown(head) for head in mine]})

    async def one(self, request: Request) -> Response:
        return await self._answer(self._of(request))

    async def delete(self, request: Request) -> Response:
        """Ends its turn, if it is in one."""
        head = self._of(request)
        for live in self._turns(head.id):
            live.cancel()
        await self._shelf.delete(head.id)
        return Response(status_code=204)

    async def rename(self, request: Request) -> Response:
        head, body = self._of(request), await self._body(request)
        title, messages = body.text("title", head.title), await self._shelf.messages(head)
        head.title = title
        await self._shelf.save(head, messages)
        return await self._answer(head)

    async def send(self, request: Request) -> Response:
        """The user's next message: content; or messages, such as the results of tools."""
        head, body = self._of(request), await self._body(request)
        said = messages_of(body) if "messages" in body else body.text("content")
        chat = await self._chat(head)
        head.title = head.title or body.text("content").strip()[:TITLE_LENGTH]
        turn = Turn(head.id, len(chat.messages), body.text("content"))
        return await self._turn(request, head, chat, body, turn, lambda options: chat.send(said, **options))

    async def regenerate(self, request: Request) -> Response:
        """The last turn again."""
        head, body = self._of(request), await self._body(request)
        chat = await self._chat(head)
        of_user = [(at, message["content"]) for at, message in enumerate(chat.messages) if message["role"] == "user"]
        index, content = of_user[-1] if of_user else (0, "")  # where there is none the conversation says so
        turn = Turn(head.id, index, content)
        return await self._turn(request, head, chat, body, turn, lambda options: chat.regenerate(**options))

    async def edit(self, request: Request) -> Response:
        """Another content for messages[index], the user's; what came after it goes."""
        head, body = self._of(request), await self._body(request)
        index, content = body.get("index", -1), body.text("content")
        chat, turn = await self._chat(head), Turn(head.id, index, content)
        return await self._turn(request, head, chat, body, turn, lambda options: chat.edit(index, content, **options))

    async def fork(self, request: Request) -> Response:
        """A conversation of its own with the first n messages, or all."""
        head, body = self._of(request), await self._body(request)
        try:
            branch = (await self._chat(head)).fork(body.get("n"))
        except HogwildError as error:
            raise fault_of(error) from error
        title = body.text("title", head.title)
        made = ChatHead(new_name("chat"), head.owner, title, parent=head.id, options=dict(head.options))
        await self._shelf.put(made, branch)
        return await self._answer(made, 201, {"Location": f"/v1/chats/{made.id}"})

    async def written(self) -> None:
        """Waits until all is on disk."""
        await self._shelf.written()

    async def _turn(
        self,
        request: Request,
        head: ChatHead,
        chat: Chat,
        body: Body,
        turn: Turn,
        make: Callable[[dict[str, Any]], Run],
    ) -> Response:
        options = self._service.options_of(body)
        live = await self._runs.begin(lambda: make(options), client_of(request), turn)
        live.when_done(lambda live: self._note_turn(head, chat))
        return JSONResponse(state_of(live), 201, {"Location": f"/v1/runs/{live.name}"})

    def _note_turn(self, head: ChatHead, chat: Chat) -> None:
        head.updated = int(time())
        self._shelf.changed(head, chat)

    def _turns(self, name: str) -> list[LiveRun]:
        return [live for live in self._service.live.values() if live.turn is not None and live.turn.chat == name]

    async def _chat(self, head: ChatHead) -> Chat:
        return await self._shelf.chat(head, lambda messages: self._made(head, messages))

    def _made(self, head: ChatHead, messages: Messages) -> Chat:
        try:
            options = {**self._service.defaults, **head.options}
            options["workers"] = workers_of(
                options.get("workers", default_of(RunOptions, "workers")), self._service.hogwild.sampling
            )
            return self._service.hogwild.chat(messages=messages, keep_thoughts=True, **options)
        except HogwildError as error:
            raise fault_of(error) from error

    async def _answer(self, head: ChatHead, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        return JSONResponse({**_shown(head), "messages": await self._shelf.messages(head)}, status, headers)

    async def _body(self, request: Request) -> Body:
        return await body_of(request, self._service.options)

    def _owner(self, request: Request) -> str:
        """Of a key nothing is written down but its hash."""
        if not self._service.options.api_keys:
            return ""
        return hashlib.sha256(client_of(request).encode()).hexdigest()[:16]

    def _of(self, request: Request) -> ChatHead:
        assert self._service.hogwild
        head = self._shelf.heads.get(request.path_params["chat"])
        if head is None or head.owner != self._owner(request):
            raise Fault(404, "there is no such conversation", "chat")
        return head


def _shown(head: ChatHead) -> dict[str, Any]:
    fields = asdict(head)
    del fields["owner"]
    return {**fields, "object": "chat"}
