"""The form of a reply as OpenAI's response_format says it, as a grammar."""

from __future__ import annotations

from collections.abc import Mapping

from ..checks import text
from ..errors import InvalidArgument
from .rules import Rules

_KEYS = {
    "text": {"type"},
    "json_object": {"type"},
    "json_schema": {"type", "json_schema"},
    "grammar": {"type", "grammar"},
}
_OF_SCHEMA = {"name", "description", "schema", "strict"}


def grammar_of(response_format: Mapping[str, object] | None) -> str | None:
    """GBNF of a reply; None: it is free. Raises InvalidArgument, which says what is wrong with the form."""
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if not isinstance(kind, str) or kind not in _KEYS:
        raise InvalidArgument(
            f"response_format must be a dict whose type is one of {', '.join(_KEYS)}, not {response_format!r}"
        )
    _check_keys("response_format", response_format, _KEYS[kind])
    if kind == "grammar":
        return text(response_format.get("grammar"), "response_format: grammar")
    if kind == "json_object":
        return _of_schema({"type": "object"})
    if kind == "json_schema":
        named = response_format.get("json_schema")
        if not isinstance(named, Mapping) or not isinstance(named.get("schema"), Mapping):
            raise InvalidArgument(
                f"response_format: json_schema must be a dict of name and schema, and schema a dict, not {named!r}"
            )
        _check_keys("response_format: json_schema", named, _OF_SCHEMA)
        return _of_schema(named["schema"])
    return None


def _of_schema(schema: object) -> str:
    rules = Rules()
    try:
        return rules.text(rules.schema(schema, "reply"))
    except InvalidArgument as error:
        raise InvalidArgument(f"response_format: {error}") from error


def _check_keys(where: str, given: Mapping[str, object], known: set[str]) -> None:
    for key in given:
        if key not in known:
            raise InvalidArgument(f"{where}: unknown key {key!r} (known: {', '.join(sorted(known))})")
