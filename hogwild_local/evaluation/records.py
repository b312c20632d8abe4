"""Record: the result of one run; and the journal of records, a JSONL file that survives being killed."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Self

from ..disk import sync_folder
from ..errors import Busy, InvalidArgument


@dataclass(frozen=True, slots=True)
class Record:
    """One run: a problem, an arm (setting), a replica, a budget in forward passes, and what came of it.

    answer, by_finisher: what was answered, and whether only when asked at the end. passes: those of the workers, up to
    the answer or the end; the finisher's come on top. tokens: sampled, by all workers and the finisher. reason: why
    the workers ended: "answer", "budget", "cache_full", "eos" or "stop". milliseconds: of the whole run, prompt
    included. error: set if the problem did not fit into the cache. steps: [worker, text, reason] in the order in which
    they ended; texts: what each worker wrote.
    """

    problem: str
    setting: str
    layout: str
    workers: int
    replica: int
    budget: int
    seed: int
    answer: str | None
    correct: bool
    by_finisher: bool
    passes: int
    tokens: int
    reason: str
    milliseconds: float
    error: str | None = None
    steps: Sequence[Sequence[str]] | None = None
    texts: Mapping[str, str] | None = None

    @property
    def cell(self) -> tuple[str, str, int]:
        """Problem, arm and replica: records of one cell differ in budget only."""
        return self.problem, self.setting, self.replica

    def covers(self, budget: int) -> bool:
        """Would a run with this other budget have been the same one? It would if nothing was ended by the budget.

        Workers that the cache had no room for ended before the next pass, so with a budget of just these passes it is
        the budget that ends them."""
        if self.reason == "budget":
            return budget == self.budget
        return budget > self.passes or (budget == self.passes and self.reason != "cache_full")

    def to_json(self) -> str:
        """One line of ASCII JSON, without the fields that are None and may be left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        optional = ("error", "steps", "texts")
        return json.dumps({name: value for name, value in values.items() if value is not None or name not in optional})

    @classmethod
    def from_json(cls, line: str | bytes) -> Record:
        """Raises ValueError if that is no record."""
        try:
            record = cls(**json.loads(line))
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        for field in fields(cls):
            if not _FITS[str(field.type)](getattr(record, field.name)):
                raise ValueError(f"{field.name} must be {field.type}, not {getattr(record, field.name)!r}")
        return record


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


_FITS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": _is_whole,
    "bool": lambda value: isinstance(value, bool),
    "float": lambda value: _is_whole(value) or (isinstance(value, float) and math.isfinite(value)),
    "str | None": lambda value: value is None or isinstance(value, str),
    "Sequence[Sequence[str]] | None": lambda value: (
        value is None or (isinstance(value, list) and all(map(_are_texts, value)))
    ),
    "Mapping[str, str] | None": lambda value: (
        value is None or (isinstance(value, dict) and _are_texts(list(value.values())))
    ),
}


def _is_damaged(line: bytes) -> bool:
    """Whether it may be what is left of a record: the beginning of one, or the zeros of a machine that went down."""
    begin = b'{"problem": '
    try:
        json.loads(line)
        return False
    except (ValueError, RecursionError):
        return line.startswith(begin) or begin.startswith(line) or not line.strip(b"\0")


class Journal:
    """The records of an evaluation, in a file: each is one line, on disk before append() returns.

    Opening it reads what is there. What is left of a last line that was not finished is dropped; any other line that is
    no record is an error, and the file stays as it is. A record is kept once. Close it, or use it as a context manager.

    Raises InvalidArgument, which names file and line; Busy if another process writes to it; OSError.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._records: dict[tuple[str, str, int], dict[int, Record]] = defaultdict(dict)
        self._file: BinaryIO = self._path.open("a+b")
        try:
            sync_folder(self._path.parent)
            _lock(self._file, self._path)
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return sum(len(by_budget) for by_budget in self._records.values())

    @property
    def records(self) -> list[Record]:
        """All of them; those of one cell together."""
        return [record for by_budget in self._records.values() for record in by_budget.values()]

    def of(self, cell: tuple[str, str, int]) -> Mapping[int, Record]:
        """The records of a cell, by budget."""
        return self._records.get(cell, {})

    def append(self, record: Record) -> None:
        """Raises InvalidArgument if there is such a record already, and nothing is added; OSError, and then open the
        journal again: that drops what was written in part."""
        if record.budget in self.of(record.cell):
            raise InvalidArgument(f"there is a record of {record.cell} with budget {record.budget} already")
        self._file.write(record.to_json().encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._records[record.cell][record.budget] = record

    def close(self) -> None:
        """Lets others write. May be called twice."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _read(self) -> None:
        self._file.seek(0)
        data = self._file.read()
        good = 0
        for number, line in enumerate(data.splitlines(keepends=True), 1):
            try:
                record = Record.from_json(line)
            except ValueError as error:
                if good + len(line) == len(data) and _is_damaged(line.rstrip(b"\n")):
                    break
                raise InvalidArgument(f"{self._path}, line {number} is no record: {error}") from None
            if not line.endswith(b"\n"):
                break  # killed before the end of the line: it is made again
            self._records[record.cell].setdefault(record.budget, record)
            good += len(line)
        if good < len(data):
            self._file.truncate(good)


def _lock(file: BinaryIO, path: Path) -> None:
    """Two processes that write one journal would do all runs twice. Where there is no flock, nobody is kept out."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy(f"{path} is in use by another evaluation") from None
