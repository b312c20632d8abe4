"""One frame of a run on a terminal of any size: what is finished above, below it what everybody is writing, each in a
colour, at the bottom the status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from .terminal import printable

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.text import Text

COLOURS = (
    "cyan", "yellow", "green", "magenta", "bright_blue", "bright_red",
    "bright_cyan", "bright_yellow", "bright_green", "bright_magenta", "blue", "red",
)  # fmt: skip
"""Of names only: the 16 that every terminal has, without black, white and grey."""

READABLE, NARROW, LEAST = 36, 24, 12
"""Widths of a column: as many columns as are readable; narrower ones where there are not enough lines for all."""
HIGH = 8
"""Lines of a cell that are plenty."""
GAP = 2
CUT = 1024
"""Characters between the places where a long text may be cut."""


class Part(NamedTuple):
    """What somebody writes or wrote, in which colour the name stands, and what is said beside it."""

    name: str
    text: str
    style: str
    note: str = ""


class Arrangement(NamedTuple):
    """So many rows, of so many cells each, in the last one maybe fewer; lines of a cell, and of what is finished."""

    rows: int
    per_row: int
    height: int
    done: int


def style_of(index: int) -> str:
    """The colour of one worker."""
    return f"bold {COLOURS[index % len(COLOURS)]}"


def arrange(n: int, width: int, height: int, done: int) -> Arrangement:
    """Where n cells go. done: lines that what is finished would fill; it gets a third of the height, or half where
    cells stay high, if all of them keep three lines (two, or one, where they are many)."""

    def rows(per_row: int) -> int:
        return -(-n // per_row)

    per_row = max(1, min(n, width // READABLE))
    for lines, least in ((3, NARROW), (1, LEAST)):
        while rows(per_row) * lines > height and per_row < n and width // (per_row + 1) >= least:
            per_row += 1
    n_rows = min(rows(per_row), max(1, height))
    lines = next((lines for lines in (3, 2) if n_rows * lines <= height), 1)
    share = max(height // 3, min(height // 2, height - n_rows * HIGH))
    of_done = max(0, min(done, share, height - n_rows * lines))
    return Arrangement(n_rows, -(-n // rows(per_row)), max(1, (height - of_done) // n_rows), of_done)


def frame(done: Sequence[Part], cells: Sequence[Part], bottom: Sequence[RenderableType], console: Console) -> Group:
    """All of it, for the console's present size."""
    from rich.console import Group

    width, height = console.size
    height = max(1, height - len(bottom))
    finished = _finished(done, width, height // 2, console)
    at = arrange(len(cells), width, height, len(finished))
    rows = [cells[first : first + at.per_row] for first in range(0, len(cells), at.per_row)][: at.rows]
    grids = [_row(row, width, at.height, console) for row in rows]
    rest = height - at.done - len(rows) * at.height
    return Group(*finished[len(finished) - at.done :], *grids, *_padded([], rest), *bottom)


def n_hidden(n: int, width: int, height: int) -> int:
    """Cells for which there is no room at all."""
    at = arrange(n, width, max(1, height), 0)
    return max(0, n - at.rows * at.per_row)


def tail(text: str, width: int, lines: int, console: Console) -> list[Text]:
    """The last lines of a text, wrapped; wide and combining characters count as what they fill."""
    from rich.text import Text

    # Cut where it stays for a while: lines would be wrapped anew with each token otherwise.
    least = max(0, len(text) - 2 * width * lines)
    shown = Text(printable(text[least // CUT * CUT :]).expandtabs(4).strip("\n"))
    return list(shown.wrap(console, max(1, width)))[-max(1, lines) :]


def _finished(parts: Sequence[Part], width: int, lines: int, console: Console) -> list[Text]:
    """The last lines of what is finished, behind the names of who wrote them."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    room = min(12, width // 4, max((cell_len(printable(part.name)) for part in parts), default=0))
    shown: list[Text] = []
    for part in reversed(parts):
        if len(shown) >= lines:
            break
        text = tail(part.text, width - room - 1, lines + 1, console)
        names = [set_cell_size(printable(part.name), room), *[" " * room] * (len(text) - 1)]
        shown = [Text.assemble((name, part.style), " ", line) for name, line in zip(names, text, strict=True)] + shown
    return shown[-lines:] if lines else []


def _row(cells: Sequence[Part], width: int, height: int, console: Console) -> RenderableType:
    from rich.console import Group
    from rich.table import Table

    grid = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    widths = [(width - GAP * (len(cells) - 1) + at) // len(cells) for at in range(len(cells))]
    for each in widths:
        grid.add_column(width=each, no_wrap=True)
    draw = _headed if height > 2 else _inline
    grid.add_row(*(Group(*draw(cell, each, height, console)) for cell, each in zip(cells, widths, strict=True)))
    return grid


def _headed(cell: Part, width: int, height: int, console: Console) -> list[RenderableType]:
    """A line with the name, and the text below it."""
    from rich.rule import Rule
    from rich.text import Text

    colour = cell.style.removeprefix("bold ")
    title = Text.assemble((printable(cell.name), cell.style), (f" {printable(cell.note)}" if cell.note else "", colour))
    rule = Rule(title, align="left", style=colour)
    return [rule, *_padded(tail(cell.text, width, height - 1, console), height - 1)]


def _inline(cell: Part, width: int, height: int, console: Console) -> list[RenderableType]:
    """The name, and the end of the text behind it, or else the note: where lines are few."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    room = min(cell_len(printable(cell.name)), max(1, width // 2))
    lines = tail(" ".join((cell.text or cell.note).split()), width - room - 1, height, console)
    names = [set_cell_size(printable(cell.name), room), *[" " * room] * (len(lines) - 1)]
    shown = [Text.assemble((name, cell.style), " ", line) for name, line in zip(names, lines, strict=True)]
    return _padded(shown, height)


def _padded(lines: Sequence[RenderableType], height: int) -> list[RenderableType]:
    from rich.text import Text

    return [*lines, *[Text("")] * (height - len(lines))]
