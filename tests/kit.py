"""scripts/gpu_figures, for its tests."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent.parent / "scripts"


def kit(name: str) -> Any:
    """A module of it."""
    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))
    return import_module(f"gpu_figures.{name}")
