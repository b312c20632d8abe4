"""The messages of a conversation, as OpenAI's: dicts of role and content."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ..checks import text
from ..errors import InvalidArgument

Message: TypeAlias = Mapping[str, Any]
"""role and content; a content is a text, a list of parts of type text, or None for none. What else it holds is the
chat template's."""

Prompt: TypeAlias = str | Sequence[Message]
"""Text, or messages, a user's among them."""

_TEXT_PARTS = ("text", "input_text", "output_text")


def checked_messages(prompt: Prompt) -> list[dict[str, Any]]:
    """The messages of a prompt, their contents as texts. Raises InvalidArgument."""
    if isinstance(prompt, str):
        if not prompt.strip():
            raise InvalidArgument("prompt must not be empty")
        return [checked_message({"role": "user", "content": prompt})]
    if not isinstance(prompt, Sequence) or not prompt:
        raise InvalidArgument(f"prompt must be a text or a list of messages, not {prompt!r}")
    messages = [checked_message(message) for message in prompt]
    if not any(message["role"] == "user" for message in messages):
        raise InvalidArgument("prompt: one of the messages must be the user's")
    return messages


def checked_message(message: object) -> dict[str, Any]:
    """A message of its own, its content as text, arguments of its calls as texts of JSON. Raises InvalidArgument."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidArgument(f"prompt: a message is a dict of a text role and a content, not {message!r}")
    calls = message.get("tool_calls")
    if "content" not in message and not calls:
        raise InvalidArgument(f"prompt: a message is a dict of a text role and a content, not {message!r}")
    made = {**message, "content": text(_text_of(message.get("content")), "prompt", "surrogateescape")}
    return {**made, "tool_calls": _checked_calls(calls)} if calls else made


def _checked_calls(calls: object) -> list[dict[str, Any]]:
    if not isinstance(calls, list | tuple):
        raise InvalidArgument(f"prompt: tool_calls must be a list of calls, not {calls!r}")
    return [_checked_call(call) for call in calls]


def _checked_call(call: object) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InvalidArgument(
            f"prompt: a call is a dict of id, type and function, and that of name and arguments: {call!r}"
        )
    arguments = function.get("arguments", {})
    try:
        made = json.loads(arguments) if isinstance(arguments, str) else json.loads(json.dumps(arguments))
    except (TypeError, ValueError, RecursionError):
        made = None
    if not isinstance(made, dict):
        raise InvalidArgument(f"prompt: the arguments of a call must be a JSON object, not {arguments!r}")
    given = arguments if isinstance(arguments, str) else json.dumps(made, ensure_ascii=False)
    return {"type": "function", **call, "function": {**function, "arguments": given}}


def _text_of(content: object) -> object:
    if content is None:
        return ""
    if not isinstance(content, list | tuple):
        return content
    for part in content:
        if (
            not isinstance(part, Mapping)
            or part.get("type") not in _TEXT_PARTS
            or not isinstance(part.get("text"), str)
        ):
            raise InvalidArgument(f"prompt: a part of a content is a dict of type text, and its text, not {part!r}")
    return "".join(part["text"] for part in content)
