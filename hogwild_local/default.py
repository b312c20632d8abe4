"""The model that is packaged with hogwild_local."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def default_model_path() -> Path:
    """The packaged GGUF file: at present a tiny model with random weights, whose output is noise."""
    # The build puts it beside the extension, which in an editable install is not where this file is.
    extension = importlib.util.find_spec("hogwild_local._hogwild")
    place = extension.origin if extension is not None else None
    return Path(place or __file__).with_name("default.gguf")
