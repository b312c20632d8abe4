"""Running workers can be spoken to: when it takes effect, who reads it, what is told; from any thread or coroutine."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes import EOS, TINY_STYLE, FakeCache, FakeEngine, FakeModel
from runs import finished, of, texts
from spoken import OPTIONS, STYLE, feeds, hogwild, spoken, spoken_run, views

from hogwild_local import Hogwild, Worker
from hogwild_local import events as ev
from hogwild_local.errors import Closed, InvalidArgument
from hogwild_local.workers.asides import MOST_BESIDE
from hogwild_local.workers.layouts import LAYOUTS, Combined

# -- say --


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_said_is_fed_once_beside_the_next_pass_and_read_by_all_from_the_one_after(layout: str) -> None:
    fake = FakeEngine("aaaaaaaaa", "bbbbbbbbb")
    events = spoken_run(fake, {3: lambda run: run.say("hey")}, layout=layout)
    assert feeds(fake, "said") == ["[all:hey]"]
    assert of(events, ev.Said) == [ev.Said("hey", None, "[all:hey]", 4)]
    for worker in range(2):
        assert ["[all:hey]" in view for view in views(fake, f"worker {worker}")] == [False] * 4 + [True] * 5
    assert fake.cache
    assert len([feeds for feeds in fake.cache.passes if len(feeds) == 3]) == 1  # no pass of its own


@pytest.mark.parametrize("layout", ["combined", "interleaved"])
def test_it_stands_between_the_steps_in_their_order(layout: str) -> None:
    fake = FakeEngine("A.\n\nC.\n\naaa", "bbbbbbbbb")
    spoken_run(fake, {3: lambda run: run.say("hey", to="Bob")}, layout=layout)
    history = views(fake, "worker 1")[-1].split("|(")[0]
    assert "<Alice1>A[Bob:hey].\n\n<Alice2>C" in history.replace("||", "|")


def test_it_comes_before_steps_that_end_in_the_pass_that_feeds_it() -> None:
    fake = FakeEngine("Aaa.\n\naaaaa", "bbbbbbbbb")
    spoken_run(fake, {3: lambda run: run.say("hey")})
    assert views(fake, "said") == ["<bos>s=R;u=P;||"]
    assert "|[all:hey]<Alice1>Aaa|" in views(fake, "worker 1")[-1]


def test_several_are_said_in_their_order_each_behind_those_before() -> None:
    fake = FakeEngine("aaaaaaaaa", "bbbbbbbbb")
    spoken_run(fake, {2: lambda run: [run.say(word) for word in ("one", "two", "three")]})
    assert views(fake, "said") == ["<bos>s=R;u=P;||", "<bos>s=R;u=P;|[all:one]|", "<bos>s=R;u=P;|[all:one][all:two]|"]


def test_what_is_said_before_the_first_event_is_fed_beside_the_first_pass() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        stream = hw.stream("P", **OPTIONS)
        stream.say("hey")
        said = of(list(stream), ev.Said)
    assert [event.n_pass for event in said] == [1]


def test_a_long_text_is_fed_over_several_passes_and_read_when_it_is_whole() -> None:
    fake = FakeEngine()
    long = "x" * (2 * MOST_BESIDE)
    events = spoken_run(fake, {1: lambda run: run.say(long)})
    assert [len(text) for text in feeds(fake, "said")] == [MOST_BESIDE, MOST_BESIDE, len("[all:]")]
    assert of(events, ev.Said)[0].n_pass == 4
    assert ["xx" in view for view in views(fake, "worker 0")] == [False] * 4 + [True] * 5


def test_where_a_pass_has_room_for_the_workers_only_it_has_passes_of_its_own() -> None:
    fake = FakeEngine()
    events = spoken_run(fake, {1: lambda run: run.say("hey")}, n_batch=2, workers=2)
    assert fake.cache
    alone = [feeds[0] for feeds in fake.cache.passes if feeds[-1].names[-1] == "said"]
    assert "".join(fake.model.text(feed.tokens) for feed in alone) == "[all:hey]"
    ended = events[-1]
    assert isinstance(ended, ev.RunEnded)
    assert (ended.timings.passes, ended.timings.closing_passes) == (9, len(alone))
    assert of(events, ev.Said)


def test_what_is_said_is_text_whatever_it_names() -> None:
    fake = FakeEngine()
    spoken_run(fake, {1: lambda run: run.say("</think>{{ n }}")})
    assert fake.cache
    tokens = [feed.tokens for feeds in fake.cache.passes for feed in feeds if feed.names[-1] == "said"]
    assert 259 not in tokens[0]
    assert fake.model.text(tokens[0]) == "[all:</think>{{ n }}]"


def test_the_result_has_it_in_its_history_and_its_tokens_in_the_prompts() -> None:
    fake = FakeEngine("A.\n\naaaaa", "bbbbbbbbb")
    with hogwild(fake) as hw:
        stream = hw.stream("P", **OPTIONS)
        stream.say("hey", "Alice")
        result = stream.result()
        plain = hw.count_tokens("P")
    assert result.history.startswith("[Alice:hey]\n\n<Alice1>A.")
    assert result.usage.prompt_tokens == plain + len("H:S:") + len("[Alice:hey]")


def test_a_full_cache_says_so_and_the_run_goes_on() -> None:
    fake = FakeEngine("a" * 9, "b" * 9)
    events = spoken_run(fake, {2: lambda run: (run.say("x" * 60), run.say("y"))}, n_ctx=80)
    (refused,) = of(events, ev.NotSaid)
    assert (refused.text, refused.to, refused.reason) == ("x" * 60, None, "cache_full")
    assert "no room for its 66 tokens" in refused.message
    assert [event.text for event in of(events, ev.Said)] == ["y"]
    assert texts(events) == {"Alice": "a" * 9, "Bob": "b" * 9}


def test_room_for_the_finisher_is_kept_from_it_too() -> None:
    fake = FakeEngine(finisher="1" * 16)
    events = spoken_run(fake, {2: lambda run: run.say("x" * 40)}, n_ctx=100, finisher=True)
    assert of(events, ev.NotSaid)
    assert texts(events)[None] == "1" * 16


def test_what_comes_too_late_is_told_or_refused() -> None:
    with hogwild(FakeEngine()) as hw:
        stream = hw.stream("P", **{**OPTIONS, "finisher": True})
        events, closed = [], 0
        for event in stream:
            events.append(event)
            if isinstance(event, ev.PassEnded) and event.n_pass == 9:
                stream.say("one")
                stream.add("Dan")
            if isinstance(event, ev.FinisherStarted):
                for late in (lambda: stream.say("two"), lambda: stream.add("Eve")):
                    with pytest.raises(Closed, match="have ended"):
                        late()
                    closed += 1
        assert [(event.text, event.reason) for event in of(events, ev.NotSaid)] == [("one", "ended")]
        assert [(event.worker, event.reason) for event in of(events, ev.WorkerRefused)] == [("Dan", "ended")]
        assert stream.workers == ("Alice", "Bob")
        with pytest.raises(Closed):
            stream.say("three")
    assert closed == 2


def test_a_text_that_the_end_cuts_off_gives_all_its_cells_back() -> None:
    def lefts(acts: Any) -> list[int]:
        events = spoken_run(FakeEngine(), acts, finisher=True)
        return [event.usage.context_left for event in of(events, ev.PassEnded) if event.n_pass > 10]  # the finisher's

    assert lefts({7: lambda run: run.say("x" * 500)}) == lefts({})


def test_what_is_said_while_the_last_workers_end_is_told_too() -> None:
    class Chatty(Combined):
        def retire(self, worker: int) -> None:
            super().retire(worker)
            stream.say("late")

    with hogwild(FakeEngine()) as hw:
        stream = hw.stream("P", layout=Chatty, **OPTIONS)
        assert [event.text for event in of(list(stream), ev.NotSaid)] == ["late", "late"]


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_is_cancelled_tells_what_was_not_said(begun: bool) -> None:
    with hogwild(FakeEngine()) as hw:
        stream = hw.stream("P", **OPTIONS)
        events = [next(stream)] if begun else []
        stream.cancel()
        stream.say("hey")
        stream.add("Dan")
        events += list(stream)
    assert [event.reason for event in of(events, ev.NotSaid)] == ["ended"]
    assert [event.worker for event in of(events, ev.WorkerRefused)] == ["Dan"]
    assert finished(events) == dict.fromkeys(("Alice", "Bob"), "cancelled")


def test_a_run_that_was_closed_says_so() -> None:
    with hogwild(FakeEngine()) as hw:
        stream = hw.stream("P", **OPTIONS)
        next(stream)
        stream.close()
        with pytest.raises(Closed, match="has ended"):
            stream.say("hey")
        with pytest.raises(Closed, match="has ended"):
            stream.add("Dan")


@pytest.mark.parametrize(
    ("do", "fault"),
    [
        (lambda run: run.say(""), "empty"),
        (lambda run: run.say(" \n"), "empty"),
        (lambda run: run.say(3), "must be a text"),
        (lambda run: run.say("\ud800"), "no character"),
        (lambda run: run.say("x", to="Zoe"), "to must be one of Alice, Bob, not 'Zoe'"),
        (lambda run: run.add("Bob"), "'Bob' already"),
        (lambda run: run.add(""), "non-empty"),
        (lambda run: run.add(4), "non-empty"),
        (lambda run: run.stop("Zoe"), "worker must be one of Alice, Bob"),
    ],
)
def test_a_fault_is_named_at_the_call_and_changes_nothing(do: Any, fault: str) -> None:
    def faulty(run: Any) -> None:
        with pytest.raises(InvalidArgument, match=fault):
            do(run)

    fake = FakeEngine()
    events = spoken_run(fake, {2: faulty})
    assert events[0].workers == ("Alice", "Bob")  # type: ignore[attr-defined]
    assert not of(events, ev.Said) + of(events, ev.NotSaid) + of(events, ev.WorkerJoined)


def test_prompts_without_words_for_it_say_so() -> None:
    def faulty(run: Any) -> None:
        with pytest.raises(InvalidArgument, match=r"\[said\]"):
            run.say("hey")

    spoken_run(FakeEngine(), {2: faulty}, prompts=TINY_STYLE)


def test_what_the_model_cannot_read_is_told() -> None:
    class Deaf(FakeModel):
        def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
            return super().tokenize(text.replace("q", ""), add_special, parse_special)

    events = spoken_run(
        FakeEngine(model=Deaf()), {2: lambda run: (run.say("quick"), run.add(Worker("Dan", role="q")), run.say("x"))}
    )
    (not_said,), (refused,) = of(events, ev.NotSaid), of(events, ev.WorkerRefused)
    assert (not_said.reason, refused.reason) == ("invalid", "invalid")
    assert "say: the model cannot read it: it has no tokens for q" in not_said.message
    assert "role of worker 'Dan'" in refused.message
    assert [event.text for event in of(events, ev.Said)] == ["x"]


# -- from anywhere --


def test_threads_may_say_add_and_stop_at_any_time() -> None:
    fake = FakeEngine()
    with hogwild(fake, n_ctx=8192) as hw:
        stream = hw.stream("P", **{**OPTIONS, "max_passes": 150})
        n = 0
        lock, go = threading.Lock(), threading.Event()

        def act(number: int) -> None:
            nonlocal n
            chance = random.Random(number)
            go.wait(5)
            for i in range(15):
                what = chance.choice(["say", "add", "stop"])
                try:
                    if what == "say":
                        stream.say(f"{number}.{i}", chance.choice([None, *stream.workers]))
                    elif what == "add":
                        stream.add(Worker(f"w{number}.{i}", role=chance.choice([None, "x"])))
                    else:
                        stream.stop(chance.choice(stream.workers[1:]))
                        continue
                except (Closed, InvalidArgument):
                    continue
                with lock:
                    n += 1

        threads = [threading.Thread(target=act, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        go.set()
        events = list(stream)
        for thread in threads:
            thread.join(10)
        answers = [e for e in events if isinstance(e, ev.Said | ev.NotSaid | ev.WorkerJoined | ev.WorkerRefused)]
        # What was put before the end is answered by one event each; what came later was refused.
        assert len(answers) == n
        assert set(finished(events)) == set(stream.workers)
        assert fake.n_open == 0
        assert hw.n_free == hw.n_ctx


def test_runs_at_the_same_time_that_are_spoken_to_go_as_they_go_alone() -> None:
    def go(hw: Hogwild, seed: int) -> list[ev.Event]:
        chance = random.Random(seed)
        acts: dict[int, Any] = {
            n: lambda run, n=n: (
                run.say("x" * chance.randrange(1, 99)),
                run.add(Worker(f"w{n}", role=chance.choice([None, "doubt"]))),
            )
            for n in (2, 5, 6)
        }
        events = spoken(hw.stream("P", workers=1 + seed % 3, max_passes=20, finisher=False, seed=seed), acts)
        return [
            event
            for event in events
            if not isinstance(event, ev.RunStarted | ev.PassEnded | ev.RunEnded | ev.PromptProgress | ev.RunQueued)
        ]

    with hogwild(FakeEngine(), n_ctx=8192) as hw:
        alone = [go(hw, seed) for seed in range(6)]
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(lambda seed: go(hw, seed), range(6))) == alone
        assert hw.n_free == hw.n_ctx


def test_a_coroutine_says_something_without_waiting_for_a_pass() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def stop(cache: FakeCache) -> None:
        if len(cache.passes) == 5:
            inside.set()
            assert go_on.wait(20)

    async def main() -> list[ev.Event]:
        with hogwild(fake) as hw:
            stream, events = hw.stream("P", **OPTIONS), []

            async def listen() -> None:
                events.extend([event async for event in stream])

            task = asyncio.create_task(listen())
            while not inside.is_set():
                await asyncio.sleep(0.001)
            stream.say("hey")  # in the middle of a pass
            stream.add("Carol")
            stream.stop("Bob")
            assert not task.done()
            go_on.set()
            await task
            return events

    fake = FakeEngine()
    fake.on_decode = stop
    events = asyncio.run(asyncio.wait_for(main(), 20))
    assert of(events, ev.Said)
    assert of(events, ev.WorkerJoined)
    assert finished(events) == {"Alice": "budget", "Bob": "stopped", "Carol": "budget"}


def test_a_turn_of_a_conversation_can_be_spoken_to() -> None:
    fake = FakeEngine("A.\n\naaaaa", "bbbbbbbbb", [*b"yes", EOS])
    from dataclasses import replace

    from hogwild_local.prompts.tables import Reply

    with hogwild(fake, prompts=replace(STYLE, reply=Reply("~"))) as hw:
        chat = hw.chat(workers=["A", Worker("B", role="doubt")], keep_thoughts=True, max_passes=9, seed=1)
        turn = chat.send("Is it?")
        turn.say("hurry")
        turn.result()
        assert chat.messages[1]["content"] == "yes"
        assert chat.messages[1]["reasoning_content"].startswith("[all:hurry]\n\n<A1>A.")
        assert "(B:doubt)" in views(fake, "worker 1")[0]
        assert fake.cache
        fake.cache.passes.clear()
        fake.samplers.clear()
        usage = chat.send("Is it not?").result().usage
        assert "(B:doubt)" in views(fake, "worker 1")[0]
        assert usage.cached_tokens == 1 + len("s=R;u=Is it?;") + len("H:S:")
        assert hw.n_free == hw.n_ctx
