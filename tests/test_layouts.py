"""Layouts: who sees what, and where finished steps go. Blocks are written as their names."""

from __future__ import annotations

import pytest
from fakes import FakeBlock, FakeCache, FakeModel

from hogwild_local.errors import Busy, CacheFull, HogwildError, InvalidArgument
from hogwild_local.workers.layouts import LAYOUTS, Combined, Contiguous, Interleaved, Layout, make_layout


def opened(layout: Layout, n_workers: int = 3, header: str = "h", separator: str = "s") -> FakeCache:
    """The layout, prefilled; worker i has written its number once."""
    cache = FakeCache(FakeModel())
    layout.open(cache, n_workers, b"prompt", header.encode(), separator.encode())
    for block, tokens in layout.prefills:
        cache.decode([([block], tokens)])
    for i, block in enumerate(layout.own):
        cache.decode([(layout.view(i), [ord("0") + i])])
        assert block.tokens == [ord("0") + i]
    return cache


def names(view: list[FakeBlock]) -> list[str]:
    return [block.name for block in view]


def text(view: list[FakeBlock]) -> str:
    return bytes(token for block in view for token in block.tokens).decode()


def test_contiguous_view_is_prompt_others_separator_own() -> None:
    layout = Contiguous()
    opened(layout)
    assert names(layout.view(1)) == ["shared", "worker 0", "worker 2", "separator", "worker 1"]


def test_interleaved_view_is_history_own() -> None:
    layout = Interleaved()
    opened(layout)
    assert names(layout.view(1)) == ["shared", "worker 1"]


def test_combined_view_is_history_header_others_separator_own() -> None:
    layout = Combined()
    opened(layout)
    assert names(layout.view(1)) == ["shared", "header", "worker 0", "worker 2", "separator", "worker 1"]


@pytest.mark.parametrize("cls", LAYOUTS.values())
def test_without_texts_there_are_no_header_and_separator_blocks(cls: type[Layout]) -> None:
    layout = cls()
    opened(layout, n_workers=1, header="", separator="")
    assert names(layout.view(0)) == ["shared", "worker 0"]


@pytest.mark.parametrize("cls", LAYOUTS.values())
def test_header_and_separator_are_prefilled_alone(cls: type[Layout]) -> None:
    layout = cls()
    cache = opened(layout)
    fed = {feed.names[0]: bytes(feed.tokens) for (feed,) in cache.passes[:3]}
    assert fed == {"shared": b"prompt", "header": b"h", "separator": b"s"}


@pytest.mark.parametrize("cls", [Interleaved, Combined])
def test_a_finished_step_moves_to_the_end_of_the_history(cls: type[Layout]) -> None:
    layout = cls()
    opened(layout)
    layout.end_step(2)
    layout.end_step(0)
    assert text([layout.shared]) == "prompt20"
    assert [len(block) for block in layout.own] == [0, 1, 0]


def test_contiguous_moves_nothing() -> None:
    layout = Contiguous()
    cache = opened(layout)
    layout.end_step(0)
    assert text(layout.view(1)) == "prompt02s1"
    assert cache.log == []


def test_contiguous_drops_only_the_unfinished_step() -> None:
    layout = Contiguous()
    cache = opened(layout)
    layout.end_step(0)
    cache.decode([(layout.view(0), b"abc")])
    layout.drop_step(0)
    assert text([layout.own[0]]) == "0"


@pytest.mark.parametrize("cls", LAYOUTS.values())
def test_a_dropped_step_gives_its_cells_back(cls: type[Layout]) -> None:
    layout = cls()
    cache = opened(layout)
    free = cache.n_free
    layout.drop_step(1)
    assert cache.n_free == free + 1
    assert not len(layout.own[1])


@pytest.mark.parametrize("cls", LAYOUTS.values())
def test_the_last_step_of_a_retired_worker_stays_visible(cls: type[Layout]) -> None:
    layout = cls()
    opened(layout)
    layout.retire(0)
    assert "0" in text(layout.view(1))


def test_views_lose_the_empty_blocks_of_retired_workers_only() -> None:
    layout = Combined()
    opened(layout)
    layout.retire(0)
    layout.end_step(2)
    assert names(layout.view(1)) == ["shared", "header", "worker 2", "separator", "worker 1"]


@pytest.mark.parametrize("cls", LAYOUTS.values())
def test_the_closing_view_holds_everything_once_and_the_finisher_last(cls: type[Layout]) -> None:
    layout = cls()
    cache = opened(layout)
    for worker in range(3):
        layout.retire(worker)
    view = layout.closing_view(cache.block("finisher"))
    assert text(view) == "prompt012"
    assert view[-1].name == "finisher"


@pytest.mark.parametrize("cls", LAYOUTS.values())
@pytest.mark.parametrize("n_workers", [1, 2, 3, 16])
def test_all_views_obey_the_rules_of_a_decode(cls: type[Layout], n_workers: int) -> None:
    layout = cls()
    opened(layout, n_workers)
    layout.check()
    layout.retire(0)
    layout.check()


def test_check_names_the_worker_whose_view_is_wrong() -> None:
    class Backwards(Combined):
        def view(self, worker: int) -> list[FakeBlock]:
            return super().view(worker)[::-1] if worker == 1 else super().view(worker)

    class Twice(Combined):
        def view(self, worker: int) -> list[FakeBlock]:
            return [self.shared, *super().view(worker)]

    class Foreign(Combined):
        def view(self, worker: int) -> list[FakeBlock]:
            return [FakeCache(FakeModel()).block("far"), *super().view(worker)]

    for cls, fault in (
        (Backwards, "worker 1 does not end"),
        (Twice, "twice"),
        (Foreign, "not of this layout"),
    ):
        layout = cls()
        layout.open(FakeCache(FakeModel()), 2, b"prompt")
        with pytest.raises(HogwildError, match=fault):
            layout.check()


def test_close_frees_every_block_and_may_be_called_twice() -> None:
    layout = Combined()
    cache = opened(layout)
    layout.close()
    layout.close()
    assert cache.blocks == []
    assert cache.n_free == cache.n_ctx


def test_a_layout_serves_one_run_at_a_time_and_many_in_turn() -> None:
    layout = Combined()
    opened(layout)
    with pytest.raises(Busy):
        layout.open(FakeCache(FakeModel()), 2, b"other")
    assert text([layout.shared]) == "prompt"
    layout.close()
    opened(layout)


def test_a_failing_open_keeps_nothing() -> None:
    class Greedy(FakeCache):
        def block(self, name: str, anchored: bool = False) -> FakeBlock:
            if name == "worker 1":
                raise CacheFull(1, 0)
            return super().block(name, anchored)

    cache, layout = Greedy(FakeModel()), Combined()
    with pytest.raises(CacheFull):
        layout.open(cache, 2, b"prompt", b"h")
    assert cache.blocks == []
    opened(layout)


def test_a_layout_comes_from_its_name_its_class_or_itself() -> None:
    layout = Contiguous()
    assert make_layout(layout) is layout
    assert type(make_layout(Interleaved)) is Interleaved
    assert {name: type(make_layout(name)) for name in LAYOUTS} == LAYOUTS


@pytest.mark.parametrize("bad", ["diagonal", None, 3, FakeCache])
def test_an_unknown_layout_is_refused_with_the_names_of_the_known(bad: object) -> None:
    with pytest.raises(InvalidArgument, match="combined, interleaved, contiguous"):
        make_layout(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", LAYOUTS.values())
def test_what_is_said_joins_the_history_that_all_views_begin_with(cls: type[Layout]) -> None:
    layout = cls()
    cache = opened(layout)
    said = layout.block_behind("said")
    assert names(layout.prefill_view(said)) == ["shared", "said"]
    cache.decode([(layout.prefill_view(said), b"!")])
    layout.say(said)
    assert said.freed
    for worker in range(3):
        assert text(layout.view(worker)).startswith("prompt!")
    layout.retire(0)
    assert text(layout.closing_view(cache.block("finisher"))).startswith("prompt!")
    layout.check()


@pytest.mark.parametrize("cls", LAYOUTS.values())
def test_one_more_worker_has_the_next_number_and_the_view_of_its_layout(cls: type[Layout]) -> None:
    layout, grown = cls(), cls()
    opened(layout, 3)
    cache = opened(grown, 2)
    assert grown.join() == 2
    cache.decode([(grown.view(2), b"2")])
    for worker in range(3):
        assert names(grown.view(worker)) == names(layout.view(worker))
        assert text(grown.view(worker)) == text(layout.view(worker))
    grown.drop_step(2)
    grown.check()


@pytest.mark.parametrize("cls", LAYOUTS.values())
def test_a_role_stands_behind_the_history_of_one_view_and_goes_with_its_worker(cls: type[Layout]) -> None:
    layout = cls()
    layout.open(FakeCache(FakeModel()), 2, b"prompt", b"h", b"s", roles=[b"", b"role"])
    assert names(layout.seen_by(1))[:2] == ["shared", "role 1"]
    assert [name for name in names(layout.seen_by(1)) if name != "role 1"] == names(layout.view(1))
    assert layout.seen_by(0) == layout.view(0)
    layout.check()
    (role,) = layout.roles.values()
    layout.retire(1)
    assert role.freed
    assert layout.seen_by(1) == layout.view(1)


def test_static_blocks_of_a_users_layout_are_prefilled_alone() -> None:
    class Signed(Combined):
        def _opened(self) -> None:
            self.sign = self._static("sign", b"!")

    layout = Signed()
    cache = FakeCache(FakeModel())
    layout.open(cache, 2, b"prompt", roles=[b"", b"role"])
    views = {block.name: names(layout.prefill_view(block)) for block, _ in layout.prefills}
    assert views == {"shared": ["shared"], "role 1": ["shared", "role 1"], "sign": ["sign"]}
