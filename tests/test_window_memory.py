"""Memory of layers with a sliding window: what nobody uses is not touched, and what nobody has cleared is not read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from isolated import run_isolated

UNTOUCHED = """
import sys
from hogwild_local import Model, SharedCache

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * __import__("os").sysconf("SC_PAGE_SIZE")

with Model(sys.argv[1], n_threads=1) as model:
    before = resident()
    with SharedCache(model, 600_000, n_windows=20_000) as cache:
        assert cache.n_windowed > 400_000
        empty = resident() - before
        cache.decode([([cache.block()], [1] * 9000)])
        print(empty / cache.n_bytes, (resident() - before) / cache.n_bytes)
"""

# Twenty blocks, each of which ends anywhere, so that attention reads beyond what is open in all ways.
FINITE = """
import random
import sys
import numpy as np
from hogwild_local import Model, SharedCache

rng = random.Random(0)
with Model(sys.argv[1], n_threads=1) as model:
    with SharedCache(model, 20_000, n_batch=64, n_windows=300, attention=sys.argv[2]) as cache:
        blocks = []
        for i in range(20):
            blocks.append(cache.block())
            views = [blocks] + [[*(b for b in blocks if b is not own), own] for own in rng.choices(blocks, k=5)]
            for view in views:
                n = 1 if view is not blocks else rng.randrange(1, 150) if i else 200
                tokens = [rng.randrange(model.n_vocab) for _ in range(n)]
                assert np.isfinite(cache.decode([(view, tokens)])).all(), i
print("finite")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_windows_that_nobody_uses_are_not_touched(tiny_path: Callable[..., Path]) -> None:
    """Every other layer of this model has a window; the cells of the others are all touched, for they are promised."""
    result = run_isolated(UNTOUCHED, tiny_path("gemma2"))
    assert result.returncode == 0, result.stderr
    empty, used = map(float, result.stdout.split())
    assert 0.4 < empty < 0.7
    assert used < 0.8


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
def test_no_attention_reads_what_nobody_has_cleared(tiny_path: Callable[..., Path], attention: str) -> None:
    """glibc fills what it gives with bytes of which an f16 is a NaN, which a product with zero does not hide."""
    result = run_isolated(FINITE, tiny_path("gemma2"), attention, environment={"MALLOC_PERTURB_": "1"})
    assert (result.returncode, result.stdout) == (0, "finite\n"), result.stderr
