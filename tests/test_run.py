"""The worker loop: rules as names, on a fake engine that knows what every view contained at every pass."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace
from typing import Any

import pytest
from fakes import EOS, SPECIAL, TEMPLATE, THINK_END, TINY_STYLE, FakeCache, FakeEngine, FakeModel, Feed

from hogwild_local import events as ev
from hogwild_local.errors import Busy, CacheFull, Closed, InvalidArgument
from hogwild_local.hogwild import Hogwild
from hogwild_local.options import SamplingParams
from hogwild_local.workers.layouts import LAYOUTS, Combined
from hogwild_local.workers.worker import default_names

HEADERS = 3  # passes that feed prompt, header and separator in TINY_STYLE's combined layout


def hogwild(fake: FakeEngine, **options: Any) -> Hogwild:
    return Hogwild("m.gguf", prompts=options.pop("prompts", TINY_STYLE), engine=fake.engine, **options)


def run(fake: FakeEngine, workers: int = 2, **options: Any) -> list[ev.Event]:
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
            return view if len(self.shared) > 10 else [block for block in view if block not in self.header]

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
    assert [event.done for event in of(events, ev.PromptProgress)] == [0, 8, 10, 12, 14]


# -- how a run ends --


def test_the_budget_counts_passes() -> None:
    events = run(FakeEngine("abcdef", "uvwxyz"), max_passes=3)
    assert texts(events) == {"Alice": "abc", "Bob": "uvw"}
    assert events[-1].reason == "budget"  # type: ignore[attr-defined]
    assert events[-1].timings.passes == 3  # type: ignore[attr-defined]
    assert events[-1].usage.completion_tokens == 6  # type: ignore[attr-defined]


def test_an_answer_ends_the_run_in_its_pass() -> None:
    events = run(FakeEngine("so \\boxed{4} abc", "uvwxyzuvwxyzuvw"), max_passes=30)
    assert of(events, ev.Answer) == [ev.Answer("4", "Alice")]
    assert texts(events) == {"Alice": "so \\boxed{4}", "Bob": "uvwxyzuvwxyz"}
    assert finished(events) == {"Alice": "answer", "Bob": "answer"}
    assert events[-1].reason == "answer"  # type: ignore[attr-defined]


def test_of_two_answers_in_one_pass_the_first_worker_counts() -> None:
    events = run(FakeEngine("\\boxed{1}", "\\boxed{2}"))
    assert of(events, ev.Answer) == [ev.Answer("1", "Alice")]


def test_an_empty_answer_does_not_count() -> None:
    events = run(FakeEngine("\\boxed{} \\boxed{7}"), workers=1, max_passes=40)
    assert of(events, ev.Answer) == [ev.Answer("7", "Alice")]


def test_an_answer_may_close_with_several_tokens() -> None:
    form = replace(TINY_STYLE.answer, pattern="<a>(.*?)</a>", closes_with="</a>")
    style = replace(TINY_STYLE, answer=form)
    events = run(FakeEngine("<a>x > y</a> more"), workers=1, prompts=style, max_passes=30)
    assert of(events, ev.Answer) == [ev.Answer("x > y", "Alice")]
    assert texts(events) == {"Alice": "<a>x > y</a>"}


def test_an_answer_whose_end_was_held_back_counts_too() -> None:
    events = run(FakeEngine([*b"\\boxed{4}", EOS]), workers=1, stop="}x", max_passes=30)
    assert of(events, ev.Answer) == [ev.Answer("4", "Alice")]


def test_end_of_text_ends_one_worker_and_its_step_stays() -> None:
    fake = FakeEngine([ord("a"), EOS], "uvwxyz")
    events = run(fake, max_passes=4)
    assert finished(events) == {"Alice": "eos", "Bob": "budget"}
    assert passes(fake)[2][0].before == ["<bos>s=R;u=P;|<Alice1>a", "H:", "S:", "<Bob1>u"]
    assert texts(events) == {"Alice": "a", "Bob": "uvwx"}


def test_the_run_ends_when_all_have_ended_and_asks_no_finisher() -> None:
    events = run(FakeEngine([EOS], [ord("a"), EOS]), max_passes=50, finisher=True)
    assert events[-1].reason == "eos"  # type: ignore[attr-defined]
    assert events[-1].timings.passes == 2  # type: ignore[attr-defined]
    assert of(events, ev.FinisherStarted) == []


def test_a_stop_string_across_tokens_ends_its_worker_and_is_never_shown() -> None:
    events = run(FakeEngine("ab STOP cd", "a S STO x"), stop="STOP")
    assert texts(events) == {"Alice": "ab ", "Bob": "a S STO xxxx"}
    assert finished(events) == {"Alice": "stop", "Bob": "budget"}


def test_a_stop_string_cannot_reach_over_the_prefix_into_the_next_step() -> None:
    events = run(FakeEngine("Hi.\n\nx"), workers=1, stop="\n\nx", max_passes=6)
    assert texts(events) == {"Alice": "Hi.\n\nxxx"}
    assert [event.text for event in of(events, ev.Token)][2] == ".\n\n"


def test_text_held_back_for_a_stop_string_is_shown_at_the_end() -> None:
    events = run(FakeEngine("abST"), workers=1, stop=["STOP"], max_passes=4)
    assert texts(events) == {"Alice": "abST"}
    assert [event.text for event in of(events, ev.StepEnded)] == ["<Alice1>abST"]


def test_a_character_cut_by_the_budget_becomes_one_replacement() -> None:
    events = run(FakeEngine(list("a€".encode())), workers=1, max_passes=3)
    assert [event.text for event in of(events, ev.Token)] == ["a", "", "", "\ufffd"]
    assert of(events, ev.Token)[-1].token is None


def test_one_worker_can_be_stopped_while_the_others_go_on() -> None:
    fake = FakeEngine("abcdef", "uvwxyz", "123456")
    events = []
    with hogwild(fake) as hw, hw.stream("P", workers=3, max_passes=5, finisher=False) as stream:
        for event in stream:
            events.append(event)
            if isinstance(event, ev.Token) and event.text == "v":
                stream.stop("Bob")
    assert texts(events) == {"Alice": "abcde", "Bob": "uv", "Carol": "12345"}
    assert finished(events) == {"Alice": "budget", "Bob": "stopped", "Carol": "budget"}
    assert passes(fake)[2][0].before[0] == "<bos>s=R;u=P;|<Bob1>u"


def test_stop_refuses_an_unknown_worker() -> None:
    with hogwild(FakeEngine()) as hw, pytest.raises(InvalidArgument, match="Mallory"):
        hw.stream("P").stop("Mallory")


def test_a_worker_stopped_within_the_prefix_of_a_step_leaves_none_of_it() -> None:
    fake = FakeEngine("A.\n\n", "uvwxyz" * 9)
    with hogwild(fake, n_batch=5) as hw, hw.stream("P", max_passes=12, finisher=False) as stream:
        begun = False
        for event in stream:
            begun = begun or (isinstance(event, ev.StepStarted) and event.step == 2)
            if begun and isinstance(event, ev.Token):  # Bob's: Alice has fed 4 of her 9 tokens
                stream.stop("Alice")
    assert any(".\n\n<Al" in fed(fake, n_pass) for n_pass in range(len(passes(fake))))
    assert passes(fake)[-1][0].before[0] == "<bos>s=R;u=P;|<Alice1>A"


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


# -- redundancy and finisher --


def test_the_next_worker_to_start_a_step_gets_the_redundancy_question() -> None:
    fake = FakeEngine("A.\n\nB.\n\nC.\n\n", "uvwxyzuvwxyz")
    events = run(fake, redundancy_every=7, max_passes=9)
    # 4 tokens are sampled when step 2 starts, 8 with step 3, which asks; 12 with step 4: 4 since then.
    assert of(events, ev.RedundancyCheck) == [ev.RedundancyCheck("Alice", 3)]
    prefixes = [e.text for e in of(events, ev.StepStarted) if e.worker == "Alice"]
    assert prefixes == ["<Alice1>", "<Alice2>", "<Alice3>again?", "<Alice4>"]
    assert fed(fake, 4)[0] == ".\n\n<Alice3>again?"


def test_of_two_steps_that_start_together_one_gets_the_question() -> None:
    events = run(FakeEngine("A.\n\n", "B.\n\n"), redundancy_every=1, max_passes=2)
    assert of(events, ev.RedundancyCheck) == [ev.RedundancyCheck("Alice", 2)]


@pytest.mark.parametrize(("workers", "every"), [(1, 1), (2, 0)])
def test_nobody_is_asked_without_others_or_with_0(workers: int, every: int) -> None:
    events = run(FakeEngine("A.\n\nB.\n\n", "C.\n\n"), workers=workers, redundancy_every=every)
    assert of(events, ev.RedundancyCheck) == []


def test_the_finisher_asks_greedily_after_all_that_was_written() -> None:
    fake = FakeEngine("Hi.\n\nyo", "uvw", finisher="42} and")
    events = run(fake, max_passes=4, finisher=True)
    assert of(events, ev.FinisherStarted) == [ev.FinisherStarted("=\\boxed{")]
    assert texts(events)[None] == "42}"
    assert of(events, ev.Answer) == [ev.Answer("42", None)]
    assert events[-1].reason == "budget"  # type: ignore[attr-defined]
    first = next(feeds[0] for feeds in passes(fake) if feeds[0].names[-1] == "finisher")
    # The last token that each worker sampled was never fed.
    assert first.before == ["<bos>s=R;u=P;|<Alice1>Hi.\n\n<Alice2><Bob1>uvw", ""]
    assert fake.model.text(first.tokens) == "=\\boxed{"


def test_the_finisher_gives_up_after_its_tokens() -> None:
    events = run(FakeEngine(finisher="1" * 99), finisher=True, finisher_tokens=5)
    assert texts(events)[None] == "11111"
    assert of(events, ev.Answer) == []
    assert events[-1].answer is None  # type: ignore[attr-defined]


def test_without_finisher_nobody_asks() -> None:
    assert of(run(FakeEngine(finisher="1}")), ev.FinisherStarted) == []


# -- seeds and sampling --


def test_same_seed_same_output() -> None:
    first, again, other = (texts(run(FakeEngine(), workers=3, seed=seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_each_worker_has_a_seed_of_its_own_that_others_do_not_change() -> None:
    two, three = (texts(run(FakeEngine(), workers=n, seed=7)) for n in (2, 3))
    assert two["Alice"] == three["Alice"]
    assert len(set(three.values())) == 3


def test_a_run_without_seed_tells_the_one_it_drew() -> None:
    events = run(FakeEngine(), seed=None)
    seed = of(events, ev.RunStarted)[0].seed
    assert texts(run(FakeEngine(), seed=seed)) == texts(events)


def test_sampling_can_be_set_by_worker() -> None:
    fake = FakeEngine()
    run(fake, sampling={"Bob": SamplingParams(temperature=0.0, seed=99)})
    alice, bob = (sampler.params for sampler in fake.samplers)
    assert (alice.temperature, bob.temperature, bob.seed) == (0.8, 0.0, 99)
    assert alice.seed is not None


def test_forbidden_tokens_are_biased_away_unless_the_user_says_otherwise() -> None:
    fake = FakeEngine()
    run(fake, sampling={"Bob": SamplingParams(logit_bias={259: 1.0})})
    assert [dict(sampler.params.logit_bias) for sampler in fake.samplers] == [
        {259: -float("inf")},
        {259: 1.0},
    ]


def test_the_tags_of_the_models_template_are_forbidden_in_place_of_think(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPECIAL, THINK_END, "<|inner_suffix|>")
    fake = FakeEngine(model=FakeModel(TEMPLATE + "{{ '<|inner_prefix|>' if thinking }}"))
    run(fake)
    assert [dict(sampler.params.logit_bias) for sampler in fake.samplers] == [{THINK_END: -float("inf")}] * 2


# -- cleaning up --


def test_break_frees_everything() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        stream = hw.stream("P")
        for event in stream:
            if isinstance(event, ev.Token):
                break
        assert fake.n_open == 0
        assert stream.done
        assert hw.generate("P", max_passes=2).reason == "budget"


@pytest.mark.parametrize("at", [ev.RunStarted, ev.PromptProgress, ev.StepStarted, ev.Token])
def test_dropping_the_run_anywhere_frees_everything_at_once(at: type[ev.Event]) -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        gc.disable()  # no help from the collector: references alone must do it
        try:
            stream = hw.stream("P")
            while not isinstance(next(stream), at):
                pass
            assert fake.n_open > 0
            del stream
            assert fake.n_open == 0
        finally:
            gc.enable()


def test_an_exception_in_the_engine_frees_everything_and_the_object_lives_on() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:

        def fail(cache: FakeCache) -> None:
            if len(cache.passes) == HEADERS + 2:
                fake.on_decode = lambda cache: None
                raise RuntimeError("backend")

        fake.on_decode = fail
        with pytest.raises(RuntimeError, match="backend"):
            hw.generate("P")
        assert fake.n_open == 0
        assert hw.generate("P", max_passes=2).reason == "budget"


@pytest.mark.parametrize("n_pass", [0, HEADERS + 1])
def test_ctrl_c_in_a_pass_propagates_after_cleaning_up(n_pass: int) -> None:
    fake = FakeEngine()

    def interrupt(cache: FakeCache) -> None:
        if len(cache.passes) == n_pass:
            raise KeyboardInterrupt

    fake.on_decode = interrupt
    with hogwild(fake) as hw:
        with pytest.raises(KeyboardInterrupt):
            hw.generate("P")
        assert fake.n_open == 0


def test_a_sampler_that_cannot_be_made_leaves_nothing_behind() -> None:
    fake = FakeEngine()

    def refuse(model: FakeModel, params: SamplingParams) -> Any:
        if len(fake.samplers) == 1:
            raise InvalidArgument("grammar")
        return fake._make_sampler(model, params)

    hw = Hogwild("m.gguf", prompts=TINY_STYLE, engine=replace(fake.engine, sampler=refuse))
    with pytest.raises(InvalidArgument, match="grammar"):
        hw.generate("P")
    assert fake.n_open == 0


def test_cancel_ends_in_order() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        events = []
        stream = hw.stream("P", finisher=True)
        for event in stream:
            events.append(event)
            if isinstance(event, ev.Token):
                stream.cancel()
    assert set(finished(events).values()) == {"cancelled"}
    assert events[-1].reason == "cancelled"  # type: ignore[attr-defined]
    assert len(passes(fake)) == 1


def test_cancel_in_the_prompt_ends_after_its_chunk() -> None:
    fake = FakeEngine()
    with hogwild(fake, n_batch=4) as hw:
        stream = hw.stream("P")
        fake.on_decode = lambda cache: stream.cancel()
        events = list(stream)
        assert fake.cache
        assert len(fake.cache.passes) == 1
    assert events[-1].reason == "cancelled"  # type: ignore[attr-defined]


def test_close_from_another_thread_ends_the_run_within_one_pass() -> None:
    fake = FakeEngine()
    inside, closing = threading.Event(), threading.Event()

    def slow(cache: FakeCache) -> None:
        if len(cache.passes) == HEADERS + 3:
            inside.set()
            closing.wait(5)
            assert not cache.closed, "the cache was closed under a running pass"

    fake.on_decode = slow
    hw = hogwild(fake)
    stream = hw.stream("P", max_passes=10**6)

    def close() -> None:
        inside.wait(5)
        # Lets the pass go on only when close() has had time to do harm.
        threading.Timer(0.05, closing.set).start()
        hw.close()

    thread = threading.Thread(target=close)
    thread.start()
    list(stream)
    thread.join(5)
    assert not thread.is_alive()
    assert len(passes(fake)) == 4
    assert fake.n_open == 0
    assert fake.model.closed


def test_a_second_run_is_refused_while_one_goes_on() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        stream = hw.stream("P")
        next(stream)
        with pytest.raises(Busy):
            hw.stream("P")
        assert isinstance(next(stream), ev.PromptProgress)
        stream.close()
        assert hw.generate("P", max_passes=1).reason == "budget"


def test_a_layout_in_use_elsewhere_is_refused_and_not_disturbed() -> None:
    layout = Combined()
    first, second = FakeEngine(), FakeEngine()
    with hogwild(first) as one, hogwild(second) as two:
        stream = one.stream("P", layout=layout, max_passes=2)
        next(stream)
        with pytest.raises(Busy):
            two.generate("P", layout=layout)
        assert list(stream)[-1].reason == "budget"  # type: ignore[attr-defined]


def test_a_closed_hogwild_says_so() -> None:
    hw = hogwild(FakeEngine())
    hw.close()
    hw.close()
    with pytest.raises(Closed):
        hw.stream("P")


def test_generate_is_a_loop_over_stream() -> None:
    fake = FakeEngine("Hi.\n\nyo \\boxed{3}", "uvwxyzuvwxyzuvwxyz")
    with hogwild(fake) as hw:
        result = hw.generate("P", workers=["Ann", "Ben"], seed=5, max_passes=30)
    assert (result.answer, result.reason, result.seed) == ("3", "answer", 5)
    assert result.texts == {"Ann": "Hi.\n\nyo \\boxed{3}", "Ben": "uvwxyzuvwxyzuvw"}
    assert result.history == "<Ann1>Hi.\n\n<Ann2>yo \\boxed{3}\n\n<Ben1>uvwxyzuvwxyzuvw"
    assert result.usage.completion_tokens == 30


def test_many_passes_with_ends_stops_and_restarts_leave_nothing() -> None:
    fake = FakeEngine("A.\n\n" * 40, "Bb!\n\n" * 40, "c" * 200)
    with hogwild(fake) as hw:
        for _ in range(20):
            with hw.stream("P", workers=3, max_passes=100, finisher=False) as stream:
                for event in stream:
                    if isinstance(event, ev.Token) and event.n_pass == 50:
                        stream.stop("Bob")
            assert fake.n_open == 0
            assert fake.cache
            assert fake.cache.n_free == fake.cache.n_ctx
            fake.cache.passes.clear()
            fake.again()
