"""How many threads a model gets when nobody says, and how long they spin where they wait for each other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from isolated import run_isolated

from hogwild_local import Hogwild, Model
from hogwild_local.engine.default_model import default_model_path
from hogwild_local.engine.native import thread_counts
from hogwild_local.engine.threads import BYTES_A_THREAD, default_threads, n_cores

libgomp = pytest.mark.skipif(
    sys.platform != "linux" or "libgomp" not in Path("/proc/self/maps").read_text(),
    reason="this build of llama.cpp does without libgomp",
)


def file_of(path: Path, n_bytes: int) -> Path:
    with path.open("wb") as file:
        file.truncate(n_bytes)  # takes no room on the disk
    return path


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hogwild_local.engine.threads.n_cores", lambda: 8)


@pytest.mark.usefixtures("eight_cores")
def test_a_tiny_model_gets_one_thread_and_a_large_one_all_cores(tmp_path: Path) -> None:
    sizes = {1: 1, BYTES_A_THREAD: 1, 3 * BYTES_A_THREAD: 3, 8 * BYTES_A_THREAD: 8, 4 << 30: 8}
    for n_bytes, expected in sizes.items():
        assert default_threads(file_of(tmp_path / "model.gguf", n_bytes)) == expected, n_bytes


@pytest.mark.usefixtures("eight_cores")
def test_all_parts_of_a_split_model_count(tmp_path: Path) -> None:
    first, *_ = [file_of(tmp_path / f"model-{i:05}-of-00003.gguf", 2 * BYTES_A_THREAD) for i in (1, 2, 3)]
    assert default_threads(first) == 6


def test_a_model_says_how_many_threads_it_got(tiny_path: Callable[..., Path]) -> None:
    with Model(default_model_path()) as model:
        assert model.n_threads == 1
    with Model(tiny_path("qwen3"), n_threads=2) as model:
        assert model.n_threads == 2, "what the user says is obeyed"


def test_an_engine_of_its_own_process_gets_the_same_threads() -> None:
    with Hogwild(default_model_path(), n_ctx=512, isolate=True) as hw:
        assert hw.model.n_threads == 1


def test_no_more_threads_than_cores(tmp_path: Path) -> None:
    assert default_threads(file_of(tmp_path / "model.gguf", 1 << 40)) == n_cores()


QUIET, HELD_UP = (0.010, 0.019, 1), (0.010, 0.010, 90)  # seconds, of CPU, and how often a thread lost its core


def test_after_a_pass_whose_threads_hold_each_other_up_passes_get_one_fewer() -> None:
    """Sixteen of them; then all are tried again."""
    assert thread_counts(2, [QUIET] * 40) == [2] * 41
    assert thread_counts(1, [HELD_UP] * 40) == [1] * 41
    assert thread_counts(2, [HELD_UP, *[QUIET] * 40]) == [2, *[1] * 16, *[2] * 25]
    assert thread_counts(2, [HELD_UP] * 40) == [2, *[1] * 16, 2, *[1] * 16, 2, *[1] * 6]
    assert thread_counts(8, [HELD_UP] * 10) == [8, *[7] * 10], "where others take all cores, each thread gets its share"


def test_threads_that_were_only_idle_or_hold_up_nobody_stay() -> None:
    idle, disturbed = (0.010, 0.008, 1), (0.010, 0.017, 90)
    assert thread_counts(2, [idle, disturbed] * 20) == [2] * 41


BITS = """
import hashlib, sys
from hogwild_local import Model, SharedCache
for path in sys.argv[1:]:
    with Model(path, n_threads=3) as model, SharedCache(model, n_ctx=256) as cache:
        blocks = [cache.block() for _ in range(3)]
        for n in (70, 1, 2):
            views = [(blocks[:1], list(range(n)))] if n > 2 else [(blocks, [5] * n), (blocks[::-1], [6])]
            print(hashlib.sha256(b"".join(row.tobytes() for row in cache.decode(views))).hexdigest())
"""


@libgomp
def test_fewer_threads_compute_the_same_bits(tiny_path: Callable[..., Path]) -> None:
    """libgomp gives a pass no more threads than the limit, whatever was planned."""
    paths = [
        tiny_path(name, kind)
        for name in ("llama", "qwen3", "qwen35", "rwkv7", "mamba")
        for kind in ("f32", "q8_0", "q4_0")
    ]
    said = [run_isolated(BITS, *paths, environment={"OMP_THREAD_LIMIT": str(n)}) for n in (1, 2, 3)]
    assert [done.returncode for done in said] == [0] * 3, said[0].stderr
    assert len(said[0].stdout.split()) == 3 * len(paths)
    assert said[0].stdout == said[1].stdout == said[2].stdout


@libgomp
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "GOMP_SPINCOUNT = '10000'"),
        ({"GOMP_SPINCOUNT": "77"}, "GOMP_SPINCOUNT = '77'"),
        ({"OMP_WAIT_POLICY": "passive"}, "GOMP_SPINCOUNT = '0'"),
    ],
)
def test_libgomp_is_told_to_spin_shortly_but_where_the_user_says_how(
    given: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libgomp itself says what it has read, at the moment it is loaded."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)  # the engine of this process has set it
    done = run_isolated("import hogwild_local.engine.native", environment={"OMP_DISPLAY_ENV": "verbose", **given})
    assert done.returncode == 0, done.stderr
    assert expected in done.stderr
