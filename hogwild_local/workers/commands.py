"""What other threads ask of a run: one queue, drained at the start of a pass."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import Busy, Closed, InvalidArgument
from ..options import Worker
from .limits import Limits
from .writer import default_names

MOST_WAITING = 64
"""Things said, and workers who are to join, that are not in the cache yet."""
MOST_CHARACTERS = 2**18
"""Of all their texts together: more than most contexts have room for."""


@dataclass(frozen=True, slots=True)
class Stop:
    """One worker ends; the others go on."""

    worker: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """The run ends, in order."""


@dataclass(frozen=True, slots=True)
class Say:
    """The user says something to all workers, or to one of them."""

    text: str
    to: str | None = None

    @property
    def n_characters(self) -> int:
        return len(self.text)


@dataclass(frozen=True, slots=True)
class Join:
    """One more worker."""

    worker: Worker

    @property
    def n_characters(self) -> int:
        return len(self.worker.role or "")


Command: TypeAlias = Stop | Cancel | Say | Join


class Commands:
    """Any thread may put, also a signal handler; the run's own takes, and tells what is done. Once nobody works any
    more, Say and Join are refused here: what was put before is answered by an event. So are more of them than may wait:
    each costs at least a pass."""

    def __init__(self, names: Sequence[str], limits: Limits) -> None:
        """names: of the workers that the run begins with."""
        self._queue: deque[Command] = deque()
        self._names, self._limits = list(names), limits
        self._lock = threading.RLock()
        self._is_over = False
        self._n_waiting = self._n_characters = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Of all workers: those who have ended too, and those who are to join."""
        with self._lock:
            return tuple(self._names)

    def put(self, command: Command) -> None:
        """Raises InvalidArgument for an unknown name and for what is more than the limits, Closed for what comes too
        late, Busy where too much waits already."""
        with self._lock:
            match command:
                case Stop(name):
                    self._check_name(name, "worker")
                case Say(_, to):
                    self._check_work()
                    self._limits.check_said()
                    if to is not None:
                        self._check_name(to, "to")
                    self._wait(command, "text")
                case Join(worker):
                    self._check_work()
                    self._check_new(worker)
                    self._wait(command, "role")
                    self._names.append(worker.name)
            if isinstance(command, Say | Join) or command not in self._queue:  # to stop once is enough
                self._queue.append(command)

    def done(self, command: Say | Join) -> None:
        """It waits no more."""
        with self._lock:
            self._n_waiting -= 1
            self._n_characters -= command.n_characters

    def add(self, worker: Worker | None) -> str:
        """Puts a Join; None: of a worker by the next usual name that is free. Returns its name."""
        with self._lock:
            usual = default_names(len(self._names) + 1)
            made = worker or Worker(next(name for name in usual if name not in self._names))
            self.put(Join(made))
            return made.name

    def take(self) -> list[Command]:
        """All that came since the last call, in order of arrival."""
        with self._lock:
            return [self._queue.popleft() for _ in range(len(self._queue))]

    def end_work(self) -> None:
        """Nobody works any more."""
        with self._lock:
            self._is_over = True

    def leave_out(self, name: str) -> None:
        """This worker does not join."""
        with self._lock:
            self._names.remove(name)

    def _wait(self, command: Say | Join, what: str) -> None:
        """what: the argument that has its text."""
        n = command.n_characters
        if n > MOST_CHARACTERS:
            raise InvalidArgument(
                f"{what} has {n} characters: at most {MOST_CHARACTERS} can be said to workers at once"
            )
        if self._n_waiting >= MOST_WAITING or self._n_characters + n > MOST_CHARACTERS:
            raise Busy(
                f"{self._n_waiting} things that were asked of this run, of {self._n_characters} characters, wait until "
                "workers read them: go on when events (Said, WorkerJoined) have told of some"
            )
        self._n_waiting += 1
        self._n_characters += n

    def _check_new(self, worker: Worker) -> None:
        if worker.name in self._names:
            raise InvalidArgument(f"worker: there is one of the name {worker.name!r} already")
        self._limits.check_number(len(self._names) + 1)
        self._limits.check_roles([worker])

    def _check_name(self, name: object, argument: str) -> None:
        if name not in self._names:
            raise InvalidArgument(f"{argument} must be one of {', '.join(self._names)}, not {name!r}")

    def _check_work(self) -> None:
        if self._is_over:
            raise Closed("the workers of this run have ended: nobody is left to hear it, or to join")
