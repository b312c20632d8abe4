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

from hogwild_local import Chat, Hogwild
from hogwild_local import events as ev
from hogwild_local.errors import Busy, InvalidArgument
from hogwild_local.prompts.tables import Reply
from hogwild_local.workers.run import Run

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


class ReplyLogits:
    """Of a Hogwild's engine: for each reply that begins, the tokens that it reads, and the logits of its first one."""

    def __init__(self, hw: Hogwild) -> None:
        self.seen: list[tuple[list[int], Any]] = []
        self._cache, self._next_tokens = hw._cache, hw._cache.next_tokens
        hw._cache.next_tokens = self._note

    def _note(self, views: Sequence[Any], samplers: Sequence[Any]) -> object:
        (blocks, tokens), *_ = views
        if blocks[-1].name == "reply" and not len(blocks[-1]):
            own = self._cache.block()
            logits = self._cache.decode([([*blocks[:-1], own], tokens)])[0]
            own.free()
            self.seen.append(([token for block in blocks for token in block.tokens] + list(tokens), logits))
        return self._next_tokens(views, samplers)


def a_turn(chats: list[Chat], chance: random.Random, seed: int) -> tuple[Chat, Run]:
    """Of the first conversation, or of one of its branches, at random: sent, said again, or something else said. A
    branch that is forked takes the place of the oldest one."""
    chat = chance.choice([chats[0], chance.choice(chats)])
    users = [at for at, message in enumerate(chat.messages) if message["role"] == "user"]
    what = chance.choices(["send", "regenerate", "edit", "fork"], [7, 2, 2, 2])[0] if users else "send"
    if what == "fork":
        chat = chat.fork(chance.choice([None, users[-1], chance.choice(users)]))
        chats[1:] = [*chats[-3:][len(chats) < 4 :], chat]
    text = "".join(chance.choices("ab", k=4))
    if what == "regenerate":
        return chat, chat.regenerate(seed=seed)
    if what == "edit":
        return chat, chat.edit(chance.choice(users[-2:]), text, seed=seed)
    return chat, chat.send(text, seed=seed)


def test_200_turns_on_any_branch_say_what_the_same_turns_say_from_scratch(tiny_path: Callable[..., Path]) -> None:
    """Regenerated, edited and forked at random; each is computed anew beside it. f32 and one worker, so that only
    rounding differs. Texts and replies are of two letters: prompts part from each other anywhere."""
    chance = random.Random(5)
    letters = {"type": "grammar", "grammar": "root ::= [ab]+"}
    options: dict[str, Any] = {"workers": 1, "max_passes": 3, "reply_tokens": 3, "response_format": letters}
    with Hogwild(tiny_path("llama"), n_ctx=8192, n_threads=1, type_k="f32", type_v="f32") as hw:
        replies = ReplyLogits(hw)
        chats = [hw.chat(system="S", **options)]
        n_cached = n_computed = 0
        for turn in range(1, 201):
            chat, run = a_turn(chats, chance, turn)
            result = run.result()
            n_cached += result.usage.cached_tokens
            n_computed += result.usage.prompt_tokens - result.usage.cached_tokens
            alone = hw.generate(chat.messages[:-1], cache_prompt=False, seed=turn, **options)
            (read, logits), (wanted_read, wanted) = replies.seen[-2:]
            assert (len(replies.seen), read) == (2 * turn, wanted_read)
            assert np.abs(logits - wanted).max() <= 1e-3
            assert (result.reply, alone.usage.cached_tokens) == (alone.reply, 0)
        assert len(chats[0].messages) > 100
        assert n_cached > 10 * n_computed
        assert hw.n_free == hw.n_ctx
        hw._admission.prefixes.drop_all()
        assert hw._cache.n_free == hw.n_ctx
