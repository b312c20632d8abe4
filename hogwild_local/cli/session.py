"""A run before somebody's eyes: how it is shown, how fast, and what can be typed meanwhile."""

from __future__ import annotations

import time

from ..events import Token
from ..workers.run import Run
from .display import Output, PlainOutput
from .live import LiveOutput


def shown(run: Run, plain: bool, of_turn: bool = False) -> Output:
    """The whole screen where there is a terminal that can do it; plain: nowhere. of_turn: the run is one of several."""
    from rich.console import Console

    console = Console()
    can_draw = console.is_terminal and not console.is_dumb_terminal
    return LiveOutput(run, console, of_turn) if can_draw and not plain else PlainOutput(of_turn=of_turn)


def watch(run: Run, output: Output, pace: float = 0.0) -> None:
    """Feeds all events to the output, of at most pace passes a second (0: any number). After Ctrl+C it has shown what
    there was, and the terminal is as before."""
    n_pass, start = 0, time.monotonic()
    with run, output:
        for event in run:
            if pace and isinstance(event, Token) and event.n_pass > n_pass:
                n_pass = event.n_pass
                time.sleep(max(0.0, start + n_pass / pace - time.monotonic()))
            output.feed(event)
