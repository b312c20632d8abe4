"""Calls of tools, read from what a model wrote: in any white space, and whatever it left out at the end."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from .calls import Call, Family, Form, Tags
from .gemma import read_object

Schemas = Mapping[str, Mapping[str, Any]]
"""Of each tool's parameters, by its name."""
Place = tuple[Any, int]
"""What was read, and where the text goes on."""

MOST_PYTHON = 2**16  # characters that are given to Python's parser
_NAME = re.compile(r"[\w.-]+")
_BETWEEN = re.compile(r"[\s,;]*")
_DECODER = json.JSONDecoder()


class Unread(Exception):
    """The text is not of this form."""


def read_calls(text: str, family: Family, schemas: Schemas) -> tuple[str, list[Call]]:
    """What a reply says beside its calls, and these; all of it and none, where nothing in it can be read as such."""
    for at, form in _openings(text, family):
        try:
            calls, end = _calls(form, text, at, schemas)
        except (Unread, RecursionError):
            continue
        return text[:at] + text[end:].strip(), calls
    return text, []


def _openings(text: str, family: Family) -> list[tuple[int, Form]]:
    """Where calls may begin, the first first."""
    found = []
    for form in family.forms:
        for match in re.finditer(re.escape(form.opens), text):
            if not form.only_first or not text[: match.start()].strip():
                found.append((match.start(), form))
    return sorted(found, key=lambda place: place[0])


def _calls(form: Form, text: str, at: int, schemas: Schemas) -> tuple[list[Call], int]:
    """Raises Unread."""
    at = _past(form.first, text, at)
    if form.arguments == "python":
        return _python_calls(form, text, at, schemas)
    calls: list[Call] = []
    end = at
    while True:
        try:
            call, end = _call(form, text, at, schemas)
        except Unread:
            break
        calls.append(call)
        match = _BETWEEN.match(text, end)
        at = match.end() if match else end
    if not calls:
        raise Unread
    last = _loose(form.last).match(text, end)
    return calls, last.end() if last else end


def _call(form: Form, text: str, at: int, schemas: Schemas) -> tuple[Call, int]:
    if form.keys:
        at = _past(form.head.partition("{")[0], text, at)
        made, at = _json(text, at)
        call = _of_object(made, form.keys)
        return call, _past_or_end(form.tail.rpartition("}")[2], text, at)
    at = _past(form.head, text, at)
    name = _NAME.match(text, at)
    if name is None:
        raise Unread
    at = _past(form.middle, text, name.end())
    if isinstance(form.arguments, Tags):
        made, at = _tagged(form.arguments, text, at, schemas.get(name[0], {}))
    else:
        made, at = read_object(text, at) if form.arguments == "gemma" else _json(text, at)
    if not isinstance(made, dict):
        raise Unread
    return Call(name[0], _as_text(made)), _past_or_end(form.tail, text, at)


def _json(text: str, at: int) -> Place:
    try:
        return _DECODER.raw_decode(text, at)
    except ValueError:
        raise Unread from None


def _of_object(made: object, keys: tuple[str, str]) -> Call:
    if not isinstance(made, dict):
        raise Unread
    name = made.get(keys[0])
    arguments = next((made[key] for key in (keys[1], "arguments", "parameters") if key in made), None)
    if isinstance(arguments, str):
        arguments, _ = _json(arguments, 0)
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise Unread
    return Call(name, _as_text(arguments))


def _as_text(arguments: dict[str, Any]) -> str:
    """Raises Unread for what JSON has no words for."""
    try:
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:  # halves of surrogate pairs
        return json.dumps(arguments)
    except ValueError:
        raise Unread from None
    return text


def _tagged(tags: Tags, text: str, at: int, schema: Mapping[str, Any]) -> Place:
    made: dict[str, Any] = {}
    opening, close = _tag_pattern(tags), tags.close.strip()
    properties = schema.get("properties", {})
    while match := opening.match(text, at):
        end = text.find(close, match.end())
        if end < 0:
            raise Unread
        value = text[match.end() : end]
        if tags.close.startswith("\n"):
            value = value.removesuffix("\n")
        kind = match.groupdict().get("is_text")
        known = properties.get(match["key"])
        made[match["key"]] = _value(value, known if isinstance(known, Mapping) else {}, kind)
        at = end + len(close)
    return made, at


def _value(text: str, schema: Mapping[str, Any], is_text: str | None) -> Any:
    """What its schema says that it is: a text as it stands, all else as JSON."""
    if is_text == "true" or schema.get("type") == "string":
        return text.strip() if text.strip() in schema.get("enum", ()) else text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _python_calls(form: Form, text: str, at: int, schemas: Schemas) -> tuple[list[Call], int]:
    close = text.find(form.last, at)
    end = close if close >= 0 else len(text)
    source = text[at:end].strip().removesuffix("]")
    names = {name.replace("-", "_"): name for name in schemas if "-" in name}  # Python takes these for differences
    for alias, name in names.items():
        source = re.sub(rf"(^|[,)]\s*){re.escape(name)}\(", rf"\1{alias}(", source)
    if len(source) > MOST_PYTHON:
        raise Unread
    try:
        tree = ast.parse(f"[{source}]", mode="eval").body
    except (SyntaxError, ValueError, MemoryError):
        raise Unread from None
    if not isinstance(tree, ast.List) or not tree.elts:
        raise Unread
    return [_python_call(node, names) for node in tree.elts], end + len(form.last) if close >= 0 else end


def _python_call(node: ast.expr, names: Mapping[str, str]) -> Call:
    if not isinstance(node, ast.Call) or node.args or any(word.arg is None for word in node.keywords):
        raise Unread
    made = {str(word.arg): _python_value(word.value) for word in node.keywords}
    name = ast.unparse(node.func)
    return Call(names.get(name, name), _as_text(made))


def _python_value(node: ast.expr) -> Any:
    match node:
        case ast.Name(id="true" | "false" | "null" as word):
            return json.loads(word)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_python_value(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {str(_python_value(key)): _python_value(value) for key, value in pairs if key is not None}
        case ast.Constant(value=str() | int() | float() | bool() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
    raise Unread


def _past(literal: str, text: str, at: int) -> int:
    """Behind a text of the form, in any white space. Raises Unread where it does not stand there."""
    match = _loose(literal).match(text, at)
    if match is None:
        raise Unread
    return match.end()


def _past_or_end(literal: str, text: str, at: int) -> int:
    """The same, but that the text may end before."""
    return _past(literal, text, at) if text[at:].strip() or not literal.strip() else len(text)


@functools.cache
def _loose(literal: str) -> re.Pattern[str]:
    words = [re.escape(word) for word in literal.split()]
    pattern = r"\s*".join(["", *words, ""]) if literal else ""
    pattern = pattern.replace(r"\[", r"\s*\[")
    return re.compile(pattern.replace(r"\{id\}", r"[\w.:-]+").replace(r"\{index\}", r"\d+"))


@functools.cache
def _tag_pattern(tags: Tags) -> re.Pattern[str]:
    """Up to where the value begins, whose white space is its own but for one line break of the form."""
    words = r"\s*".join(map(re.escape, tags.middle.split()))
    words = words.replace(r"\{is_text\}", "(?P<is_text>true|false)")
    line = r"\n?" if tags.middle.endswith("\n") else ""
    return re.compile(rf"\s*{re.escape(tags.open)}(?P<key>[^<>\n]+?){words}{line}")
