"""The reply: one voice says to the user what was found, whatever ended the work, and has read all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import TEMPLATE, TINY_STYLE, FakeEngine, FakeModel, Feed

from hogwild_local import CacheBlock, Hogwild, PromptStyle, SamplingParams, SharedCache, Worker
from hogwild_local import events as ev
from hogwild_local.errors import InvalidArgument
from hogwild_local.prompts.tables import Reply
from hogwild_local.workers.opening import REPLY_KEPT

STYLE = replace(TINY_STYLE, reply=Reply("{{ closing or '~' }}"))
THINKING = TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}"
EOS = [257]


def of(events: Sequence[ev.Event], kind: type[ev.Event]) -> list[ev.Event]:
    return [event for event in events if isinstance(event, kind)]


def script(fake: FakeEngine, text: str, ends: bool = True) -> list[int]:
    return fake.model.tokenize(text, add_special=False, parse_special=True) + EOS * ends


class Run:
    """A run of two workers and a reply."""

    def __init__(self, alice: str, bob: str, says: str = "So it is.", thinks: bool = False, **options: object) -> None:
        model = FakeModel(THINKING if thinks else TEMPLATE)
        tokens = [model.tokenize(text, add_special=False, parse_special=True) for text in (alice, bob, says)]
        self.fake = FakeEngine(*tokens[:2], [*tokens[2], *EOS], model=model)
        of_engine = {name: options.pop(name) for name in ("n_ctx", "n_batch", "style") if name in options}
        style = of_engine.pop("style", STYLE)
        with Hogwild("m.gguf", prompts=style, engine=self.fake.engine, **of_engine) as hw:  # type: ignore[arg-type]
            options = {"max_passes": 12, "seed": 1, **options}
            self.events = list(hw.stream("P", **options))  # type: ignore[arg-type]
            assert self.fake.n_open == 0
            assert hw.n_free == hw.n_ctx
        assert self.fake.cache
        self.feeds: list[Feed] = [
            feed for feeds in self.fake.cache.passes for feed in feeds if feed.names[-1] == "reply"
        ]

    @property
    def reply(self) -> ev.ReplyEnded:
        (reply,) = of(self.events, ev.ReplyEnded)
        assert isinstance(reply, ev.ReplyEnded)
        assert "".join(event.text for event in of(self.events, ev.ReplyToken)) == reply.text  # type: ignore[attr-defined]
        return reply

    @property
    def ended(self) -> ev.RunEnded:
        assert isinstance(self.events[-1], ev.RunEnded)
        return self.events[-1]


def test_a_reply_follows_the_work_and_ends_with_the_model() -> None:
    run = Run("abcdefghijklm", "nopqrstuvwxyz")
    assert (run.reply.text, run.reply.reason) == ("So it is.", "eos")
    kinds = [type(event) for event in run.events]
    assert kinds.index(ev.ReplyStarted) > max(i for i, kind in enumerate(kinds) if kind is ev.WorkerFinished)
    assert run.ended.reason == "budget"
    assert not of(run.events, ev.FinisherStarted)


def test_it_has_read_everything_that_was_shown() -> None:
    """The last tokens of all workers too, which nobody else would have been fed."""
    run = Run("A.\n\nabcdefgh", "stuvwxyzstuvw")
    shown = "".join(run.feeds[0].before)
    assert "<Alice1>A." in shown
    for worker in ("Alice", "Bob"):
        texts = [event.text for event in of(run.events, ev.Token) if event.worker == worker]  # type: ignore[attr-defined]
        assert "".join(texts)[-6:] in shown
    assert run.fake.model.text(run.feeds[0].tokens) == "~"


def test_after_an_answer_it_has_read_the_answer_too() -> None:
    run = Run("ab \\boxed{7}", "stuvwxyzstuvwxyz", max_passes=40)
    shown = "".join(run.feeds[0].before)
    assert "ab \\boxed{7}" in shown
    assert "stuvwxyzstuv" in shown
    assert (run.ended.answer, run.ended.reason) == ("7", "answer")
    assert run.reply.text == "So it is."


@pytest.mark.parametrize("layout", ["combined", "interleaved", "contiguous"])
def test_it_sees_what_was_not_finished_in_each_layout(layout: str) -> None:
    run = Run("A.\n\nabcdefgh", "stuvwxyzstuvw", layout=layout)
    shown = "".join(run.feeds[0].before)
    assert "<Alice1>A." in shown
    assert "stuvwxyzst" in shown


def test_it_closes_the_thoughts_with_the_models_own_tag() -> None:
    run = Run("abcdefghijklm", "nopqrstuvwxyz", thinks=True)
    assert run.fake.model.text(run.feeds[0].tokens) == "\n</think>\n\n"
    assert 259 in run.feeds[0].tokens  # the token, not its letters
    run = Run("abcdefghijklm", "nopqrstuvwxyz", thinks=True, thinking=False)
    assert run.fake.model.text(run.feeds[0].tokens) == "~"


def test_reply_tokens_is_its_budget() -> None:
    run = Run("abcdefghijklm", "nopqrstuvwxyz", says="one two three", reply_tokens=5)
    assert (run.reply.text, run.reply.reason) == ("one t", "length")


def test_a_stop_string_ends_it_and_is_not_shown() -> None:
    run = Run("abcdefghijklm", "nopqrstuvwxyz", says="one END two", stop="END")
    assert (run.reply.text, run.reply.reason) == ("one ", "stop")


def test_an_answer_in_the_reply_is_the_runs() -> None:
    run = Run("abcdefghijklm", "nopqrstuvwxyz", says="It is \\boxed{5}.")
    assert run.ended.answer == "5"
    assert of(run.events, ev.Answer) == [ev.Answer("5", None)]


@pytest.mark.parametrize(("style", "options"), [(STYLE, {"reply": False}), (TINY_STYLE, {})])
def test_without_it_the_finisher_is_asked(style: PromptStyle, options: dict[str, bool]) -> None:
    run = Run("abcdefghijklm", "nopqrstuvwxyz", style=style, **options)
    assert not of(run.events, ev.ReplyStarted)
    assert of(run.events, ev.FinisherStarted)


def test_a_full_cache_leaves_room_for_it() -> None:
    run = Run("a" * 900, "b" * 900, n_ctx=600, max_passes=900)
    assert run.ended.reason == "cache_full"
    assert (run.reply.text, run.reply.reason) == ("So it is.", "eos")
    run = Run("a" * 900, "b" * 900, says="c" * 900, n_ctx=600, max_passes=900)
    assert run.reply.reason == "cache_full"
    assert len(run.reply.text) >= REPLY_KEPT


def test_a_cancelled_run_has_none_and_one_that_is_cancelled_in_it_keeps_what_was_said() -> None:
    fake = FakeEngine("a" * 99, "b" * 99, "c" * 99)
    with Hogwild("m.gguf", prompts=STYLE, engine=fake.engine) as hw:
        run = hw.stream("P", max_passes=50, seed=1)
        events = []
        for event in run:
            events.append(event)
            if isinstance(event, ev.Token) and event.n_pass == 3:
                run.cancel()
        assert not of(events, ev.ReplyStarted)
        fake.again()
        run = hw.stream("P", max_passes=5, seed=1)
        events = []
        for event in run:
            events.append(event)
            if len(of(events, ev.ReplyToken)) == 4:
                run.cancel()
        assert of(events, ev.ReplyEnded) == [ev.ReplyEnded("cccc", "cancelled")]
        assert hw.n_free == hw.n_ctx


def test_result_holds_it() -> None:
    fake = FakeEngine("abc", "def", script(FakeEngine(), "Well."))
    with Hogwild("m.gguf", prompts=STYLE, engine=fake.engine) as hw:
        result = hw.generate("P", max_passes=3, seed=1)
        assert (result.reply, result.finisher, result.texts["Alice"]) == ("Well.", None, "abc")
        assert hw.generate("P", max_passes=3, reply=False).reply is None


def test_its_sampler_may_choose_every_token_and_is_the_models_own() -> None:
    fake = FakeEngine("abc", "def", [*EOS])
    with Hogwild("m.gguf", prompts=STYLE, engine=fake.engine) as hw:
        hw.generate("P", max_passes=3, seed=1)
        of_workers, of_reply = fake.samplers[:2], fake.samplers[2]
        assert all(259 in sampler.params.logit_bias for sampler in of_workers)
        assert of_reply.params.logit_bias == {}
        assert len({sampler.params.seed for sampler in fake.samplers}) == 3
        fake.again()
        hw.generate("P", max_passes=3, workers=[Worker("Alice", sampling=SamplingParams(temperature=0.1))])
        assert fake.samplers[1].params.temperature == hw.sampling.temperature
        fake.again()
        hw.generate("P", max_passes=3, sampling=SamplingParams(temperature=0.1))
        assert fake.samplers[2].params.temperature == 0.1


def test_of_a_single_worker_it_is_what_the_model_says_after_the_same_text(tiny_path: Callable[..., Path]) -> None:
    greedy = SamplingParams(temperature=0.0)
    whole_types = {"type_k": "f32", "type_v": "f32"}
    with Hogwild(tiny_path("llama"), n_ctx=4096, n_threads=1, **whole_types) as hw:  # type: ignore[arg-type]
        read: list[int] = []
        feed = hw._cache.next_tokens

        def noted(views: Sequence[tuple[Sequence[CacheBlock], list[int]]], samplers: object) -> object:
            (blocks, tokens), *_ = views
            if blocks[-1].name == "reply" and not read:
                read.extend([*(token for block in blocks for token in block.tokens), *tokens])
            return feed(views, samplers)

        hw._cache.next_tokens = noted
        events = list(hw.stream("Go.", workers=1, max_passes=20, reply_tokens=12, seed=1, sampling=greedy))
        said = [event.token for event in of(events, ev.ReplyToken) if event.token is not None]  # type: ignore[attr-defined]
        assert len(said) == 12
        with SharedCache(hw.model, n_ctx=4096, **whole_types) as cache:  # type: ignore[arg-type]
            block, pending, wanted = cache.block(), read, []
            for _ in said:
                pending = [int(cache.decode([([block], pending)])[0].argmax())]
                wanted += pending
        assert said == wanted


# -- what ends the work --

CLOSES = "ab</think>"


@pytest.mark.parametrize(
    ("ends", "texts", "n_passes"),
    [
        ("first", [CLOSES, "s" * 99, "t" * 99], 3),
        ("majority", [CLOSES, "s" * 99, "tu" + CLOSES], 5),
        ("all", [CLOSES, "stuv" + CLOSES, "tu" + CLOSES], 7),
    ],
)
def test_workers_vote_for_the_end_by_closing_their_thoughts(ends: str, texts: list[str], n_passes: int) -> None:
    model = FakeModel(THINKING)
    tokens = [model.tokenize(text, add_special=False, parse_special=True) for text in texts]
    fake = FakeEngine(*tokens, EOS, model=model)
    with Hogwild("m.gguf", prompts=STYLE, engine=fake.engine) as hw:
        events = list(hw.stream("P", workers=3, max_passes=50, seed=1, ends=ends))  # type: ignore[arg-type]
        assert hw.n_free == hw.n_ctx
    ended = events[-1]
    assert isinstance(ended, ev.RunEnded)
    assert (ended.reason, ended.timings.passes) == ("closed", n_passes)
    assert of(events, ev.ReplyEnded)
    assert "".join(e.text for e in of(events, ev.Token) if e.worker == "Alice") == "ab"  # type: ignore[attr-defined]
    assert fake.cache
    fed = [token for feeds in fake.cache.passes for feed in feeds if feed.names[-1] != "reply" for token in feed.tokens]
    assert 259 not in fed


def test_the_tag_is_forbidden_where_it_is_no_vote() -> None:
    for ends, is_forbidden in (("answer", True), ("first", False)):
        fake = FakeEngine(EOS, EOS, EOS, model=FakeModel(THINKING))
        with Hogwild("m.gguf", prompts=STYLE, engine=fake.engine) as hw:
            hw.generate("P", ends=ends)  # type: ignore[arg-type]
        assert (259 in fake.samplers[0].params.logit_bias) == is_forbidden


@pytest.mark.parametrize("options", [{"ends": "first"}, {"ends": "first", "thinking": False}])
def test_a_vote_that_nobody_could_cast_is_refused(options: dict[str, object]) -> None:
    template = THINKING if "thinking" in options else TEMPLATE
    with (
        Hogwild("m.gguf", prompts=STYLE, engine=FakeEngine(model=FakeModel(template)).engine) as hw,
        pytest.raises(InvalidArgument, match="ends: 'first' counts who closes"),
    ):
        hw.stream("P", **options)  # type: ignore[arg-type]
