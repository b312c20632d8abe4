"""What is known of ranks beyond one run: JSON files in the user's cache folder, named by what they are of."""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..disk import cache_folder, write_whole
from ..errors import RunaheadError
from .costs import Costs, as_plain, of_plain
from .partition import Partition

T = TypeVar("T")
Say = Callable[[str], object]


class Kept:
    """The files of one group. of: what a measurement depends on (LeaderCache.group), as plain data; say: is told of a
    file that is damaged, and is as good as none."""

    def __init__(self, of: dict[str, Any], say: Say) -> None:
        self._of, self._say = json.loads(json.dumps(of)), say
        name = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:32]
        self.table_file = cache_folder() / "runahead" / f"{name}.json"
        self._costs_file = self.table_file.with_suffix(".costs.json")

    def table(self) -> Table:
        n_ranks = len(self._of["ranks"])
        measured = self._read(self.table_file, lambda rows: _measured(rows, n_ranks)) or {}
        return Table(measured, lambda rows: self._write(self.table_file, rows))

    def costs(self) -> Costs | None:
        return self._read(self._costs_file, of_plain)

    def keep_costs(self, costs: Costs) -> None:
        """Raises RunaheadError where that cannot be written."""
        self._write(self._costs_file, as_plain(costs))

    def forget(self) -> None:
        """Raises RunaheadError where it cannot be removed."""
        for file in (self.table_file, self._costs_file):
            with _named(file):
                file.unlink(missing_ok=True)

    def _read(self, file: Path, parse: Callable[[Any], T]) -> T | None:
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            if data["of"] != self._of:
                raise ValueError("it is of other ranks")
            return parse(data["measured"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self._say(f"{file} is left aside: {type(error).__name__}: {error}")
            return None

    def _write(self, file: Path, measured: Any) -> None:
        with _named(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps({"of": self._of, "measured": measured}, indent=1))


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunaheadError(f"what is measured of ranks cannot be kept in {file}: {error}") from None


class Table:
    """Seconds that prompts took, by partition: all rounds of each."""

    def __init__(self, measured: dict[Partition, list[float]], write: Callable[[Any], object]) -> None:
        self._measured, self._write = measured, write

    def rounds(self, partition: Partition) -> list[float]:
        """Empty: it was not measured."""
        return self._measured.get(partition, [])

    def add(self, partition: Partition, seconds: Sequence[float]) -> None:
        """More rounds. On the disk when it returns. Raises RunaheadError where it cannot be written."""
        self._measured[partition] = [*self.rounds(partition), *seconds]
        self._write([[list(chunks), rounds] for chunks, rounds in self._measured.items()])

    def ranking(self, n_tokens: int) -> list[Partition]:
        """Those of prompts of this length, by the medians of their rounds, the best one first."""
        of_length = [partition for partition in self._measured if sum(partition) == n_tokens]
        return sorted(of_length, key=lambda partition: statistics.median(self._measured[partition]))

    def best(self) -> dict[int, Partition]:
        """By the length of the prompt."""
        return {n: self.ranking(n)[0] for n in {sum(partition) for partition in self._measured}}


def _measured(rows: Any, n_ranks: int) -> dict[Partition, list[float]]:
    """Raises TypeError, ValueError where these are no rows of a table."""
    measured = {tuple(map(int, chunks)): [float(seconds) for seconds in rounds] for chunks, rounds in rows}
    for chunks, rounds in measured.items():
        if len(chunks) != n_ranks or min(chunks) < 1 or not rounds or not all(0 < each < 1e9 for each in rounds):
            raise ValueError(f"a partition {chunks} that took {rounds} s")
    return measured
