"""What a request of OpenAI's responses says, as a chat completion says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .body import Body
from .faults import Fault
from .fields import prompt_of

LOGPROBS = "message.output_text.logprobs"
"""What include calls them."""


def messages_of(body: Body) -> list[Mapping[str, Any]]:
    """Its input. Raises Fault."""
    given = body.get("input")
    if isinstance(given, str):
        return prompt_of(body, "input")
    if not isinstance(given, list) or not given:
        raise Fault(400, "input must be a text, or a list of messages", "input")
    messages: list[dict[str, Any]] = []
    for item in given:
        if not isinstance(item, dict):
            raise Fault(400, "input: each item must be an object", "input")
        match item.get("type", "message"):
            case "message":
                role = "system" if item.get("role") == "developer" else item.get("role")
                messages.append({**({"content": item["content"]} if "content" in item else {}), "role": role})
            case "function_call":
                _add_call(messages, item)
            case "function_call_output":
                output = {"tool_call_id": item.get("call_id"), "content": item.get("output")}
                messages.append({"role": "tool", **output})
            case "reasoning":  # what was thought is not said again
                pass
            case kind:
                raise Fault(400, f"input: items of type {kind!r} are not understood", "input")
    return list(messages)


def _add_call(messages: list[dict[str, Any]], item: Mapping[str, Any]) -> None:
    """Calls that stand behind each other, and behind what was said, are one message."""
    function = {"name": item.get("name"), "arguments": item.get("arguments")}
    call = {"id": item.get("call_id"), "type": "function", "function": function}
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", []).append(call)


def asked_as_chat(body: Body) -> Body:
    """Its other fields. Raises Fault."""
    asked = dict(body.renamed(max_output_tokens="max_tokens"))
    if isinstance(tools := body.get("tools"), list):
        asked["tools"] = [_nested(tool) for tool in tools]
    if "tool_choice" in body:
        asked["tool_choice"] = _nested(body["tool_choice"])
    if "format" in (text := body.object("text")):
        form = text.object("format")
        is_schema = form.get("type") == "json_schema"
        named = {name: value for name, value in form.items() if name != "type"}
        asked["response_format"] = {"type": "json_schema", "json_schema": named} if is_schema else dict(form)
    if "effort" in (reasoning := body.object("reasoning")):
        asked["reasoning_effort"] = reasoning["effort"]
    asked["logprobs"] = LOGPROBS in _included(body)
    if not asked["logprobs"]:
        asked.pop("top_logprobs", None)
    return Body(asked)


def _included(body: Body) -> list[Any]:
    """What is asked for that is not told else. What is not known is ignored, as a field is."""
    included = body.get("include", [])
    if not isinstance(included, list):
        raise Fault(400, "include must be a list", "include")
    return included


def _nested(function: Any) -> Any:
    """A function lies in an object of its own there."""
    if not isinstance(function, dict) or function.get("type") != "function" or "function" in function:
        return function
    return {"type": "function", "function": {name: value for name, value in function.items() if name != "type"}}
