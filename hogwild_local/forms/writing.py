"""Calls of tools as a model wrote them, for chat templates that show none."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .calls import Call, Family


def written(family: Family, calls: Sequence[Call]) -> str:
    """Their text, in the family's form. Only for those with marks, whose arguments are JSON or Python's."""
    form = family.forms[0]
    pieces = []
    for at, call in enumerate(calls):
        piece = f"{form.head}{call.name}{form.middle}{_arguments(call, form.arguments == 'python')}{form.tail}"
        pieces.append(piece.replace("{index}", str(at)))
    return form.first + form.between.join(pieces) + form.last


def _arguments(call: Call, is_python: bool) -> str:
    if not is_python:
        return call.arguments
    return ", ".join(
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in json.loads(call.arguments).items()
    )
