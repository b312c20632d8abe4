"""Mirrors, the copies that flash attention reads of blocks that begin elsewhere in a view: what is kept of them from
pass to pass is what would be copied anew, and little is copied twice."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from mla import write_mla
from test_cache import CacheMachine, Twin
from test_equivalence import TOLERANCE, TOLERANCES, tokens_of
from test_runahead import ranks

from hogwild_local import CacheBlock, Model, SharedCache

Load = Callable[..., Model]


class Workers:
    """Workers that see a prompt and each other, one token a pass; more than one for a prompt that is fed again."""

    def __init__(self, cache: SharedCache, n_workers: int, n_prompt: int = 40, seed: int = 0) -> None:
        self.cache = cache
        self.rng = random.Random(seed)
        self.prompt = cache.block("prompt")
        self.blocks = [cache.block(f"worker {i}") for i in range(n_workers)]
        cache.decode([([self.prompt], self.tokens(n_prompt))])

    def tokens(self, n: int) -> list[int]:
        return [self.rng.randrange(200) for _ in range(n)]

    def views(self, n: int = 1) -> list[tuple[list[CacheBlock], list[int]]]:
        return [
            ([self.prompt, *(other for other in self.blocks if other is not own), own], self.tokens(n))
            for own in self.blocks
        ]

    def write(self, n: int = 1) -> np.ndarray:
        return self.cache.decode(self.views(n))


def counts(cache: SharedCache) -> np.ndarray:
    """(cells whose keys were copied, cells whose values were)"""
    return np.array([cache.n_mirrored, cache.n_mirrored_values])


def test_a_value_that_is_mirrored_is_not_copied_again_in_the_next_pass(single: Load) -> None:
    with SharedCache(single("llama"), 2048, attention="ggml") as cache:
        workers = Workers(cache, 2)
        workers.write(20)
        workers.write()
        before = counts(cache)
        for n in range(4):
            workers.write()
            # Each of the two sees the other where it was written, and itself behind: one mirror of each.
            assert list(counts(cache) - before) == [2 * (22 + n), 2], n
            before = counts(cache)


def test_values_of_a_long_step_are_copied_three_times_at_most(single: Load) -> None:
    # A mirror moves where its block grew by a quarter.
    with SharedCache(single("llama"), 4096, attention="ggml") as cache:
        workers = Workers(cache, 4, n_prompt=300)
        keys, values = counts(cache)
        for _ in range(100):
            keys_before = cache.n_mirrored
            workers.write()
        n_mirrored = cache.n_mirrored - keys_before
        assert n_mirrored >= 8 * 100
        assert cache.n_mirrored_values - values <= 3 * n_mirrored
        assert cache.n_mirrored - keys >= 20 * n_mirrored


def test_keys_that_are_turned_as_before_are_not_turned_again(single: Load) -> None:
    model = single("llama")
    rows = []
    for attention in ("ggml", "fused"):
        with SharedCache(model, 1024, type_k="f32", type_v="f32", attention=attention) as cache:
            prompt, header, own = (cache.block(name) for name in ("prompt", "header", "own"))
            cache.decode([([prompt], tokens_of(model, 30))])
            cache.decode([([header], tokens_of(model, 5))])
            for n in range(5):
                before = counts(cache)
                rows.append(cache.decode([([header, prompt, own], [n])])[0])
                assert list(counts(cache) - before) == ([30, 30] if (n, attention) == (0, "ggml") else [0, 0])
    assert np.abs(np.subtract(rows[:5], rows[5:])).max() <= TOLERANCE


def test_passes_of_other_runs_leave_mirrors_where_they_are(single: Load) -> None:
    with SharedCache(single("llama"), 4096, attention="ggml") as cache:
        runs = [Workers(cache, 2, seed=seed) for seed in range(2)]
        for run in runs:
            run.write(20)
        for n in range(5):
            for some in (runs[:1], runs[1:], runs):
                before = counts(cache)
                cache.decode([view for run in some for view in run.views()])
                assert cache.n_mirrored_values - before[1] == 2 * len(some) or n == 0


def test_mirrors_without_values_of_their_own_copy_keys_alone(tmp_path: Path) -> None:
    with (
        Model(write_mla(tmp_path / "mla.gguf"), n_threads=1) as model,
        SharedCache(model, 1024, attention="ggml") as cache,
    ):
        workers = Workers(cache, 3)
        for _ in range(3):
            workers.write()
        assert cache.n_mirrored > 0
        assert cache.n_mirrored_values == 0


WHOLE, QUANTIZED = ("f32", "f32"), ("f16", "q8_0")  # for heads of a multiple of 32


@pytest.mark.parametrize(
    ("name", "types"),
    [
        *((name, WHOLE) for name in ("llama", "qwen3", "llama-yarn", "gemma2", "maincoder", "grok", "mla")),
        *((name, QUANTIZED) for name in ("qwen3", "llama-yarn")),
    ],
)
def test_logits_over_kept_mirrors_are_those_of_the_other_forms(
    name: str, types: Sequence[str], single: Load, tmp_path: Path
) -> None:
    """60 passes of three workers whose steps end now and then."""
    model = Model(write_mla(tmp_path / "mla.gguf"), n_threads=1) if name == "mla" else single(name)

    def rows_of(attention: str) -> np.ndarray:
        with SharedCache(model, 2048, *types, attention=attention) as cache:
            workers, rows = Workers(cache, 3), []
            for n in range(60):
                rows.append(workers.write())
                if n % 14 == 13:
                    workers.prompt.append(workers.blocks[n % 3])
                if n % 25 == 24:
                    workers.blocks[n % 3].truncate(4)
            assert (cache.n_mirrored > 1000) == (attention == "ggml")
            assert cache.n_mirrored_values <= cache.n_mirrored / 4
            return np.concatenate(rows)

    flash, fused = rows_of("ggml"), rows_of("fused")
    # Values that are quantized twice may come to lie a step of 1/127 away; flash attention on the CPU sums them in f16.
    bound = TOLERANCES.get(name, TOLERANCE) if types[0] == "f32" else 0.03 * np.abs(fused).max()
    assert np.abs(flash - fused).max() <= bound
    if name == "mla":
        model.close()


def test_a_block_that_is_written_over_mirrors_leaves_none_of_them(single: Load) -> None:
    rows = []
    for attention in ("ggml", "fused"):
        with SharedCache(single("llama"), 100, type_k="f32", type_v="f32", attention=attention) as cache:
            workers = Workers(cache, 2, n_prompt=10)
            held = cache.block()
            cache.decode([([held], workers.tokens(60))])
            data = cache.read(held)
            held.free()
            workers.write(10)
            cache.write(data).free()  # to where the mirrors are: else they would be kept
            before = counts(cache)
            rows.append(workers.write())
            assert attention == "fused" or cache.n_mirrored_values - before[1] > 10
    assert np.abs(rows[0] - rows[1]).max() <= TOLERANCE


def test_a_prompt_of_several_ranks_over_mirrors_leaves_none_of_them(tiny_path: Callable[..., Path]) -> None:
    # What other ranks compute of it is written by no pass.
    rows = []
    for attention in ("ggml", "fused"):
        with (
            ranks(tiny_path("llama"), 2, lambda n, _: (n - 1, 1)) as (model, _),
            SharedCache(model, 100, type_k="f32", type_v="f32", attention=attention) as cache,
        ):
            workers = Workers(cache, 2, n_prompt=10)
            workers.write(10)
            prompt = cache.block()
            cache.decode([([prompt], workers.tokens(60))])
            prompt.free()
            before = counts(cache)
            rows.append(workers.write())
            assert attention == "fused" or cache.n_mirrored_values - before[1] > 10
    assert np.abs(rows[0] - rows[1]).max() <= TOLERANCE


class MirrorMachine(CacheMachine):
    """Random operations, between passes of workers that see each other in the same order as before. kept: whether each
    pass found a mirror whose values it did not have to copy."""

    def __init__(self, model: Model, kept: list[bool]) -> None:
        super().__init__(model, "ggml", "f32", moved=[])
        self.kept = kept

    def feed(self, views: list[tuple[list[Twin], list[int]]]) -> None:
        before = counts(self.small)
        super().feed(views)
        keys, values = counts(self.small) - before
        self.kept.append(keys > values)

    @precondition(lambda self: len(self.twins) > 1)
    @rule(n=st.integers(1, 5), rest=st.integers(0, 2))
    def write(self, n: int, rest: int) -> None:
        own = self.twins[rest:] or self.twins
        for i in range(n):
            if self.n_free < len(own):
                return
            self.feed([([*(other for other in own if other is not twin), twin], [i]) for twin in own])

    @precondition(lambda self: len(self.twins) > 3)
    @rule()
    def write_in_two_groups(self) -> None:
        if self.n_free >= 4:
            a, b, c, d = self.twins[:4]
            self.feed([([a, b], [1]), ([b, a], [2]), ([c, d], [3]), ([d, c], [4])])


def test_kept_mirrors_are_true_whatever_happens_between_passes(single: Load) -> None:
    kept: list[bool] = []
    for _ in range(5):  # what is drawn at random may keep few mirrors: then more is drawn
        run_state_machine_as_test(
            lambda: MirrorMachine(single("llama-bos"), kept),
            settings=settings(
                max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
        if sum(kept) > 50:
            break
    assert sum(kept) > 50, "these runs kept too few mirrors to say anything"


def test_graphs_of_workers_serve_many_passes(single: Load) -> None:
    with SharedCache(single("llama"), 8192, attention="ggml") as cache:
        workers = Workers(cache, 4, n_prompt=1000)
        workers.write(8)
        before = (cache.n_graphs, cache.n_source_graphs)
        for _ in range(60):
            workers.write()
        assert cache.n_source_graphs - before[1] <= 1
        assert cache.n_graphs - before[0] <= 12
