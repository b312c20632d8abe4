"""LoRA adapters and control vectors as arguments: a path, or a path and how much of it is added."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..checks import number, whole
from ..errors import InvalidArgument
from ..options import ControlVector, Lora
from .arguments import c_path

MOST_LAYERS = 2**16


def checked_loras(given: Sequence[Lora], name: str = "lora") -> list[tuple[bytes, float]]:
    """Paths and scales as C takes them. Raises InvalidArgument."""
    rows = [_fields(item, name, (1, 2)) for item in _items(given, name)]
    return [(c_path(path, f"a path of {name}"), number(scale, f"a scale of {name}")) for path, scale, *_ in rows]


def checked_control_vectors(
    given: Sequence[ControlVector], name: str = "control_vectors"
) -> list[tuple[bytes, float, int, int]]:
    """Paths, scales, first and last layers (0 and 0: all) as C takes them. Raises InvalidArgument."""
    result = []
    for item in _items(given, name):
        path, scale, *layers = _fields(item, name, (1, 2, 4))
        first, last = (whole(layer, f"a layer of {name}", 1, MOST_LAYERS) for layer in layers) if layers else (0, 0)
        result.append((c_path(path, f"a path of {name}"), number(scale, f"a scale of {name}"), first, last))
    return result


def parse_adapter(text: str) -> tuple[str, float]:
    """PATH or PATH:SCALE. A path may have colons, but what follows its last one must then be no number."""
    path, colon, scale = text.rpartition(":")
    try:
        return (path, float(scale)) if colon and path else (text, 1.0)
    except ValueError:
        return text, 1.0


def _items(given: object, name: str) -> list[object]:
    if isinstance(given, str | bytes | os.PathLike) or not isinstance(given, Sequence):
        raise InvalidArgument(f"{name} must be a list of paths, or of pairs of path and scale, not {given!r}")
    return list(given)


def _fields(item: object, name: str, sizes: tuple[int, ...]) -> tuple:  # type: ignore[type-arg]
    """At least path and scale."""
    fields = item if isinstance(item, tuple | list) else (item,)
    if len(fields) not in sizes:
        raise InvalidArgument(f"{name}: {item!r} has {len(fields)} fields, not {' or '.join(map(str, sizes))}")
    return (*fields, 1.0) if len(fields) == 1 else tuple(fields)
