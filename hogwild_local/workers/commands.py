"""What other threads ask of a run: one queue, drained at the start of a pass."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Stop:
    """One worker ends; the others go on."""

    worker: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """The run ends, in order."""


Command: TypeAlias = Stop | Cancel


class Commands:
    """Any thread may put; the run's own takes."""

    def __init__(self) -> None:
        self._queue: deque[Command] = deque()

    def put(self, command: Command) -> None:
        self._queue.append(command)

    def take(self) -> list[Command]:
        """All that came since the last call, in order of arrival."""
        return [self._queue.popleft() for _ in range(len(self._queue))]
