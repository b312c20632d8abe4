"""A device that fails in the middle of a move: no backend here does so when asked, so blocks are tried on cells that do
(tests/cpp/test-blocks.cpp, compiled here)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    *(
        "engine/blocks.cpp",
        "engine/cell-space.cpp",
        "cache/block-table.cpp",
        "cache/block-maps.cpp",
        "cache/cell-moves.cpp",
        "cache/map-bytes.cpp",
        "cache/map-joins.cpp",
        "cache/map-pass.cpp",
        "cache/map-pool.cpp",
    ),
    *("base/error.cpp", "base/memory.cpp", "base/thread-pool.cpp"),
]
COMPILER = shutil.which("c++")


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (c++)")
def test_whatever_fails_in_mid_move_all_blocks_hold_what_they_held(tmp_path: Path) -> None:
    program = tmp_path / "test-blocks"
    sources = [ROOT / "tests/cpp/test-blocks.cpp", *(ROOT / "cpp" / name for name in SOURCES)]
    includes = [f"-I{ROOT / 'cpp'}", f"-I{ROOT / 'cpp/include'}"]
    subprocess.run(
        [str(COMPILER), "-std=c++17", "-O1", "-pthread", *includes, *map(str, sources), "-o", program], check=True
    )
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
