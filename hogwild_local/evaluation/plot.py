"""The plot: accuracy against budget, one line a setting, with its 95 % intervals. Needs matplotlib (an optional
extra), which is imported nowhere else."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from ..errors import InvalidArgument
from .summary import Row

STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "-"), ("P", "--"))
"""Marker and line of a number of workers; the color is that of the layout or baseline."""


def can_plot() -> bool:
    """Is matplotlib installed?"""
    return importlib.util.find_spec("matplotlib") is not None


def check_plot(path: Path) -> None:
    """Raises ImportError without matplotlib, and InvalidArgument for a file of an unknown format."""
    if not can_plot():
        raise ImportError("a plot needs matplotlib: pip install 'hogwild-local[plot]'")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix and path.suffix[1:].lower() not in known:
        raise InvalidArgument(f"plot: {path} must end with one of {', '.join('.' + name for name in sorted(known))}")


def plot(path: Path, rows: Sequence[Row], title: str = "") -> None:
    """Writes a picture, of the format that the file's name ends with (none: PNG).

    Raises what check_plot() raises, and OSError.
    """
    check_plot(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Without pyplot nothing global is touched, and no display is needed.
    figure = Figure(figsize=(10, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colors = {kind: f"C{i % 10}" for i, kind in enumerate(dict.fromkeys(_kind(row) for row in rows))}
    styles = dict(zip(sorted({row.workers for row in rows}), cycle(STYLES), strict=False))
    for name in dict.fromkeys(row.setting for row in rows):
        line = [row for row in rows if row.setting == name and row.n]
        if not line:
            continue
        budgets = [row.budget for row in line]
        mark, dashes = styles[line[0].workers]
        (drawn,) = axes.plot(
            budgets,
            [row.accuracy for row in line],
            color=colors[_kind(line[0])],
            marker=mark,
            linestyle=dashes,
            markersize=4,
            label=name,
        )
        low, high = [row.low for row in line], [row.high for row in line]
        axes.fill_between(budgets, low, high, color=drawn.get_color(), alpha=0.12, linewidth=0)
    ticks = sorted({row.budget for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set(xlabel="budget (forward passes)", ylabel="accuracy (95 % intervals)", ylim=(-0.02, 1.02), title=title)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=150, format=None if path.suffix else "png")


def _kind(row: Row) -> str:
    """The setting's name without the number of workers."""
    return row.setting.replace(f"-{row.workers}", "", 1)
