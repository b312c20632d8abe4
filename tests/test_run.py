"""The worker loop: rules as names, on a fake engine that knows what every view contained at every pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes import TINY_STYLE, FakeEngine, FakeModel
from runs import fed, finished, hogwild, of, passes, run, texts

from hogwild_local import events as ev
from hogwild_local.errors import CacheFull
from hogwild_local.workers.layouts import LAYOUTS, Combined
from hogwild_local.workers.writer import default_names

# -- what is fed --


def test_the_first_pass_feeds_all_introductions_into_empty_blocks() -> None:
    fake = FakeEngine("a", "b")
    run(fake)
    alice, bob = passes(fake)[0]
    assert alice.names == ["shared", "header", "worker 1", "separator", "worker 0"]
    assert alice.before == ["<bos>s=R;u=P;|", "H:", "", "S:", ""]
    assert fed(fake, 0) == ["<Alice1>", "<Bob1>"]
    assert bob.before[:2] == ["<bos>s=R;u=P;|", "H:"]


def test_every_worker_sees_every_token_of_the_others() -> None:
    fake = FakeEngine("abc", "xyz")
    run(fake)
    alice, bob = passes(fake)[3]
    assert alice.before == ["<bos>s=R;u=P;|", "H:", "<Bob1>xy", "S:", "<Alice1>ab"]
    assert bob.before == ["<bos>s=R;u=P;|", "H:", "<Alice1>ab", "S:", "<Bob1>xy"]
    assert fed(fake, 3) == ["c", "z"]


def test_interleaved_workers_see_only_finished_steps() -> None:
    fake = FakeEngine("Hi.\n\n", "xyzuvw")
    run(fake, layout="interleaved")
    assert fake.cache
    alice, bob = fake.cache.passes[4]
    assert alice.before == ["<bos>s=R;u=P;<Alice1>Hi", ""]
    assert bob.before == ["<bos>s=R;u=P;<Alice1>Hi", "<Bob1>xy"]


def test_the_token_that_ends_a_step_is_fed_first_into_the_new_block() -> None:
    fake = FakeEngine("Hi.\n\n", "xyzuvw")
    run(fake)
    alice, _ = passes(fake)[3]
    assert alice.before == ["<bos>s=R;u=P;|<Alice1>Hi", "H:", "<Bob1>xy", "S:", ""]
    assert fed(fake, 3) == [".\n\n<Alice2>", "z"]


def test_the_history_never_gets_the_token_that_ended_a_step() -> None:
    fake = FakeEngine("A.\n\nB.\n\nC", "xyzuvw")
    run(fake)
    histories = {feed.before[0] for feeds in passes(fake) for feed in feeds}
    assert "<bos>s=R;u=P;|<Alice1>A.\n\n<Alice2>B" in histories
    assert not any(history.endswith("\n\n") for history in histories)


def test_contiguous_steps_go_on_in_the_same_block() -> None:
    fake = FakeEngine("Hi.\n\nyo", "xyzuvw")
    run(fake, layout="contiguous")
    assert fake.cache
    alice, _ = fake.cache.passes[2 + 4]
    assert alice.before == ["<bos>s=R;u=P;", "<Bob1>xyz", "S:", "<Alice1>Hi.\n\n<Alice2>"]


def test_steps_that_end_together_join_the_history_in_worker_order() -> None:
    fake = FakeEngine("Aa.\n\n", "Bb.\n\n", "Cc.\n\n")
    events = run(fake, workers=3)
    assert passes(fake)[3][0].before[0] == "<bos>s=R;u=P;|<Alice1>Aa<Bob1>Bb<Carol1>Cc"
    assert [event.worker for event in of(events, ev.StepEnded)][:3] == ["Alice", "Bob", "Carol"]


def test_events_of_steps_carry_their_text_and_number() -> None:
    events = run(FakeEngine("Hi.\n\nyo!\n\n", "x"))
    ended = [event for event in of(events, ev.StepEnded) if event.reason == "end"]
    assert [(e.worker, e.step, e.text, e.n_tokens) for e in ended] == [
        ("Alice", 1, "<Alice1>Hi.", 3),
        ("Alice", 2, "<Alice2>yo!", 3),
    ]


def test_a_vocabulary_without_empty_line_tokens_ends_steps_too() -> None:
    fake = FakeEngine("Hi.\n\n", "xyzuvw", model=FakeModel(words=False))
    assert of(run(fake), ev.StepEnded)[0].text == "<Alice1>Hi."
    # The first half of the empty line was fed before the step was over.
    assert passes(fake)[5][0].before[0] == "<bos>s=R;u=P;|<Alice1>Hi.\n"
    assert fed(fake, 5)[0] == "\n<Alice2>"


def test_views_are_asked_for_again_when_a_step_has_ended() -> None:
    class HeaderOnce(Combined):
        """Shows the header only when there is a history."""

        def view(self, worker: int) -> list[Any]:
            view = super().view(worker)
            return view if sum(map(len, self.history)) > 14 else [block for block in view if block not in self.header]

    fake = FakeEngine("A.\n\n", "uvwxyz")
    run(fake, layout=HeaderOnce)
    assert ["header" in feeds[1].names for feeds in passes(fake)[:5]] == [False, False, True, True, True]


@pytest.mark.parametrize("workers", range(1, 17))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_number_of_workers(workers: int, layout: str) -> None:
    scripts = ["One." + "x" * i + ".\n\nTwo." for i in range(workers)]
    fake = FakeEngine(*scripts)
    events = run(fake, workers=workers, layout=layout, prompts=None, max_passes=20, n_batch=4096)
    names = default_names(workers)
    assert finished(events) == dict.fromkeys(names, "budget")
    for name, script in zip(names, scripts, strict=True):
        assert texts(events)[name].startswith(script[:20])


def test_a_single_worker_without_introduction_goes_on_from_the_prompt() -> None:
    fake = FakeEngine("Hi.\n\nyo")
    run(fake, workers=1, prompts=None)
    assert fake.cache
    prompt, first, *_ = fake.cache.passes
    assert fake.model.text(first[0].tokens) == ";"
    assert (first[0].before[0] + ";").endswith("u=P;")
    assert prompt[0].names == ["shared"]
    assert [fake.model.text(feed.tokens) for (feed,) in fake.cache.passes[2:6]] == ["H", "i", ".\n\n", "y"]


def test_long_prefixes_are_fed_over_several_passes() -> None:
    fake = FakeEngine("abcdef", "uvwxyz", "123456")
    events = run(fake, workers=3, n_batch=10, max_passes=8)
    assert [[len(feed.tokens) for feed in feeds] for feeds in passes(fake)[:4]] == [
        [8, 1, 1],  # each who comes later keeps one token
        [1, 5, 4],
        [1, 1, 3],
        [1, 1, 1],
    ]
    assert texts(events) == {"Alice": "abcdefxx", "Bob": "uvwxyzx", "Carol": "123456"}


def test_prompt_progress_comes_between_chunks_of_n_batch() -> None:
    fake = FakeEngine("a", "b")
    events = run(fake, n_batch=8)
    # Eight tokens of the prompt, and its rest with header and separator.
    assert [event.done for event in of(events, ev.PromptProgress)] == [0, 8, 14]


# -- the full cache --


def test_a_full_cache_stops_one_worker_only() -> None:
    # Prompt and texts take 15 cells, the introductions 8 + 6 + 8; every pass takes 3 more.
    fake = FakeEngine(filler=ord("x"))
    fake._scripts = [list(b"a" * 50), list(b"b" * 50), list(b"c" * 50)]
    events = run(fake, workers=3, n_ctx=50, max_passes=9)
    assert finished(events) == {"Alice": "budget", "Bob": "budget", "Carol": "cache_full"}
    assert texts(events) == {"Alice": "a" * 9, "Bob": "b" * 9, "Carol": "c" * 5}
    last = of(events, ev.StepEnded)[0]
    assert (last.worker, last.reason, last.text) == ("Carol", "cache_full", "<Carol1>ccccc")


@pytest.mark.parametrize("reply", [False, True])
def test_without_a_budget_all_go_on_until_the_room_is_used_up_and_end_together(reply: bool) -> None:
    fake = FakeEngine("a" * 500, "b" * 500, "c" * 500)
    style = replace(TINY_STYLE, reply=replace(TINY_STYLE.reply, text="R:")) if reply else TINY_STYLE
    events = run(fake, workers=3, n_ctx=300, max_passes=None, reply_tokens=20, prompts=style)
    assert finished(events) == dict.fromkeys(("Alice", "Bob", "Carol"), "budget")
    assert events[-1].reason == "budget"  # type: ignore[attr-defined]
    written = {name: text for name, text in texts(events).items() if name}
    assert len({len(text) for text in written.values()}) == 1
    # No pass of all three has room any more; the last token of a reply is not fed.
    assert 0 <= events[-1].usage.context_left < 3 + reply  # type: ignore[attr-defined]
    assert [event.reason for event in of(events, ev.StepEnded)] == ["budget"] * 3  # nothing written was dropped


def test_without_a_budget_a_long_reply_has_room() -> None:
    style = replace(TINY_STYLE, reply=replace(TINY_STYLE.reply, text="R:"))
    fake = FakeEngine("a" * 9000, "b" * 9000, "r" * 900)
    events = run(fake, n_ctx=4096, max_passes=None, reply_tokens=900, prompts=style)
    [end] = of(events, ev.ReplyEnded)
    assert (end.reason, len(end.text)) == ("length", 900)
    assert len(texts(events)["Alice"]) > 1500


def test_without_a_budget_who_cannot_begin_for_want_of_room_leaves_it_to_the_others() -> None:
    events = run(FakeEngine("a" * 99, "b" * 99), n_ctx=15 + 8 + 4, max_passes=None)
    assert finished(events) == {"Alice": "budget", "Bob": "cache_full"}
    assert len(texts(events)["Alice"]) > 3


def test_all_stopped_by_a_full_cache_one_by_one_still_get_their_finisher() -> None:
    fake = FakeEngine("a" * 99, "b" * 99, finisher="5}")
    events = run(fake, n_ctx=70, max_passes=500, finisher=True)
    assert set(finished(events).values()) == {"cache_full"}
    assert events[-1].reason == "cache_full"  # type: ignore[attr-defined]
    assert of(events, ev.Answer) == [ev.Answer("5", None)]


def test_room_for_the_finisher_is_kept_from_the_workers() -> None:
    # Short steps: a stopped worker has next to nothing to give back.
    fake = FakeEngine("A.\n\n" * 99, "B.\n\n" * 99, finisher="1" * 16)
    events = run(fake, n_ctx=120, max_passes=500, finisher=True)
    assert set(finished(events).values()) == {"cache_full"}
    assert texts(events)[None] == "1" * 16


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_fed() -> None:
    fake = FakeEngine()
    with hogwild(fake, n_ctx=30) as hw:
        with pytest.raises(CacheFull) as full:
            list(hw.stream("P" * 40, finisher=False))
        assert (full.value.needed, full.value.free) == (53 + 8, 30)
        assert fake.cache
        assert fake.cache.passes == []
        assert fake.n_open == 0
        assert hw.generate("P", finisher=False, max_passes=1).reason == "budget"
