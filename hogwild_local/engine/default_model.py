"""The model that is packaged with hogwild_local."""

from __future__ import annotations

from pathlib import Path


def default_model_path() -> Path:
    """The packaged GGUF file: the worksheet model (models/README.md is its card)."""
    return Path(__file__).parent.parent / "default.gguf"
