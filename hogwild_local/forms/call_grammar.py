"""The grammar that holds calls of tools to the tools that there are, and to their parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import InvalidArgument
from .calls import Family, Form, Tags
from .gemma import object_rule
from .reading import Schemas
from .rules import Rules, literal

_GAP = "[ \\t\\n]{0,8}"
"""Where a form has line breaks: models write more or less white space there."""


class Grammar(NamedTuple):
    """GBNF. triggers: it holds what is written from the first of these on; none: from the start."""

    text: str
    triggers: tuple[str, ...] = ()


def grammar_of_calls(family: Family, schemas: Schemas, parallel: bool, waits: bool) -> Grammar:
    """waits: the reply may say what it likes until it begins a call. Raises InvalidArgument, which names the tool."""
    rules = Rules()
    forms = family.forms if waits else family.forms[:1]
    root = " | ".join(_calls(rules, form, schemas, parallel) for form in forms)
    triggers = [f"{form.opens}{name}" if form.only_first else form.opens for form in forms for name in schemas]
    return Grammar(rules.text(root), tuple(dict.fromkeys(triggers)) if waits else ())


def _calls(rules: Rules, form: Form, schemas: Schemas, parallel: bool) -> str:
    names = [_call(rules, form, name, schema) for name, schema in schemas.items()]
    call = rules.add("call", " | ".join(names))
    more = f"({_literal(form.between)} {call})*" if parallel else ""
    return " ".join([_literal(form.first), call, more, _literal(form.last)])


def _call(rules: Rules, form: Form, name: str, schema: Mapping[str, Any]) -> str:
    try:
        arguments = _arguments(rules, form, name, schema)
    except InvalidArgument as error:
        raise InvalidArgument(f"tools: the parameters of {name}: {error}") from error
    before, behind = _literal(f"{form.head}{name}{form.middle}"), _literal(form.tail)
    return rules.add(f"call-{name}", f"{before} {arguments} {behind}")


def _arguments(rules: Rules, form: Form, name: str, schema: Mapping[str, Any]) -> str:
    if form.arguments == "json":
        return rules.schema({"type": "object", "properties": {}, **schema}, f"arguments-{name}")
    if form.arguments == "gemma":
        return object_rule(rules)
    return _one_by_one(rules, form.arguments, name, schema)


def _one_by_one(rules: Rules, written: Tags | str, name: str, schema: Mapping[str, Any]) -> str:
    """Those that are required, in their order, and then any of the others."""
    known = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    of_key = {
        key: _argument(rules, written, f"argument-{name}-{key}", key, {**known, **value})
        for key, value in schema.get("properties", {}).items()
        if isinstance(value, Mapping)
    }
    required = [of_key[key] for key in of_key if key in schema.get("required", ())]
    others = [of_key[key] for key in of_key if key not in schema.get("required", ())]
    comma = "" if isinstance(written, Tags) else literal(", ")
    needed = f" {comma} ".join(required)
    if not others:
        return needed
    other = rules.add(f"other-{name}", " | ".join(others))
    return f"{needed} ({comma} {other})*" if required else f"({other} ({comma} {other})*)?"


def _argument(rules: Rules, written: Tags | str, rule: str, key: str, schema: Mapping[str, Any]) -> str:
    if not isinstance(written, Tags):
        return rules.add(rule, f'{literal(key)} "=" {rules.schema(schema, f"{rule}-value")}')
    is_text = schema.get("type") == "string"
    before = f"{written.open}{key}{written.middle}".replace("{is_text}", str(is_text).lower())
    texts = schema.get("enum", ())
    if is_text and texts and all(isinstance(text, str) for text in texts):
        value = f"({' | '.join(map(literal, texts))}) {_literal(written.close)}"
    elif is_text:
        end = written.close.strip()
        value = f"{rules.until(end, f'{rule}-text')} {_literal(written.close.partition(end)[2])}"
    else:
        value = f"{rules.schema(schema, f'{rule}-value')} {_literal(written.close)}"
    return rules.add(rule, f"{_literal(before)} {value}")


def _literal(text: str) -> str:
    """A text of a form: any white space where it has line breaks, and what stands for identifiers."""
    pieces = []
    for piece in re.split(r"([ \n]*\n[ \n]*|\{id\}|\{index\})", text):
        if piece == "{id}":
            pieces.append("[a-zA-Z0-9]{9}")
        elif piece == "{index}":
            pieces.append("[0-9]{1,3}")
        elif piece:
            pieces.append(_GAP if piece.isspace() else literal(piece))
    return " ".join(pieces)
