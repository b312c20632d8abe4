"""What is asked of a run, and waits until it is done: no more than is bounded."""

from __future__ import annotations

import pytest
from fakes import FakeEngine, FakeModel
from runs import of
from spoken import OPTIONS, hogwild

from hogwild_local import Worker
from hogwild_local import events as ev
from hogwild_local.errors import Busy, InvalidArgument
from hogwild_local.workers import commands


def test_no_more_waits_than_is_bounded_in_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "MOST_WAITING", 3)
    monkeypatch.setattr(commands, "MOST_CHARACTERS", 100)
    with hogwild(FakeEngine()) as hw:
        run = hw.stream("P", **OPTIONS)
        run.say("one")
        run.say("x" * 90)
        with pytest.raises(Busy, match="2 things that were asked of this run, of 93 characters, wait"):
            run.say("y" * 10)
        run.add(Worker("Dan", role="r"))
        for late in (lambda: run.say("four"), lambda: run.add("Eve")):
            with pytest.raises(Busy, match="3 things"):
                late()
        with pytest.raises(InvalidArgument, match="text has 101 characters: at most 100"):
            run.say("y" * 101)
        for _ in range(9):
            run.stop("Alice")  # is no more than once
        assert len(run._loop.commands._queue) == 4
        assert run.workers == ("Alice", "Bob", "Dan")
        events = []
        for event in run:
            events.append(event)
            if isinstance(event, ev.PassEnded) and event.n_pass in (1, 6):
                run.say("more")
        assert [event.text for event in of(events, ev.Said)] == ["one", "x" * 90, "more", "more"]
        assert of(events, ev.WorkerJoined)


@pytest.mark.parametrize("refused", ["ended", "cache_full", "invalid"])
def test_what_is_refused_waits_no_more(refused: str) -> None:
    class Deaf(FakeModel):
        def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
            return super().tokenize(text.replace("W", ""), add_special, parse_special)

    with hogwild(FakeEngine(model=Deaf()), n_ctx=100) as hw:
        run = hw.stream("P", **OPTIONS)
        act = {
            "cache_full": lambda: run.say("x" * 90),
            "invalid": lambda: run.say("W"),
            "ended": lambda: run.say("late"),
        }
        events = []
        for event in run:
            events.append(event)
            if isinstance(event, ev.PassEnded) and event.n_pass == (9 if refused == "ended" else 3):
                act[refused]()
                assert run._loop.commands._n_waiting == 1
        assert [event.reason for event in of(events, ev.NotSaid)] == [refused]
        assert (run._loop.commands._n_waiting, run._loop.commands._n_characters) == (0, 0)
