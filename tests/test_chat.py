"""Conversations: what is said follows what was said, on every branch, and is computed once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import TINY_STYLE, FakeEngine

from hogwild_local import Chat, Hogwild, SamplingParams
from hogwild_local import events as ev
from hogwild_local.errors import Busy, InvalidArgument
from hogwild_local.prompts.style import Reply

STYLE = replace(TINY_STYLE, reply=Reply("~"))
OPTIONS = {"max_passes": 3, "reply_tokens": 4, "seed": 1}


def hogwild(fake: FakeEngine, **options: object) -> Hogwild:
    return Hogwild("m.gguf", prompts=STYLE, engine=fake.engine, **options)  # type: ignore[arg-type]


def said(chat: Chat) -> list[str]:
    return [f"{message['role'][0]}={message['content']}" for message in chat.messages]


def prompt_of(fake: FakeEngine, at: int = 0) -> str:
    """What stands before the first worker's own words in the passes since `at`."""
    assert fake.cache
    return next(feed.before[0] for feeds in fake.cache.passes[at:] for feed in feeds if feed.names[-1] == "worker 0")


def test_a_turn_follows_what_was_said() -> None:
    fake = FakeEngine(*["a" * 9] * 2, "yes!")
    with hogwild(fake) as hw:
        chat = hw.chat(system="Be brief.", **OPTIONS)
        result = chat.send("Is it?").result()
        assert said(chat) == ["s=Be brief.", "u=Is it?", f"a={result.reply}"]
        at = len(fake.cache.passes)  # type: ignore[union-attr]
        chat.send({"role": "user", "content": "Why?"}).result()
        assert len(chat.messages) == 5
        assert f"u=Is it?;a={result.reply};u=Why?;" in prompt_of(fake, at)


def test_a_third_turn_feeds_only_what_is_new() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        chat = hw.chat(**OPTIONS)
        lengths = []
        for question in ("one", "two", "three"):
            run = chat.send(question * 30)
            usage = run.result().usage
            lengths.append((usage.prompt_tokens, usage.cached_tokens))
        for (before, _), (total, cached) in pairwise(lengths):
            # The last token, what opens the history, and the layout's texts are fed in any case.
            assert before - cached <= len("|H:S:") + 1
            assert total - cached < 200


def test_regenerate_says_the_last_turn_again_and_edit_another_one() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        chat = hw.chat(**OPTIONS)
        chat.send("one").result()
        first = chat.send("two").result().reply
        again = chat.regenerate(seed=7).result().reply
        assert again != first
        assert said(chat)[2:] == ["u=two", f"a={again}"]
        edited = chat.edit(0, "three").result().reply
        assert said(chat) == ["u=three", f"a={edited}"]


def test_a_fork_goes_its_own_way_and_shares_what_was_computed() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        chat = hw.chat(**OPTIONS)
        chat.send("x" * 300).result()
        n_cells = hw._admission.prefixes.n_cells
        forks = [chat.fork() for _ in range(5)]
        for i, fork in enumerate(forks):
            usage = fork.send(f"{i}").result().usage
            assert usage.cached_tokens > 300
            assert len(fork.messages) == 4
        assert len(chat.messages) == 2
        assert hw._admission.prefixes.n_cells - n_cells < 5 * 40
        assert said(chat.fork(1)) == said(chat)[:1]


def test_a_turn_that_is_left_changes_nothing_and_one_that_is_cancelled_in_its_reply_is_kept() -> None:
    with hogwild(FakeEngine()) as hw:
        chat = hw.chat(max_passes=5, reply_tokens=50)
        for event in chat.send("one"):
            if isinstance(event, ev.Token):
                break
        assert chat.messages == []
        run = chat.send("one")
        for event in run:
            if isinstance(event, ev.Token):
                run.cancel()
        assert chat.messages == []
        run, n = chat.send("one"), 0
        for event in run:
            n += isinstance(event, ev.ReplyToken)
            if n == 3:
                run.cancel()
        assert said(chat)[0] == "u=one"
        assert len(chat.messages[1]["content"]) == 3
        assert hw.n_free == hw.n_ctx


def test_a_turn_that_is_dropped_ends_at_once() -> None:
    with hogwild(FakeEngine()) as hw:
        chat = hw.chat(**OPTIONS)
        run = chat.send("one")
        while not isinstance(next(run), ev.Token):
            pass
        del run
        assert hw.n_free == hw.n_ctx
        chat.send("two").result()
        assert said(chat)[0] == "u=two"


def test_one_turn_at_a_time() -> None:
    with hogwild(FakeEngine()) as hw:
        chat = hw.chat(**OPTIONS)
        run = chat.send("one")
        next(run)
        with pytest.raises(Busy, match="middle of a turn"):
            chat.send("two")
        run.close()
        chat.send("two").result()
        assert len(chat.messages) == 2


def test_thoughts_are_kept_where_one_wants_them() -> None:
    fake = FakeEngine("A.\n\nb", "c")
    with hogwild(fake) as hw:
        chat = hw.chat(keep_thoughts=True, **OPTIONS)
        result = chat.send("one").result()
        assert chat.messages[1]["reasoning_content"] == result.history
        chat.send("two").result()
        assert "reasoning_content" not in hw.chat(**OPTIONS).messages


def test_messages_of_the_caller_are_his() -> None:
    with hogwild(FakeEngine()) as hw:
        given = [{"role": "user", "content": "one"}, {"role": "assistant", "content": None}]
        chat = hw.chat(messages=given, **OPTIONS)
        chat.messages[0]["content"] = "changed"
        chat.messages.clear()
        assert said(chat) == ["u=one", "a="]
        chat.send([{"role": "user", "content": "no"}][0] | {"content": [{"type": "text", "text": "t"}] * 2}).result()
        assert said(chat)[2] == "u=tt"
        assert given[1]["content"] is None


@pytest.mark.parametrize(
    ("do", "fault"),
    [
        (lambda chat: chat.send(""), "empty"),
        (lambda chat: chat.send({"role": "user"}), "a role and a content|text role and a content"),
        (lambda chat: chat.send({"role": "user", "content": [{"type": "image_url"}]}), "image_url"),
        (lambda chat: chat.send({"role": "user", "content": 5}), "prompt"),
        (lambda chat: chat.regenerate(), "no message of the user's"),
        (lambda chat: chat.edit(0, "x"), "not the user's"),
        (lambda chat: chat.edit(-1, "x"), "index"),
        (lambda chat: chat.fork(9), "n is 9: it must be at most 0"),
        (lambda chat: chat.send("x", workers=0), "workers"),
    ],
)
def test_a_fault_is_named_and_nothing_is_said(do: Callable[[Chat], Any], fault: str) -> None:
    with hogwild(FakeEngine()) as hw:
        chat = hw.chat(**OPTIONS)
        with pytest.raises(InvalidArgument, match=fault):
            do(chat)
        assert chat.messages == []
        with pytest.raises(InvalidArgument, match="max_passes"):
            hw.chat(max_passes=0)


def test_tokens_are_counted_as_a_run_feeds_them() -> None:
    with hogwild(FakeEngine()) as hw:
        n = hw.count_tokens("What?", workers=2)
        started = next(e for e in hw.stream("What?", max_passes=1) if isinstance(e, ev.RunStarted))
        assert started.prompt_tokens == n + len("H:S:")


def test_200_turns_on_any_branch_say_what_the_same_turns_say_from_scratch(tiny_path: Callable[..., Path]) -> None:
    """Regenerated, edited and forked at random. The first token of a reply is compared by its logits: f32, one worker,
    so that only rounding differs."""
    chance = random.Random(5)
    greedy = SamplingParams(temperature=0.0)
    options: dict[str, Any] = {"workers": 1, "max_passes": 3, "reply_tokens": 3, "sampling": greedy, "seed": 1}
    whole_types: dict[str, Any] = {"type_k": "f32", "type_v": "f32"}
    with Hogwild(tiny_path("llama"), n_ctx=8192, n_threads=1, **whole_types) as hw:
        feed, views = hw._cache.next_tokens, []

        def noted(given: Sequence[Any], samplers: Sequence[Any]) -> object:
            (blocks, tokens), *_ = given
            if blocks[-1].name == "reply" and not len(blocks[-1]):
                own = hw._cache.block()
                logits = hw._cache.decode([([*blocks[:-1], own], tokens)])[0]
                own.free()
                views.append(([token for block in blocks for token in block.tokens] + list(tokens), logits))
            return feed(given, samplers)

        hw._cache.next_tokens = noted
        chats = [hw.chat(system="S", **options)]
        n_cached = 0
        for turn in range(200):
            chat = chance.choice(chats)
            users = [i for i, message in enumerate(chat.messages) if message["role"] == "user"]
            what = chance.choice(["send", "send", "regenerate", "edit", "fork"]) if users else "send"
            if what == "fork":
                chats = [*chats[-3:], chat.fork(chance.choice([None, users[-1]]))]
                chat = chats[-1]
            if len(users) > 6:
                chat = chats[0] = hw.chat(system="S", **options)
                what = "send"
            text = f"word {chance.randrange(9)}"
            if what == "regenerate":
                run = chat.regenerate()
            elif what == "edit":
                run = chat.edit(chance.choice(users), text)
            else:
                run = chat.send(text)
            result = run.result()
            n_cached += result.usage.cached_tokens
            if turn % 5:
                continue
            messages = chat.messages[:-1]
            read, logits = views[-1]
            alone = hw.generate(messages, cache_prompt=False, **options)
            assert views[-1][0] == read
            assert np.abs(views[-1][1] - logits).max() <= 1e-3
            assert alone.reply == result.reply
        assert n_cached > 200 * 100
        assert hw.n_free == hw.n_ctx
