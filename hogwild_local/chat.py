"""A conversation: its messages, and runs that go on from them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import events as ev
from .checks import flag, whole
from .errors import Busy, InvalidArgument
from .prompts.messages import Message, checked_message
from .workers.result import Collector, Result
from .workers.run import Run

Start = Callable[[Sequence[Message], Mapping[str, Any], Callable[[ev.Event], None]], Run]
"""Makes a run of messages and options, whose events it tells."""


class Chat:
    """Turns of a user and of an assistant that thinks with several workers; made by Hogwild.chat().

        chat = hw.chat(system="Be brief.", workers=3)
        for event in chat.send("What is 6*7?"): ...
        print(chat.messages[-1]["content"])

    send(), regenerate() and edit() return the Run of a turn, and take the options of stream() for that turn. Its
    messages become part of the conversation when it has replied, also where it was cancelled in its reply; a turn that
    is left before changes nothing. Only what is new of a conversation is computed, whichever branch it is on: what was
    computed stays in the cache as long as there is room.

    Raises Busy for a turn while another one goes on.
    """

    def __init__(
        self, start: Start, messages: Sequence[Message], options: Mapping[str, Any], keep_thoughts: bool
    ) -> None:
        self._start, self._options = start, dict(options)
        self._messages = [checked_message(message) for message in messages]
        self._keep_thoughts = flag(keep_thoughts, "keep_thoughts")
        self._run: Callable[[], Run | None] = lambda: None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """A copy of all messages so far, as dicts of role and content. With keep_thoughts the assistant's have their
        thoughts as reasoning_content, which a chat template may show the model or not."""
        return [dict(message) for message in self._messages]

    def send(self, message: str | Message | Sequence[Message], **options: Any) -> Run:
        """The user's next message; or the result of a tool that the last reply called, a dict of role "tool",
        tool_call_id and content, or a list of several. Raises Busy, Closed, InvalidArgument."""
        given = [message] if isinstance(message, str | Mapping) else list(message)
        if not given:
            raise InvalidArgument("there is no message in the list")
        return self._turn([*self._messages, *map(self._checked, given)], options)

    def regenerate(self, **options: Any) -> Run:
        """The last turn again. Raises InvalidArgument if there is none."""
        return self._turn(self._messages[: self._last_said("user", "tool") + 1], options)

    def edit(self, index: int, message: str | Message, **options: Any) -> Run:
        """Says something else in place of messages[index], the user's: what came after it goes. Raises
        InvalidArgument if it is not the user's."""
        at = whole(index, "index", 0, max(0, len(self._messages) - 1))
        if at >= len(self._messages) or self._messages[at]["role"] != "user":
            raise InvalidArgument(f"index: messages[{index}] is not the user's, and only these can be said anew")
        return self._turn([*self._messages[:at], _of_user(message)], options)

    def fork(self, n: int | None = None) -> Chat:
        """Another conversation, which begins with the first n messages of this one, or all of them."""
        at = len(self._messages) if n is None else whole(n, "n", 0, len(self._messages))
        return Chat(self._start, self._messages[:at], self._options, self._keep_thoughts)

    def _checked(self, message: str | Message) -> dict[str, Any]:
        """Raises InvalidArgument, also for the result of a tool that was not called."""
        if isinstance(message, str) or message.get("role") != "tool":
            return _of_user(message)
        called = [call.get("id") for each in self._messages for call in each.get("tool_calls", ())]
        if message.get("tool_call_id") not in called:
            raise InvalidArgument(
                f"tool_call_id is {message.get('tool_call_id')!r}: that is no call of this conversation "
                f"(calls: {', '.join(map(str, called)) or 'none'})"
            )
        return checked_message(message)

    def _last_said(self, *roles: str) -> int:
        found = [at for at, message in enumerate(self._messages) if message["role"] in roles]
        if not found:
            raise InvalidArgument("there is no message of the user's yet")
        return found[-1]

    def _turn(self, messages: list[dict[str, Any]], options: Mapping[str, Any]) -> Run:
        running = self._run()
        if running is not None and not running.done:
            raise Busy("this conversation is in the middle of a turn: finish it, cancel or close it")
        collector = Collector()

        def told(event: ev.Event) -> None:
            collector.take(event)
            if isinstance(event, ev.RunEnded):
                self._end(messages, collector.result())

        run = self._start(messages, {**self._options, **options}, told)
        self._run = weakref.ref(run)  # which knows this conversation: a run that is dropped ends at once
        return run

    def _end(self, messages: list[dict[str, Any]], result: Result) -> None:
        message = result.transcript.message
        if message is not None:
            thoughts = {"reasoning_content": result.history} if self._keep_thoughts else {}
            self._messages = [*messages, {**message, **thoughts}]


def _of_user(message: str | Message) -> dict[str, Any]:
    """Raises InvalidArgument."""
    made = checked_message({"role": "user", "content": message} if isinstance(message, str) else message)
    if not made["content"].strip():
        raise InvalidArgument("the message must not be empty")
    return made
