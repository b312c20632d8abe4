"""What is said of a model when it has been loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..hogwild import Hogwild
from ..options import MOST_N_CTX, EngineOptions, SamplingParams
from .options import given
from .terminal import note


def say_loaded(hogwild: Hogwild, options: dict[str, Any]) -> None:
    """One line: how long a context there is, and how the model's own file says to sample, where no option says
    otherwise."""
    chosen = given(SamplingParams, options)
    own = {name: value for name, value in hogwild.own_sampling.items() if chosen.get(name) is None}
    context = context_text(hogwild, is_chosen=given(EngineOptions, options)["n_ctx"] is None)
    note(f"hogwild: {context}{f'; {sampling_text(own)}' if own else ''}")


def context_text(hogwild: Hogwild, is_chosen: bool) -> str:
    """is_chosen: nobody has said how long."""
    n_bytes = sum(device.cache_bytes for device in hogwild.devices)
    size = f", {size_text(n_bytes)}" if n_bytes else ""
    wanted = min(MOST_N_CTX, hogwild.model.n_ctx_train or MOST_N_CTX)
    why = f" (half of the free memory has no room for {wanted})" if is_chosen and hogwild.n_ctx < wanted else ""
    return f"context {hogwild.n_ctx} tokens{size}{why}"


def sampling_text(own: Mapping[str, Any]) -> str:
    return "sampling as the model says: " + ", ".join(f"{name} {_text(value)}" for name, value in own.items())


def size_text(n_bytes: float) -> str:
    """3.5 GB, 12 MB"""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{max(1, round(n_bytes / 1e6))} MB"


def _text(value: Any) -> str:
    return ";".join(value) if isinstance(value, tuple) else f"{value:g}"
