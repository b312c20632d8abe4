"""Runs that are spoken to, for tests: a style with words for it, and what stands in a view as texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fakes import TINY_STYLE, FakeEngine

from hogwild_local import Hogwild
from hogwild_local import events as ev
from hogwild_local.prompts.tables import Role, Said
from hogwild_local.workers.run import Run

OPTIONS: dict[str, Any] = {"max_passes": 9, "finisher": False, "seed": 1}
STYLE = replace(TINY_STYLE, role=Role("({{ name }}:{{ role }})"), said=Said("[{{ to or 'all' }}:{{ text }}]"))


def hogwild(fake: FakeEngine, **options: Any) -> Hogwild:
    return Hogwild("m.gguf", prompts=options.pop("prompts", STYLE), engine=fake.engine, **options)


def spoken(run: Run, acts: dict[int, Callable[[Run], object]]) -> list[ev.Event]:
    """All events of a run. acts: what is done once a pass has ended, by its number."""
    events = []
    with run:
        for event in run:
            events.append(event)
            if isinstance(event, ev.PassEnded) and event.n_pass in acts:
                acts[event.n_pass](run)
    return events


def views(fake: FakeEngine, own: str) -> list[str]:
    """What stood before, and in, the block of this name, pass after pass; | between blocks."""
    assert fake.cache
    return ["|".join(feed.before) for feeds in fake.cache.passes for feed in feeds if feed.names[-1] == own]


def feeds(fake: FakeEngine, own: str) -> list[str]:
    """What was fed to the blocks of this name."""
    assert fake.cache
    return [fake.model.text(feed.tokens) for feeds in fake.cache.passes for feed in feeds if feed.names[-1] == own]


def spoken_run(fake: FakeEngine, acts: dict[int, Callable[[Run], object]], **options: Any) -> list[ev.Event]:
    """All events of a run of a Hogwild of its own; afterwards nothing is held any more."""
    of_hogwild = {key: options.pop(key) for key in ("n_ctx", "n_batch", "prompts") if key in options}
    with hogwild(fake, **of_hogwild) as hw:
        events = spoken(hw.stream("P", **{**OPTIONS, **options}), acts)
        assert fake.n_open == 0
        assert hw.n_free == hw.n_ctx
    return events
