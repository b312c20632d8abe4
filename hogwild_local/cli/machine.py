"""What the machine allows: the milliseconds below which no pass can be, by its memory and its arithmetic.

A pass reads every weight once, and every cell that some worker sees: bytes over the bandwidth of memory. It multiplies
every value of the weights with every token, and every value of a cell with each query of the heads that share it:
operations over the peak of f32 arithmetic. The larger one is the bound. Both speeds are measured here, with as many
threads, in a process of its own, because numpy's matrix products are told their threads by the environment only.
Kernels of 8-bit integers may do more operations than that peak.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np

from ..engine.cache import SharedCache

THREADS_OF_PRODUCTS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
BYTES_READ = 128 << 20  # of each thread: no cache holds them
WIDTH = 1024  # of the matrices
TIMES = 7


@dataclass(frozen=True, slots=True)
class Machine:
    """Speeds of this machine with some number of threads."""

    bytes_per_second: float
    operations_per_second: float

    def bound(self, work: Work) -> float:
        """Seconds below which no pass can do the work."""
        return max(work.n_bytes / self.bytes_per_second, work.n_operations / self.operations_per_second)


@dataclass(frozen=True, slots=True)
class Work:
    """What one pass reads, and its operations: a multiplication and an addition are two."""

    n_bytes: float
    n_operations: float


@dataclass(frozen=True, slots=True)
class Costs:
    """What a pass of a cache does, by its weights and its cells.

    weight_bytes, weight_values: that one token is multiplied with; output_values: those of them that give logits, which
    of a prompt only the last token of a pass needs. cell_bytes, cell_values: keys and values of one
    token, all layers. heads_a_value: query heads that share a head of keys."""

    weight_bytes: float
    weight_values: float
    output_values: float
    cell_bytes: float
    cell_values: float
    heads_a_value: float

    @classmethod
    def of(cls, cache: SharedCache, metadata: Mapping[str, str]) -> Self:
        weights = cache.weights()
        cell_bytes, cell_values = cache.cell_size()
        return cls(
            sum(n_bytes for *_, n_bytes, _ in weights),
            sum(n_values for *_, n_values in weights),
            weights[-1][-1] if weights else 0.0,  # in the order of the graph
            cell_bytes,
            cell_values,
            heads_a_value(metadata),
        )

    def decode(self, n_tokens: int, n_cells: int, seen_by_each: int) -> Work:
        """A pass of one token a worker. n_cells: that anyone sees, read once."""
        attention = 2.0 * n_tokens * seen_by_each * self.cell_values * self.heads_a_value
        return Work(self.weight_bytes + n_cells * self.cell_bytes, 2.0 * n_tokens * self.weight_values + attention)

    def prefill(self, n_tokens: int, n_batch: int) -> Work:
        """A prompt, in passes of n_batch tokens, each of which reads all weights and the cells before it."""
        n_bytes = n_operations = 0.0
        for begin in range(0, n_tokens, n_batch):
            end = min(begin + n_batch, n_tokens)
            work = self.decode(end - begin, end, (begin + end) // 2)
            without_logits = 2.0 * (end - begin - 1) * self.output_values
            n_bytes, n_operations = n_bytes + work.n_bytes, n_operations + work.n_operations - without_logits
        return Work(n_bytes, n_operations)


def heads_a_value(metadata: Mapping[str, str]) -> float:
    """Query heads that share a head of keys; 1 where the model's metadata do not say it in one number."""
    architecture = metadata.get("general.architecture", "")
    heads, shared = (metadata.get(f"{architecture}.attention.{key}", "") for key in ("head_count", "head_count_kv"))
    return int(heads) / int(shared) if heads.isdigit() and shared.isdigit() and int(shared) > 0 else 1.0


def measure_machine(n_threads: int) -> Machine:
    """Takes about a second."""
    environment = {**os.environ, **dict.fromkeys(THREADS_OF_PRODUCTS, str(n_threads))}
    command = [sys.executable, "-m", "hogwild_local.cli.machine", str(n_threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return Machine(**json.loads(done.stdout))


def _measure_here(n_threads: int) -> Machine:
    parts = [np.ones(BYTES_READ // 4, np.float32) for _ in range(n_threads)]
    matrix = np.ones((WIDTH, WIDTH), np.float32)
    with ThreadPoolExecutor(n_threads) as pool:
        read = _best(lambda: list(pool.map(np.max, parts)))  # numpy lets go of the interpreter's lock in it
    product = _best(lambda: matrix @ matrix)
    return Machine(n_threads * BYTES_READ / read, 2.0 * WIDTH**3 / product)


def _best(call: Callable[[], object]) -> float:
    """Seconds of the fastest of some calls: the others were disturbed."""
    seconds = []
    for _ in range(TIMES):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def main(arguments: Sequence[str]) -> None:
    print(json.dumps(asdict(_measure_here(int(arguments[0])))))


if __name__ == "__main__":
    main(sys.argv[1:])
