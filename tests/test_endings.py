"""How workers and runs end: answers, stop strings, end of text, the budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import EOS, TINY_STYLE, WORDS, FakeEngine, FakeModel
from runs import fed, finished, hogwild, of, passes, run, seen_by_finisher, texts

from hogwild_local import events as ev
from hogwild_local.errors import InvalidArgument
from hogwild_local.prompts.tables import Reply
from hogwild_local.workers.layouts import LAYOUTS


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


RULES = replace(TINY_STYLE.rules, many=r"The first who is sure writes {{ example }}.")
QUOTING = replace(TINY_STYLE, rules=RULES, answer=replace(TINY_STYLE.answer, example=r"\boxed{result}"))


def test_the_rules_example_is_no_answer_when_a_worker_quotes_it() -> None:
    fake = FakeEngine(r"we write \boxed{result}. Then \boxed{7}", "u" * 60)
    events = run(fake, prompts=QUOTING, max_passes=60)
    assert of(events, ev.Answer) == [ev.Answer("7", "Alice")]


def test_an_answer_that_stands_in_the_users_words_counts() -> None:
    with hogwild(FakeEngine(r"\boxed{7}"), prompts=QUOTING) as hw:
        assert hw.generate(r"Is it \boxed{7}?", max_passes=20).answer == "7"


def test_the_finisher_does_not_quote_the_example_either() -> None:
    events = run(FakeEngine(finisher=r"result} or \boxed{8}"), prompts=QUOTING, finisher=True, finisher_tokens=40)
    assert of(events, ev.Answer) == [ev.Answer("8", None)]


def test_an_answer_counts_at_the_end_of_its_step_where_that_is_asked_for() -> None:
    events = run(FakeEngine("so \\boxed{4} sure.\n\nabc", "u" * 60), max_passes=40, answer_at="step")
    assert of(events, ev.Answer) == [ev.Answer("4", "Alice")]
    assert texts(events)["Alice"] == "so \\boxed{4} sure.\n\n"
    assert finished(events) == {"Alice": "answer", "Bob": "answer"}


def test_at_the_end_of_steps_the_first_workers_answer_counts_and_one_in_the_last_step_too() -> None:
    events = run(FakeEngine("aa \\boxed{1}.\n\n", "a \\boxed{2} .\n\n"), max_passes=40, answer_at="step")
    assert of(events, ev.Answer) == [ev.Answer("1", "Alice")]
    events = run(FakeEngine("\\boxed{1} and", "b"), max_passes=12, answer_at="step", finisher=True)
    assert of(events, ev.Answer) == [ev.Answer("1", "Alice")]
    assert of(events, ev.FinisherStarted) == []


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


class World(FakeModel):
    """As RWKV World's files: the end of a paragraph ends a turn."""

    def is_eog(self, token: int) -> bool:
        return WORDS.get(token) == "\n\n" or super().is_eog(token)


def test_where_a_paragraph_ends_a_turn_workers_go_on_in_the_next_step_and_the_reply_ends() -> None:
    model = World()
    scripts = [model.tokenize(text, add_special=False) for text in ("a\n\nb", "c\n\nd", "e\n\nf")]
    style = replace(TINY_STYLE, reply=Reply("~"))
    events = run(FakeEngine([*scripts[0], EOS], [*scripts[1], EOS], scripts[2], model=model), prompts=style)
    assert texts(events) == {"Alice": "a\n\nb", "Bob": "c\n\nd"}
    assert finished(events) == {"Alice": "eos", "Bob": "eos"}
    assert [(reply.text, reply.reason) for reply in of(events, ev.ReplyEnded)] == [("e", "eos")]


def test_the_run_ends_when_all_have_ended() -> None:
    events = run(FakeEngine([EOS], [ord("a"), EOS]), max_passes=50)
    assert events[-1].reason == "eos"  # type: ignore[attr-defined]
    assert events[-1].timings.passes == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("eos_after", [2, 40])
def test_the_finisher_is_asked_whether_the_last_to_end_had_no_room_or_nothing_more_to_say(eos_after: int) -> None:
    fake = FakeEngine([*b"a" * eos_after, EOS], "b" * 99, finisher="5}")
    events = run(fake, n_ctx=101, max_passes=99, finisher=True)
    assert [event.reason for event in of(events, ev.WorkerFinished)] == ["eos", "cache_full"][
        :: 1 if eos_after == 2 else -1
    ]
    assert of(events, ev.Answer) == [ev.Answer("5", None)]
    assert events[-1].reason == "cache_full"  # type: ignore[attr-defined]


@pytest.mark.parametrize("order", [1, -1])
def test_the_finisher_is_asked_however_the_workers_ended_and_whoever_ended_last(order: int) -> None:
    scripts = [[ord("a"), EOS], "b STOP", "c" * 99][::order]
    events = run(FakeEngine(*scripts, finisher="5}"), workers=3, stop="STOP", max_passes=20, finisher=True)
    assert sorted(finished(events).values()) == ["budget", "eos", "stop"]
    assert of(events, ev.Answer) == [ev.Answer("5", None)]
    assert events[-1].reason == "budget"  # type: ignore[attr-defined]


def test_the_finisher_is_asked_where_all_ended_by_end_of_text() -> None:
    events = run(FakeEngine([EOS], [ord("a"), EOS], finisher="5}"), finisher=True)
    assert of(events, ev.Answer) == [ev.Answer("5", None)]
    assert events[-1].reason == "eos"  # type: ignore[attr-defined]


def test_end_of_text_of_one_worker_ends_the_run_where_that_is_asked_for() -> None:
    fake = FakeEngine([ord("a"), EOS], "uvwxyz", finisher="5}")
    events = run(fake, max_passes=50, finisher=True, eos_ends_run=True)
    assert finished(events) == {"Alice": "eos", "Bob": "eos"}
    assert texts(events) == {"Alice": "a", "Bob": "uv", None: "5}"}
    assert seen_by_finisher(fake) == "<bos>s=R;u=P;|<Alice1>a<Bob1>uv"


def test_a_stop_string_across_tokens_ends_its_worker_and_is_never_shown() -> None:
    events = run(FakeEngine("ab STOP cd", "a S STO x"), stop="STOP")
    assert texts(events) == {"Alice": "ab ", "Bob": "a S STO xxxx"}
    assert finished(events) == {"Alice": "stop", "Bob": "budget"}


def test_a_stop_string_cannot_reach_over_the_prefix_into_the_next_step() -> None:
    events = run(FakeEngine("Hi.\n\nx"), workers=1, stop="\n\nx", max_passes=6)
    assert texts(events) == {"Alice": "Hi.\n\nxxx"}
    assert of(events, ev.StepEnded)[0].text == "<Alice1>Hi."


def test_where_the_prefix_is_empty_a_stop_string_reaches_into_the_next_step() -> None:
    fake = FakeEngine("Hi.\n\nyo.\n\nQ: and")
    style = replace(TINY_STYLE, step=replace(TINY_STYLE.step, prefix=""))
    events = run(fake, workers=1, stop="\n\nQ:", prompts=style, max_passes=30)
    assert texts(events) == {"Alice": "Hi.\n\nyo."}
    assert finished(events) == {"Alice": "stop"}
    assert [event.text for event in of(events, ev.StepEnded)] == ["<Alice1>Hi.", "yo.", ""]


def test_what_is_held_back_at_the_end_of_a_step_without_a_prefix_is_shown_with_the_next_one() -> None:
    style = replace(TINY_STYLE, step=replace(TINY_STYLE.step, prefix=""))
    events = run(FakeEngine("Hi.\n\nyo"), workers=1, stop="\n\nQ:", prompts=style, max_passes=5)
    assert [event.text for event in of(events, ev.Token)] == ["H", "i", ".", "\n\ny", "o"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cuts", [None, 5, 1000])
@pytest.mark.parametrize(
    ("script", "stays"),
    [
        ("ab STOP cd", "<Alice1>ab "),
        ([*b"ab ", *b"ST", *"OPé".encode()], "<Alice1>ab "),
        ("STOP", ""),
        ("Hi.\n\nSTOP", "<Alice1>Hi"),
        ("Hi.\n\nyes STOP", "<Alice1>Hi.\n\n<Alice2>yes "),
    ],
)
def test_no_part_of_a_stop_string_stays_in_what_others_read(
    script: str | list[int], stays: str, cuts: int | None, layout: str
) -> None:
    """cuts: where blocks can be cut; what had to go before the stop string is fed again."""
    fake = FakeEngine(script, "u" * 40, cuts=cuts)
    run(fake, stop="STOP", max_passes=30, layout=layout)
    assert fake.cache
    read = "".join(fake.cache.passes[-1][0].before)
    assert "ST" not in read.replace("S:", "")
    assert stays in read
    assert read.count("<Alice") == stays.count("<Alice")


def test_the_beginning_of_a_token_in_which_a_stop_string_begins_is_fed_before_its_worker_ends() -> None:
    fake = FakeEngine("Hi!\n\n", "u" * 20, finisher="5}")
    events = run(fake, stop="\n\n", max_passes=9, finisher=True)
    assert texts(events)["Alice"] == "Hi!"
    assert fed(fake, 3) == ["!", "u"]
    assert "<Alice1>Hi!<Bob1>" in seen_by_finisher(fake)


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
    # The others read all that was shown of him.
    assert fed(fake, 2) == ["b", "v", "2"]
    assert passes(fake)[3][0].before[0] == "<bos>s=R;u=P;|<Bob1>uv"


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
