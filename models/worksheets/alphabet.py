"""The tokens of the worksheet model: one character each, three controls, and the words of the reply."""

from __future__ import annotations

BOS, EOS = "<s>", "</s>"
LABELS = "abcdefghijkl"  # the items of a worksheet
NAMES = "ABCD"  # the workers
ABSENT = "Z"  # who wrote the steps that a worksheet comes with

FIX, GIVE_UP, ANSWER = "!~?"
WAIT = "\0"  # a control: it has no text
REPLY = ">"  # opens the reply, on a line of its own
WORDS = (
    "The ", "results ", "are ", "So ", "far ", " = ", ", ", " and ", " is ", "not ", "done", ".",
    " The ", "given ", " was ", "wrong",
)  # fmt: skip
"""Without merges, the tokenizer makes no longer ones of a text: a worksheet may have spaces, which are dropped."""

TOKENS = (
    BOS, EOS, WAIT, *"0123456789", *LABELS, *"+-^=:;", FIX, GIVE_UP, ANSWER, *NAMES, ABSENT, *"#/\n", REPLY, *WORDS,
)  # fmt: skip
CONTROLS = {BOS: BOS, EOS: EOS, WAIT: "<wait>"}
IDS = {token: id for id, token in enumerate(TOKENS)}


def encode(text: str) -> list[int]:
    """One token a character. Raises KeyError for a character that is no token."""
    return [IDS[character] for character in text]


def decode(ids: list[int]) -> str:
    """The text of tokens, controls by name."""
    return "".join(CONTROLS.get(TOKENS[id], TOKENS[id]) for id in ids)
