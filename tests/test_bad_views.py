"""Bad views and bad operations on blocks are refused, and change nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hogwild_local import Model, SharedCache
from hogwild_local.errors import InvalidArgument

Load = Callable[..., Model]


class Scene:
    """A cache of three blocks, one of another cache, one freed."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.cache = SharedCache(model, n_ctx=64, n_batch=16, type_k="f32", type_v="f32")
        self.other_cache = SharedCache(model, n_ctx=64)
        self.a, self.b, self.c = (self.cache.block(name) for name in "abc")
        self.freed, self.foreign = self.cache.block("freed"), self.other_cache.block("foreign")
        self.cache.decode([([self.a], [1, 2, 3]), ([self.a, self.b], [4, 5])])
        self.freed.free()

    def state(self) -> tuple[list[int], int, int]:
        return [len(self.a), len(self.b), len(self.c)], self.cache.n_free, len(self.foreign)

    def logits(self) -> np.ndarray:
        return self.cache.decode([([self.a, self.b, self.c], [6])])

    def close(self) -> None:
        self.cache.close()
        self.other_cache.close()


LONG = [1] * 20  # longer than n_batch: taken in chunks
BAD_VIEWS: dict[str, tuple[Callable[[Scene], object], str]] = {
    "no views": (lambda s: [], "no views"),
    "None": (lambda s: None, "pairs"),
    "a number": (lambda s: 5, "pairs"),
    "no pair": (lambda s: [[s.a]], "pairs"),
    "a triple": (lambda s: [([s.a], [1], [2])], "pairs"),
    "a block that is no list": (lambda s: [(s.a, [1])], "pairs"),
    "an empty view": (lambda s: [([], [1])], "no blocks"),
    "a long empty view": (lambda s: [([], LONG)], "no blocks"),
    "no tokens": (lambda s: [([s.a], [])], "no tokens"),
    "tokens None": (lambda s: [([s.a], None)], "tokens"),
    "tokens a number": (lambda s: [([s.a], 1)], "tokens"),
    "tokens a text": (lambda s: [([s.a], "12")], "tokens"),
    "tokens of two dimensions": (lambda s: [([s.a], np.ones((2, 2), dtype=int))], "tokens"),
    "one view without tokens": (lambda s: [([s.a], [1]), ([s.b], [])], "no tokens"),
    "no block": (lambda s: [([1], [1])], "not a block"),
    "None for a block": (lambda s: [([s.a, None], [1])], "not a block"),
    "a freed own block": (lambda s: [([s.a, s.freed], [1])], "'freed' was freed"),
    "a freed other block": (lambda s: [([s.freed, s.a], [1])], "'freed' was freed"),
    "a foreign own block": (lambda s: [([s.a, s.foreign], [1])], "'foreign' is of another cache"),
    "a foreign other block": (lambda s: [([s.foreign, s.a], [1])], "'foreign' is of another cache"),
    "a block twice": (lambda s: [([s.b, s.b, s.a], [1])], "twice"),
    "the own block twice": (lambda s: [([s.a, s.a], [1])], "twice"),
    "a block twice, long": (lambda s: [([s.a, s.a], LONG)], "twice"),
    "a block twice in the second view": (lambda s: [([s.a], [1]), ([s.c, s.c, s.b], [1])], "twice"),
    "own block of two views": (lambda s: [([s.b, s.a], [1]), ([s.c, s.a], [2])], "own block of two views"),
    "too many tokens": (lambda s: [([s.a], [1] * 9), ([s.b], [1] * 8)], "n_batch"),
}


@pytest.mark.parametrize("case", BAD_VIEWS)
def test_a_bad_view_is_refused_and_changes_nothing(case: str, single: Load) -> None:
    views, words = BAD_VIEWS[case]
    scenes = [Scene(single("llama-bos")) for _ in range(2)]
    before = scenes[0].state()
    with pytest.raises(InvalidArgument, match=words):
        scenes[0].cache.decode(views(scenes[0]))
    assert scenes[0].state() == before
    scenes[0].cache.check()
    assert np.array_equal(scenes[0].logits(), scenes[1].logits())
    for scene in scenes:
        scene.close()


BAD_APPENDS: dict[str, Callable[[Scene], object]] = {
    "itself": lambda s: s.a.append(s.a),
    "of another cache": lambda s: s.a.append(s.foreign),
    "to another cache": lambda s: s.foreign.append(s.a),
    "freed": lambda s: s.a.append(s.freed),
    "to freed": lambda s: s.freed.append(s.a),
    "None": lambda s: s.a.append(None),
    "tokens": lambda s: s.a.append([1, 2]),
    "clear freed": lambda s: s.freed.clear(),
    "truncate freed": lambda s: s.freed.truncate(0),
    "free twice": lambda s: s.freed.free(),
    "len of freed": lambda s: len(s.freed),
}


@pytest.mark.parametrize("case", BAD_APPENDS)
def test_a_bad_operation_on_blocks_changes_nothing(case: str, single: Load) -> None:
    scenes = [Scene(single("llama-bos")) for _ in range(2)]
    before = scenes[0].state()
    with pytest.raises(InvalidArgument):
        BAD_APPENDS[case](scenes[0])
    assert scenes[0].state() == before
    assert np.array_equal(scenes[0].logits(), scenes[1].logits())
    for scene in scenes:
        scene.close()
