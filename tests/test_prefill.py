"""SharedCache.prefill(): what it feeds is what decode() feeds, view by view; and prompts keep their places."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from merging_scene import N_BATCH, Made, blocked, in_thread, wait_for

from hogwild_local import Model, SharedCache
from hogwild_local.engine import turns
from hogwild_local.engine.merging import Request
from hogwild_local.engine.views import DecodeView
from hogwild_local.errors import CacheFull, InvalidArgument
from models.transformer import Shape, write_transformer
from models.weights import seeded

SHAPE = Shape("llama", 2, 120, 6, 3, 20, 168)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path: Path = tmp_path_factory.mktemp("models") / "two-layers.gguf"
    write_transformer(path, "two layers", SHAPE, "f32", seeded(0))
    with Model(path, n_threads=1) as made:
        yield made


def test_views_that_are_fed_together_hold_what_they_hold_fed_alone(model: Model) -> None:
    texts = [list(range(20)), [3, 4, 5], [7] * 9]
    rows = []
    for together in (True, False):
        with SharedCache(model, n_ctx=256, n_batch=16, type_k="f32", type_v="f32") as cache:
            prompt, header, role, own = (cache.block() for _ in range(4))
            views = [([prompt], texts[0]), ([header], texts[1]), ([prompt, role], texts[2])]
            if together:
                cache.prefill(views)
            else:
                for view in views:
                    cache.decode([view])
            assert [block.tokens for block in (prompt, header, role)] == texts
            rows.append(cache.decode([([prompt, header, role, own], [1])]))
    np.testing.assert_allclose(rows[0], rows[1], atol=2e-5 * np.abs(rows[1]).max())


def test_what_does_not_fit_leaves_all_blocks_as_they_were(model: Model) -> None:
    with SharedCache(model, n_ctx=64, n_batch=16) as cache:
        first, second = cache.block(), cache.block()
        cache.decode([([first], [1, 2])])
        with pytest.raises(CacheFull):
            cache.prefill([([first], [5] * 30), ([second], [6] * 40)])
        with pytest.raises(InvalidArgument, match="n_later"):
            cache.prefill([([first], [5])], n_later=-1)
        assert (first.tokens, second.tokens, cache.n_free) == ([1, 2], [], 62)


def test_a_prompt_that_is_cut_into_requests_keeps_its_place_among_prompts() -> None:
    """What others were fed before it, while it waited, puts its second half behind nobody."""
    made = Made()
    began, go_on = blocked(made)
    blocks = [made.block() for _ in range(4)]

    def ask(block: int) -> None:
        for n_later in (30, 0):
            request = Request([DecodeView([block], [1] * (N_BATCH if n_later else 30))], N_BATCH, n_later)
            while request.n_left:
                made.merger.feed(request)
            made.merger.release(request)

    threads = [in_thread(lambda: made.prompt(blocks[3], 20))]
    assert began.wait(10)
    for n, block in enumerate(blocks[:3]):
        threads.append(in_thread(lambda block=block: ask(block)))  # type: ignore[misc]
        wait_for(lambda n=n: len(made.merger._queue) == n + 1)  # type: ignore[misc]
    go_on.set()
    for thread in threads:
        thread.join(10)
    ends = [
        max(n for n, views in enumerate(made.native.passes) if block in [own for own, _ in views])
        for block in blocks[:3]
    ]
    assert ends == sorted(ends)
    assert len(set(ends)) == 3
    assert made.is_settled()


def test_who_has_to_change_the_cache_before_it_asks_again_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step ends: its worker's run moves it into the history before the next pass, which begins with it."""
    monkeypatch.setattr(turns, "PATIENCE_S", 1.0)  # a pass's own patience is too short for a busy machine
    made = Made(lambda n: 0.02)
    steady, changing = made.block(), made.block()
    n_passes = 12

    def change() -> None:
        for _ in range(n_passes):
            made.feed(changing)
            made.merger.alone(lambda: None)

    def decode() -> None:
        for _ in range(n_passes):
            made.feed(steady)

    threads = [in_thread(decode), in_thread(change)]
    for thread in threads:
        thread.join(20)
    together = sum(len(views) == 2 for views in made.native.passes)
    assert together >= n_passes - 2
