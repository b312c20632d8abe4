"""The tables of a file of prompts (default.toml), and how what is written there becomes their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from ..errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Rules:
    one: str
    many: str
    task: str


@dataclass(frozen=True, slots=True)
class Step:
    first: str
    prefix: str
    separator: str
    sentence_end: str
    forbidden: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Redundancy:
    question: str


@dataclass(frozen=True, slots=True)
class Finisher:
    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    """text: opens the reply to the user; "": none is written."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class Role:
    """text: what a worker that has a role reads of it; "": no worker can have one."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """text: what the user says while the workers work, as they read it; "": nothing can be said."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class AnswerForm:
    pattern: str
    closes_with: str
    example: str


@dataclass(frozen=True, slots=True)
class Stop:
    strings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Workers:
    """most: how many workers the texts are made for, at most; 0: any number."""

    most: int = 0


@dataclass(frozen=True, slots=True)
class LayoutTexts:
    """opening stands at the end of the prompt, header before the others' steps, separator before the own
    one."""

    opening: str = ""
    header: str = ""
    separator: str = ""


NEEDED = {
    "rules": Rules,
    "step": Step,
    "redundancy": Redundancy,
    "finisher": Finisher,
    "answer": AnswerForm,
    "stop": Stop,
}
OPTIONAL = {"workers": Workers, "reply": Reply, "role": Role, "said": Said}
"""Tables that may be left out. Those of the layouts have names of their own."""


def from_tables(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a PromptStyle. Raises InvalidArgument, which names the key."""
    _check_keys("", tables, {*NEEDED, "layout", *OPTIONAL}, {*NEEDED, "layout"})
    made = {key: _from_table(part, key, tables[key]) for key, part in NEEDED.items()}
    layouts = _as_table("layout", tables["layout"])
    texts = {name: _from_table(LayoutTexts, f"layout.{name}", table) for name, table in layouts.items()}
    made |= {key: _from_table(part, key, tables.get(key, {})) for key, part in OPTIONAL.items()}
    return {**made, "layout": texts}


def check_types(made: Mapping[str, Any]) -> None:
    """Of such fields that were made in Python. Raises InvalidArgument."""
    parts: dict[str, type[Any]] = {**NEEDED, **OPTIONAL}
    layouts = made["layout"]
    if not isinstance(layouts, Mapping):
        raise InvalidArgument(f"prompts: layout must be a mapping, not {layouts!r}")
    given = {name: made[name] for name in parts} | {f"layout.{name}": texts for name, texts in layouts.items()}
    for name, value in given.items():
        part = parts.get(name, LayoutTexts)
        if not isinstance(value, part):
            raise InvalidArgument(f"prompts: {name} must be {part.__name__}, not {value!r}")
        for field in fields(part):
            item = getattr(value, field.name)
            _checked(f"{name}.{field.name}", field.type, list(item) if isinstance(item, tuple) else item)


def _from_table(part: type[Any], key: str, value: object) -> Any:
    """Makes a dataclass of strings, numbers and lists of strings from a table with exactly its keys."""
    table = _as_table(key, value)
    names = {field.name for field in fields(part)}
    needed = {field.name for field in fields(part) if field.default is MISSING}
    _check_keys(f"{key}.", table, names, needed)
    kinds = {field.name: field.type for field in fields(part)}
    return part(**{name: _checked(f"{key}.{name}", kinds[name], table[name]) for name in table})


def _as_table(key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"prompts: {key} must be a table")
    return value


def _checked(key: str, kind: object, value: object) -> str | int | tuple[str, ...]:
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and _is_broken(text):
            raise InvalidArgument(f"prompts: {key} holds what is no character")
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "int" and type(value) is int and value >= 0:
        return value
    if kind == "tuple[str, ...]" and isinstance(value, list) and all(isinstance(text, str) for text in value):
        return tuple(value)
    wanted = {"str": "a string", "int": "a whole number"}.get(str(kind), "a list of strings")
    raise InvalidArgument(f"prompts: {key} must be {wanted}")


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _check_keys(prefix: str, table: Mapping[str, Any], known: set[str], needed: set[str]) -> None:
    for name in table:
        if name not in known:
            raise InvalidArgument(f"prompts: unknown key {prefix}{name} (known: {', '.join(sorted(known))})")
    for name in sorted(needed - set(table)):
        raise InvalidArgument(f"prompts: missing key {prefix}{name}")
