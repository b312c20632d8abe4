"""Which conversations there are, and which of them are in memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from ..chat import Chat
from .chat_files import ChatFiles, ChatHead, Messages
from .faults import Fault
from .sizes import Sizes

MOST_OPEN = 256
MOST_CHARACTERS = 1 << 26
"""Of the messages of all that are in memory."""


class ChatShelf:
    """Those that were used last are open: all of them is in memory. Of the others that is what a list shows, and the
    rest is on disk; without a folder there are no others, and what was not used for the longest time is forgotten.
    is_busy: whether a conversation, by name, is in a turn: such ones stay open. For one event loop.

    .heads are those of all, by name. Those on disk are there again when the server starts."""

    def __init__(self, files: ChatFiles, is_busy: Callable[[str], bool]) -> None:
        self.heads = {head.id: head for head in files.heads()}
        self._files, self._is_busy = files, is_busy
        self._open: OrderedDict[str, Chat] = OrderedDict()
        self._sizes = Sizes()  # of those
        self._disk = asyncio.Lock()
        """Reads and writes are made in their order, and none after a deletion."""
        self._writes: set[asyncio.Task[None]] = set()

    async def put(self, head: ChatHead, chat: Chat) -> None:
        """A new one."""
        self.heads[head.id] = head
        self._use(head.id, chat)
        await self.save(head, chat.messages)

    async def chat(self, head: ChatHead, make: Callable[[Messages], Chat]) -> Chat:
        """It is open then; make: of its messages. Raises Fault, and what make raises."""
        if head.id not in self._open:
            made = make(await self._read(head))
            self._check_there(head)
            if head.id not in self._open:  # or somebody else was faster
                self._use(head.id, made)
        self._open.move_to_end(head.id)
        return self._open[head.id]

    async def messages(self, head: ChatHead) -> Messages:
        """Raises Fault."""
        chat = self._open.get(head.id)
        return await self._read(head) if chat is None else chat.messages

    def changed(self, head: ChatHead, chat: Chat) -> None:
        """chat has other messages now; they are on disk soon."""
        if head.id in self.heads:
            self._use(head.id, chat)
            write = asyncio.create_task(self.save(head, chat.messages))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)

    async def save(self, head: ChatHead, messages: Messages) -> None:
        head.n_messages = len(messages)
        async with self._disk:
            if head.id in self.heads:
                await asyncio.to_thread(self._files.save, head, messages)

    async def delete(self, name: str) -> None:
        self._forget(name)
        async with self._disk:
            await asyncio.to_thread(self._files.delete, name)

    async def written(self) -> None:
        """Waits until all is on disk."""
        await asyncio.gather(*self._writes, return_exceptions=True)

    async def _read(self, head: ChatHead) -> Messages:
        async with self._disk:
            self._check_there(head)
            try:
                return await asyncio.to_thread(self._files.messages, head.id)
            except (OSError, ValueError, TypeError):
                raise Fault(404, "the file of this conversation is gone or damaged", "chat") from None

    def _check_there(self, head: ChatHead) -> None:
        if head.id not in self.heads:
            raise Fault(404, "this conversation was deleted", "chat")

    def _use(self, name: str, chat: Chat) -> None:
        """It is open, and used last; others are closed for it."""
        self._open[name] = chat
        self._open.move_to_end(name)
        self._sizes.note(name, chat.messages)
        for other in list(self._open)[:-1]:
            if len(self._open) <= MOST_OPEN and self._sizes.total <= MOST_CHARACTERS:
                break
            if not self._is_busy(other):
                self._close(other)

    def _close(self, name: str) -> None:
        if self._files.folder is None:
            self._forget(name)
        else:
            del self._open[name]
            self._sizes.forget(name)

    def _forget(self, name: str) -> None:
        del self.heads[name]
        self._open.pop(name, None)
        self._sizes.forget(name)
