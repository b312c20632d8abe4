"""Workers who join a run that is going on: when, in which block, with which random numbers, and what is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes import FakeEngine, FakeModel
from runs import finished, of, texts
from spoken import feeds, hogwild, spoken_run, views

from hogwild_local import SamplingParams, Worker
from hogwild_local import events as ev
from hogwild_local.errors import InvalidArgument
from hogwild_local.workers.layouts import LAYOUTS
from hogwild_local.workers.writer import worker_seed


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_worker_joins_at_the_next_pass_and_is_seen_as_the_layout_says(layout: str) -> None:
    fake = FakeEngine("aaaaaaaaa", "bbbbbbbbb", "C.\n\nc")
    events = spoken_run(fake, {3: lambda run: run.add("Carol")}, layout=layout)
    kinds = [type(event) for event in events]
    assert kinds.index(ev.WorkerJoined) < kinds.index(ev.StepStarted, kinds.index(ev.WorkerJoined))
    assert of(events, ev.WorkerJoined) == [ev.WorkerJoined("Carol", 3)]
    assert texts(events) == {"Alice": "a" * 9, "Bob": "b" * 9, "Carol": "C.\n\ncxxx"}
    assert feeds(fake, "worker 2")[0] == "<Carol1>"
    seen = views(fake, "worker 0")[-1]
    assert ("<Carol2>" in seen) == (layout != "interleaved")
    assert "<Carol1>C" in seen


def test_a_role_is_fed_before_its_worker_joins() -> None:
    fake = FakeEngine("aaaaaaaaa", "bbbbbbbbb", "ccc")
    events = spoken_run(fake, {3: lambda run: run.add(Worker("Carol", role="new", stop="c"))})
    assert feeds(fake, "role") == ["(Carol:new)"]
    assert [event.n_pass for event in of(events, ev.WorkerJoined)] == [4]
    assert views(fake, "worker 2")[0].startswith("<bos>s=R;u=P;||(Carol:new)|H:|")
    assert not any("new" in view for view in views(fake, "worker 0"))
    assert finished(events)["Carol"] == "stop"


def test_an_added_worker_changes_nobody_elses_random_numbers() -> None:
    alone = texts(spoken_run(FakeEngine(), {}, workers=["A", "B"]))
    fake = FakeEngine()
    together = texts(spoken_run(fake, {2: lambda run: run.add(Worker("C", sampling=SamplingParams(top_k=7)))}))
    assert {"Alice": together["Alice"], "Bob": together["Bob"]} == {"Alice": alone["A"], "Bob": alone["B"]}
    params = fake.samplers[2].params
    assert (params.seed, params.top_k, params.logit_bias) == (worker_seed(1, 2), 7, fake.samplers[0].params.logit_bias)


def test_a_stop_of_a_worker_that_was_refused_does_not_meet_another_one_of_its_name() -> None:
    acts = {
        2: lambda run: (run.add(Worker("Carol", role="x" * 90)), run.stop("Carol")),
        4: lambda run: run.add("Carol"),
    }
    events = spoken_run(FakeEngine(), acts, n_ctx=100)
    assert [event.worker for event in of(events, ev.WorkerRefused)] == ["Carol"]
    assert finished(events)["Carol"] == "budget"


def test_a_worker_that_is_stopped_before_it_has_joined_writes_nothing() -> None:
    fake = FakeEngine()
    events = spoken_run(fake, {2: lambda run: (run.add(Worker("Carol", role="x")), run.stop("Carol"))})
    assert finished(events)["Carol"] == "stopped"
    assert "Carol" not in {event.worker for event in of(events, ev.Token)}


def test_a_worker_that_is_given_no_name_has_the_next_usual_one() -> None:
    names: list[str] = []
    events = spoken_run(FakeEngine(), {2: lambda run: names.extend(run.add() for _ in range(2))}, workers=["Bob", "Al"])
    assert names == ["Alice", "Carol"]
    assert [event.worker for event in of(events, ev.WorkerJoined)] == names


def test_the_names_of_workers_are_true_at_all_times() -> None:
    seen = []
    acts = {
        2: lambda run: (run.add("Carol"), seen.append(run.workers)),
        3: lambda run: (run.stop("Carol"), seen.append(run.workers)),
        5: lambda run: seen.append(run.workers),
    }
    events = spoken_run(FakeEngine(), acts)
    assert seen == [("Alice", "Bob", "Carol")] * 3
    assert finished(events)["Carol"] == "stopped"


def test_more_workers_than_a_pass_or_the_prompts_have_room_for_are_refused_at_the_call() -> None:
    def faulty(run: Any) -> None:
        run.add("Carol")
        with pytest.raises(InvalidArgument, match="4 of them need n_batch >= 4, not 3"):
            run.add("Dan")
        assert run.workers == ("Alice", "Bob", "Carol")

    spoken_run(FakeEngine(), {2: faulty}, n_batch=3)


def test_a_worker_for_whose_role_there_is_no_room_is_none_of_the_runs() -> None:
    events = spoken_run(FakeEngine(), {2: lambda run: run.add(Worker("Carol", role="x" * 90))}, n_ctx=80)
    assert [(event.worker, event.reason) for event in of(events, ev.WorkerRefused)] == [("Carol", "cache_full")]
    assert set(finished(events)) == {"Alice", "Bob"}


def test_a_sampler_that_cannot_be_made_refuses_the_worker_and_the_run_goes_on() -> None:
    fake = FakeEngine()

    def make(model: FakeModel, params: SamplingParams) -> Any:
        if params.grammar:
            raise InvalidArgument("grammar: line 1")
        return fake._make_sampler(model, params)

    fake.engine = replace(fake.engine, sampler=make)
    events = spoken_run(fake, {2: lambda run: (run.add(Worker("Carol", grammar="?")), run.add("Dan"))})
    assert [(event.worker, event.message) for event in of(events, ev.WorkerRefused)] == [("Carol", "grammar: line 1")]
    assert of(events, ev.WorkerJoined) == [ev.WorkerJoined("Dan", 2)]
    assert finished(events) == dict.fromkeys(("Alice", "Bob", "Dan"), "budget")


@pytest.mark.parametrize("role", [None, "go on"])
def test_a_worker_can_take_the_place_of_the_last_one(role: str | None) -> None:
    fake = FakeEngine("aaaaaaaaa", "ccc")
    events = spoken_run(fake, {3: lambda run: (run.stop("Alice"), run.add(Worker("Carol", role=role)))}, workers=1)
    assert finished(events) == {"Alice": "stopped", "Carol": "budget"}
    assert "aaa" in views(fake, "worker 1")[1]


def test_nobody_joins_a_run_that_has_its_answer() -> None:
    fake = FakeEngine("ab\\boxed{7}", "bbbbbbbbbbbbb", "ccc")
    with hogwild(fake) as hw:
        events = []
        for event in (stream := hw.stream("P", **{"max_passes": 30, "finisher": False})):
            events.append(event)
            if isinstance(event, ev.Token) and event.text == "}":
                stream.add("Carol")
    assert [event.reason for event in of(events, ev.WorkerRefused)] == ["ended"]
    assert events[-1].answer == "7"  # type: ignore[attr-defined]


def test_the_next_steps_of_a_worker_that_was_alone_have_its_name() -> None:
    fake = FakeEngine("A.\n\naaaa", "b")
    events = spoken_run(fake, {1: lambda run: run.add("Bob")}, workers=1, prompts=None)
    assert [event.text for event in of(events, ev.StepStarted)][-1] == "**Alice [2]:**"
    assert "I am reading what Alice suggests" in feeds(fake, "worker 1")[0]
