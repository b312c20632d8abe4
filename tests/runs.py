"""Runs on a fake engine, and what is asked of their events, for tests of the layers above the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fakes import TINY_STYLE, FakeEngine, Feed

from hogwild_local import events as ev
from hogwild_local.hogwild import Hogwild
from hogwild_local.options import Worker

HEADERS = 3  # passes that feed prompt, header and separator in TINY_STYLE's combined layout


def hogwild(fake: FakeEngine, **options: Any) -> Hogwild:
    return Hogwild("m.gguf", prompts=options.pop("prompts", TINY_STYLE), engine=fake.engine, **options)


def run(fake: FakeEngine, workers: int | Sequence[str | Worker] = 2, **options: Any) -> list[ev.Event]:
    """All events of one run with a budget; afterwards nothing is held any more."""
    cache_options = {key: options.pop(key) for key in ("n_ctx", "n_batch", "prompts") if key in options}
    settings = {"max_passes": 12, "finisher": False, "seed": 1, **options}
    with hogwild(fake, **cache_options) as hw:
        events = list(hw.stream("P", workers=workers, **settings))
        assert fake.n_open == 0
    return events


def of(events: list[ev.Event], kind: type[ev.Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def texts(events: list[ev.Event]) -> dict[str | None, str]:
    """What each worker wrote."""
    written: dict[str | None, str] = {}
    for event in of(events, ev.Token):
        written[event.worker] = written.get(event.worker, "") + event.text
    return written


def finished(events: list[ev.Event]) -> dict[str, str]:
    return {event.worker: event.reason for event in of(events, ev.WorkerFinished)}


def passes(fake: FakeEngine) -> list[list[Feed]]:
    """The passes of the workers."""
    assert fake.cache
    return fake.cache.passes[HEADERS:]


def fed(fake: FakeEngine, n_pass: int) -> list[str]:
    return [fake.model.text(feed.tokens) for feed in passes(fake)[n_pass]]


def seen_by_finisher(fake: FakeEngine) -> str:
    first = next(feeds[0] for feeds in passes(fake) if feeds[0].names[-1] == "finisher")
    return "".join(first.before)
