"""The picture of who waited when: a row of bars for each rank of a prompt, a bar for each layer. Needs matplotlib (an
optional extra)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..evaluation.plot import check_plot
from ..runahead.transport import PassTrace

SHADES, WAITING = ("tab:blue", "lightsteelblue"), "tab:red"
Bar = tuple[float, float]


def bars(trace: PassTrace) -> tuple[list[Bar], list[Bar]]:
    """Beginning and length, in seconds, of each layer's computing and of each layer's waiting. A layer's bar goes from
    where it attends to where the next one has stored its keys and values; the first one begins with the pass."""
    begins = [layer.received_s for layer in trace.layers]
    ends = [*(layer.stored_s for layer in trace.layers[1:]), trace.ended_s]
    first = (trace.began_s, trace.layers[0].stored_s - trace.began_s)
    computing = [first, *((begin, end - begin) for begin, end in zip(begins, ends, strict=True))]
    waiting = [(layer.stored_s, layer.received_s - layer.stored_s) for layer in trace.layers]
    return computing, waiting


def draw(path: Path, charts: Sequence[tuple[str, Sequence[PassTrace]]], title: str = "") -> None:
    """Writes a picture with a chart below another, each of a prompt, of the format that the file's name ends with
    (none: PNG). All have the same scale. Raises what check_plot() raises, and OSError."""
    check_plot(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    n_rows = sum(len(traces) for _, traces in charts)
    figure = Figure(figsize=(12, 1.5 + 0.6 * len(charts) + 0.35 * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [len(traces) for _, traces in charts]
    all_axes = figure.subplots(len(charts), 1, sharex=True, squeeze=False, height_ratios=heights)
    for axes, (name, traces) in zip(all_axes[:, 0], charts, strict=True):
        zero_s = min(trace.began_s for trace in traces)
        for row, trace in enumerate(traces):
            computing, waiting = bars(trace)
            shades = [SHADES[i % 2] for i in range(len(computing))]
            axes.broken_barh(_since(zero_s, computing), (row - 0.4, 0.8), facecolors=shades)
            axes.broken_barh(_since(zero_s, waiting), (row - 0.4, 0.8), facecolors=WAITING)
        labels = [f"rank {trace.rank}: {trace.n_tokens}" for trace in traces]
        axes.set_yticks(range(len(traces)), labels)
        axes.set_ylim(len(traces) - 0.5, -0.5)
        axes.set_title(name, loc="left", fontsize="medium")
    all_axes[-1, 0].set_xlabel("seconds")
    legend = [Patch(color=SHADES[0], label="computes a layer"), Patch(color=WAITING, label="waits")]
    figure.legend(handles=legend, loc="outside upper right", ncols=2, fontsize="small")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    figure.savefig(path, dpi=150, format=None if path.suffix else "png")


def _since(zero_s: float, bars: Sequence[Bar]) -> list[Bar]:
    return [(begin - zero_s, length) for begin, length in bars]
