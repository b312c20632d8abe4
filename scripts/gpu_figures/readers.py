"""What the steps' commands left: printed text and a file, which may be cut off anywhere, as figures."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import resumed

Figures = dict[str, Any]


def nothing(printed: str, file: Path) -> Figures:
    return {}


def file_size(path: str) -> Callable[[str, Path], Figures]:
    def read(printed: str, file: Path) -> Figures:
        return {"gb": round(Path(path).stat().st_size / 1e9, 3)} if Path(path).exists() else {}

    return read


def tests(printed: str, file: Path) -> Figures:
    """How many tests ended how, and which failed or ended their process."""
    ended = {name: outcome for name, outcome in resumed.outcomes(file).items() if outcome != resumed.BEGUN}
    wrong = [f"{name} ({outcome})" for name, outcome in ended.items() if outcome in ("failed", "crashed")]
    return {**Counter(ended.values()), "names": wrong} if ended else {}


def rows(printed: str, file: Path) -> Figures:
    """What our benchmarks write with --json, anew after each line."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


bench = rows


def architectures(printed: str, file: Path) -> Figures:
    """Lines of scripts/architectures."""
    ended = re.findall(r"^(\S+): (works|refused|failed|crashed): (.*)$", printed, re.MULTILINE)
    counts = Counter(outcome for _, outcome, _ in ended)
    wrong = [f"{name}: {why}" for name, outcome, why in ended if outcome in ("failed", "crashed")]
    return {**counts, "names": wrong} if ended else {}
