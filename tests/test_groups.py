"""Views of one pass that share no block, as those of several runs: each group is attended to as if it were alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
from test_graphs import load, mpt

from hogwild_local import CacheBlock, Model, SharedCache

FORMS = ["fused", "ggml", "composed"]
# Rows of passes of different sizes differ by the order of sums. gemma2 and mpt read their GELU from a table of f16: a
# rounding that flips an entry shows as up to some 1e-3.
TOLERANCES = {"llama": 1e-4, "qwen3": 1e-4, "gemma2": 5e-3, "mpt": 1e-3}
View = tuple[list[CacheBlock], list[int]]


class Group:
    """Workers that see a prompt and each other; or, without any, a prompt that is being read."""

    def __init__(self, cache: SharedCache, n_prompt: int, n_workers: int, n_tokens: int) -> None:
        self.rng = random.Random(n_prompt)
        self.n_tokens = n_tokens
        self.prompt = cache.block("prompt")
        self.workers = [cache.block(f"worker {i}") for i in range(n_workers)]
        cache.decode([([self.prompt], self.tokens(n_prompt))])

    def tokens(self, n: int) -> list[int]:
        return [self.rng.randrange(200) for _ in range(n)]

    def views(self) -> list[View]:
        if not self.workers:
            return [([self.prompt], self.tokens(self.n_tokens))]
        return [
            ([self.prompt, *(other for other in self.workers if other is not own), own], self.tokens(self.n_tokens))
            for own in self.workers
        ]


@contextmanager
def opened(name: str, single: Callable[..., Model], tmp_path: Path) -> Iterator[Model]:
    """A model with rope ("gemma2": with a sliding window of 24 tokens), or mpt: ALiBi, and 40 positions."""
    if name != "mpt":
        yield single(name)
        return
    with load(tmp_path / "mpt", "mpt", mpt) as model:
        yield model


def rows_of(
    model: Model, attention: str, shapes: Sequence[tuple[int, int, int]], together: bool
) -> list[list[np.ndarray]]:
    """All logits of three rounds, by group: its views in a pass of their own, or those of all groups in turn."""
    with SharedCache(model, 512, type_k="f32", type_v="f32", attention=attention) as cache:
        groups = [Group(cache, *shape) for shape in shapes]
        rows: list[list[np.ndarray]] = [[] for _ in groups]
        for _ in range(3):
            views = [group.views() for group in groups]
            if not together:
                for own, of_group in zip(rows, views, strict=True):
                    own.append(np.concatenate(cache.decode(of_group, all_logits=True)))
                continue
            # A view of the first group, one of the second, ..., the next of the first.
            order = [
                (index, view) for column in zip_longest(*views) for index, view in enumerate(column) if view is not None
            ]
            logits = cache.decode([view for _, view in order], all_logits=True)
            for index, own in enumerate(rows):
                own.append(np.concatenate([row for (i, _), row in zip(order, logits, strict=True) if i == index]))
        return rows


@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", TOLERANCES)
@pytest.mark.parametrize(
    "shapes",
    [
        pytest.param([(21, 1, 1), (9, 2, 2)], id="two"),
        pytest.param([(9, 2, 1), (4, 0, 11), (14, 3, 2)], id="three, one reads its prompt"),
    ],
)
def test_groups_of_one_pass_have_the_logits_of_passes_of_their_own(
    shapes: list[tuple[int, int, int]],
    name: str,
    attention: str,
    single: Callable[..., Model],
    tmp_path: Path,
) -> None:
    if name != "mpt":
        shapes = [(3 * n_prompt, n_workers, n_tokens) for n_prompt, n_workers, n_tokens in shapes]
    with opened(name, single, tmp_path) as model:
        alone = rows_of(model, attention, shapes, together=False)
        together = rows_of(model, attention, shapes, together=True)
    for own, merged in zip(alone, together, strict=True):
        assert np.abs(np.concatenate(own) - np.concatenate(merged)).max() <= TOLERANCES[name]


@pytest.mark.parametrize("attention", FORMS)
def test_two_groups_cost_the_attention_of_both(attention: str, single: Callable[..., Model]) -> None:
    with SharedCache(single("llama"), 2048, attention=attention) as cache:

        def cost(*groups: Group) -> int:
            before = cache.n_scores
            cache.decode([view for group in groups for view in group.views()])
            return cache.n_scores - before

        a, b = (Group(cache, 600, 2, 1) for _ in range(2))
        cost(a, b)
        alone = cost(a) + cost(b)
        assert alone >= 2 * 2 * 600
        assert cost(a, b) <= 1.1 * alone


@pytest.mark.parametrize("attention", FORMS)
def test_a_group_that_reads_a_prompt_does_not_read_that_of_the_others(
    attention: str, single: Callable[..., Model]
) -> None:
    with SharedCache(single("llama"), 2048, attention=attention) as cache:
        long = Group(cache, 1000, 1, 1)
        reader = Group(cache, 8, 0, 64)
        before = cache.n_scores
        cache.decode([*reader.views(), *long.views()])
        # The reader's 64 tokens take at most 96 rows.
        assert cache.n_scores - before <= 96 * 256 + 2048


def cost_of_runs(model: Model, n_runs: int, at_once: bool) -> tuple[int, int]:
    """Scores, and cells moved, of 20 passes of two workers a run. The prompts of 900 tokens were fed one after the
    other or in turns, then a short header of each, alone."""
    n = 900
    with SharedCache(model, 16384, attention="ggml") as cache:
        runs = [[cache.block() for _ in range(4)] for _ in range(n_runs)]
        chunk = 100 if at_once else n
        for index in range(n // chunk * n_runs):
            run = runs[index % n_runs if at_once else index // (n // chunk)]
            cache.decode([([run[0]], [1] * chunk)])
        for run in runs:
            cache.decode([([run[1]], [2] * 6)])
        before = (cache.n_scores, cache.n_moved)
        for n_pass in range(20):
            views = [
                ([prompt, header, other, own], [n_pass])
                for prompt, header, *pair in runs
                for other, own in (pair, reversed(pair))
            ]
            cache.decode(views)
        return cache.n_scores - before[0], cache.n_moved - before[1]


@pytest.mark.parametrize("at_once", [False, True])
def test_runs_side_by_side_read_little_more_than_each_alone(at_once: bool, single: Callable[..., Model]) -> None:
    model = single("llama")
    n_runs = 4
    scores, n_moved = cost_of_runs(model, n_runs, at_once)
    assert scores <= 1.1 * n_runs * cost_of_runs(model, 1, at_once)[0]
    assert n_moved <= 6 * n_runs  # the headers, to their prompts
