"""Gemma's own way of writing objects: {city:<|"|>Rome<|"|>,days:2}."""

from __future__ import annotations

import re
from typing import Any

from .rules import Rules, literal

QUOTE = '<|"|>'
_SPACE = re.compile(r"\s*")
_KEY = re.compile(r"\s*([^:{},\s]+)\s*:")
_PLAIN = re.compile(r"\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null)")
_WORDS = {"true": True, "false": False, "null": None}


def read_object(text: str, at: int) -> tuple[dict[str, Any] | None, int]:
    """The object that begins there, and where the text goes on; None: there is none."""
    try:
        value, end = _value(text, at)
    except ValueError:
        return None, at
    return (value, end) if isinstance(value, dict) else (None, at)


def _value(text: str, at: int) -> tuple[Any, int]:
    """Raises ValueError."""
    at = _next(text, at)
    if text.startswith(QUOTE, at):
        end = text.index(QUOTE, at + len(QUOTE))
        return text[at + len(QUOTE) : end], end + len(QUOTE)
    if text.startswith(("{", "["), at):
        return _items(text, at)
    match = _PLAIN.match(text, at)
    if match is None:
        raise ValueError("no value")
    word = match[1]
    return (_WORDS[word] if word in _WORDS else float(word) if re.search("[.eE]", word) else int(word)), match.end()


def _items(text: str, at: int) -> tuple[Any, int]:
    close = "}" if text[at] == "{" else "]"
    pairs: dict[str, Any] = {}
    values: list[Any] = []
    at = _next(text, at + 1)
    while not text.startswith(close, at):
        if close == "}":
            key = _KEY.match(text, at)
            if key is None:
                raise ValueError("no key")
            pairs[key[1]], at = _value(text, key.end())
        else:
            value, at = _value(text, at)
            values.append(value)
        at = _next(text, at)
        if text.startswith(",", at):
            at = _next(text, at + 1)
        elif not text.startswith(close, at):
            raise ValueError("no end")
    return (pairs if close == "}" else values), at + 1


def _next(text: str, at: int) -> int:
    """Where white space ends."""
    match = _SPACE.match(text, at)
    return match.end() if match else at


def object_rule(rules: Rules) -> str:
    """The name of a rule for any such object: which keys it has, it does not hold."""
    rest = rules.until(QUOTE, "gemma-text")
    number = rules.schema({"type": ["number", "boolean", "null"]}, "gemma-plain")
    rules.add("gemma-key", "[a-zA-Z_] [a-zA-Z0-9_-]*")
    rules.add("gemma-value", f"{literal(QUOTE)} {rest} | gemma-object | gemma-list | {number}")
    rules.add("gemma-list", '"[" (gemma-value ("," gemma-value)*)? "]"')
    rules.add("gemma-pair", 'gemma-key ":" gemma-value')
    return rules.add("gemma-object", '"{" (gemma-pair ("," gemma-pair)*)? "}"')
