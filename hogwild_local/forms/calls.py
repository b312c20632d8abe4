"""How a family of models writes calls of tools: what is around each name and its arguments. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias


class Call(NamedTuple):
    """A call of a tool. arguments: a JSON object, as text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tags:
    """Arguments between tags: open, the key, middle, the value, close. Texts stand as they are, other values as JSON.
    {is_text} in middle: true or false."""

    open: str
    middle: str
    close: str


Arguments: TypeAlias = Tags | Literal["json", "python", "gemma"]


@dataclass(frozen=True, slots=True)
class Form:
    """One way of writing calls. White space in these texts is what is written; when they are read any will do.

    opens: what no reply has but where calls begin; first and last stand around all calls (first holds opens, or head
    does), between two of them between, and head, the name, middle, the arguments, tail are a call. {id} stands for an
    identifier of nine characters, {index} for a number; both are read over. What ends the text itself is in none.
    keys: a call is one JSON object from the first brace of head to the last one of tail, and these are the keys of name
    and arguments. only_first: nothing stands before the calls.
    """

    opens: str
    head: str
    middle: str
    tail: str
    first: str = ""
    last: str = ""
    between: str = ""
    keys: tuple[str, str] | None = None
    arguments: Arguments = "json"
    only_first: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """Models that write calls alike: .forms[0] is how they are shown, the others they write at times. marks: any of
    these is in a template that writes no calls itself."""

    name: str
    forms: tuple[Form, ...]
    marks: tuple[str, ...] = ()
