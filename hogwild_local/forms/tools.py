"""Tools that a reply may call, and which of them it may, or must: OpenAI's tools and tool_choice, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidArgument
from .call_grammar import Grammar, grammar_of_calls
from .calls import Family

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_CHOICES = ("none", "auto", "required")


@dataclass(frozen=True, slots=True)
class Tools:
    """all: as they are shown to the model; callable: the parameters of those that may be called, by name. must: one of
    them has to be; parallel: several may be, in one reply."""

    all: tuple[Mapping[str, Any], ...]
    callable: Mapping[str, Mapping[str, Any]]
    must: bool
    parallel: bool

    def grammar(self, family: Family) -> Grammar:
        """What holds the reply. Raises InvalidArgument, which names the tool whose parameters are no schema."""
        return grammar_of_calls(family, self.callable, self.parallel, waits=not self.must)


def checked_tools(tools: object, choice: object, parallel: bool) -> Tools | None:
    """None: there are none. Raises InvalidArgument."""
    if tools is None or (isinstance(tools, Sequence) and not isinstance(tools, str) and not tools):
        if choice not in ("none", "auto"):
            raise InvalidArgument(f"tool_choice is {choice!r}, and there are no tools")
        return None
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise InvalidArgument(f"tools must be a list of dicts, not {tools!r}")
    schemas: dict[str, Mapping[str, Any]] = {}
    for tool in tools:
        name, schema = _function(tool)
        if name in schemas:
            raise InvalidArgument(f"tools: the name {name!r} is given twice")
        schemas[name] = schema
    named = _chosen(choice, schemas)
    allowed = {} if choice == "none" else {named: schemas[named]} if named else schemas
    return Tools(
        tuple(json.loads(json.dumps(list(tools)))), allowed, must=choice not in ("none", "auto"), parallel=parallel
    )


def _function(tool: object) -> tuple[str, Mapping[str, Any]]:
    """Its name, and the schema of its parameters."""
    function = tool.get("function") if isinstance(tool, Mapping) and tool.get("type") == "function" else None
    if not isinstance(function, Mapping):
        raise InvalidArgument(f"tools: a tool is a dict of type function, and function, a dict, not {tool!r}")
    name, schema = function.get("name"), function.get("parameters") or {}
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidArgument(f"tools: a name is 1 to 64 letters, digits, _ and -, not {name!r}")
    if not isinstance(schema, Mapping) or not isinstance(schema.get("properties", {}), Mapping):
        raise InvalidArgument(f"tools: the parameters of {name} must be the schema of an object, not {schema!r}")
    if schema.get("type", "object") != "object":
        raise InvalidArgument(f"tools: the parameters of {name} must be the schema of an object, not {schema!r}")
    try:
        json.dumps(tool)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"tools: {name} cannot be written as JSON: {error}") from error
    return name, schema


def _chosen(choice: object, schemas: Mapping[str, object]) -> str | None:
    """The one tool that must be called; None: no certain one."""
    if isinstance(choice, str) and choice in _CHOICES:
        return None
    function = choice.get("function") if isinstance(choice, Mapping) and choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise InvalidArgument(
            f"tool_choice must be one of {', '.join(_CHOICES)}, or a dict that names a function, not {choice!r}"
        )
    if name not in schemas:
        raise InvalidArgument(f"tool_choice: there is no tool {name!r} (there are {', '.join(schemas)})")
    return name
