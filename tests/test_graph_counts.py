"""How often graphs are built: asking llama.cpp for one takes as long as many passes."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from hogwild_local import Model, SharedCache

Load = Callable[..., Model]


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
def test_llama_cpp_is_asked_once_for_each_number_of_tokens(attention: str, single: Load) -> None:
    rng = random.Random(0)
    model = single("qwen3")
    with SharedCache(model, 2048, attention=attention) as cache:
        shared = cache.block("shared")
        workers = [cache.block(f"worker {i}") for i in range(4)]
        cache.decode([([shared], [1] * 250)])
        sizes = {(1, 1), (cache.pass_size(250), 1)}  # the first one: what every cache asks for, to know the model
        for n_pass in range(60):
            n_tokens = [rng.choice([1, 1, 1, 1, 1, 5]) for _ in workers]
            views = [
                ([shared, *(other for other in workers if other is not own), own], [rng.randrange(200)] * n)
                for own, n in zip(workers, n_tokens, strict=True)
            ]
            assert np.isfinite(cache.decode(views)).all()
            sizes.add((cache.pass_size(sum(n_tokens)), cache.pass_size(len(workers))))
            if n_pass % 15 == 14:
                shared.append(workers[n_pass % 4])
        # Where blocks are part of a graph, many are built of what llama.cpp gave once.
        assert cache.n_graphs > len(sizes) or attention == "fused"
        assert cache.n_source_graphs <= len(sizes)


def test_a_graph_that_was_given_up_is_as_it_was_when_it_is_asked_for_again(single: Load) -> None:
    # More sizes than are kept, twice: the second time all are asked for again.
    model = single("qwen3")
    sizes = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 28, 32, 64, 96, 128, 256, 384]
    rows = []
    with SharedCache(model, 512, type_k="f32", type_v="f32") as cache:
        for _ in range(2):
            for n in sizes:
                block = cache.block()
                rows.append(cache.decode([([block], [i % model.n_vocab for i in range(n)])])[0])
                block.free()
        assert cache.n_source_graphs > len(sizes)
    assert np.array_equal(rows[: len(sizes)], rows[len(sizes) :])
