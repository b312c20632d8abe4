"""What a chat template makes of tools: whether it shows them, how it writes calls, and so how its model does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidArgument
from ..forms.calls import Call, Family
from ..forms.families import FAMILIES
from ..forms.reading import read_calls
from ..forms.writing import written

Apply = Callable[[list[dict[str, Any]], Sequence[Mapping[str, Any]], bool], str | None]
"""What becomes of messages and tools, with an opening of the assistant's turn or without; None: it is refused."""

_USER = {"role": "user", "content": "?"}
_NAME, _ID, _ARGUMENTS = "hogwild_probe", "call12345", {"city": "Rome", "days": 2}
_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "?"}, "days": {"type": "integer", "description": "?"}},
    "required": ["city", "days"],
}
_TOOL = {"type": "function", "function": {"name": _NAME, "description": "?", "parameters": _SCHEMA}}


@dataclass(frozen=True, slots=True)
class ToolTemplate:
    """shows_tools: a prompt has the tools in it. family: of models that write calls as this template does; None: no
    known one. writes_calls: it shows earlier calls; then their arguments are texts of JSON if as_texts, else dicts,
    and no_content is the content of a message that says nothing beside them."""

    shows_tools: bool
    family: Family | None
    writes_calls: bool = False
    as_texts: bool = False
    no_content: str | None = ""

    @classmethod
    def of(cls, apply: Apply, source: str) -> ToolTemplate:
        """By what it writes of a made-up call; where it writes none, by its text."""
        text = apply([_USER], [_TOOL], True)
        shows_tools = text is not None and _NAME in text
        for as_texts in (False, True):
            for no_content in ("", None):
                family = _family_of(_written_calls(apply, as_texts, no_content))
                if family is not None:
                    return cls(shows_tools, family, True, as_texts, no_content)
        marked = (family for family in FAMILIES if any(mark in source for mark in family.marks))
        return cls(shows_tools, next(marked, None))

    def known_family(self) -> Family:
        """Raises InvalidArgument where this model's calls could not be asked for, or read."""
        if not self.shows_tools:
            raise InvalidArgument(
                "tools: this model's chat template has no place for them: it was not trained to call any"
            )
        if self.family is None:
            raise InvalidArgument(
                "tools: how this model writes calls is not known, by its chat template (docs/models.md has what is); "
                "response_format can ask for JSON of a schema instead"
            )
        return self.family

    def arranged(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The messages with earlier calls as the template wants them, and results with the names of their tools. Raises
        InvalidArgument where it shows no calls."""
        names: dict[object, str] = {}
        made = []
        for message in map(dict, messages):
            if calls := message.get("tool_calls"):
                names |= {call.get("id"): call["function"]["name"] for call in calls}
                message = self._with_calls(message, calls)
            elif message["role"] == "tool" and "name" not in message and message.get("tool_call_id") in names:
                message["name"] = names[message["tool_call_id"]]
            made.append(message)
        return made

    def _with_calls(self, message: dict[str, Any], calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if self.family is None:
            raise InvalidArgument("prompt: this model's chat template has no place for calls of tools (tool_calls)")
        content = message["content"] or self.no_content
        if not self.writes_calls:
            texts = [Call(call["function"]["name"], call["function"]["arguments"]) for call in calls]
            del message["tool_calls"]
            return {**message, "content": (content or "") + written(self.family, texts)}
        return {**message, "content": content, "tool_calls": [_call(call, self.as_texts) for call in calls]}


def _call(call: Mapping[str, Any], as_text: bool) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"] if as_text else json.loads(function["arguments"])
    return {**call, "function": {**function, "arguments": arguments}}


def _written_calls(apply: Apply, as_texts: bool, no_content: str | None) -> list[str]:
    """What the template writes of a call, behind what it writes without it, and behind an opening of the turn too."""
    function = {"name": _NAME, "arguments": json.dumps(_ARGUMENTS) if as_texts else _ARGUMENTS}
    calls = [{"id": _ID, "type": "function", "function": function}]
    messages: list[dict[str, Any]] = [
        _USER,
        {"role": "assistant", "content": no_content, "tool_calls": calls},
        {"role": "tool", "tool_call_id": _ID, "name": _NAME, "content": "!"},
    ]
    with_call = apply(messages, [_TOOL], False) or apply(messages[:2], [_TOOL], False)
    if with_call is None:
        return []
    found = []
    for opens in (False, True):
        before = apply([_USER], [_TOOL], opens)
        if before is not None:
            n = next((i for i, (a, b) in enumerate(zip(before, with_call, strict=False)) if a != b), len(before))
            found.append(with_call[n:])
    return found


def _family_of(texts: Sequence[str]) -> Family | None:
    for text in texts:
        for family in FAMILIES:
            _, calls = read_calls(text, family, {_NAME: _SCHEMA})
            if [(call.name, json.loads(call.arguments)) for call in calls] == [(_NAME, _ARGUMENTS)]:
                return family
    return None
