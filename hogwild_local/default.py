"""The model that is packaged with hogwild_local."""

from __future__ import annotations

from pathlib import Path


def default_model_path() -> Path:
    """The packaged GGUF file: at present a tiny model with random weights, whose output is noise."""
    return Path(__file__).with_name("default.gguf")
