"""Ranks that die, or are stopped, at any moment: an error within seconds for whoever is left, and no process stays."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from test_blocks import Load, Paths, tokens_of
from test_runahead_mpi import BIG, COMMAND, MOST_S, gone, prefill_again_and_again, processes, rank_in_mpi, ranks_of

from hogwild_local.errors import EngineDied, OutOfMemory, RunaheadError
from hogwild_local.runahead.launch import LAUNCHERS, find_mpiexec
from hogwild_local.runahead.ranked import RankedCache, started

SIGNALS = [signal.SIGKILL, signal.SIGSTOP]


def own_ranks() -> dict[int, int]:
    """Processes of this one's ranks, by rank."""
    return {rank_in_mpi(pid): pid for pid in ranks_of(os.getpid())}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", SIGNALS, ids=lambda how: how.name)
def test_while_the_model_is_loaded(rank: int, how: signal.Signals, tiny_path: Paths) -> None:
    pids: set[int] = set()
    hit: list[float] = []
    others = processes(os.getpid())  # engines that other files' fixtures keep

    def strike(progress: float) -> None:
        if not hit:
            hit.append(time.monotonic())
            pids.update(set(processes(os.getpid())).difference(others))
            os.kill(own_ranks()[rank], how)

    with pytest.raises((EngineDied, RunaheadError)):
        started(2).model(tiny_path("llama"), n_threads=1, progress=strike)  # type: ignore[call-arg]
    assert time.monotonic() - hit[0] < MOST_S
    assert len(pids) >= 3
    assert gone(pids)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", SIGNALS, ids=lambda how: how.name)
def test_in_the_middle_of_a_prompt(rank: int, how: signal.Signals, tiny_path: Paths, single: Load) -> None:
    engine, tokens = started(2), tokens_of(single("llama"), 3000)
    with engine.model(tiny_path("llama"), n_threads=1) as model:  # type: ignore[attr-defined]
        pids, victim = [model.pid, *processes(model.pid)], own_ranks()[rank]
        cache = engine.cache(model, **BIG)
        threading.Timer(0.5, os.kill, (victim, how)).start()
        start = time.monotonic()
        with pytest.raises((EngineDied, RunaheadError)):
            prefill_again_and_again(cache, tokens)
        assert time.monotonic() - start < MOST_S + 0.5
    assert gone(pids)


def test_of_their_launcher(tiny_path: Paths, single: Load) -> None:
    engine, tokens = started(2), tokens_of(single("llama"), 3000)
    with engine.model(tiny_path("llama"), n_threads=1) as model:  # type: ignore[attr-defined]
        pids = [model.pid, *processes(model.pid)]
        cache = engine.cache(model, **BIG)
        threading.Timer(0.5, os.kill, (model.pid, signal.SIGKILL)).start()
        start = time.monotonic()
        with pytest.raises(EngineDied):
            prefill_again_and_again(cache, tokens)
        assert time.monotonic() - start < MOST_S + 0.5
    assert gone(pids)


@pytest.mark.parametrize("rank", [0, 1])
def test_memory_that_a_rank_has_not_is_told_and_a_smaller_cache_can_be_had(
    rank: int, tiny_path: Paths, single: Load
) -> None:
    engine, tokens = started(2), tokens_of(single("llama"), 300)
    with engine.model(tiny_path("llama"), n_threads=1) as model:  # type: ignore[attr-defined]
        resource.prlimit(own_ranks()[rank], resource.RLIMIT_DATA, (2**29, 2**29))
        with pytest.raises(OutOfMemory, match="rank 0" if rank == 0 else "no memory"):
            engine.cache(model, **(BIG | {"n_ctx": 2**21, "type_k": "f32", "type_v": "f32"}))
        cache = engine.cache(model, **BIG)
        assert isinstance(cache, RankedCache)
        cache.decode([([cache.block("prompt")], tokens)])
        assert len(cache.ranks()) == 2


def launched(path: Path) -> subprocess.Popen[str]:
    """A run that a launcher has started on two ranks, and that is about to feed its prompt."""
    options = ["-m", str(path), "-c", "4000", "-t", "1", "-n", "1000000", "--json"]
    command = [find_mpiexec(), "-n", "2", *COMMAND, "run", *options, "count the words " * 100]
    environment = {**LAUNCHERS, **os.environ}
    launcher = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert launcher.stdout is not None
    assert "run_started" in launcher.stdout.readline()
    return launcher


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", SIGNALS, ids=lambda how: how.name)
def test_in_a_run_that_a_launcher_has_started(rank: int, how: signal.Signals, tiny_path: Paths) -> None:
    with launched(tiny_path("llama")) as launcher:
        pids, start = processes(launcher.pid), time.monotonic()
        os.kill(next(pid for pid in pids if is_rank(pid, rank)), how)
        launcher.communicate(timeout=60)
        assert time.monotonic() - start < MOST_S
        assert launcher.returncode != 0
    assert gone(pids)


def is_rank(pid: int, rank: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return command[: len(COMMAND)] == COMMAND and rank_in_mpi(pid) == rank


@pytest.mark.parametrize("rank", [0, 1, None])
def test_ctrl_c_ends_a_run_that_a_launcher_has_started(rank: int | None, tiny_path: Paths) -> None:
    with launched(tiny_path("llama")) as launcher:
        pids, start = processes(launcher.pid), time.monotonic()
        os.kill(launcher.pid if rank is None else next(pid for pid in pids if is_rank(pid, rank)), signal.SIGINT)
        launcher.communicate(timeout=60)
        assert time.monotonic() - start < MOST_S
    assert gone(pids)
