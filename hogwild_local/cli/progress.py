"""How fast things are shown: the prompt's progress with the time left, tokens a second."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

WINDOW_S = 2.0


class Speed:
    """Tokens a second as they are shown, of the last two seconds: with --pace, or where others share the passes, not
    what the engine could do."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def count(self, n_tokens: int) -> None:
        """So many were shown up to now."""
        self._seen.append((time.monotonic(), n_tokens))
        while len(self._seen) > 2 and self._seen[1][0] < self._seen[-1][0] - WINDOW_S:
            self._seen.popleft()

    def now(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        (begin, before), (_, after) = self._seen[0], self._seen[-1]
        return (after - before) / max(1e-9, time.monotonic() - begin)


class Bar:
    """How much of a prompt is computed. The time left is what the rest takes if it goes on as up to now."""

    def __init__(self) -> None:
        self._text, self._unit = "", ""
        self._done = self._first = self._total = 0
        self._begun_s = self._seen_s = 0.0

    def wait(self, text: str) -> None:
        """Nothing is computed yet."""
        self._text, self._total = text, 0

    def set(self, done: int, total: int, unit: str) -> None:
        """done of total are computed: tokens, or layers of all ranks, whose count begins anew."""
        self._seen_s = time.monotonic()
        if (unit, total) != (self._unit, self._total) or done < self._done:
            self._first, self._begun_s, self._unit, self._total = done, self._seen_s, unit, total
        self._done = done

    @property
    def left_s(self) -> float | None:
        """None: nobody can know yet."""
        if self._done <= self._first:
            return None
        left = (self._seen_s - self._begun_s) * (self._total - self._done) / (self._done - self._first)
        return max(0.0, left - (time.monotonic() - self._seen_s))  # it counts down between two chunks

    def render(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        if not self._total:
            return Text(self._text, no_wrap=True, overflow="ellipsis")
        left = self.left_s
        table = Table.grid(padding=(0, 1, 0, 0), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(no_wrap=True)
        table.add_row(
            f"prompt {self._done}/{self._total} {self._unit}",
            ProgressBar(total=self._total, completed=self._done),
            "" if left is None else f"{int(left) // 60}:{int(left) % 60:02} left",
        )
        return table
