"""Files of llama.cpp's own tests, which scripts/llama-sources gets: none of them is in this repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NAMED = os.environ.get("LLAMA_CPP_SOURCES")
MODELS = Path(NAMED or Path(__file__).resolve().parent.parent / "build" / "llama.cpp") / "models"


def llama_files(pattern: str) -> list[object]:
    """One parameter a file, with its name; one that is skipped where there are none. A folder that the environment
    names must have them: a check that is asked for does not pass by being skipped."""
    files = sorted(MODELS.glob(pattern))
    if files:
        return [pytest.param(file, id=file.stem.removeprefix("ggml-vocab-")) for file in files]
    if NAMED:
        raise FileNotFoundError(f"LLAMA_CPP_SOURCES: {MODELS} has no {pattern}; get them with scripts/llama-sources")
    reason = f"no {MODELS}: get it with scripts/llama-sources"
    return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]
