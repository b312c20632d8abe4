"""What a client sends: read within limits, and field by field."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from ..options import ServerOptions
from .faults import Fault

T = TypeVar("T")

MOST_DEPTH = 64
"""Of objects and lists in each other: a JSON schema's, say."""
LARGE = 1 << 16
"""Bytes from which on others are not to wait for the parser."""


class Body(Mapping[str, Any]):
    """A JSON object. Fields that nobody asks for are ignored; null is as if a field were not there."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = {name: value for name, value in fields.items() if value is not None}

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Any:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def renamed(self, **names: str) -> Body:
        """The same with fields called otherwise: old name = new name."""
        return Body({names.get(name, name): value for name, value in self._fields.items()})

    def flag(self, name: str, default: bool = False) -> bool:
        """Raises Fault, as all of these."""
        return self._of(bool, name, "true or false", default)

    def text(self, name: str, default: str = "") -> str:
        return self._of(str, name, "a text", default)

    def object(self, name: str) -> Body:
        return Body(self._of(dict, name, "an object", {}))

    def one_of(self, name: str, *choices: str) -> str:
        """The first one is the default."""
        value = self.text(name, choices[0])
        if value not in choices:
            raise Fault(400, f"{name} must be one of {', '.join(choices)}, not {value!r}", name)
        return value

    def _of(self, kind: type[T], name: str, what: str, default: T) -> T:
        value = self._fields.get(name, default)
        if not isinstance(value, kind):
            raise Fault(400, f"{name} must be {what}, not {_shown(value)}", name)
        return value


async def body_of(request: Request, options: ServerOptions) -> Body:
    """The JSON object of a request. Raises Fault."""
    try:
        async with asyncio.timeout(options.body_timeout):
            raw = await _read(request, options.body_mb << 20)
    except TimeoutError:
        raise Fault(408, f"the request was not complete after {options.body_timeout} s") from None
    except ClientDisconnect:
        raise Fault(400, "the client has gone") from None
    parsed = partial(_parsed, raw)
    return Body(parsed() if len(raw) < LARGE else await asyncio.to_thread(parsed))


def _parsed(raw: bytes) -> dict[str, Any]:
    """Whatever is in it can be looked at, shown, and sent again."""
    try:
        fields = json.loads(raw, parse_constant=_no_constant, parse_float=_finite)
        if raw.count(b"[") + raw.count(b"{") > MOST_DEPTH and _is_deep(fields, MOST_DEPTH):
            raise RecursionError
        if b"\\u" in raw:
            json.dumps(fields, ensure_ascii=False).encode()
    except RecursionError:
        raise Fault(400, "the body is nested too deeply") from None
    except UnicodeEncodeError:
        raise Fault(400, "the body has half a character: a surrogate without its other one") from None
    except ValueError as error:
        raise Fault(400, f"the body is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Fault(400, f"the body must be a JSON object, not {_shown(fields)}")
    return fields


async def _read(request: Request, most: int) -> bytes:
    parts, n = [], 0
    async for part in request.stream():
        parts.append(part)
        n += len(part)
        if n > most:
            raise Fault(413, f"the body is larger than {most >> 20} MB")
    return b"".join(parts)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


def _is_deep(value: object, left: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not left or any(_is_deep(each, left - 1) for each in inner if isinstance(each, dict | list))


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
