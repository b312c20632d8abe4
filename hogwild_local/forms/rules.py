"""Rules of a grammar (GBNF), and JSON schemas as such, by llama-cpp-python's converter where that is right.

Its file is loaded as a module of our own, so that what is corrected here is nobody else's, and no library is loaded.
What it does not know of a schema (minimum, not, format "email", ...) is not held.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import InvalidArgument

MOST_TIMES = 2000
"""Repeats in a grammar, as in llama.cpp."""
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
_CHARACTER = r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})'
_CHOICES = ("enum", "anyOf", "oneOf", "prefixItems")
_CLASSES = {r"\d": "0-9", r"\w": "a-zA-Z0-9_", r"\s": " "}
_NUMBER = '("-"? integral-part) ("." decimal-part)? ([eE] [-+]? [0-9]{1,2})? space'  # that no float is too small for
_DOT = r'[^"\\\x7F\x00-\x1F]'


class Rules:
    """Rules by name, of any number of schemas."""

    def __init__(self) -> None:
        self._converter = _own_converter()(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)

    def schema(self, schema: object, name: str) -> str:
        """The name of a rule for JSON of this schema. Raises InvalidArgument, which says what is wrong with it."""
        try:
            own = json.loads(json.dumps(schema))  # the converter changes it
            _check(own)
            if isinstance(own, dict) and isinstance(own.get("$ref"), str):  # beside which the converter reads nothing
                own["anyOf"] = [{"$ref": own.pop("$ref")}]
            self._converter.resolve_refs(own, name)
            return str(self._converter.visit(own, name))
        except InvalidArgument as error:
            raise InvalidArgument(f"schema: {error}") from None
        except RecursionError:
            raise InvalidArgument("schema: it is nested too deep") from None
        except Exception as error:  # asserts, and what Python says where a schema is of no sense
            raise InvalidArgument(f"schema: {str(error)[:300] or type(error).__name__}") from error

    def add(self, name: str, body: str) -> str:
        """A rule; the name that it got, which is another one where this is taken."""
        return str(self._converter._add_rule(name, body))

    def until(self, end: str, name: str) -> str:
        """The name of a rule for any text up to the first `end`, that included."""
        states = [self._free(f"{name}-{at}") for at in range(len(end))]
        for at, state in enumerate(states):
            known = sorted(set(end))
            bodies = [f"[^{''.join(map(_in_class, known))}] {states[0]}"]
            for character in known:
                n = _reached(end, end[:at] + character)
                bodies.append(f"{literal(character)} {states[n]}" if n < len(end) else literal(character))
            self._converter._rules[state] = " | ".join(bodies)
        return states[0]

    def text(self, root: str) -> str:
        """The whole grammar; root: the body of the rule that it begins with."""
        rules = {**self._converter._rules, "root": root}
        return "\n".join(f"{name} ::= {body}" for name, body in rules.items())

    def _free(self, name: str) -> str:
        return self.add(name, f'"{len(self._converter._rules)}"')  # which no other rule is


def literal(text: str) -> str:
    """A text in a grammar."""
    return '"' + re.sub(r'[\\"\x00-\x1f]', lambda match: _escaped(match[0]), text) + '"'


def _escaped(character: str) -> str:
    return "\\" + character if character in '\\"' else f"\\x{ord(character):02X}"


def _in_class(character: str) -> str:
    return "\\" + character if character in "\\]" else f"\\x{ord(character):02X}" if character in "^-" else character


def _reached(end: str, text: str) -> int:
    """How much of `end` the text ends with."""
    return next(n for n in range(min(len(end), len(text)), -1, -1) if text.endswith(end[:n]))


def _check(schema: object) -> None:
    """What the converter would do instead of refusing it: fetch from the network, or fill the memory."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            ref = part.get("$ref")
            if isinstance(ref, str) and not ref.startswith("#/"):
                raise InvalidArgument(f'$ref {ref!r}: only a part of the schema itself ("#/...") can be referred to')
            pattern = part.get("pattern")
            if isinstance(pattern, str):
                try:
                    re.compile(pattern)
                except (re.error, OverflowError) as error:
                    raise InvalidArgument(f"pattern {pattern!r}: {error}") from None
            for key in _CHOICES:
                if part.get(key) == []:
                    raise InvalidArgument(f"{key} must not be empty: nothing could be written")
            for key in _COUNTS:
                count = part.get(key, 0)
                if isinstance(count, int | float) and not 0 <= count <= MOST_TIMES:
                    raise InvalidArgument(f"{key} must be 0 to {MOST_TIMES}, not {count}")
            waiting += part.values()
        elif isinstance(part, Sequence) and not isinstance(part, str):
            waiting += part


def _repetition(
    item: str, least: int, most: int | None, separator_rule: str | None = None, item_rule_is_literal: bool = False
) -> str:
    """In place of the converter's, which nests a group for each item that may be left out."""
    end = "" if most is None else most
    if most is not None and (most > MOST_TIMES or most < least):
        raise InvalidArgument(f"{least} to {most} times: at most {MOST_TIMES}, and not fewer than the least")
    if separator_rule is None:
        return f"{item}{{{least},{end}}}"
    if most == 0:
        return ""
    others = "" if most is None else most - 1
    some = f"{item} ({separator_rule} {item}){{{max(0, least - 1)},{others}}}"
    return some if least else f"({some})?"


def _without_names(pattern: str) -> str:
    """A regular expression without the names of classes, which the converter does not know."""
    made, is_inside = "", False
    for piece in re.findall(r"\\.|.", pattern, re.DOTALL):
        characters = _CLASSES.get(piece)
        made += piece if characters is None else characters if is_inside else f"[{characters}]"
        is_inside = piece == "[" or (is_inside and piece != "]")
    return made


@functools.cache
def _own_converter() -> Any:
    module: Any = _converter_module()
    module._build_repetition = _repetition
    module.DOT = _DOT
    primitives = module.PRIMITIVE_RULES
    primitives["char"] = module.BuiltinRule(_CHARACTER, [])
    primitives["number"] = module.BuiltinRule(_NUMBER, ["integral-part", "decimal-part"])

    class Converter(module.SchemaConverter):  # type: ignore[misc]
        """Corrects what makes of a valid schema a grammar of something else."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._names: dict[str, str] = {}

        def _format_literal(self, text: str) -> str:
            return literal(json.dumps(json.loads(text), ensure_ascii=False))  # what it is given is JSON

        def _resolve_ref(self, ref: str) -> str:
            # By what it refers to; its last word may be the name of another rule too.
            if ref not in self._names:
                name = self._names[ref] = f"hogwild-ref-{len(self._names)}"
                made = self.visit(self._refs[ref], name)
                if made != name:
                    self._rules[name] = made
            return self._names[ref]

        def visit(self, schema: Any, name: str) -> Any:
            schema = {} if schema is True else schema
            if not isinstance(schema, Mapping):
                raise InvalidArgument(f"a schema is an object, not {schema!r}")
            if schema.get("items") in ({}, True):
                schema = {**schema, "items": {"description": "anything"}}
            if isinstance(schema.get("pattern"), str):
                schema = {**schema, "pattern": _without_names(schema["pattern"])}
            types = schema.get("type")
            if isinstance(types, list) and not {"$ref", "anyOf", "oneOf"} & set(schema):
                schema = {"anyOf": [{**schema, "type": each} for each in types]}
            if schema.get("type") is None and not _SAYS_WHAT & set(schema):
                return self._add_rule(name or "root", self._add_primitive("value", primitives["value"]))
            return super().visit(schema, name)

    return Converter


_SAYS_WHAT = {"$ref", "anyOf", "oneOf", "allOf", "const", "enum", "properties", "additionalProperties", "items"}
_SAYS_WHAT |= {"prefixItems", "pattern", "format"}


def _converter_module() -> ModuleType:
    package = importlib.util.find_spec("llama_cpp")
    if package is None or not package.submodule_search_locations:
        raise ImportError("JSON schemas need llama-cpp-python, which is not installed")
    path = Path(package.submodule_search_locations[0]) / "llama_grammar.py"
    spec = importlib.util.spec_from_file_location("hogwild_local.forms._llama_grammar", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
