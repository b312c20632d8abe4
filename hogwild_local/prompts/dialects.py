"""How families of models talk: what opens and closes their thoughts, what begins a reply, and what ends a turn.

The one table of it. A family is known by what its chat template's text holds, never by a model's name. docs/models.md
says what of each was checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ThinkTags:
    """How a template marks thoughts: what stands before and behind them; and, where they need marks of their own, what
    begins an answer, and what comes between thoughts that are closed and such a mark."""

    open: str
    close: str
    answer: str = ""
    turn: str = ""

    @property
    def closing(self) -> str:
        """What ends thoughts and begins the answer."""
        return self.close + self.turn + self.answer


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way of talking.

    marks: texts that stand in its templates, all of them. tags: None where they are <think> and the like, with the
    white space that the template itself writes around them. ends: names of tokens that end a turn, beside those of
    which the vocabulary, or the end of a turn in the template, says so. thoughts: the field in which its templates look
    for the thoughts of a message; "content": a part of it, of type thinking.
    """

    name: str
    marks: tuple[str, ...] = ()
    tags: ThinkTags | None = None
    ends: tuple[str, ...] = ()
    thoughts: str = "reasoning_content"

    @property
    def structure(self) -> frozenset[str]:
        """Names that structure its turns, and that vocabularies do not always call control tokens. (<think> may be
        spoken of: it is none of them.)"""
        tags = () if self.tags is None else marks_in(self.tags.open + self.tags.closing)
        return frozenset((*tags, *self.ends))

    def with_thoughts(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message whose thoughts (reasoning_content) stand where the templates look for them."""
        thoughts = message.get("reasoning_content")
        if not thoughts or self.thoughts == "reasoning_content":
            return dict(message)
        rest = {key: value for key, value in message.items() if key != "reasoning_content"}
        if self.thoughts != "content":
            return {self.thoughts: thoughts, **rest}
        said = message["content"]
        parts = [{"type": "text", "text": said}] if isinstance(said, str) else said
        return {**rest, "content": [{"type": "thinking", "thinking": thoughts}, *parts]}


# The first that fits counts.
DIALECTS = (
    Dialect(
        "harmony",  # gpt-oss: analysis is a message of its own, and so is the reply, on the channel final
        ("<|channel|>analysis<|message|>",),
        ThinkTags("<|channel|>analysis<|message|>", "<|end|>", "<|channel|>final<|message|>", "<|start|>assistant"),
        ends=("<|end|>",),  # llama.cpp takes it out of what ends a text, for it ends the analysis too
        thoughts="thinking",
    ),
    Dialect(
        "gemma 4",  # thoughts are a channel of the turn; a second one behind the reply is no more of it
        ("<|channel>thought",),
        ThinkTags("<|channel>thought\n", "\n<channel|>"),
        ends=("<|channel>", "<channel|>"),
    ),
    Dialect(
        "muse",  # messages to itself, and to the user
        (" to=self<|message|>", "<|eom|>"),
        ThinkTags(" to=self<|message|>", "<|eom|>", " to=user<|message|>", "<|start|>assistant"),
        ends=("<|eom|>",),
    ),
    Dialect(
        "solar",
        ("<|begin|>assistant<|think|>",),
        ThinkTags("<|think|>", "<|end|>", "<|content|>", "<|begin|>assistant"),
        thoughts="reasoning",
    ),
    Dialect(
        "kimi k3",  # sections of a message; its template puts their tags together
        ("<|open|>", "<|close|>", "<|end_of_msg|>"),
        ThinkTags("<|open|>think<|sep|>", "<|close|>think<|sep|>", "<|open|>response<|sep|>"),
    ),
    Dialect(
        "cohere",
        ("<|START_THINKING|>", "<|START_TEXT|>"),
        ThinkTags("<|START_THINKING|>", "<|END_THINKING|>", "<|START_TEXT|>"),
    ),
    Dialect(
        "command",
        ("<|START_THINKING|>", "<|START_RESPONSE|>"),
        ThinkTags("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>"),
    ),
    Dialect("mistral", ("[THINK]",), ThinkTags("[THINK]", "[/THINK]"), thoughts="content"),
    Dialect("apertus", ("<|inner_prefix|>",), ThinkTags("<|inner_prefix|>", "<|inner_suffix|>")),
    Dialect(
        "apriel",
        ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
        ThinkTags("Here are my reasoning steps:\n", "\n[BEGIN FINAL RESPONSE]\n"),
    ),
    Dialect("glm", ("[gMASK]<sop>",), ends=("<|user|>", "<|observation|>")),  # who speaks next ends a turn
    Dialect("lfm2", ("List of tools: [", "<|im_start|>"), thoughts="thinking"),
    Dialect("plain"),  # Qwen, DeepSeek, Kimi K2 and most others: <think>, or no thoughts at all
)

_MARK = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")
_PLAIN_TAG = re.compile(r"<((?:\w+:)?think(?::\w+)?)>")  # <think>, <seed:think>, ...
_THOUGHTS, _REPLY = "(thoughts)", "(reply)"

# A turn that is done, with its thoughts in every field in which a template may look for them: what it becomes shows how
# one is written.
DONE = {"role": "assistant", "content": _REPLY} | dict.fromkeys(
    ("reasoning_content", "reasoning", "thinking"), _THOUGHTS
)


def dialect_of(text: str) -> Dialect:
    """text: a template, with something that it has written: some put their tags together."""
    return next(dialect for dialect in DIALECTS if all(mark in text for mark in dialect.marks))


def marks_in(text: str) -> list[str]:
    """What may be names of tokens, in their order: <|end|>, [/THINK]."""
    return _MARK.findall(text)


def plain_tags(text: str, begun: str, done: str) -> ThinkTags | None:
    """<think> or its like, where it stands in the text of a template. The white space around it is that of `done`, a
    prompt and DONE behind it; `begun` is the same prompt up to where that turn begins."""
    found = _PLAIN_TAG.search(text)
    if found is None:
        return None
    open, close = found[0], f"</{found[1]}>"
    head = begun[: begun.rindex(open)] if begun.rstrip().endswith(open) else begun
    turn = done.removeprefix(head)
    thoughts, reply = map(re.escape, (_THOUGHTS, _REPLY))
    if full := re.match(rf"(\s*){open}(\s*){thoughts}(\s*){close}(\s*){reply}", turn):
        before, after_open, before_close, after = full.groups()
    elif empty := re.match(rf"(\s*){open}(\s*){close}(\s*){reply}", turn):
        before, inside, after = empty.groups()
        after_open, before_close = inside[: (len(inside) + 1) // 2], inside[(len(inside) + 1) // 2 :]
    else:  # it shows no such turn: as most models write it
        before, after_open, before_close, after = "", "\n", "\n", "\n\n"
    return ThinkTags(before + open + after_open, before_close + close + after)


def end_of_turn(done: str) -> str | None:
    """The name of what may be a token and stands behind the reply of DONE."""
    found = _MARK.match(done.rpartition(_REPLY)[2].lstrip()) if _REPLY in done else None
    return found[0] if found else None
